"""What an endpoint was seen to do, and how many ask it: remembered for all its jobs."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runpod_comfy.serverless.parking import Parking
from runpod_comfy.serverless.queueing import Queueing
from runpod_comfy.serverless.withdrawal import Withdrawals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runpod_comfy.dialects.base import WorkerKind

__all__ = ["EndpointHabits"]

logger = logging.getLogger(__name__)

_REMEMBERED_S = 3600.0
_POLLS_PER_S = 80.0
"""Half of what RunPod allows for ``status`` or ``stream``: the rest is for answers that cannot wait."""
_MAX_HELD_STREAMS = 200
_MAX_READS = 96
"""Answers of ``/stream`` on their way at once: each fills some 300 KB of buffers before anybody looks at it."""


@dataclass(slots=True)
class EndpointHabits:
    """One endpoint's habits.

    Attributes:
        no_long_poll_until_s: Until then (monotonic clock) ``/status-sync`` is not tried again.
        no_stream_until_s: Until then ``/stream`` is not tried again.
        holds_stream: Whether ``/stream`` waits for an output before it answers.
        worker: Who answered the last job, or None before any did.
        uses_bucket: Whether its answers name outputs in a bucket, so that no limit holds for their size.
        polling: Jobs that ask ``/status`` at intervals.
        streaming: Jobs that ask ``/stream`` at intervals.
        parking: The places for long polls.
        reads: Room for answers of ``/stream``.
        queueing: Why its jobs wait.
        withdrawals: What is to be cancelled.
        rng: Where the jitter comes from.
    """

    no_long_poll_until_s: float = 0.0
    no_stream_until_s: float = 0.0
    holds_stream: bool = False
    worker: WorkerKind | None = None
    uses_bucket: bool = False
    polling: int = 0
    streaming: int = 0
    parking: Parking = field(default_factory=Parking)
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_READS))
    queueing: Queueing = field(default_factory=Queueing)
    withdrawals: Withdrawals = field(default_factory=Withdrawals)
    rng: random.Random = field(default_factory=random.SystemRandom)

    def lacks_long_poll(self, endpoint_id: str, what: str, now_s: float) -> None:
        """Remember that there is no long poll to rely on."""
        logger.info("endpoint %s %s; asking /status at intervals", endpoint_id, what)
        self.no_long_poll_until_s = now_s + _REMEMBERED_S

    def lacks_stream(self, endpoint_id: str, now_s: float) -> None:
        """Remember that there is no stream."""
        logger.info("endpoint %s has no /stream; reading the output from /status", endpoint_id)
        self.no_stream_until_s = now_s + _REMEMBERED_S

    def status_pause_s(self, wished_s: float) -> float:
        """Return how long a job waits between two reads of ``/status``, so that all of them keep the rate."""
        return self._jittered(max(wished_s, self.polling / _POLLS_PER_S))

    def stream_pause_s(self, wished_s: float) -> float:
        """Return how long a job waits between two reads of ``/stream``, so that all of them keep the rate."""
        if self.holds_stream and self.streaming <= _MAX_HELD_STREAMS:
            return 0.0
        return self._jittered(max(wished_s, self.streaming / _POLLS_PER_S))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Wait for room for one more answer of ``/stream``, unless it is one that will be held back for an output."""
        if self.holds_stream:
            yield
        else:
            async with self.reads:
                yield

    def _jittered(self, pause_s: float) -> float:
        # Jobs that were submitted together must not ask together ever after.
        return pause_s * (0.85 + 0.3 * self.rng.random())
