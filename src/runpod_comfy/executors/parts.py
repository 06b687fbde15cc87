"""A part of a submission as a submission of its own, and what it tells as if the whole had told it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from runpod_comfy.events import BatchFinished, OutputReady, Progress
from runpod_comfy.results import OutputFile

if TYPE_CHECKING:
    from runpod_comfy.submission import Submission

__all__ = ["as_of_the_whole", "batches_of"]

_T = TypeVar("_T")


def batches_of(submission: Submission, batches: range) -> Submission:
    """Return the submission with these batches only, which count from 0 again.

    >>> batches_of(Submission(workflow={}, batch_count=3, seeds=(7, 8, 9)), range(1, 3)).seeds
    (8, 9)
    """
    if batches == range(submission.batch_count):
        return submission
    seeds = submission.seeds[batches.start : batches.stop]
    return replace(submission, batch_count=len(batches), seeds=seeds, warnings=())


def as_of_the_whole(event: _T, *, first: int, batch_count: int) -> _T:
    """Return an event of a part that began with batch ``first`` as one of the whole; others come back as they are."""
    if first == 0 and not isinstance(event, (Progress, BatchFinished)):
        return event
    match event:
        case OutputReady(output=output) if output.origin.batch is not None:
            origin = replace(output.origin, batch=output.origin.batch + first)
            moved = output.but(origin=origin) if isinstance(output, OutputFile) else replace(output, origin=origin)
            return replace(event, output=moved)
        case Progress() | BatchFinished():
            return replace(event, batch=event.batch + first, batch_count=batch_count)
    return event
