"""What was submitted and what arrived, in one SQLite file that outlives every process.

``rows`` are the values, ``schema`` the tables, ``file`` is the open file, ``holders`` says who reads a job, ``book`` is
the ledger itself, ``tries`` what makes losses good, ``private`` decides what of a template's variables is kept.

Never in it: input images, API keys, the rendered workflow.
"""

from __future__ import annotations

from runpod_comfy.ledger.book import Ledger
from runpod_comfy.ledger.private import keepable_variables
from runpod_comfy.ledger.rows import (
    ENDED,
    MOST_RERUNS,
    UNDER_WAY,
    Entry,
    JobTimes,
    Recipe,
    SavedOutput,
    State,
    Submitted,
)
from runpod_comfy.ledger.tries import collectable, newest_try, with_tries

__all__ = [
    "ENDED",
    "MOST_RERUNS",
    "UNDER_WAY",
    "Entry",
    "JobTimes",
    "Ledger",
    "Recipe",
    "SavedOutput",
    "State",
    "Submitted",
    "collectable",
    "keepable_variables",
    "newest_try",
    "with_tries",
]
