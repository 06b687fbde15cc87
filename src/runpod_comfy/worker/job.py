"""One job on the worker: its request read, its batches run, and what happens told in native lines."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.errors import JobFailed, RunpodComfyError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.results import OutputFile
from runpod_comfy.worker.describe import wants_description

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runpod_comfy.events import Event
    from runpod_comfy.submission import Submission
    from runpod_comfy.worker.machine import Machine
    from runpod_comfy.worker.surroundings import OutputStore

__all__ = ["MAX_OUTPUT_BYTES", "Job", "Piece"]

logger = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""A larger output is not sent in lines, but named in an error: readers give up lines of more than 128 MiB."""

Piece: TypeAlias = "str | dict[str, str] | None"

_SHOWN_ERROR_CHARS, _SHOWN_TRACEBACK_CHARS = 4000, 20_000
_ENCODED_AT_ONCE_BYTES = 128 * 1024
_TOO_LARGE = "a job's stream carries 64 MiB for one output; give the worker a bucket, or the request an s3Config"


@dataclass(slots=True)
class Job:
    """One job's way from request to last piece."""

    job: dict[str, Any] = field(repr=False)
    pieces: asyncio.Queue[Piece] = field(repr=False)
    machine: Machine
    writer: LineWriter = field(default_factory=LineWriter)
    gpu_s: float = 0.0
    store: OutputStore | None = None
    answer_bytes: int = 0
    unsent: list[str] = field(default_factory=list)

    @property
    def job_id(self) -> str:
        """RunPod's id of the job."""
        return str(self.job.get("id"))

    async def run(self) -> None:
        """Do the job and tell how it went; the last piece is followed by None."""
        try:
            body = self.job.get("input")
            if wants_description(body):
                await self._send(self.writer.description(await self.machine.describe(body)))
            else:
                await self._run(await self.machine.read(body))
            await self._send(self.writer.done(gpu_s=round(self.gpu_s, 3)))
            logger.info("job %s: done, %.1f s of ComfyUI's time", self.job_id, self.gpu_s)
        except RunpodComfyError as exc:
            logger.warning("job %s: %s", self.job_id, exc)
            await self._fail(exc, str(exc))
        except Exception as exc:
            logger.exception("job %s: the worker failed", self.job_id)
            await self._fail(exc, f"The worker failed: {type(exc).__name__}: {exc}. Its log has the details.")
        await self.pieces.put(None)

    async def _run(self, submission: Submission) -> None:
        logger.info("job %s: %d batch(es), %d image(s)", self.job_id, submission.batch_count, len(submission.images))
        if self.machine.open_store is not None:
            self.store = await asyncio.to_thread(self.machine.open_store, self.job)
        await self.machine.run(submission, self._tell)
        self._check_all_sent()

    def _check_all_sent(self) -> None:
        if self.unsent:
            raise JobFailed(f"Not sent: {'; '.join(self.unsent)}. Everything else was.")

    async def _tell(self, event: Event) -> None:
        match event:
            case OutputReady(output=OutputFile() as output) if self.store is not None:
                await self._keep(output, self.store)
            case OutputReady(output=OutputFile(size_bytes=size_bytes, name=name)) if size_bytes > MAX_OUTPUT_BYTES:
                self.unsent.append(f"{name}, {size_bytes / 2**20:,.0f} MiB ({_TOO_LARGE})")
            case OutputReady(output=OutputFile(size_bytes=size_bytes)) if size_bytes > _ENCODED_AT_ONCE_BYTES:
                # Hashing and encoding megabytes would hold up the loop, and with it the other jobs.
                await self._send(await asyncio.to_thread(list, self.writer.event(event)))
            case BatchFinished(gpu_s=gpu_s):
                self.gpu_s += gpu_s or 0.0
                await self._send(self.writer.event(event))
            case Progress():
                if self.machine.max_answer_bytes is None or self.answer_bytes < self.machine.max_answer_bytes // 2:
                    await self._send(self.writer.event(event))
            case _:
                await self._send(self.writer.event(event))

    async def _keep(self, output: OutputFile, store: OutputStore) -> None:
        """Put an output into the store; where that fails, send it in the lines if it is not too large for them."""
        name = f"{output.subfolder}/{output.name}" if output.subfolder else output.name
        try:
            url = await asyncio.to_thread(store.put, name, output.data, media_type=output.media_type)
        except RunpodComfyError as exc:
            logger.warning("job %s: %s was not kept: %s", self.job_id, name, exc)
            if output.size_bytes > MAX_OUTPUT_BYTES:
                self.unsent.append(f"{name}, {output.size_bytes / 2**20:,.0f} MiB ({exc})")
                return
            await self._send(self.writer.event(Warned(message=f"{name} comes with the answer: {exc}")))
            await self._send(await asyncio.to_thread(list, self.writer.event(OutputReady(output=output))))
            return
        await self._send(self.writer.stored(output, url=url))

    async def _fail(self, exc: Exception, text: str) -> None:
        text = _sendable(text[:_SHOWN_ERROR_CHARS])
        node_id, node_type, traceback = (
            (exc.node_id, exc.node_type, exc.traceback) if isinstance(exc, JobFailed) else (None, None, None)
        )
        traceback = traceback[-_SHOWN_TRACEBACK_CHARS:] if traceback else None
        self.answer_bytes = 0  # what RunPod keeps of a failed job is the error alone
        await self._send(self.writer.error(text, node_id=node_id, node_type=node_type, traceback=traceback))
        # The SDK takes this key for the end of the job and reads nothing after it; it must be a string.
        await self.pieces.put({"error": text})

    async def _send(self, pieces: Iterable[str]) -> None:
        limit = self.machine.max_answer_bytes
        for piece in pieces:
            if limit is not None:
                self.answer_bytes += len(json.dumps(piece)) + 1
                if self.answer_bytes > limit:
                    raise JobFailed(
                        f"The answer is larger than the {limit / 2**20:.1f} MiB that RunPod keeps of one, and would be "
                        "lost as a whole. What came before is in the job's stream. Ask for fewer batches in a job."
                    )
            await self.pieces.put(piece)


def _sendable(text: str) -> str:
    # The SDK could not send a lone surrogate, and would report nothing at all.
    return text.encode("utf-8", "replace").decode()
