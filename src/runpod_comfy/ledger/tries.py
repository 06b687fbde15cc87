"""What makes a loss good: the submissions that name a first one, and make lost batches of it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runpod_comfy.ledger.rows import MOST_RERUNS, UNDER_WAY, State

if TYPE_CHECKING:
    from runpod_comfy.ledger.book import Ledger
    from runpod_comfy.ledger.rows import Submitted

__all__ = ["collectable", "newest_try", "settle_reruns", "with_tries"]


def collectable(ledger: Ledger) -> list[Submitted]:
    """Return what may still bring something, oldest first: jobs under way, and losses that nobody made good yet.

    What was lost again and again is not among them: each time it was paid for.
    """
    return [
        row
        for row in ledger.submissions([*UNDER_WAY, State.INCOMPLETE])
        if row.state is not State.INCOMPLETE or _may_be_tried_again(ledger, row)
    ]


def newest_try(ledger: Ledger, row: Submitted) -> Submitted:
    """Return the newest submission that makes this one's loss good, or this one where there is none."""
    tries = _tries(ledger, row)
    return tries[-1] if tries else row


def with_tries(ledger: Ledger, row: Submitted) -> list[Submitted]:
    """Return a submission and, where it is a first one, all that make losses of it good, oldest first."""
    return [row, *(_tries(ledger, row) if row.entry.batches is None else [])]


def settle_reruns(ledger: Ledger) -> None:
    """Note what is complete since a rerun brought the rest, where a process died before it could say so."""
    for row in ledger.submissions([State.INCOMPLETE]):
        reruns = ledger.reruns_of(row.submission_id)
        if reruns and reruns[-1].state is State.DONE:
            note = f"What was lost of it was made again by {reruns[-1].submission_id}."
            ledger.now_is(row.submission_id, State.DONE, note=note)


def _may_be_tried_again(ledger: Ledger, row: Submitted) -> bool:
    """Whether nothing makes this loss good, be it a first job's or a rerun's, and it was not tried often."""
    tries = _tries(ledger, row)
    newest = tries[-1].submission_id if tries else row.submission_id
    return newest == row.submission_id and len(tries) < MOST_RERUNS


def _tries(ledger: Ledger, row: Submitted) -> list[Submitted]:
    """Return what makes the same loss good, oldest first; what was refused never ran, and is none."""
    root_id = row.submission_id if row.entry.batches is None else row.entry.parent_id
    return [
        each
        for each in ledger.reruns_of(root_id or "")
        if each.entry.batches is not None and each.state is not State.REFUSED
    ]
