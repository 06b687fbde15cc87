"""A row of the file as a value, and which state may follow which."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from runpod_comfy.ledger.holders import Holder
from runpod_comfy.ledger.rows import UNDER_WAY, Entry, Recipe, State, Submitted

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SELECT", "holder_in", "may_become", "submitted_in"]

SELECT: Final = """
SELECT s.*, (SELECT count(*) FROM outputs o WHERE o.submission_id = s.submission_id AND o.path IS NOT NULL) AS outputs,
  h.host AS host, h.place AS place, h.pid AS pid, h.born AS born, h.beat_s AS beat_s
FROM submissions s LEFT JOIN holders h ON h.holder_id = s.holder_id
"""


def may_become(old: State, new: State) -> bool:
    """Whether a submission can go from one state to the other, other than by being accepted."""
    if old is State.SENDING:
        return new in {State.UNCERTAIN, State.REFUSED}
    if old in UNDER_WAY:
        return new not in {State.SENDING, State.UNCERTAIN, State.REFUSED}
    # What was lost may be found, or made again; the other ends are for good.
    return old is State.INCOMPLETE and new is State.DONE


def submitted_in(row: sqlite3.Row, *, held_by: str | None) -> Submitted:
    """Return the submission that a row of ``SELECT`` describes."""
    recipe = json.loads(row["recipe"])
    images, withheld = recipe.pop("images"), tuple(recipe.pop("withheld"))
    return Submitted(
        entry=Entry(
            submission_id=row["submission_id"],
            endpoint_id=row["endpoint_id"],
            base_url=row["base_url"],
            template_name=row["template_name"],
            digest=row["digest"],
            seeds=tuple(json.loads(row["seeds"])),
            batch_count=row["batch_count"],
            batches=None if row["batches"] is None else tuple(json.loads(row["batches"])),
            parent_id=row["parent_id"],
            output_dir=row["output_dir"],
            recipe=Recipe(images=None if images is None else tuple(images), withheld=withheld, **recipe),
        ),
        state=State(row["state"]),
        job_id=row["job_id"],
        note=row["note"],
        outputs=row["outputs"],
        reads=row["reads"],
        held_by=held_by,
        created_s=row["created_s"],
        changed_s=row["changed_s"],
        gpu_s=row["gpu_s"],
    )


def holder_in(row: sqlite3.Row) -> Holder | None:
    """Return who holds the submission of a row of ``SELECT``, or None."""
    if row["holder_id"] is None or row["host"] is None:
        return None
    return Holder(row["holder_id"], row["host"], row["place"], row["pid"], row["born"], row["beat_s"])
