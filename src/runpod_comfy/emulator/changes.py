"""Waiting for a platform: its change notifications and its clock, turned into something to await."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from runpod_comfy.emulator.lifecycle import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_comfy.emulator.lifecycle import Topic
    from runpod_comfy.emulator.platform import Platform

__all__ = ["Changes"]

T = TypeVar("T")


class Changes:
    """The one place where a platform meets the event loop; made and used on the loop's thread.

    It also lets the platform's time pass: at each deadline it calls ``tick``.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[Topic, set[asyncio.Future[None]]] = {}
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsubscribe = platform.subscribe(self._on_change)
        self._set_timer()

    async def wait(self, topic: Topic, ready: Callable[[], T | None], *, timeout_s: float | None) -> T | None:
        """Return what ``ready`` gives as soon as it is not None; None when the time is over or this is closed.

        Args:
            topic: ``ready`` is asked at once and again after each change of this topic.
            ready: Asks the platform; what it raises ends the wait.
            timeout_s: How long to wait, in seconds; None for ever.
        """
        deadline = None if timeout_s is None else self._loop.time() + timeout_s
        while not self._closed:
            if (value := ready()) is not None:
                return value
            waiter = self._loop.create_future()
            self._waiters.setdefault(topic, set()).add(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                return ready()
            finally:
                self._discard(topic, waiter)
        return None

    def close(self) -> None:
        """End all waits; new ones end at once."""
        self._closed = True
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        for topic in list(self._waiters):
            self._wake(topic)

    def _on_change(self, topic: Topic) -> None:
        if topic == CLOCK:
            self._set_timer()
        else:
            self._wake(topic)

    def _wake(self, topic: Topic) -> None:
        for waiter in self._waiters.get(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _discard(self, topic: Topic, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters[topic]
        waiters.discard(waiter)
        if not waiters:
            del self._waiters[topic]

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._platform.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._platform.clock())
            self._timer = self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._platform.tick()
        self._set_timer()
