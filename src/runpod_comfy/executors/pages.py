"""What is written down of a submission before it is sent: enough to find it, and to prepare it once more."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from runpod_comfy.ledger import Entry, Recipe, keepable_variables
from runpod_comfy.settings import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.media.inputs import ImageSource
    from runpod_comfy.settings import EndpointSettings
    from runpod_comfy.submission import Submission

__all__ = ["digest_of", "entry_of"]


def entry_of(
    submission: Submission,
    request: WorkflowRequest,
    *,
    settings: EndpointSettings,
    batch_size: int,
    output_dir: Path | None = None,
    parent_id: str | None = None,
    batches: tuple[int, ...] | None = None,
) -> Entry:
    """Return a submission's entry; it takes milliseconds for each MB of images.

    Args:
        submission: What is sent.
        request: What was asked for.
        settings: The endpoint. Its key is only looked for, so that no variable that holds it is written down.
        batch_size: The template's ``batch_size``.
        output_dir: Where its files go, or None.
        parent_id: The submission whose lost batches this one makes again, or which it repeats.
        batches: Which batches of the parent these are.
    """
    variables, withheld = keepable_variables(request.variables, secrets=[settings.api_key])
    template = request.template.path
    return Entry(
        submission_id=submission.submission_id,
        endpoint_id=settings.endpoint_id,
        base_url=shown_url(settings.base_url),
        template_name=request.template.name,
        digest=digest_of(submission),
        seeds=submission.seeds,
        batch_count=submission.batch_count,
        batches=batches,
        parent_id=parent_id,
        output_dir=None if output_dir is None else os.fspath(output_dir.absolute()),
        recipe=Recipe(
            template=None if template is None else os.fspath(template.absolute()),
            images=_paths(request.input_images),
            variables=variables,
            withheld=withheld,
            batch_size=batch_size,
            first_seed=submission.first_seed,
            previews=request.previews,
            input_max_pixels=request.input_max_pixels,
        ),
    )


def digest_of(submission: Submission) -> str:
    """Return the SHA-256 of the rendered workflow and the input images: what makes two submissions the same work."""
    digest = hashlib.sha256(orjson.dumps(submission.workflow, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
    for image in submission.images:
        digest.update(f"\0{image.subfolder}/{image.name}\0".encode("utf-8", "surrogatepass"))
        digest.update(hashlib.sha256(image.data).digest())
    return digest.hexdigest()


def _paths(images: Iterable[ImageSource]) -> tuple[str, ...] | None:
    """Return the images' paths; None where one of them is no file."""
    paths = []
    for image in images:
        if not isinstance(image, (str, os.PathLike)):
            return None
        paths.append(os.fspath(Path(image).absolute()))
    return tuple(paths)
