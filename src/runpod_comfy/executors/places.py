"""Several places where work can go: which of them is next, who waits for one, and which is left out for a while."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

__all__ = ["Place", "Places"]

logger = logging.getLogger(__name__)

_LONGEST_REST_S = 60.0

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class Place(Generic[_T]):
    """One place and what is known of it.

    Attributes:
        what: What runs there.
        name: What messages call it.
        limit: How many jobs it gets at once; None sets no bound.
        jobs: How many it has.
        failures: How often in a row it could not take a job, or went away with one.
        first_rest_s: How long it is left out after a failure; twice as long after the next one in a row.
        rests_until_s: When it will be tried again, on the loop's clock.
    """

    what: _T
    name: str
    limit: int | None = None
    jobs: int = 0
    failures: int = 0
    first_rest_s: float = 2.0
    rests_until_s: float = 0.0

    def is_free(self, now_s: float) -> bool:
        """Whether it can take a job now; after a failure it gets one to show that it works again."""
        if self.failures:
            return now_s >= self.rests_until_s and not self.jobs
        return self.limit is None or self.jobs < self.limit

    def works(self) -> None:
        """Note that it has taken a job."""
        self.failures = 0

    def failed(self, now_s: float) -> None:
        """Note that it failed; the rests get longer. Jobs that fail together count as one."""
        if now_s >= self.rests_until_s:
            self.failures += 1
            self.rests_until_s = now_s + min(_LONGEST_REST_S, self.first_rest_s * 2 ** (self.failures - 1))


@dataclass(slots=True, eq=False)
class _Waiter(Generic[_T]):
    tried: AbstractSet[Place[_T]]
    place: asyncio.Future[Place[_T]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Places(Generic[_T]):
    """Places in the order of preference; used on one event loop.

    Who waits longest is served first, with the first place that is free and that they have not tried.
    """

    def __init__(self, places: Sequence[Place[_T]]) -> None:
        self._places = tuple(places)
        self._waiters: deque[_Waiter[_T]] = deque()

    async def take(self, *, tried: AbstractSet[Place[_T]]) -> Place[_T] | None:
        """Wait for a place that is free and not in ``tried``; None where all were tried."""
        if not any(place not in tried for place in self._places):
            return None
        waiter = _Waiter(tried)
        self._waiters.append(waiter)
        self._serve()
        try:
            return await waiter.place
        except asyncio.CancelledError:
            if waiter.place.done() and not waiter.place.cancelled():
                self.give_back(waiter.place.result())
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def give_back(self, place: Place[_T]) -> None:
        """Say that a job of this place is over."""
        place.jobs -= 1
        self._serve()

    def leave_out(self, place: Place[_T]) -> None:
        """Say that the place failed: it is tried again later."""
        loop = asyncio.get_running_loop()
        place.failed(loop.time())
        rest_s = place.rests_until_s - loop.time()
        logger.warning("%s is left out for %.0f s", place.name, rest_s)
        # A little later, since a timer may come a moment too early.
        loop.call_later(max(0.0, rest_s) + 0.01, self._serve)

    def _serve(self) -> None:
        now_s = asyncio.get_running_loop().time()
        unserved: deque[_Waiter[_T]] = deque()
        while self._waiters:
            free = [place for place in self._places if place.is_free(now_s)]
            if not free:
                break
            waiter = self._waiters.popleft()
            if waiter.place.done():
                continue
            place = next((each for each in free if each not in waiter.tried), None)
            if place is None:
                unserved.append(waiter)
                continue
            place.jobs += 1
            waiter.place.set_result(place)
        self._waiters.extendleft(reversed(unserved))
