"""The ledger's values: a submission before it is sent, the same as it stands, and what arrived of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

__all__ = ["ENDED", "MOST_RERUNS", "UNDER_WAY", "Entry", "Recipe", "SavedOutput", "State", "Submitted"]


class State(StrEnum):
    """How a submission stands. What RunPod calls by a name has RunPod's name."""

    SENDING = "SENDING"  # written before POST /run; nobody knows yet whether it was accepted
    UNCERTAIN = "UNCERTAIN"  # sent and never answered, or the sender died: it may run, and is never sent again
    REFUSED = "REFUSED"  # not accepted: nothing runs, nothing is paid for
    IN_QUEUE = "IN_QUEUE"  # accepted; the job's id is known
    IN_PROGRESS = "IN_PROGRESS"  # a worker has it
    DONE = "DONE"  # everything is here
    INCOMPLETE = "INCOMPLETE"  # it ended well and a part of its output is lost; a rerun names it as its parent
    FAILED = "FAILED"  # the worker, or RunPod, reported an error
    CANCELLED = "CANCELLED"  # by us or by somebody else
    TIMED_OUT = "TIMED_OUT"  # RunPod ended it: executionTimeout or ttl
    EXPIRED = "EXPIRED"  # RunPod no longer knows it, and not everything was here


UNDER_WAY: Final = frozenset({State.IN_QUEUE, State.IN_PROGRESS})
"""The job's id is known and it has not ended: there may be something to collect."""

ENDED: Final = frozenset(
    {State.REFUSED, State.DONE, State.INCOMPLETE, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.EXPIRED}
)

MOST_RERUNS: Final = 6
"""After so many reruns a loss is no longer collected: output that can never arrive must not be paid for for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What it takes to prepare the same submission again in another process.

    Attributes:
        template: The template's path, or None where it was a text.
        images: The input images' paths in order, or None where some were not files.
        variables: The variables as far as they may be kept.
        withheld: The names of variables that were not kept.
        batch_size: The template's ``batch_size``.
        first_seed: The template's ``seed``, if it was given one.
        previews: Whether preview images were asked for.
        input_max_pixels: The bound to which input images were scaled, or None.
    """

    template: str | None = None
    images: tuple[str, ...] | None = ()
    variables: dict[str, Any] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    batch_size: int = 1
    first_seed: int | None = None
    previews: bool = False
    input_max_pixels: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing to prepare it again."""
        return self.template is not None and self.images is not None and not self.withheld


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A submission as it is written down before it is sent.

    Attributes:
        submission_id: Our id; it travels with the job.
        endpoint_id: The endpoint.
        base_url: Where RunPod's API is, so that an emulator's jobs are not looked for at RunPod.
        template_name: The template's name, for people.
        digest: The SHA-256 of the rendered workflow and the input images: a rerun must have the same.
        seeds: The seed of each batch.
        batch_count: How many batches it has.
        batches: Which batches of the parent these are; None where it is no rerun.
        parent_id: The submission whose lost batches this one makes again, or which it repeats; None for a first one.
        output_dir: Where its files go, or None where they stay in memory.
        recipe: How to prepare it again.
    """

    submission_id: str
    endpoint_id: str
    base_url: str
    template_name: str = ""
    digest: str = ""
    seeds: tuple[int, ...] = ()
    batch_count: int = 1
    batches: tuple[int, ...] | None = None
    parent_id: str | None = None
    output_dir: str | None = None
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTimes:
    """What RunPod said of an ended job's times.

    Attributes:
        delay_s: How long it waited for a worker, in seconds, or None.
        execution_s: How long the worker had it, in seconds, or None.
        worker_id: The worker, or None.
        ended_s: When its end was seen here, in seconds since 1970.
    """

    delay_s: float | None = None
    execution_s: float | None = None
    worker_id: str | None = None
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A submission as it stands.

    Attributes:
        entry: What was written before it was sent.
        state: How it stands.
        job_id: RunPod's id of the job, once it is known.
        note: What went wrong, in words, or "".
        outputs: How many outputs were saved.
        reads: How often somebody began to read its stream. Pieces that an earlier reader took are gone from there.
        held_by: Who reads it now, for people, or None.
        created_s: When it was written down, in seconds since 1970.
        changed_s: When it last changed, likewise.
        gpu_s: How long ComfyUI computed for it, in seconds, or None.
    """

    entry: Entry
    state: State
    job_id: str | None = None
    note: str = ""
    outputs: int = 0
    reads: int = 0
    held_by: str | None = None
    created_s: float = 0.0
    changed_s: float = 0.0
    gpu_s: float | None = None

    @property
    def submission_id(self) -> str:
        """Our id of it."""
        return self.entry.submission_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedOutput:
    """One output that a job made: a file, or a text.

    Attributes:
        name: The file's name as ComfyUI set it; "" for a text.
        sha256: Of its bytes, in hexadecimal.
        size_bytes: How many there are.
        number: Its number within the submission, in the order of arrival; the ledger gives it.
        path: Where it is; None while it is on its way from ``part`` to its name.
        part: The hidden file that held its bytes first.
        batch: The batch that made it, or None.
        node_id: The node that reported it, or None.
        text: The text, or None for a file.
        line: The line that brought it, or None where lines have no numbers.
    """

    name: str
    sha256: str
    size_bytes: int
    number: int = 0
    path: str | None = None
    part: str | None = None
    batch: int | None = None
    node_id: str | None = None
    text: str | None = None
    line: int | None = None
