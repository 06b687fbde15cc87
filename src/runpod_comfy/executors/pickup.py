"""A job that the ledger knows, picked up where an earlier reader left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.executors.accepting import Accepted, Desk
from runpod_comfy.executors.outcome import JobTerms
from runpod_comfy.executors.recording import Record
from runpod_comfy.executors.request import workflow_request
from runpod_comfy.executors.rerun import Following, rerunning
from runpod_comfy.executors.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import OnLost, WorkflowRequest
    from runpod_comfy.executors.rerun import Prepare
    from runpod_comfy.ledger import Entry, Ledger, Submitted
    from runpod_comfy.results import Timings
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.settings import EndpointSettings

__all__ = ["picked_up"]


def picked_up(
    link: EndpointLink,
    ledger: Ledger,
    kept: Submitted,
    *,
    settings: EndpointSettings,
    prepare: Prepare,
    shelf: Shelf | None,
    on_lost: OnLost,
) -> AsyncGenerator[Event | Timings]:
    """Follow a job that this process holds in the ledger.

    Args:
        link: The endpoint.
        ledger: The ledger.
        kept: The job.
        settings: The endpoint's id and address.
        prepare: Prepares a submission of a request, with given seeds.
        shelf: Where files go; None takes the folder that the ledger names.
        on_lost: What happens where batches were lost.
    """
    entry = kept.entry
    if shelf is None and entry.output_dir is not None:
        shelf = Shelf.open(entry.output_dir)
    job = Accepted(
        job_id=kept.job_id or "",
        submission_id=kept.submission_id,
        seeds=entry.seeds,
        first_seed=entry.recipe.first_seed,
        # Whoever has read of it before may have taken lines away that are not here.
        terms=JobTerms(batch_count=entry.batch_count, read_before=kept.reads > 0),
        record=Record(ledger, kept.submission_id),
        root_id=entry.parent_id if entry.batches is not None else None,
        numbers=entry.batches,
    )

    async def again(batches: tuple[int, ...]) -> Accepted:
        desk = Desk(
            link=link,
            settings=settings,
            request=_request_of(entry),
            batch_size=entry.recipe.batch_size,
            ledger=ledger,
            output_dir=None if shelf is None else shelf.folder,
        )
        return await rerunning(desk, job, prepare=prepare, digest=entry.digest)(batches)

    following = Following(link=link, shelf=shelf, owned=False, again=again if on_lost == "rerun" else None)
    return following.events(job)


def _request_of(entry: Entry) -> WorkflowRequest:
    """Return the request once more.

    Raises:
        ConfigurationError: Not all of it was written down.
        TemplateError: The template is gone.
    """
    recipe = entry.recipe
    if recipe.template is None or recipe.images is None or recipe.withheld:
        lacking = (
            "the template is no file"
            if recipe.template is None
            else "its input images are no files"
            if recipe.images is None
            else f"the variable {recipe.withheld[0]} may be a secret and was not written down"
        )
        raise ConfigurationError(f"The ledger alone cannot prepare submission {entry.submission_id} again: {lacking}.")
    return workflow_request(
        recipe.template,
        recipe.images,
        entry.batch_count * recipe.batch_size,
        batch_size=recipe.batch_size,
        variables=recipe.variables,
        previews=recipe.previews,
        input_max_pixels=recipe.input_max_pixels,
        randomize_seed=bool(entry.seeds),
        output_dir=entry.output_dir,
    )
