"""The worker's handler: a job in, native lines out, in the shape that RunPod's SDK drives.

The SDK ends a job by cancelling its task. A generator that stands at a ``yield`` then, while the SDK sends a piece, is
never told: no GeneratorExit, no ``finally`` (seen for 45 s and more with runpod 1.12). So the work is done in a task of
its own, which ends when the job's task does.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.runner import run_batches
from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.dialects.native_request import parse_request
from runpod_comfy.errors import JobFailed, RunpodComfyError
from runpod_comfy.events import BatchFinished, OutputReady
from runpod_comfy.results import OutputFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from runpod_comfy.events import Event

__all__ = ["MAX_OUTPUT_BYTES", "Handler", "make_handler"]

logger = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""A larger output is not sent in lines, but named in an error: readers give up lines of more than 128 MiB."""

_PIECES_AHEAD = 8
_SHOWN_ERROR_CHARS = 4000

Handler: TypeAlias = "Callable[[dict[str, Any]], AsyncGenerator[str | dict[str, str]]]"


def make_handler(*, comfyui_url: str, input_dir: str | None = None) -> Handler:
    """Return what ``runpod.serverless.start({"handler": …})`` takes.

    The handler yields strings that, joined, are the lines of the native dialect; after an error's line it yields
    ``{"error": <the same text>}``, so that RunPod shows the job as FAILED. It never raises.

    Args:
        comfyui_url: The ComfyUI server to run jobs on.
        input_dir: ComfyUI's input folder; None asks the server.
    """
    sessions = _Sessions()

    async def handler(job: dict[str, Any]) -> AsyncGenerator[str | dict[str, str]]:
        pieces: asyncio.Queue[str | dict[str, str] | None] = asyncio.Queue(_PIECES_AHEAD)
        work = asyncio.create_task(_Job(job, pieces).run(sessions, comfyui_url=comfyui_url, input_dir=input_dir))
        _running.add(work)
        work.add_done_callback(_running.discard)

        def give_up(_: object = None) -> None:
            # Once: a second cancellation would cut the clean-up that the first has begun.
            if not work.cancelling():
                work.cancel()

        if (own_task := asyncio.current_task()) is not None:
            own_task.add_done_callback(give_up)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            give_up()

    return handler


_running: set[asyncio.Task[None]] = set()  # a task without a reference may vanish before it is done


@dataclass(slots=True)
class _Job:
    """One job's way from request to last piece."""

    job: dict[str, Any] = field(repr=False)
    pieces: asyncio.Queue[str | dict[str, str] | None] = field(repr=False)
    writer: LineWriter = field(default_factory=LineWriter)
    gpu_s: float = 0.0
    too_large: list[str] = field(default_factory=list)

    @property
    def job_id(self) -> str:
        return str(self.job.get("id"))

    async def run(self, sessions: _Sessions, *, comfyui_url: str, input_dir: str | None) -> None:
        """Do the job and tell how it went; the last piece is followed by None."""
        try:
            submission = await asyncio.to_thread(parse_request, self.job.get("input"))
            logger.info(
                "job %s: %d batch(es), %d image(s)", self.job_id, submission.batch_count, len(submission.images)
            )
            async with sessions.borrow() as session:
                client = ComfyUIClient(comfyui_url, session=session)
                async with aclosing(run_batches(client, submission, input_dir=input_dir)) as events:
                    async for event in events:
                        await self._tell(event)
            self._check_sizes()
            await self._send(self.writer.done(gpu_s=round(self.gpu_s, 3)))
            logger.info("job %s: done, %.1f s of ComfyUI's time", self.job_id, self.gpu_s)
        except RunpodComfyError as exc:
            logger.warning("job %s: %s", self.job_id, exc)
            await self._fail(exc, str(exc))
        except Exception as exc:
            logger.exception("job %s: the worker failed", self.job_id)
            await self._fail(exc, f"The worker failed: {type(exc).__name__}: {exc}. Its log has the details.")
        await self.pieces.put(None)

    def _check_sizes(self) -> None:
        if self.too_large:
            raise JobFailed(
                f"The output(s) {', '.join(self.too_large)} are larger than {MAX_OUTPUT_BYTES // 2**20} MiB, which is "
                "more than a job's stream carries. Everything else was sent. Make them smaller."
            )

    async def _tell(self, event: Event) -> None:
        match event:
            case OutputReady(output=OutputFile(size_bytes=size_bytes, name=name)) if size_bytes > MAX_OUTPUT_BYTES:
                self.too_large.append(f"{name} ({size_bytes / 2**20:.0f} MiB)")
            case OutputReady():
                # Hashing and encoding megabytes would hold up the loop, and with it the other jobs.
                await self._send(await asyncio.to_thread(list, self.writer.event(event)))
            case BatchFinished(gpu_s=gpu_s):
                self.gpu_s += gpu_s or 0.0
                await self._send(self.writer.event(event))
            case _:
                await self._send(self.writer.event(event))

    async def _fail(self, exc: Exception, text: str) -> None:
        # The SDK could not send a lone surrogate, and would report nothing at all.
        text = text[:_SHOWN_ERROR_CHARS].encode("utf-8", "replace").decode()
        node_id, node_type, traceback = (
            (exc.node_id, exc.node_type, exc.traceback) if isinstance(exc, JobFailed) else (None, None, None)
        )
        await self._send(self.writer.error(text, node_id=node_id, node_type=node_type, traceback=traceback))
        # The SDK takes this key for the end of the job and reads nothing after it; it must be a string.
        await self.pieces.put({"error": text})

    async def _send(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            await self.pieces.put(piece)


class _Sessions:
    """One aiohttp session for each event loop, open while any job uses it.

    The SDK never says that the worker ends, so nothing must be left open that only then could be closed.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, int]] = (
            weakref.WeakKeyDictionary()
        )

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Lend the loop's session."""
        loop = asyncio.get_running_loop()
        session, users = self._open.get(loop) or (_new_session(), 0)
        self._open[loop] = (session, users + 1)
        try:
            yield session
        finally:
            session, users = self._open[loop]
            if users > 1:
                self._open[loop] = (session, users - 1)
            else:
                del self._open[loop]
                await session.close()


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
