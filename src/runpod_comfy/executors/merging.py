"""Several generators as one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

__all__ = ["merged"]

_T = TypeVar("_T")


async def merged(sources: Sequence[AsyncGenerator[_T]]) -> AsyncGenerator[_T]:
    """Yield what all of them yield, as it comes; left early, each is closed, and that is waited for.

    Where some raise, the others run to their ends first; then the first one's error is raised.
    """
    items: asyncio.Queue[_T | None] = asyncio.Queue()
    room = asyncio.Semaphore(len(sources))

    async def pump(source: AsyncGenerator[_T]) -> None:
        async with aclosing(source):
            async for item in source:
                await room.acquire()
                items.put_nowait(item)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    for task in tasks:
        task.add_done_callback(lambda _: items.put_nowait(None))
    try:
        left = len(tasks)
        while left:
            item = await items.get()
            if item is None:
                left -= 1
                continue
            room.release()
            yield item
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
