"""One submission's page in the ledger, as an executor writes it.

Before a job is sent, a ledger that cannot be written is an error: nothing was paid for yet. From then on it is a
warning, said once: the job runs, and what it makes counts more than the notes about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy import _loop
from runpod_comfy.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    JobInUse,
    JobTimedOut,
    LedgerError,
    OutputLost,
    ProtocolError,
)
from runpod_comfy.executors.filing import OutputKey
from runpod_comfy.ledger import Ledger, State
from runpod_comfy.ledger.holders import BEAT_S
from runpod_comfy.media.files import publish, published_as, safe_output_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runpod_comfy.dialects.numbered import Line
    from runpod_comfy.ledger import Entry, SavedOutput
    from runpod_comfy.serverless.api import JobStatus

__all__ = ["Record", "open_ledger"]

logger = logging.getLogger(__name__)

_END_OF: tuple[tuple[type[BaseException], State], ...] = (
    (JobFailed, State.FAILED),
    (JobCancelled, State.CANCELLED),
    (JobTimedOut, State.TIMED_OUT),
    (JobExpired, State.EXPIRED),
    (OutputLost, State.INCOMPLETE),
    (ProtocolError, State.FAILED),
)


async def open_ledger(path: str) -> Ledger:
    """Return the process's one ledger of that file, whose holds are kept alive; on the background loop.

    Raises:
        ConfigurationError: The file cannot be used.
    """
    desk = await _loop.shared(("ledger", path), lambda: _Opened.open(path), _Opened.close)
    return desk.ledger


class _Opened:
    """An open ledger, and the task that says that this process lives."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._beating = asyncio.create_task(self._beat(), name="ledger beat")

    @classmethod
    async def open(cls, path: str) -> _Opened:
        return cls(await asyncio.to_thread(Ledger, path))

    async def close(self) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        await asyncio.to_thread(self.ledger.close)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with contextlib.suppress(LedgerError):
                await asyncio.to_thread(self.ledger.beat)


class Record:
    """The page of one submission. Methods that are no coroutines block and belong into a thread.

    Args:
        ledger: The ledger.
        submission_id: Whose page.
    """

    def __init__(self, ledger: Ledger, submission_id: str) -> None:
        self.ledger = ledger
        self.submission_id = submission_id
        self._warned = False
        self._reader: int | None = None

    # -- the submission's life -----------------------------------------------------------------------------------------

    async def begin(self, entry: Entry, *, while_reading: str | None = None) -> None:
        """Write the submission down, before it is sent; see ``Ledger.begin``. Interrupted, it is refused.

        Raises:
            LedgerError: It cannot be written down.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(self.ledger.begin, entry, while_reading=while_reading))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            with contextlib.suppress(LedgerError, JobInUse):
                await writing
                await self.now_is(State.REFUSED, "Interrupted before anything was sent.")
                await self.release()
            raise

    async def accepted(self, job_id: str) -> None:
        """Note the job's id."""
        await self._noted(self.ledger.accepted, self.submission_id, job_id)

    async def reading(self) -> None:
        """Note that the stream is read from now on, and give names to files that a killed reader left without."""
        await self._noted(self._begin_to_read)
        await self._noted(self.place_left_parts)

    def _begin_to_read(self) -> None:
        self._reader = self.ledger.reading(self.submission_id)

    async def running(self) -> None:
        """Note that a worker has the job."""
        await self._noted(self.ledger.now_is, self.submission_id, State.IN_PROGRESS)

    async def timed(self, status: JobStatus) -> None:
        """Note how long an ended job waited and ran."""
        await self._noted(
            lambda: self.ledger.timed(
                self.submission_id,
                delay_s=status.delay_s,
                execution_s=status.execution_s,
                worker_id=status.worker_id,
            )
        )

    async def done(self, *, gpu_s: float | None = None, note: str = "") -> None:
        """Note that everything is here."""
        await self._noted(lambda: self.ledger.now_is(self.submission_id, State.DONE, note=note, gpu_s=gpu_s))

    async def ends(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Note how the job ended, where an error says so; others leave it as it is, to be collected later.

        To be pushed on an ``AsyncExitStack``.
        """
        del kind
        for known, state in _END_OF:
            if isinstance(error, known):
                await self.now_is(state, str(error))
                return

    async def now_is(self, state: State, note: str = "") -> None:
        """Note how it stands."""
        await self._noted(lambda: self.ledger.now_is(self.submission_id, state, note=note))

    async def release(self) -> None:
        """Let others read the job."""
        await self._noted(lambda: self.ledger.release(self.submission_id, reader=self._reader))

    def taken_over(self) -> bool:
        """Whether somebody else reads the job by now."""
        try:
            return self.ledger.taken_over(self.submission_id, reader=self._reader)
        except LedgerError as exc:
            self._warn(exc)
            return False

    # -- what arrived --------------------------------------------------------------------------------------------------

    def lines(self) -> Sequence[Line]:
        """Return the lines that are here for good."""
        try:
            return self.ledger.lines(self.submission_id)
        except LedgerError as exc:
            self._warn(exc)
            return ()

    def keep(
        self, lines: Sequence[Line], outputs: Sequence[SavedOutput]
    ) -> tuple[Sequence[int | None], JobInUse | None]:
        """Note lines and outputs; see ``Ledger.keep``."""
        try:
            return self.ledger.keep(self.submission_id, lines, outputs, reader=self._reader)
        except LedgerError as exc:
            self._warn(exc)
            return [-1] * len(outputs), None

    def placed(self, paths: Iterable[tuple[int, str]]) -> None:
        """Note the files' names."""
        known = [(number, path) for number, path in paths if number >= 0]
        try:
            if known:
                self.ledger.placed(self.submission_id, known)
        except LedgerError as exc:
            self._warn(exc)

    def outputs(self) -> list[SavedOutput]:
        """Return what was saved."""
        try:
            return self.ledger.outputs(self.submission_id)
        except LedgerError as exc:
            self._warn(exc)
            return []

    def made(self) -> Counter[OutputKey]:
        """Return the keys of what was saved, for a job that makes some of it again."""
        return Counter(
            OutputKey(each.batch, each.node_id, each.sha256 or f"text {each.text}") for each in self.outputs()
        )

    def place_left_parts(self) -> list[SavedOutput]:
        """Give names to files whose bytes a killed reader had saved; return those outputs, with their paths."""
        row = self.ledger.find(self.submission_id)
        if row is None or row.entry.output_dir is None:
            return []
        found = []
        for output in self.ledger.outputs(self.submission_id):
            if output.part is None or output.path is not None:
                continue
            part = Path(output.part)
            folder, _, name = output.name.rpartition("/")
            path = safe_output_path(Path(row.entry.output_dir), name, folder or None)
            place = published_as(part, path, output.sha256, known=lambda other: self.ledger.owns(os.fspath(other)))
            if place is not None:
                part.unlink(missing_ok=True)
            elif part.exists():
                place = publish(part, path)
            if place is None:
                self.ledger.lost(self.submission_id, output.number)
            else:
                self.ledger.placed(self.submission_id, [(output.number, str(place))])
                found.append(output)
        return found

    async def _noted(self, write: Callable[..., object], *args: Any) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(write, *args))
        try:
            # Shielded: an interrupt ends the waiting, not the writing.
            await asyncio.shield(writing)
        except (LedgerError, OSError) as exc:
            self._warn(exc)
        except asyncio.CancelledError:
            with contextlib.suppress(LedgerError, OSError):
                await writing
            raise

    def _warn(self, exc: Exception) -> None:
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        logger.log(level, "submission %s goes on, but not everything is written down: %s", self.submission_id, exc)
