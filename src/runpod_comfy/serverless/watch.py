"""Watching one job: what it yields while it runs, and how it ends, as soon as either can be known.

Two requests work together. A long poll (``/status-sync``) is parked at RunPod and answers when the job ends;
``/stream`` is read while the job runs, since that brings images as they are made and also tells that a worker has
begun. Where an endpoint does not hold the long poll, or has no room for one more, ``/status`` is asked at intervals.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from runpod_comfy.errors import ApiError, JobExpired, NotFound, ProtocolError, RateLimited, RunpodComfyError
from runpod_comfy.serverless.api import FINAL_STATES, JobStatus
from runpod_comfy.serverless.exchange import NotSent
from runpod_comfy.serverless.retry import Backoff, is_transient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from runpod_comfy.serverless.api import EndpointApi, StreamAnswer
    from runpod_comfy.serverless.habits import EndpointHabits
    from runpod_comfy.serverless.parking import Place

__all__ = ["Pieces", "Update", "watch_job"]

logger = logging.getLogger(__name__)

LONG_POLL_S = 60.0
"""RunPod's SDKs wait up to 90 s; Cloudflare in front may cut a request at 100 s (unconfirmed for this API)."""

_UNKNOWN_JOB_GRACE_S = 5.0
_MAX_UNREADABLE = 6
_METHOD_NOT_ALLOWED = 405
_EARLY = 0.1
_HELD_S = 0.8  # an answer of /stream that took so long was held back for an output
_FEW = 50
_FIRST_READ_S = 0.3
_QUEUED_STATES = frozenset({"", "IN_QUEUE"})
_SPARE_POLL_S = 20.0  # results of /runsync are kept for 60 s, so even a job far back in the queue is asked about

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces(Generic[_T]):
    """What ``/stream`` gave: what was made of the outputs not read before, possibly nothing, and the job's state."""

    taken: list[_T]
    state: str


Update: TypeAlias = JobStatus | Pieces[_T]


async def watch_job(
    api: EndpointApi,
    job_id: str,
    *,
    habits: EndpointHabits,
    take: Callable[[list[Any]], _T],
    whole: Callable[[], bool] = lambda: False,
    read_failed: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Update[_T]]:
    """Yield what a job streams and each change of its state; ends after the final state and all pieces.

    Failures that pass by themselves are waited out for as long as the caller keeps asking.

    Args:
        api: The endpoint.
        job_id: The job.
        habits: What is known of the endpoint.
        take: Makes something of streamed outputs, in a thread, before their bytes are forgotten; must not raise.
        whole: Says whether everything is known to be here, so that nothing more need be read.
        read_failed: Called when a read of the stream failed that may have consumed what it should have brought.
        clock: Seconds from any zero, never going back.

    Raises:
        JobExpired: RunPod does not know the job (any more).
        ApiError: RunPod refused to answer, for example for a wrong key.
        ProtocolError: Its answers cannot be read, several times in a row.
    """
    watch = _Watch(
        api=api,
        job_id=job_id,
        habits=habits,
        take=take,
        whole=whole,
        read_failed=read_failed,
        clock=clock,
        started_s=clock(),
    )
    tasks = [asyncio.ensure_future(watch.guarded(part)) for part in (watch.follow_status, watch.follow_stream)]
    try:
        while (update := await watch.updates.get()) is not None:
            if isinstance(update, BaseException):
                raise update
            yield update
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Watch(Generic[_T]):
    api: EndpointApi
    job_id: str
    habits: EndpointHabits
    take: Callable[[list[Any]], _T]
    whole: Callable[[], bool]
    read_failed: Callable[[], None]
    clock: Callable[[], float]
    started_s: float
    # Nothing bounds it but the job itself: what was read is gone at RunPod, so it must go somewhere.
    updates: asyncio.Queue[Update[_T] | BaseException | None] = field(default_factory=asyncio.Queue)
    state: str = ""
    stream_state: str = ""
    # `ended`: the final status is known. `nudged`: the stream says that it soon will be. `near`: the job runs, or is
    # among those that run next, so its stream is worth reading.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    nudged: asyncio.Event = field(default_factory=asyncio.Event)
    near: asyncio.Event = field(default_factory=asyncio.Event)
    early_answers: int = 0

    async def guarded(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run one half; what it raises reaches whoever reads the updates."""
        try:
            await part()
        except Exception as exc:  # noqa: BLE001 - handed to the reader, not swallowed
            self.updates.put_nowait(exc)

    # -- the state -------------------------------------------------------------------------------------------------

    async def follow_status(self) -> None:
        backoff = Backoff(rng=self.habits.rng)
        unreadable = unknown = 0
        with self.habits.parking.place() as place:
            while not self.ended.is_set():
                try:
                    status = await self._ask(place)
                except RunpodComfyError as exc:
                    unreadable = unreadable + 1 if isinstance(exc, ProtocolError) else 0
                    unknown = unknown + 1 if isinstance(exc, NotFound) else 0
                    if isinstance(exc, NotFound):
                        if self._is_gone(unknown):
                            raise self._expired() from exc
                    elif not is_transient(exc) or unreadable >= _MAX_UNREADABLE:
                        raise
                    await self._pause(backoff, exc)
                    continue
                backoff.reset()
                unreadable = unknown = 0
                self._note(status)

    def _note(self, status: JobStatus) -> None:
        if status.state != self.state or status.final:
            self.state = status.state
            self.updates.put_nowait(status)
        if status.state not in _QUEUED_STATES:
            self.near.set()
        if status.final:
            self.ended.set()

    async def _ask(self, place: Place) -> JobStatus:
        """Return the job's status: from a long poll where the endpoint holds one, else after a wait of our own."""
        if self._has_long_poll:
            if not place.held.is_set():
                await _first_of(place.held, self.nudged, timeout_s=self.habits.status_pause_s(_SPARE_POLL_S))
            if place.held.is_set():
                self.near.set()
                return await self._long_poll(place)
            self.nudged.clear()
            return await self.api.status(self.job_id)
        self.near.set()
        self.habits.polling += 1
        try:
            await _first_of(self.nudged, timeout_s=self.habits.status_pause_s(self._polling_pause_s))
        finally:
            self.habits.polling -= 1
        status = await self.api.status(self.job_id)
        if not status.final:
            self.nudged.clear()
        return status

    @property
    def _has_long_poll(self) -> bool:
        return self.clock() >= self.habits.no_long_poll_until_s

    @property
    def _has_stream(self) -> bool:
        return self.clock() >= self.habits.no_stream_until_s

    @property
    def _polling_pause_s(self) -> float:
        age_s = self.clock() - self.started_s
        # Where the stream tells the end first, the status need only be asked now and then.
        longest_s = 5.0 if self._has_stream or self.state in _QUEUED_STATES else 0.5
        return min(longest_s, max(0.25, age_s / 10))

    async def _long_poll(self, place: Place) -> JobStatus:
        asked_s = self.clock()
        try:
            status = await self.api.status_sync(self.job_id, wait_s=LONG_POLL_S)
        except RateLimited:
            place.refused()
            raise
        except ApiError as exc:
            if not isinstance(exc, NotFound) and exc.status_code != _METHOD_NOT_ALLOWED:
                raise
            status = await self.api.status(self.job_id)
            self.habits.lacks_long_poll(
                self.api.endpoint_id, f"answers {exc.status_code} to /status-sync", self.clock()
            )
            return status
        if not status.final and status.state == self.state and self.clock() - asked_s < LONG_POLL_S * _EARLY:
            self.early_answers += 1
            if self.early_answers > 1:
                self.habits.lacks_long_poll(self.api.endpoint_id, "does not hold /status-sync", self.clock())
        else:
            self.early_answers = 0
            place.answered()
        return status

    def _is_gone(self, unknown: int) -> bool:
        """Whether so many answers of 404 in a row mean that there is no such job (any more)."""
        # A new job may not be known everywhere yet; one whose state was seen is gone, if it is not one bad answer.
        return self.clock() - self.started_s > _UNKNOWN_JOB_GRACE_S or (bool(self.state) and unknown > 1)

    def _expired(self) -> JobExpired:
        seen = f", which was {self.state} when last seen" if self.state else ""
        return JobExpired(
            f"RunPod does not know job {self.job_id} on endpoint {self.api.endpoint_id}{seen}. A result is kept for 30 "
            "minutes after the job's end (60 seconds after /runsync); a job that waits longer than its ttl, or is in "
            "the queue when somebody purges it, is removed. What arrived is in .partial; submit the rest again.",
            job_id=self.job_id,
            endpoint_id=self.api.endpoint_id,
        )

    # -- the stream ------------------------------------------------------------------------------------------------

    async def follow_stream(self) -> None:
        await self.near.wait()
        self.habits.streaming += 1
        try:
            await self._read_stream()
        finally:
            self.habits.streaming -= 1
        await self.ended.wait()
        self.updates.put_nowait(None)

    async def _read_stream(self) -> None:
        """Read until all is here, or nothing more will come."""
        backoff = Backoff(rng=self.habits.rng)
        interval_s = _FIRST_READ_S
        while self._has_stream and not self.whole():
            await _first_of(self.ended, timeout_s=self.habits.stream_pause_s(interval_s))
            ended = self.ended.is_set()
            asked_s = self.clock()
            try:
                async with self.habits.reading():
                    answer = await self.api.stream(self.job_id, self.take)
                self._tell(answer)
                if answer.broken:
                    raise answer.broken
            except NotFound:
                if await self._lacks_stream():
                    return
                continue
            except RunpodComfyError as exc:
                if not isinstance(exc, (NotSent, RateLimited)):
                    self.read_failed()
                if not is_transient(exc) or (ended and backoff.failures >= _MAX_UNREADABLE):
                    raise
                await self._pause(backoff, exc)
                continue
            backoff.reset()
            if ended and not answer.taken:
                return
            interval_s = self._next_interval_s(interval_s, answer, took_s=self.clock() - asked_s)
            if answer.state in FINAL_STATES:
                self.nudged.set()
                await self.ended.wait()

    def _tell(self, answer: StreamAnswer[_T]) -> None:
        if answer.taken or answer.state != self.stream_state:
            self.stream_state = answer.state
            self.updates.put_nowait(Pieces(taken=answer.taken, state=answer.state))

    def _next_interval_s(self, interval_s: float, answer: StreamAnswer[_T], *, took_s: float) -> float:
        if self.habits.streaming <= _FEW:  # with many, answers also wait for their turn
            self.habits.holds_stream = took_s >= _HELD_S or (self.habits.holds_stream and bool(answer.taken))
        if answer.taken:
            return _FIRST_READ_S
        longest_s = 3.0 if answer.state in _QUEUED_STATES else 1.0 if self._has_long_poll else 0.5
        return min(interval_s * 1.5, longest_s)

    async def _lacks_stream(self) -> bool:
        """Whether the endpoint has no stream: it says 404 to one of a job that it knows, and that is not new."""
        await _first_of(self.ended, timeout_s=1.0)
        if not self.state or (self.clock() - self.started_s < _UNKNOWN_JOB_GRACE_S and not self.ended.is_set()):
            return False
        self.habits.lacks_stream(self.api.endpoint_id, self.clock())
        return True

    async def _pause(self, backoff: Backoff, exc: RunpodComfyError) -> None:
        delay_s = backoff.next_s()
        level = logging.WARNING if backoff.failures == 3 else logging.DEBUG  # noqa: PLR2004 - said once, not each time
        logger.log(level, "job %s: %s Trying again.", self.job_id, exc, extra={"job_id": self.job_id})
        # After a 429 the pacer holds everybody back, and lets them through one by one.
        if not isinstance(exc, RateLimited):
            await asyncio.sleep(delay_s)


async def _first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of the events is set, or the time is over."""
    if any(event.is_set() for event in events):
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
