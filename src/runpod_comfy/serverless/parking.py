"""Whose long poll is held at RunPod: there is room for fewer of them than jobs may be in flight.

RunPod's queue serves the oldest job first, so places go to jobs in the order in which they were submitted, and a job
keeps its place until it has ended: then the jobs that run, and those that run next, are the ones whose end is known at
once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

__all__ = ["MAX_PARKED", "Parking", "Place"]

MAX_PARKED = 300
"""Long polls held at once for an endpoint: RunPod publishes a limit of 400 concurrent ``status`` requests."""

_LEAST_PARKED = 8


class Parking:
    """The places of one endpoint."""

    def __init__(self, places: int = MAX_PARKED) -> None:
        self._most = places
        self._places = places
        self._taken = 0
        self._waiting: deque[Place] = deque()

    def place(self) -> Place:
        """Return a place to come; use it with ``with``."""
        return Place(self)

    def join(self, place: Place, *, first: bool = False) -> None:
        """Wait for a place."""
        (self._waiting.appendleft if first else self._waiting.append)(place)
        self._hand_out()

    def leave(self, place: Place) -> None:
        """Give a place back, or wait no longer."""
        if place.held.is_set():
            place.held.clear()
            self._taken -= 1
            self._hand_out()
        else:
            self._waiting.remove(place)

    def refused(self, place: Place) -> None:
        """Take note that RunPod held too many already (429): there are fewer places from now on."""
        self._places = max(_LEAST_PARKED, min(self._places, self._taken) * 3 // 4)
        self.leave(place)
        self.join(place, first=True)

    def answered(self) -> None:
        """Take note that RunPod held a poll to its end: one more may be tried."""
        self._places = min(self._most, self._places + 1)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._taken < self._places:
            self._taken += 1
            self._waiting.popleft().held.set()


class Place:
    """One job's place: ``held`` is set as long as it may keep a long poll parked."""

    def __init__(self, parking: Parking) -> None:
        self._parking = parking
        self.held = asyncio.Event()

    def refused(self) -> None:
        """Give it up for now, since RunPod said 429."""
        self._parking.refused(self)

    def answered(self) -> None:
        """Take note that a long poll was held to its end."""
        self._parking.answered()

    def __enter__(self) -> Self:
        self._parking.join(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._parking.leave(self)
