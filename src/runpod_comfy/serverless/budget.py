"""A bound on how many bytes are in memory at once: whoever wants more waits for its turn."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ByteBudget"]


class ByteBudget:
    """So many bytes, lent first come, first served. One that is larger than all of them goes alone.

    Args:
        limit_bytes: How many there are.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lent_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def lend(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait until there is room for so many bytes, and keep it for the block."""
        await self._take(size_bytes)
        try:
            yield
        finally:
            self._give_back(size_bytes)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiting and self._fits(size_bytes):
            self._lent_bytes += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(size_bytes)
            raise

    def _fits(self, size_bytes: int) -> bool:
        return not self._lent_bytes or self._lent_bytes + size_bytes <= self._limit_bytes

    def _give_back(self, size_bytes: int) -> None:
        self._lent_bytes -= size_bytes
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size_bytes, turn = self._waiting.popleft()
            if not turn.done():
                self._lent_bytes += size_bytes
                turn.set_result(None)
