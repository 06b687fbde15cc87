"""Generators on the loop, read from another thread or another loop."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from runpod_comfy._loop.background import CLEANUP_S, SLICE_S, cleaned_up, get_background

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from runpod_comfy._loop.background import Background

__all__ = ["iterate_async", "iterate_sync"]

T = TypeVar("T")

_BUFFERED_ITEMS = 64


class _Channel(Generic[T]):
    """Items on their way from a generator on the loop to another thread, with back-pressure."""

    def __init__(self, make: Callable[[], AsyncGenerator[T]], on_item: Callable[[], None]) -> None:
        self._make = make
        self._on_item = on_item
        self._room = asyncio.Semaphore(_BUFFERED_ITEMS)
        self.items: queue.SimpleQueue[T] = queue.SimpleQueue()

    async def pump(self) -> None:
        source = self._make()
        try:
            async for item in source:
                await self._room.acquire()
                self.items.put(item)
                self._on_item()
        finally:
            await source.aclose()

    def took_one(self, background: Background) -> None:
        with suppress(RuntimeError):
            background.loop.call_soon_threadsafe(self._room.release)


def iterate_sync(make: Callable[[], AsyncGenerator[T]]) -> Iterator[T]:
    """Yield what an async generator on the background loop yields; leaving early closes it and waits for that.

    Nothing starts before the first item is asked for.
    """
    background = get_background()
    if threading.current_thread() is background.thread:
        raise RuntimeError("A sync method was called on the library's own loop; use the async one there.")
    news = threading.Event()
    channel = _Channel(make, news.set)
    running = background.start(channel.pump)
    running.outcome.add_done_callback(lambda _: news.set())
    try:
        while True:
            news.clear()
            ended = running.outcome.done()
            with suppress(queue.Empty):
                while True:
                    yield channel.items.get_nowait()
                    channel.took_one(background)
            if ended:
                break
            with running.awaited():
                while not news.wait(SLICE_S):
                    pass
    except BaseException:
        # A forked child has no such thread, and the work is its parent's.
        if background.thread.is_alive():
            running.give_up()
            # The garbage collector may close this on the loop's own thread, where waiting would stop all work.
            if threading.current_thread() is not background.thread:
                running.wait(until_s=time.monotonic() + CLEANUP_S)
        raise
    running.outcome.result().get()


async def iterate_async(make: Callable[[], AsyncGenerator[T]]) -> AsyncIterator[T]:
    """Yield what an async generator on the background loop yields; leaving early closes it and waits for that."""
    background = get_background()
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the caller's loop is closed
            loop.call_soon_threadsafe(news.set)

    channel = _Channel(make, tell)
    running = background.start(channel.pump)
    running.outcome.add_done_callback(lambda _: tell())
    try:
        while True:
            news.clear()
            ended = running.outcome.done()
            with suppress(queue.Empty):
                while True:
                    yield channel.items.get_nowait()
                    channel.took_one(background)
            if ended:
                break
            await news.wait()
    except BaseException:
        running.give_up()
        await cleaned_up(running)
        raise
    running.outcome.result().get()
