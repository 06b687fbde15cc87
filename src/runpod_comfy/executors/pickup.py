"""A job that the ledger knows, picked up where an earlier reader left it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.executors.accepting import Accepted, Desk
from runpod_comfy.executors.outcome import JobTerms
from runpod_comfy.executors.recording import Record
from runpod_comfy.executors.request import workflow_request
from runpod_comfy.executors.rerun import Following, rerunning
from runpod_comfy.executors.saved import saved_before
from runpod_comfy.executors.shelf import Shelf
from runpod_comfy.ledger import UNDER_WAY, State, newest_try, with_tries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import OnLost, WorkflowRequest
    from runpod_comfy.executors.rerun import Prepare
    from runpod_comfy.ledger import Entry, Ledger, Submitted
    from runpod_comfy.results import Timings
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.settings import EndpointSettings

__all__ = ["pick_up"]


async def pick_up(
    link: EndpointLink,
    ledger: Ledger,
    asked: Submitted,
    *,
    settings: EndpointSettings,
    prepare: Prepare,
    shelf: Shelf | None,
    take_over: bool,
    on_lost: OnLost,
) -> AsyncGenerator[Event | Timings]:
    """Become the reader of a job in the ledger, and return what it brought before and brings now.

    Where its lost batches are being made again already, that job is read, and nothing is ordered twice.

    Args:
        link: The endpoint.
        ledger: The ledger.
        asked: The job.
        settings: The endpoint's id and address.
        prepare: Prepares a submission of a request, with given seeds.
        shelf: Where files go; None takes the folder that the ledger names.
        take_over: Also from a process that lives.
        on_lost: What happens where batches were lost.

    Raises:
        ConfigurationError: It has no job id.
        JobInUse: Another one reads it.
    """
    if asked.job_id is None:
        note = asked.note or "it has no job id yet."
        raise ConfigurationError(f"Submission {asked.submission_id} is {asked.state}: {note} There is nothing to read.")
    while True:
        current = await asyncio.to_thread(_to_read, ledger, asked)
        await asyncio.to_thread(ledger.acquire, current.submission_id, take_over=take_over)
        # Another reader may have ended, or have ordered lost batches again, before this one held the job.
        found = await asyncio.to_thread(ledger.find, asked.submission_id)
        asked = asked if found is None else found
        now = await asyncio.to_thread(_to_read, ledger, asked)
        if now.submission_id == current.submission_id:
            break
        await asyncio.to_thread(ledger.release, current.submission_id)
    newest = await asyncio.to_thread(newest_try, ledger, asked)
    if asked.state is State.DONE or (now is asked and newest.state in {State.SENDING, State.UNCERTAIN}):
        on_lost = "raise"  # it has brought all that it was paid for; or that may be on its way
    followed = _followed(link, ledger, now, settings=settings, prepare=prepare, shelf=shelf, on_lost=on_lost)
    return _after_saved(ledger, asked, now, followed)


_WORTH_READING = frozenset({*UNDER_WAY, State.INCOMPLETE, State.DONE})


def _to_read(ledger: Ledger, asked: Submitted) -> Submitted:
    """Return what can bring the rest of a job: itself, or the newest submission that makes its loss good. Blocks."""
    if asked.state is not State.INCOMPLETE:
        return asked
    newest = newest_try(ledger, asked)
    return newest if newest.submission_id != asked.submission_id and newest.state in _WORTH_READING else asked


async def _after_saved(
    ledger: Ledger, asked: Submitted, current: Submitted, followed: AsyncGenerator[Event | Timings]
) -> AsyncGenerator[Event | Timings]:
    """Yield what an earlier reader has saved, then what the job brings."""
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(AsyncExitStack())
        held.push_async_callback(Record(ledger, current.submission_id).release)
        await stack.enter_async_context(aclosing(followed))
        rows = await asyncio.to_thread(with_tries, ledger, asked)
        events = await asyncio.to_thread(lambda: list(saved_before(ledger, rows)))
        for event in events:
            yield event
        if asked.state is State.DONE and events:
            return
        held.pop_all()  # whoever follows it lets go of it
        async for later in followed:
            yield later


def _followed(
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
        terms=JobTerms(
            batch_count=entry.batch_count, read_before=kept.reads > 0, is_lossy=kept.state is State.INCOMPLETE
        ),
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
