"""The ComfyUI that a worker drives: started here, watched and once restarted; or one that somebody else runs."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.errors import RunpodComfyError, TransportError
from runpod_comfy.worker.child import ChildProcess
from runpod_comfy.worker.volume import write_model_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ComfyUIServer"]

logger = logging.getLogger(__name__)

_ASK_EVERY_S = 0.25
_LOG_EVERY_S = 10.0
_SHOWN_LINES = 8
_SHOWN_LINE_CHARS = 300
_WORKERS_KEYS = frozenset(
    {"BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY", "COMFY_ORG_API_KEY", "RUNPOD_AI_API_KEY", "RUNPOD_API_KEY"}
)
_FAILED_NODE = re.compile(r"\(IMPORT FAILED\): *(.+)")


class ComfyUIServer:
    """ComfyUI, as a process of this worker's or at an address.

    >>> server = ComfyUIServer("http://127.0.0.1:8188", command=["python", "/comfyui/main.py"])  # doctest: +SKIP
    >>> await server.ready()  # doctest: +SKIP

    Args:
        url: Where it answers, or shall answer.
        command: What starts it; the port and the volume's model paths are added. Empty: somebody else runs it.
        cwd: Where the command runs.
        volume: A network volume, whose models and custom nodes are made known to it.

    Attributes:
        version: ComfyUI's, once it has answered.
        failed_custom_nodes: The folders of custom nodes that it could not import.
    """

    def __init__(
        self, url: str, *, command: Sequence[str] = (), cwd: str | None = None, volume: Path | None = None
    ) -> None:
        self.url = url
        self.version: str | None = None
        self.failed_custom_nodes: list[str] = []
        self._command = tuple(command)
        self._cwd = cwd
        self._volume = volume
        self._child: ChildProcess | None = None
        self._model_paths: Path | None = None
        self._restarts_left = 1
        self._verdict = ""
        self._starting: asyncio.Task[None] | None = None
        self._deaths: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[ChildProcess | None, asyncio.Future[str]]] = (
            WeakKeyDictionary()
        )

    @property
    def alive(self) -> bool:
        """Whether its process runs; one that somebody else runs counts as alive."""
        return not self._command or (self._child is not None and self._child.exit_code is None)

    async def ready(self) -> None:
        """Wait until ComfyUI answers; start it, or start it again, where that is ours to do.

        How long loading takes is not known, so there is no limit: only the end of its process ends the waiting. It is
        started again once in a worker's life.

        Raises:
            TransportError: It has ended and is not started again; its last lines are in the text.
        """
        if self.version is not None and self.alive:
            return
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            # Where nobody is left to wait for it, its error is no message at exit.
            self._starting.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Shared by all jobs that wait: one that is cancelled does not take it from the others.
        await asyncio.shield(self._starting)

    def death(self) -> asyncio.Future[str]:
        """Return a future that is done once the process that runs now has ended, and how, as a sentence.

        It belongs to the loop that runs here. Where the process is not ours, it is never done.
        """
        known = self._deaths.get(loop := asyncio.get_running_loop())
        if known is None or known[0] is not self._child:
            death: asyncio.Future[str] = loop.create_future()
            if self._child is not None:
                child = self._child
                child.end().add_done_callback(lambda end: self._tell_death(death, child, end))
            known = self._deaths[loop] = (self._child, death)
        return known[1]

    async def condemn(self, reason: str) -> bool:
        """End the process that runs now, since it is of no more use; return whether it is ours to end.

        Where it is not, ``death()`` says so all the same, and the next job tries it anew.
        """
        if self._child is not None:
            self._verdict = reason
            await asyncio.to_thread(self._child.stop)
            return True
        _, death = self._deaths.pop(asyncio.get_running_loop(), (None, None))
        if death is not None and not death.done():
            death.set_result(reason)
        return False

    def stop(self) -> None:
        """End its process, where it is ours."""
        if self._child is not None:
            self._child.stop()

    async def _start(self) -> None:
        self.version = None
        while True:
            if not self.alive:
                await asyncio.to_thread(self._launch)
            answer, death = asyncio.create_task(_first_answer(self.url)), self.death()
            try:
                await asyncio.wait([answer, death], return_when=asyncio.FIRST_COMPLETED)
                # Something else may answer there, while ours has found the port taken.
                if not death.done() and self.alive:
                    self.version = answer.result()
                    return
                logger.error("%s", await death)
            finally:
                answer.cancel()
                self._forget_model_paths()

    def _launch(self) -> None:
        """Start the process, for the first time or once again."""
        if self._child is not None:
            if not self._restarts_left:
                raise TransportError(
                    f"{self._obituary(self._child, self._child.exit_code or 0)} It is not started again."
                )
            self._restarts_left -= 1
            logger.warning("starting ComfyUI again")
            self._child.stop()
        self.failed_custom_nodes.clear()
        self._verdict = ""
        parts = urlsplit(self.url)
        command = [*self._command, "--listen", parts.hostname or "", "--port", str(parts.port or 80)]
        command.append("--disable-auto-launch")
        self._model_paths = write_model_paths(self._volume) if self._volume is not None else None
        if self._model_paths is not None:
            command += ["--extra-model-paths-config", str(self._model_paths)]
        try:
            self._child = ChildProcess(command, cwd=self._cwd, environ=_childs_environment(), on_line=self._read_line)
        except OSError as exc:
            raise TransportError(
                f"ComfyUI cannot be started with {command[0]!r}: {exc.strerror}. Check COMFYUI_COMMAND and COMFYUI_DIR."
            ) from exc
        logger.info("ComfyUI started: %s", " ".join(command))

    def _tell_death(self, death: asyncio.Future[str], child: ChildProcess, end: asyncio.Future[int]) -> None:
        if not end.cancelled() and not death.done():
            death.set_result(self._obituary(child, end.result()))

    def _obituary(self, child: ChildProcess, exit_code: int) -> str:
        words = " | ".join(line[:_SHOWN_LINE_CHARS] for line in child.last_lines[-_SHOWN_LINES:])
        told = f"Its last lines: {words}." if words else "It printed nothing."
        return f"{self._verdict or _cause(exit_code)} {told}"

    def _forget_model_paths(self) -> None:
        if self._model_paths is not None:
            self._model_paths.unlink(missing_ok=True)  # read once, at its start

    def _read_line(self, line: str) -> None:
        if found := _FAILED_NODE.search(line):
            self.failed_custom_nodes.append(found[1])


def _childs_environment() -> dict[str, str]:
    """Return our environment without the worker's own keys: custom nodes are other people's code, and some print it."""
    return {name: value for name, value in os.environ.items() if name not in _WORKERS_KEYS}


def _cause(exit_code: int) -> str:
    how = f"ended with exit code {exit_code}"
    if exit_code < 0:
        with suppress(ValueError):
            how = f"was killed by {signal.Signals(-exit_code).name}"
        how += " (out of memory?)" if -exit_code == signal.SIGKILL else ""
    return f"ComfyUI {how}."


async def _first_answer(url: str) -> str:
    """Wait until ComfyUI answers there, for as long as it takes, and return its version."""
    loop = asyncio.get_running_loop()
    begun_at = log_at = loop.time()
    async with aiohttp.ClientSession() as session:
        client = ComfyUIClient(url, session=session)
        while True:
            try:
                system = (await client.system_stats())["system"]
            except RunpodComfyError as exc:
                if loop.time() >= log_at:
                    logger.info("waiting for ComfyUI, %.0f s so far: %s", loop.time() - begun_at, exc)
                    log_at = loop.time() + _LOG_EVERY_S
                await asyncio.sleep(_ASK_EVERY_S)
                continue
            version = str(system.get("comfyui_version") or "of an unknown version")
            logger.info("ComfyUI %s answers at %s", version, client.origin)
            return version
