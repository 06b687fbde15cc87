"""Keeping RunPod's published rate limits, for all jobs of an endpoint together.

RunPod counts requests per endpoint and operation (docs: serverless/endpoints/operation-reference, "Rate limits"): so
many in ten seconds, and so many at once. A thousand jobs that each poll at their own pace would be refused; through one
pacer they poll as one well-behaved client. Where RunPod says 429 all the same, all of them slow down together, and come
back evenly spaced and slowly.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = ["PUBLISHED_LIMITS", "Limit", "Pacer", "Window"]

WINDOW_S = 10.0
_USED = 0.9  # the rest is for other programs, and for clocks that differ
_USED_EVENLY = 0.8  # what leaves here evenly arrives in bunches
_LATE_S = 0.5  # a burst that arrived slowly is in RunPod's window for longer than in ours
_LEAST = 1 / 16
_RECOVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What RunPod allows for one operation of an endpoint.

    Attributes:
        per_window: Requests in ten seconds.
        concurrent: Requests at once.
        even: Keep a fortieth of it in each quarter of a second, for requests that come all the time; else a burst may
            use all of it.
    """

    per_window: int
    concurrent: int
    even: bool = False


PUBLISHED_LIMITS: Mapping[str, Limit] = {
    "run": Limit(1000, 200),
    "runsync": Limit(2000, 400),
    "status": Limit(2000, 400, even=True),
    "stream": Limit(2000, 400, even=True),
    "cancel": Limit(100, 20),
    "purge-queue": Limit(2, 2),
    # None is published for /health; this is more than anybody needs.
    "health": Limit(100, 20),
}


class Window:
    """Says how long to wait so that no window sees more than the limit. Pure: time is passed in, and never goes back.

    After a refusal the rate is halved and requests are spaced evenly; it is whole again 20 s after the last one.
    """

    def __init__(self, limit: Limit) -> None:
        self._span_s = WINDOW_S / 40 if limit.even else WINDOW_S + _LATE_S
        used = _USED_EVENLY if limit.even else _USED
        self._most = max(1, int(limit.per_window * used * (1 / 40 if limit.even else 1)))
        self._uses_s: deque[float] = deque(maxlen=self._most)
        self._share = 1.0
        self._share_at_s = 0.0
        self._paused_until_s = float("-inf")

    def delay_s(self, now_s: float) -> float:
        """Return how many seconds to wait, at least, before the next request; 0 where it may go now."""
        next_s = max(now_s, self._paused_until_s)
        if len(self._uses_s) == self._most:
            next_s = max(next_s, self._uses_s[0] + self._span_s)
        share = self._share_now(now_s)
        if share < 1.0 and self._uses_s:
            next_s = max(next_s, self._uses_s[-1] + self._span_s / (self._most * share))
        return next_s - now_s

    def use(self, now_s: float) -> None:
        """Take note of a request that goes now."""
        self._uses_s.append(now_s)

    def pause(self, now_s: float, delay_s: float) -> None:
        """Let nobody through for a while, after the server said 429."""
        # Requests that were under way together are refused together: that is one refusal.
        if now_s >= self._paused_until_s:
            self._share = max(_LEAST, self._share_now(now_s) / 2)
        self._paused_until_s = max(self._paused_until_s, now_s + delay_s)
        self._share_at_s = self._paused_until_s

    def _share_now(self, now_s: float) -> float:
        return min(1.0, self._share + max(0.0, now_s - self._share_at_s) / _RECOVERY_S)


class Pacer:
    """One for each endpoint: hands out turns for its operations."""

    def __init__(
        self, limits: Mapping[str, Limit] = PUBLISHED_LIMITS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._windows = {name: Window(limit) for name, limit in limits.items()}
        self._queues = {name: asyncio.Lock() for name in limits}
        self._rooms = {name: asyncio.Semaphore(max(1, int(limit.concurrent * _USED))) for name, limit in limits.items()}

    @asynccontextmanager
    async def turn(self, operation: str) -> AsyncIterator[None]:
        """Wait for this operation's turn and hold it until the request has ended."""
        window = self._windows[operation]
        async with self._rooms[operation]:
            # One at a time, and counted when it goes: what was promised for later would bunch up whenever this loop
            # is late.
            async with self._queues[operation]:
                while (delay_s := window.delay_s(self._clock())) > 0:  # noqa: ASYNC110 - a pause may have begun meanwhile
                    await asyncio.sleep(delay_s)
                window.use(self._clock())
            yield

    def slow_down(self, operation: str, delay_s: float) -> None:
        """Pause this operation for all jobs, after a 429."""
        self._windows[operation].pause(self._clock(), delay_s)
