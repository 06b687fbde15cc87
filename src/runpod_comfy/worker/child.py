"""A child process whose output is passed on and whose end is noticed, on whatever event loop asks.

The worker has two loops in its life, one before RunPod's SDK takes over and the SDK's; asyncio's own subprocesses die
with the loop that made them. So two threads do the waiting.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ChildProcess"]

_KEPT_LINES = 40
_LONGEST_LINE_BYTES = 16 * 1024
_STOP_WITHIN_S = 5.0


class ChildProcess:
    """A program that runs until it ends or is stopped; at the latest when this process exits.

    Args:
        command: The program and its arguments.
        cwd: Where it runs.
        environ: Its environment; None: ours.
        on_line: Gets each line it prints, on a thread of its own.
        output: Where its lines are passed on to; None: standard error.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        environ: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        output: IO[bytes] | None = None,
    ) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._on_line = on_line
        self._output = output or sys.stderr.buffer
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[int]]] = []
        self._exit_code: int | None = None
        # A session of its own: Ctrl-C is for the worker, and stopping takes what the program has started with it.
        self._process = subprocess.Popen(  # noqa: S603 - the operator's own command
            list(command),
            cwd=cwd,
            env=dict(environ) if environ is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="comfyui-output", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name="comfyui-end", daemon=True).start()
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: the signal that killed it), or None while it runs."""
        return self._exit_code if self._exit_code is not None else self._process.poll()

    @property
    def last_lines(self) -> list[str]:
        """The last lines it printed."""
        return list(self._lines)

    def end(self) -> asyncio.Future[int]:
        """Return a future of its exit code, for the loop that runs here; to be left alone or to be cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        with self._lock:
            if self._exit_code is None:
                self._waiting.append((loop, future))
            else:
                future.set_result(self._exit_code)
        return future

    def stop(self) -> None:
        """End it and what it has started: politely, and after five seconds not."""
        atexit.unregister(self.stop)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_WITHIN_S)
        # Its own children may be left, also where it has ended by itself.
        self._signal(signal.SIGKILL)
        self._process.wait(_STOP_WITHIN_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        pipe = self._process.stdout
        if pipe is None:  # never: it was asked for
            return
        with pipe:
            while line := pipe.readline(_LONGEST_LINE_BYTES):
                with contextlib.suppress(OSError, ValueError):  # a closed standard error must not block the program
                    self._output.write(line)
                    self._output.flush()
                # Of a progress bar that redraws itself only the last state is of interest.
                text = line.decode("utf-8", "replace").rstrip().rpartition("\r")[2]
                if text:
                    self._lines.append(text)
                    if self._on_line is not None:
                        self._on_line(text)

    def _wait(self) -> None:
        code = self._process.wait()
        # The last words are still on their way; a child of its own may hold the pipe open for ever.
        self._reader.join(1.0)
        with self._lock:
            self._exit_code = code
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(_settle, future, code)


def _settle(future: asyncio.Future[int], code: int) -> None:
    if not future.done():
        future.set_result(code)
