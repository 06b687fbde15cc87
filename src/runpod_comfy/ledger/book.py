"""The ledger: written before a job is sent and at each change, by any number of processes.

Each method is one transaction, so whenever a process is killed, the file says what was true before or after a step.
Methods block for about a millisecond; on an event loop they belong into a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy.dialects.numbered import Line
from runpod_comfy.errors import ConfigurationError, JobInUse, LedgerError
from runpod_comfy.ledger.file import LedgerFile
from runpod_comfy.ledger.holders import is_alive
from runpod_comfy.ledger.records import SELECT, holder_in, may_become, submitted_in
from runpod_comfy.ledger.rows import ENDED, JobTimes, SavedOutput, State
from runpod_comfy.ledger.tries import settle_reruns

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from runpod_comfy.ledger.holders import Holder
    from runpod_comfy.ledger.rows import Entry, Submitted

__all__ = ["Ledger"]

_SHOWN_NOTE_CHARS = 1000
_KEPT_S = 90 * 24 * 3600.0


class Ledger:
    """One file; used from any thread.

    Args:
        path: The file; it and its folder are made where they are missing.
        clock: Seconds since 1970.
        alive: Says of another holder, at a time, whether it can still be reading.

    Raises:
        ConfigurationError: The file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        alive: Callable[[Holder, float], bool] = is_alive,
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._alive = alive
        self._file = LedgerFile(self.path, clock=clock)
        # Whoever forgets a ledger without closing it leaves no connection open.
        weakref.finalize(self, self._file.close)
        self._tidy()

    def __repr__(self) -> str:
        return f"Ledger({os.fspath(self.path)!r})"

    @property
    def holder(self) -> Holder:
        """Who this is to other processes."""
        return self._file.holder

    def close(self) -> None:
        """Let go of every job that this process reads, and of the file."""
        with contextlib.suppress(LedgerError), self._file.transaction() as db:
            db.execute("UPDATE submissions SET holder_id = NULL WHERE holder_id = ?", (self.holder.holder_id,))
            db.execute("DELETE FROM holders WHERE holder_id = ?", (self.holder.holder_id,))
        self._file.close()

    # -- a submission's life -------------------------------------------------------------------------------------------

    def begin(self, entry: Entry, *, while_reading: str | None = None) -> None:
        """Write a submission down; to be called before it is sent. This process holds it from here on.

        Args:
            entry: The submission.
            while_reading: The submission whose lost batches it makes again, of which this process must be the reader.

        Raises:
            JobInUse: Another one reads that; whoever does makes them again.
        """
        now_s = self._clock()
        with self._file.transaction() as db:
            taken_over = None if while_reading is None else self._lost_hold(db, while_reading)
            if taken_over is not None:
                raise taken_over
            self._register(db, now_s)
            if entry.parent_id is not None:
                # The order of reruns decides which is the newest try: a clock that was set back must not change it.
                row = db.execute(
                    "SELECT max(created_s) AS latest_s FROM submissions WHERE submission_id = ? OR parent_id = ?",
                    (entry.parent_id, entry.parent_id),
                ).fetchone()
                now_s = max(now_s, (row["latest_s"] or 0.0) + 0.001)
            db.execute(
                "INSERT INTO submissions (submission_id, endpoint_id, base_url, state, template_name, digest, seeds,"
                " batch_count, batches, parent_id, output_dir, recipe, holder_id, created_s, changed_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.submission_id,
                    entry.endpoint_id,
                    entry.base_url,
                    State.SENDING,
                    entry.template_name,
                    entry.digest,
                    json.dumps(entry.seeds),
                    entry.batch_count,
                    None if entry.batches is None else json.dumps(entry.batches),
                    entry.parent_id,
                    entry.output_dir,
                    json.dumps(asdict(entry.recipe)),
                    self.holder.holder_id,
                    now_s,
                    now_s,
                ),
            )

    def accepted(self, submission_id: str, job_id: str) -> None:
        """Note the job's id as soon as RunPod has told it."""
        with self._file.transaction() as db:
            db.execute(
                "UPDATE submissions SET state = ?, job_id = ?, note = '', changed_s = ?"
                " WHERE submission_id = ? AND state IN (?, ?)",
                (State.IN_QUEUE, job_id, self._clock(), submission_id, State.SENDING, State.UNCERTAIN),
            )

    def reading(self, submission_id: str) -> int:
        """Note that this process begins to read the job's stream, and return which reader of it that is."""
        with self._file.transaction() as db:
            db.execute("UPDATE submissions SET reads = reads + 1 WHERE submission_id = ?", (submission_id,))
            row = db.execute("SELECT reads FROM submissions WHERE submission_id = ?", (submission_id,)).fetchone()
            return int(row["reads"]) if row is not None else 0

    def now_is(self, submission_id: str, state: State, *, note: str = "", gpu_s: float | None = None) -> None:
        """Note how a submission stands. What has ended stays as it is, but that the rest of it may still arrive."""
        with self._file.transaction() as db:
            row = db.execute("SELECT state FROM submissions WHERE submission_id = ?", (submission_id,)).fetchone()
            if row is None or not may_become(State(row["state"]), state):
                return
            db.execute(
                "UPDATE submissions SET state = ?, note = ?, gpu_s = coalesce(?, gpu_s), changed_s = ?"
                " WHERE submission_id = ?",
                (state, note[:_SHOWN_NOTE_CHARS], gpu_s, self._clock(), submission_id),
            )

    def timed(
        self, submission_id: str, *, delay_s: float | None, execution_s: float | None, worker_id: str | None
    ) -> None:
        """Note what RunPod says of an ended job's times; that is what it bills at least."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO times VALUES (?, ?, ?, ?, ?)",
                (submission_id, delay_s, execution_s, worker_id, self._clock()),
            )

    def times(self) -> dict[str, JobTimes]:
        """Return the times of ended jobs, by submission id."""
        return {
            row["submission_id"]: JobTimes(**{name: row[name] for name in JobTimes.__slots__})
            for row in self._file.rows("SELECT * FROM times")
        }

    # -- what arrived --------------------------------------------------------------------------------------------------

    def keep(
        self,
        submission_id: str,
        lines: Iterable[Line],
        outputs: Sequence[SavedOutput] = (),
        *,
        reader: int | None = None,
    ) -> tuple[list[int | None], JobInUse | None]:
        """Note lines that are here for good, and the outputs in them, whose bytes are on disk in their ``part``.

        Args:
            submission_id: Whose lines.
            lines: The lines.
            outputs: The outputs.
            reader: What ``reading`` gave, where one process may read a job twice; None leaves that unasked.

        Returns:
            The number of each output, or None for one that is not needed: it was here before, from the same line, or
            its batch is being made again; and what keeps this process from reading on: another one has taken the job
            over. What it had taken from the stream until then nobody else can get, so it is noted all the same.
        """
        lines = list(lines)
        with self._file.transaction() as db:
            taken_over = self._lost_hold(db, submission_id, reader)
            # Who took over has missed these batches, and passes over only what was here when they were ordered again.
            again = self._made_again(db, submission_id) if taken_over is not None else frozenset()
            here = {
                row["seq"]
                for row in db.execute(
                    "SELECT seq FROM lines WHERE submission_id = ? AND seq IN (SELECT value FROM json_each(?))",
                    (submission_id, json.dumps([line.seq for line in lines])),
                )
            }
            db.executemany(
                "INSERT INTO lines VALUES (?, ?, ?, ?, ?)",
                [
                    (submission_id, line.seq, line.batch, line.ends_batch, line.ends_job)
                    for line in lines
                    if line.seq not in here
                ],
            )
            numbers = [
                None if each.line in here or each.batch in again else self._insert(db, submission_id, each)
                for each in outputs
            ]
            return numbers, taken_over

    @staticmethod
    def _made_again(db: sqlite3.Connection, submission_id: str) -> frozenset[int]:
        """Return the batches, by their numbers in the first job, that later submissions of the same work make again."""
        rows = db.execute(
            "SELECT later.batches FROM submissions later, submissions this WHERE this.submission_id = ?"
            " AND later.parent_id = CASE WHEN this.batches IS NULL THEN this.submission_id ELSE this.parent_id END"
            " AND later.submission_id != this.submission_id AND later.created_s >= this.created_s",
            (submission_id,),
        )
        return frozenset(batch for row in rows for batch in json.loads(row["batches"] or "[]"))

    @staticmethod
    def _insert(db: sqlite3.Connection, submission_id: str, output: SavedOutput) -> int:
        row = db.execute(
            "SELECT coalesce(max(number) + 1, 0) AS number FROM outputs WHERE submission_id = ?", (submission_id,)
        ).fetchone()
        number = int(row["number"])
        values = asdict(output) | {"submission_id": submission_id, "number": number}
        db.execute(
            "INSERT INTO outputs VALUES (:submission_id, :number, :name, :sha256, :size_bytes, :path, :part, :batch,"
            " :node_id, :text, :line)",
            values,
        )
        return number

    def placed(self, submission_id: str, paths: Iterable[tuple[int, str]]) -> None:
        """Note where outputs have got their names, by their number."""
        with self._file.transaction() as db:
            db.executemany(
                "UPDATE outputs SET path = ?, part = NULL WHERE submission_id = ? AND number = ?",
                [(path, submission_id, number) for number, path in paths],
            )

    def lost(self, submission_id: str, number: int) -> None:
        """Forget an output whose bytes are gone before it had a name, and the line that brought it."""
        with self._file.transaction() as db:
            db.execute(
                "DELETE FROM lines WHERE submission_id = ? AND seq ="
                " (SELECT line FROM outputs WHERE submission_id = ? AND number = ?)",
                (submission_id, submission_id, number),
            )
            db.execute("DELETE FROM outputs WHERE submission_id = ? AND number = ?", (submission_id, number))

    def lines(self, submission_id: str) -> list[Line]:
        """Return the lines that are here, in order."""
        rows = self._file.rows("SELECT * FROM lines WHERE submission_id = ? ORDER BY seq", submission_id)
        return [Line(row["seq"], row["batch"], bool(row["ends_batch"]), bool(row["ends_job"])) for row in rows]

    def outputs(self, submission_id: str) -> list[SavedOutput]:
        """Return the outputs that are here, in the order of arrival."""
        rows = self._file.rows("SELECT * FROM outputs WHERE submission_id = ? ORDER BY number", submission_id)
        return [SavedOutput(**{name: row[name] for name in SavedOutput.__slots__}) for row in rows]

    def owns(self, path: str) -> bool:
        """Whether a file is one that the ledger knows."""
        return bool(self._file.rows("SELECT 1 FROM outputs WHERE path = ? LIMIT 1", path))

    # -- who reads -----------------------------------------------------------------------------------------------------

    def acquire(self, submission_id: str, *, take_over: bool = False) -> None:
        """Become the one reader of a job.

        Args:
            submission_id: The submission.
            take_over: Also from a process that lives; it is told at its next step.

        Raises:
            JobInUse: Another one reads it.
        """
        now_s = self._clock()
        with self._file.transaction() as db:
            row = db.execute(f"{SELECT} WHERE s.submission_id = ?", (submission_id,)).fetchone()
            if row is None:
                raise LedgerError(f"The ledger has no submission {submission_id}.")
            holder = holder_in(row)
            if holder is not None and not take_over and self._can_read(holder, now_s):
                raise JobInUse(
                    f"Job {row['job_id']} is being read by {holder}. A second reader of its stream would take pieces "
                    "away from it. Wait for it, or take the job over (take_over=True, --take-over).",
                    job_id=row["job_id"],
                    endpoint_id=row["endpoint_id"],
                )
            self._register(db, now_s)
            # A reader in this very process is told by the count that it was taken over.
            db.execute(
                "UPDATE submissions SET holder_id = ?, reads = reads + ? WHERE submission_id = ?",
                (self.holder.holder_id, holder is not None and take_over, submission_id),
            )

    def release(self, submission_id: str, *, reader: int | None = None) -> None:
        """Let go of a job, if this process holds it, and no later ``reader`` in it does."""
        with self._file.transaction() as db:
            db.execute(
                "UPDATE submissions SET holder_id = NULL WHERE submission_id = ? AND holder_id = ?"
                " AND reads = coalesce(?, reads)",
                (submission_id, self.holder.holder_id, reader),
            )

    def taken_over(self, submission_id: str, *, reader: int | None = None) -> bool:
        """Whether somebody else who lives reads the job: another process, or a later ``reader`` in this one."""
        rows = self._file.rows(f"{SELECT} WHERE s.submission_id = ?", submission_id)
        holder = holder_in(rows[0]) if rows else None
        if holder is None:
            return False
        if holder.holder_id == self.holder.holder_id:
            return reader is not None and rows[0]["reads"] != reader
        return self._alive(holder, self._clock())

    def beat(self) -> None:
        """Say that this process lives."""
        with self._file.transaction() as db:
            self._register(db, self._clock())

    def recover(self) -> list[Submitted]:
        """Note what the death of other processes means, and return what is uncertain since.

        A submission that a dead process was sending may have been accepted: it becomes UNCERTAIN.
        """
        now_s = self._clock()
        found = []
        for row in self._file.rows(f"{SELECT} WHERE s.state = ?", State.SENDING):
            holder = holder_in(row)
            if holder is None or not self._can_read(holder, now_s):
                found.append(row["submission_id"])
        for submission_id in found:
            self.now_is(
                submission_id,
                State.UNCERTAIN,
                note="The process that sent it died before it learned the job's id: it may run, or may not.",
            )
        settle_reruns(self)
        return [row for row in map(self.find, found) if row is not None]

    # -- questions -----------------------------------------------------------------------------------------------------

    def find(self, some_id: str) -> Submitted | None:
        """Return the submission of this submission id or job id, or None."""
        rows = self._file.rows(f"{SELECT} WHERE s.submission_id = ? OR s.job_id = ? LIMIT 1", some_id, some_id)
        return self._submitted(rows[0]) if rows else None

    def submissions(
        self, states: Iterable[State] | None = None, *, endpoint_id: str | None = None, limit: int | None = None
    ) -> list[Submitted]:
        """Return submissions, oldest first; with ``limit`` the newest ones."""
        wanted = list(State if states is None else states)
        query = f"{SELECT} WHERE s.state IN ({', '.join('?' * len(wanted))})"
        values: list[Any] = [*wanted]
        if endpoint_id is not None:
            query += " AND s.endpoint_id = ?"
            values.append(endpoint_id)
        query += " ORDER BY s.created_s DESC, s.submission_id"
        if limit is not None:
            query += " LIMIT ?"
            values.append(limit)
        return [self._submitted(row) for row in reversed(self._file.rows(query, *values))]

    def reruns_of(self, submission_id: str) -> list[Submitted]:
        """Return the submissions that name this one as their first, oldest first."""
        rows = self._file.rows(f"{SELECT} WHERE s.parent_id = ? ORDER BY s.created_s", submission_id)
        return [self._submitted(row) for row in rows]

    def held_elsewhere(self, submission_id: str) -> bool:
        """Whether a living process, this one included, reads the job."""
        rows = self._file.rows(f"{SELECT} WHERE s.submission_id = ?", submission_id)
        holder = holder_in(rows[0]) if rows else None
        return holder is not None and self._can_read(holder, self._clock())

    def batch_seconds(self, endpoint_id: str, template_name: str, *, latest: int = 20) -> float | None:
        """Return the longest that a batch of this template took here of late, in seconds, or None."""
        rows = self._file.rows(
            "SELECT max(seconds) AS seconds FROM (SELECT gpu_s / batch_count AS seconds FROM submissions"
            " WHERE endpoint_id = ? AND template_name = ? AND state = ? AND gpu_s > 0 ORDER BY changed_s DESC LIMIT ?)",
            endpoint_id,
            template_name,
            State.DONE,
            latest,
        )
        return rows[0]["seconds"] if rows else None

    # -- inside --------------------------------------------------------------------------------------------------------

    def _register(self, db: sqlite3.Connection, now_s: float) -> None:
        holder = self.holder
        db.execute(
            "INSERT INTO holders VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (holder_id) DO UPDATE SET beat_s = excluded.beat_s",
            (holder.holder_id, holder.host, holder.place, holder.pid, holder.born, now_s),
        )

    def _lost_hold(self, db: sqlite3.Connection, submission_id: str, reader: int | None = None) -> JobInUse | None:
        row = db.execute(f"{SELECT} WHERE s.submission_id = ?", (submission_id,)).fetchone()
        holder = holder_in(row) if row is not None else None
        if (
            holder is not None
            and holder.holder_id == self.holder.holder_id
            and (reader is None or row["reads"] == reader)
        ):
            return None
        by = f"{holder} has taken it over" if holder else "another one has read it meanwhile"
        return JobInUse(
            f"This process no longer reads the job: {by}. What it had saved stays saved.",
            job_id=row["job_id"] if row is not None else None,
        )

    def _can_read(self, holder: Holder, now_s: float) -> bool:
        return holder.holder_id == self.holder.holder_id or self._alive(holder, now_s)

    def _tidy(self) -> None:
        """Forget what ended long ago, and dead holders of nothing."""
        before_s = self._clock() - _KEPT_S
        ended = json.dumps(sorted(ENDED))
        try:
            with self._file.transaction() as db:
                db.execute(
                    "DELETE FROM submissions WHERE changed_s < ? AND state IN (SELECT value FROM json_each(?))",
                    (before_s, ended),
                )
                db.execute("DELETE FROM times WHERE submission_id NOT IN (SELECT submission_id FROM submissions)")
                db.execute("DELETE FROM lines WHERE submission_id NOT IN (SELECT submission_id FROM submissions)")
                db.execute("DELETE FROM outputs WHERE submission_id NOT IN (SELECT submission_id FROM submissions)")
                db.execute(
                    "DELETE FROM holders WHERE beat_s < ? AND holder_id NOT IN"
                    " (SELECT holder_id FROM submissions WHERE holder_id IS NOT NULL)",
                    (self._clock() - 24 * 3600,),
                )
        except LedgerError as exc:
            self._file.close()
            raise ConfigurationError(f"{exc} Nothing was sent.") from exc

    def _submitted(self, row: sqlite3.Row) -> Submitted:
        holder = holder_in(row)
        reads = holder is not None and self._can_read(holder, self._clock())
        return submitted_in(row, held_by=str(holder) if reads else None)
