"""Keeping RunPod's published rate limits, for all jobs of an endpoint together.

RunPod counts requests per endpoint and operation (docs: serverless/endpoints/operation-reference, "Rate limits"): so
many in ten seconds, and so many at once. A thousand jobs that each poll at their own pace would be refused; through one
pacer they poll as one well-behaved client.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = ["PUBLISHED_LIMITS", "Limit", "Pacer", "TokenBucket"]

_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What RunPod allows for one operation of an endpoint.

    Attributes:
        per_window: Requests in ten seconds.
        concurrent: Requests at once.
    """

    per_window: int
    concurrent: int


PUBLISHED_LIMITS: Mapping[str, Limit] = {
    "run": Limit(1000, 200),
    "runsync": Limit(2000, 400),
    "status": Limit(2000, 400),
    "stream": Limit(2000, 400),
    "cancel": Limit(100, 20),
    "purge-queue": Limit(2, 2),
    # None is published for /health; this is more than anybody needs.
    "health": Limit(100, 20),
}


class TokenBucket:
    """Says how long to wait so that no window of ten seconds sees more than the limit. Pure: time is passed in."""

    def __init__(self, limit: Limit) -> None:
        # A burst and the refill during any window after it must fit into the limit together.
        self._burst = max(1.0, limit.per_window / 10)
        self._per_s = max(0.1, (limit.per_window - self._burst) / _WINDOW_S)
        self._tokens = self._burst
        self._at_s = 0.0
        self._paused_until_s = 0.0

    def reserve(self, now_s: float) -> float:
        """Take one token and return how many seconds to wait before using it."""
        if now_s > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
        self._tokens -= 1
        wait_s = max(0.0, -self._tokens / self._per_s)
        return max(wait_s, self._paused_until_s - now_s)

    def pause(self, now_s: float, delay_s: float) -> None:
        """Let nobody through for a while, after the server said 429."""
        self._paused_until_s = max(self._paused_until_s, now_s + delay_s)
        self._tokens = min(self._tokens, 0.0)


class Pacer:
    """One for each endpoint: hands out turns for its operations."""

    def __init__(
        self, limits: Mapping[str, Limit] = PUBLISHED_LIMITS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._buckets = {name: TokenBucket(limit) for name, limit in limits.items()}
        self._rooms = {name: asyncio.Semaphore(limit.concurrent) for name, limit in limits.items()}

    @asynccontextmanager
    async def turn(self, operation: str) -> AsyncIterator[None]:
        """Wait for this operation's turn and hold it until the request has ended."""
        async with self._rooms[operation]:
            delay_s = self._buckets[operation].reserve(self._clock())
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            yield

    def slow_down(self, operation: str, delay_s: float) -> None:
        """Pause this operation for all jobs, after a 429."""
        self._buckets[operation].pause(self._clock(), delay_s)
