"""The loop itself, its thread, the work on it, and how other threads and loops wait for that work."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import logging
import os
import signal
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator

__all__ = [
    "CLEANUP_S",
    "SLICE_S",
    "Background",
    "Running",
    "Shared",
    "abandon",
    "cleaned_up",
    "current",
    "get_background",
    "here",
    "run_async",
    "run_sync",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLEANUP_S = 5.0
"""How long giving up waits for the clean-up of what was given up."""

SLICE_S = 0.2
"""Waits are cut into slices: a signal that lands just before a lock blocks is else seen only when the lock is free, and
on Windows a blocked wait cannot be interrupted at all."""


class Background:
    """A running loop, its thread, the work on it, and what the work shares."""

    def __init__(self) -> None:
        self.loop = _new_event_loop()
        self.running: set[Running[Any]] = set()
        self.users: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self.farewells: set[asyncio.Task[Any]] = set()
        self.patient_until_s = float("-inf")
        self.lasting: set[asyncio.Task[Any]] = set()
        self.shared: dict[Hashable, Shared[Any]] = {}
        self.thread = threading.Thread(target=self._run, name="runpod-comfy", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        # A signal must reach the thread that waits, not this one.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        asyncio.set_event_loop(self.loop)
        _here.background = self
        self.loop.run_forever()

    def start(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Running[T]:
        self.users.add(threading.current_thread())
        running: Running[T] = Running(self, contextvars.copy_context())
        self.loop.call_soon_threadsafe(running.begin, work)
        return running

    async def drain(self) -> None:
        """End all work, then close what it shared; the last thing that happens on this loop."""
        for running in self.running:
            running.cancel_once()
        for task in self.lasting:
            task.cancel()
        await self.finished(self._unfinished, within_s=CLEANUP_S + 0.5)
        while self.shared:
            _, resource = self.shared.popitem()
            await resource.close()
        # A connection that was told to close needs a turn of the loop to do so.
        await asyncio.sleep(0)
        await self.loop.shutdown_asyncgens()

    async def finished(self, tasks: Callable[[], set[asyncio.Task[Any]]], *, within_s: float) -> None:
        """Wait until there are no such tasks, or the time is over, which may turn out to be longer (``be_patient``)."""
        begun_s = self.loop.time()
        while found := tasks():
            deadline_s = max(begun_s + within_s, self.patient_until_s)
            if self.loop.time() >= deadline_s:
                break
            await asyncio.wait(found, timeout=min(SLICE_S, deadline_s - self.loop.time()))

    def _unfinished(self) -> set[asyncio.Task[Any]]:
        return self.farewells | self.lasting | {running.task for running in self.running if running.task is not None}

    def awaited(self) -> bool:
        """Whether a thread that the interpreter will wait for uses this loop, be it between two calls.

        Of the threads of a pool, which are told to end only after this is asked, those count that wait right now.
        """
        pooled = getattr(concurrent.futures.thread, "_threads_queues", {})
        users = {user for user in list(self.users) if user not in pooled}
        waiters = {running.waiter for running in list(self.running) if running.waiter is not None}
        return any(each.is_alive() and not each.daemon for each in (users | waiters) - {threading.main_thread()})

    def stop(self) -> None:
        """Drain, stop the thread and close the loop."""
        with suppress(Exception, KeyboardInterrupt):
            draining = asyncio.run_coroutine_threadsafe(self.drain(), self.loop)
            begun_s = time.monotonic()
            while not draining.done():
                if time.monotonic() > max(begun_s + 2 * CLEANUP_S + 1, self.patient_until_s + CLEANUP_S):
                    break
                concurrent.futures.wait([draining], timeout=SLICE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(1)
        if not self.thread.is_alive():
            self.loop.close()


@dataclass(frozen=True, slots=True)
class _End(Generic[T]):
    """How work ended, as a value: a future with an error that nobody asks for complains when it is collected."""

    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class Running(Generic[T]):
    """One piece of work on the background loop, seen from another thread."""

    def __init__(self, background: Background, context: contextvars.Context) -> None:
        self._background = background
        self._context = context
        self._given_up = False
        self.task: asyncio.Task[T] | None = None
        self.waiter: threading.Thread | None = None
        self.outcome: concurrent.futures.Future[_End[T]] = concurrent.futures.Future()
        # Running from the start: a wrapper's cancellation must not end it before the clean-up has.
        self.outcome.set_running_or_notify_cancel()

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """On the loop: make the coroutine and run it, unless nobody wants it any more."""
        if self._given_up:
            self.outcome.set_result(_End(error=concurrent.futures.CancelledError()))
            return
        try:
            self.task = self._background.loop.create_task(work(), context=self._context)
        except BaseException as exc:  # noqa: BLE001 - handed to whoever waits
            self.outcome.set_result(_End(error=exc))
            return
        self._background.running.add(self)
        self.task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        self._background.running.discard(self)
        if task.cancelled():
            self.outcome.set_result(_End(error=concurrent.futures.CancelledError()))
        elif (exc := task.exception()) is not None:
            self.outcome.set_result(_End(error=exc))
        else:
            self.outcome.set_result(_End(task.result()))

    def give_up(self) -> None:
        """From any thread: cancel the work; ``outcome`` is set when its clean-up has ended."""
        if not self.outcome.done():
            with suppress(RuntimeError):  # the loop is closed, and with it the work
                self._background.loop.call_soon_threadsafe(self.cancel_once)

    def cancel_once(self) -> None:
        """On the loop: cancel the work. A second time would cut short the clean-up that the first has begun."""
        if not self._given_up:
            self._given_up = True
            if self.task is not None:
                self.task.cancel()

    def wait(self, *, until_s: float | None = None) -> bool:
        """Wait in slices, so that signals get through; True where the work has ended."""
        with self.awaited():
            while not self.outcome.done():
                left_s = SLICE_S if until_s is None else min(SLICE_S, until_s - time.monotonic())
                if left_s <= 0:
                    return False
                concurrent.futures.wait([self.outcome], timeout=left_s)
            return True

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Let it be known that this thread waits for the work."""
        self.waiter = threading.current_thread()
        try:
            yield
        finally:
            self.waiter = None


class Shared(Generic[T]):
    """One resource of the loop: made once, closed once."""

    def __init__(self, make: Callable[[], Awaitable[T]], close: Callable[[T], Awaitable[None]]) -> None:
        async def made() -> T:
            return await make()

        self._close = close
        self.making = asyncio.ensure_future(made())

    @property
    def failed(self) -> bool:
        return self.making.done() and (self.making.cancelled() or self.making.exception() is not None)

    async def close(self) -> None:
        """Close it; a failure is noted, since whoever closes has nothing else to do with it."""
        with suppress(asyncio.CancelledError, Exception):
            async with asyncio.timeout(CLEANUP_S):
                resource = await self.making
            try:
                async with asyncio.timeout(CLEANUP_S):
                    await self._close(resource)
            except Exception:
                logger.debug("a shared resource did not close", exc_info=True)


_lock = threading.Lock()
_here = threading.local()  # the loop's thread knows it also while the process ends
_background: Background | None = None


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if not _has_standard_streams():
        # A socket would get one of their numbers, and uvloop ends the process when it closes such a one.
        return asyncio.new_event_loop()
    try:
        import uvloop  # noqa: PLC0415 - an optional, faster loop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _has_standard_streams() -> bool:
    try:
        for number in range(3):
            os.fstat(number)
    except OSError:
        return False
    return True


def here() -> Background | None:
    """Return the loop whose thread this is, if it is one; also while the process ends."""
    found: Background | None = getattr(_here, "background", None)
    return found


def current() -> Background | None:
    """Return the process's loop, if it has one and does not end."""
    return _background


def get_background() -> Background:
    """Return the process's loop, which starts at the first call."""
    global _background  # noqa: PLW0603 - one loop for each process
    with _lock:
        if _background is None or not _background.thread.is_alive():
            _background = Background()
        return _background


def _forget_after_fork() -> None:
    """A child has none of the parent's threads: it gets a loop of its own when it first needs one."""
    global _background, _lock  # noqa: PLW0603 - likewise
    _background = None
    _lock = threading.Lock()


_here = threading.local()  # the loop's thread knows it also while the process ends


def _drain_at_exit() -> None:
    """Cancel what nobody waits for any more, and wait for its clean-up."""
    global _background
    with suppress(KeyboardInterrupt):
        # Other threads of the program may still work; the interpreter waits for them, and so does this.
        while _background is not None and _background.awaited():
            time.sleep(SLICE_S / 4)
    with _lock:
        background, _background = _background, None
    if background is not None and background.thread.is_alive():
        background.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
# Plain atexit comes after the threads of `concurrent.futures` have been shut down, and without them a request that
# needs a name looked up cannot leave. Callbacks of `threading` come before, the latest registered first, so the
# executors' own must be registered by now; hence the import.
import concurrent.futures.thread  # noqa: E402 - see above

_register = getattr(threading, "_register_atexit", atexit.register)
_register(_drain_at_exit)


def run_sync(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run work on the background loop and wait for its result.

    Interrupted (Ctrl-C), the work is cancelled and its clean-up waited for, for at most ``CLEANUP_S``; a second
    interrupt leaves at once.

    Raises:
        RuntimeError: Called from the background loop itself, which would wait for ever.
    """
    background = get_background()
    if threading.current_thread() is background.thread:
        raise RuntimeError("A sync method was called on the library's own loop; use the async one there.")
    running = background.start(work)
    try:
        running.wait()
    except BaseException:
        running.give_up()
        running.wait(until_s=time.monotonic() + CLEANUP_S)
        raise
    return running.outcome.result().get()


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
    """Run work on the background loop and return a task of the caller's loop.

    Cancelling the task cancels the work; the task ends when the work's clean-up has ended, or after ``CLEANUP_S``.

    Raises:
        RuntimeError: No event loop runs in this thread. ``work`` was not called then.
    """
    loop = asyncio.get_running_loop()
    running = get_background().start(work)
    task = loop.create_task(_follow(running))
    # A task that is cancelled before its first step never gets to give its work up.
    task.add_done_callback(lambda _: running.give_up())
    return task


async def _follow(running: Running[T]) -> T:
    try:
        end = await asyncio.shield(asyncio.wrap_future(running.outcome))
    except asyncio.CancelledError:
        running.give_up()
        # A bare wrapped future would be done the moment it is cancelled, before the clean-up has begun.
        await cleaned_up(running)
        raise
    if isinstance(end.error, concurrent.futures.CancelledError):
        raise asyncio.CancelledError
    return end.get()


async def cleaned_up(running: Running[Any]) -> None:
    """Wait for the end of work that was given up, however it ends."""
    with suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(CLEANUP_S):
            await asyncio.shield(asyncio.wrap_future(running.outcome))


def abandon() -> None:
    """Let the process end at once: nothing that is under way is waited for any more."""
    global _background  # noqa: PLW0603 - one loop for each process
    with _lock:
        _background = None
