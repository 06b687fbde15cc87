"""Work that is stopped by Ctrl-C: the first one cancels what runs and waits for that, the second one leaves at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from runpod_comfy import _loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from runpod_comfy.executors.base import WorkflowExecutor

__all__ = ["run_until_stopped"]

_T = TypeVar("_T")


def run_until_stopped(
    work: Callable[[], Coroutine[Any, Any, _T]],
    executor: WorkflowExecutor,
    *,
    on_stop: Callable[[], bool],
    on_leave: Callable[[], None],
) -> _T:
    """Run work on a loop of its own, close the executor, and return what the work gives.

    Args:
        work: What is done.
        executor: Where its jobs run; closed in any case, and waited for, which cancels what it has under way.
        on_stop: Called when the first interrupt comes, before anything is cancelled; True where the work has been told
            to end by itself, so that it is not cancelled.
        on_leave: Called when a second one comes: nothing is waited for any more, and jobs may run on.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """
    stop = _Stop(on_stop)
    try:
        try:
            return asyncio.run(stop.watch(work))
        except KeyboardInterrupt:
            if stop.is_cut_short:
                raise
            stop.is_cut_short = True  # a further one, while this waits for what is being cancelled
            executor.close()
            stop.is_cut_short = False
            raise
    except KeyboardInterrupt:
        if stop.is_cut_short:
            on_leave()
            _loop.abandon()
        raise
    finally:
        if not stop.is_cut_short:
            executor.close()


class _Stop:
    """How far the stopping is.

    Attributes:
        is_cut_short: Whether an interrupt now means to leave at once.
    """

    def __init__(self, on_stop: Callable[[], bool]) -> None:
        self._on_stop = on_stop
        self.is_cut_short = False

    async def watch(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do the work; where asyncio cancels this, as at the first Ctrl-C, stop it and wait for its end."""
        task = asyncio.ensure_future(work())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self.is_cut_short = True
                if not self._on_stop():
                    task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.is_cut_short = False
            raise
