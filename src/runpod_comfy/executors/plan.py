"""How many jobs a submission takes: one where it can be one, several where a worker or a limit does not allow it. Pure.

RunPod loses a result that is over its limit, after it was paid for. This project's worker streams, so that the limit
concerns no result of it; worker-comfyui returns all images at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runpod_comfy.dialects.worker_comfyui_request import why_not_unrolled
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.media.formats import size_in_container
from runpod_comfy.workflow.extent import saved_extents
from runpod_comfy.workflow.unroll import nodes_behind_seeds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runpod_comfy.dialects.base import WorkerKind
    from runpod_comfy.submission import Submission
    from runpod_comfy.workflow.extent import Extent

__all__ = ["MAX_RESULT_BYTES", "Plan", "plan_jobs"]

MAX_RESULT_BYTES = 10_000_000
"""What the result of a ``/run`` job may have: 10 MB by the docs. The exact cut-off is unconfirmed."""

_BYTES_PER_PIXEL = 4
"""Three bytes of colour, which a PNG of noise keeps, and base64 adds a third: an estimate that is not exceeded."""

_BYTES_PER_IMAGE = 2_000
_MOST_IN_ONE_PROMPT = 64
"""ComfyUI keeps what all of them make in memory until the prompt has ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of a submission.

    Attributes:
        jobs: The batches of each.
        warnings: Why there are several, and what may go wrong, as sentences.
    """

    jobs: tuple[range, ...]
    warnings: tuple[str, ...] = ()


def plan_jobs(
    submission: Submission,
    *,
    worker: WorkerKind | None,
    max_batches_per_job: int | None = None,
    uses_bucket: bool = False,
) -> Plan:
    """Return which batches go into which job.

    Args:
        submission: All of it.
        worker: Who runs it; None, not known, counts as this project's worker.
        max_batches_per_job: The caller's own bound.
        uses_bucket: Whether that worker's outputs go to a bucket, so that no result can be too large.

    Raises:
        ConfigurationError: That worker cannot return what a batch makes.
    """
    most = submission.batch_count
    reasons: list[str] = []
    warnings: list[str] = []
    if max_batches_per_job is not None and max_batches_per_job < most:
        most = max_batches_per_job
        reasons.append(f"max_batches_per_job is {max_batches_per_job}")
    if worker == "worker-comfyui-4":
        _refuse_several_images(submission)
        if most > 1:
            most = 1
            reasons.append("worker-comfyui 4.0.1 and older returns one image a job")
    elif worker == "worker-comfyui":
        fitting, reason, warning = _fitting(submission, uses_bucket=uses_bucket)
        warnings += [warning] if warning else []
        if fitting < most:
            most = fitting
            reasons.append(reason)
    if submission.previews and worker in {"worker-comfyui", "worker-comfyui-4"}:
        warnings.append("Preview images were asked for, and worker-comfyui returns none.")
    jobs = tuple(_chunks(submission.batch_count, most))
    if len(jobs) > 1:
        warnings.append(f"{submission.batch_count} batches were split into {len(jobs)} jobs: {'; '.join(reasons)}.")
    return Plan(jobs, tuple(warnings))


def _fitting(submission: Submission, *, uses_bucket: bool) -> tuple[int, str, str | None]:
    """Return how many batches fit into a job of worker-comfyui, why no more do, and what to warn of."""
    if reason := why_not_unrolled(submission.workflow):
        # A single batch may be too large all the same.
        return 1, f"worker-comfyui runs one prompt a job, and {reason}", _too_large(submission, uses_bucket=uses_bucket)
    if uses_bucket:
        return _MOST_IN_ONE_PROMPT, f"more than {_MOST_IN_ONE_PROMPT} batches in one prompt fill ComfyUI's memory", None
    sizes = _answer_bytes(submission)
    if sizes is None:
        return 1, f"the workflow does not tell how large its images are, and {_LOST}", None
    shared_bytes, batch_bytes = sizes
    fitting = (MAX_RESULT_BYTES - shared_bytes) // max(1, batch_bytes)
    reason = f"the images of more batches could be over RunPod's limit of 10 MB for a result, and {_LOST}"
    return min(max(1, fitting), _MOST_IN_ONE_PROMPT), reason, _too_large(submission, uses_bucket=uses_bucket)


_LOST = "a result over the limit is lost after it was paid for"


def _too_large(submission: Submission, *, uses_bucket: bool) -> str | None:
    """Warn where already one batch may be over the limit; PNGs of smooth pictures take a half or a third of that."""
    sizes = None if uses_bucket else _answer_bytes(submission)
    if sizes is None or sum(sizes) <= MAX_RESULT_BYTES:
        return None
    return (
        f"The images of one batch can have up to {sum(sizes) / 1e6:.0f} MB in worker-comfyui's answer, and {_LOST} "
        "(10 MB). Take a smaller batch_size, give the endpoint a bucket (BUCKET_ENDPOINT_URL), or deploy this "
        "project's worker, which streams."
    )


def _answer_bytes(submission: Submission) -> tuple[int, int] | None:
    """Return the bytes of an answer that all batches share and those of each batch, at most; None where unknown."""
    extents = _extents(submission)
    if not extents or any(extent is None for extent in extents.values()):
        return None
    behind = set(nodes_behind_seeds(submission.workflow))
    shared_bytes = _bytes(extent for node_id, extent in extents.items() if node_id not in behind)
    return shared_bytes, _bytes(extent for node_id, extent in extents.items() if node_id in behind)


def _bytes(extents: Iterable[Extent | None]) -> int:
    return sum(
        extent.total_pixels * _BYTES_PER_PIXEL + extent.images * _BYTES_PER_IMAGE for extent in extents if extent
    )


def _refuse_several_images(submission: Submission) -> None:
    images = sum(extent.images for extent in _extents(submission).values() if extent)
    if images > 1:
        raise ConfigurationError(
            f"Each batch of this workflow makes {images} images, and worker-comfyui 4.0.1 and older returns the last "
            "one only. Pass batch_size=1 (and save one image), or update the endpoint's worker."
        )


def _extents(submission: Submission) -> dict[str, Extent | None]:
    pixels = {}
    for image in submission.images:
        if (size := size_in_container(image.data)) is not None:
            pixels[f"{image.subfolder}/{image.name}" if image.subfolder else image.name] = size[0] * size[1]
    return saved_extents(submission.workflow, input_pixels=pixels)


def _chunks(count: int, most: int) -> Iterable[range]:
    """Return ranges of at most ``most``, as equal as they can be: the jobs run side by side."""
    parts = -(-count // most)
    return (range(count * part // parts, count * (part + 1) // parts) for part in range(parts))
