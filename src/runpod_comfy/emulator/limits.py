"""RunPod's published rate limits, per endpoint and operation (docs: operation reference)."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from runpod_comfy.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PUBLISHED", "WINDOW_S", "RateLimit", "RateLimiter"]

WINDOW_S: Final = 10.0


class RateLimit(NamedTuple):
    """One operation's limit.

    Attributes:
        per_window: Requests in ten seconds.
        concurrent: Requests at the same time; a parked long poll counts. None where nothing is published.
    """

    per_window: int
    concurrent: int | None


PUBLISHED: Final = {
    "run": RateLimit(1000, 200),
    "runsync": RateLimit(2000, 400),
    "status": RateLimit(2000, 400),
    "stream": RateLimit(2000, 400),
    "cancel": RateLimit(100, 20),
    "purge-queue": RateLimit(2, None),
    "requests": RateLimit(10, 2),
}
# The old documents put /status-sync into the bucket of /status.
_BUCKETS: Final = {"status-sync": "status"}


@dataclass(slots=True)
class _Bucket:
    starts: deque[float] = field(default_factory=deque)
    running: int = 0


class RateLimiter:
    """Counts requests in a sliding window. RunPod raises the limits with running workers; here only the base counts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    @contextmanager
    def entered(self, endpoint_id: str, operation: str) -> Iterator[None]:
        """Count a request while it runs.

        Raises:
            RateLimited: It is one too many; it does not count then. The answer's text is unconfirmed.
        """
        operation = _BUCKETS.get(operation, operation)
        limit = PUBLISHED.get(operation)
        if limit is None:
            yield
            return
        bucket = self._buckets.setdefault((endpoint_id, operation), _Bucket())
        now = self._clock()
        while bucket.starts and bucket.starts[0] <= now - WINDOW_S:
            bucket.starts.popleft()
        if len(bucket.starts) >= limit.per_window or (
            limit.concurrent is not None and bucket.running >= limit.concurrent
        ):
            raise RateLimited(f"rate limit of {operation} exceeded", status_code=429, endpoint_id=endpoint_id)
        bucket.starts.append(now)
        bucket.running += 1
        try:
            yield
        finally:
            bucket.running -= 1
