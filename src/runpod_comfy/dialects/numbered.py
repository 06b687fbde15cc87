"""Numbered lines: what is known of those that are here, and which batches of a job are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Line", "missing_batches"]


@dataclass(frozen=True, slots=True)
class Line:
    """A numbered line of the worker's answer that is here.

    Attributes:
        seq: Its number, counted from 0.
        batch: The batch that it is about, or None.
        ends_batch: Whether it says that the batch is finished.
        ends_job: Whether it says that the job is.
    """

    seq: int
    batch: int | None = None
    ends_batch: bool = False
    ends_job: bool = False


def missing_batches(lines: Iterable[Line], batch_count: int) -> tuple[int, ...]:
    """Return the batches of which a line is or may be missing, in order.

    >>> here = [Line(0, batch=0), Line(1, batch=0, ends_batch=True), Line(3, batch=1, ends_batch=True)]
    >>> missing_batches(here, 3)
    (1, 2)

    A gap between lines of one batch belongs to that batch. One between lines of two batches may hold lines of either
    and of all between them; which is unknown, so all of them count, but for a batch whose last line comes right
    before the gap.
    """
    missing: set[int] = set()
    first = 0  # the first batch that the next gap may belong to
    expected = 0
    gap_open = False
    for line in sorted(lines, key=lambda line: line.seq):
        gap_open = gap_open or line.seq > expected
        expected = line.seq + 1
        if line.batch is None:
            continue  # says nothing of where a gap before it belongs
        if gap_open:
            missing.update(range(first, line.batch + 1))
        gap_open = False
        first = line.batch + 1 if line.ends_batch else line.batch
    # What comes after the last line of a batch is lost as well, where the job has more batches.
    missing.update(range(first, batch_count))
    return tuple(sorted(batch for batch in missing if 0 <= batch < batch_count))
