"""Watching one job: what it yields while it runs, and how it ends, as soon as either can be known.

Two requests work together. A long poll (``/status-sync``) is parked at RunPod and answers when the job ends;
``/stream`` is read while the job runs, since that brings images as they are made and also tells that a worker has
begun. Where an endpoint does not hold the long poll, ``/status`` is asked at a pace that grows with the job's age.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from runpod_comfy.errors import ApiError, JobExpired, NotFound, ProtocolError, RateLimited, RunpodComfyError
from runpod_comfy.serverless.api import FINAL_STATES, JobStatus
from runpod_comfy.serverless.retry import Backoff, is_transient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from runpod_comfy.serverless.api import EndpointApi

__all__ = ["EndpointHabits", "Pieces", "Update", "watch_job"]

logger = logging.getLogger(__name__)

LONG_POLL_S = 60.0
"""RunPod's SDKs wait up to 90 s; Cloudflare in front may cut a request at 100 s (unconfirmed for this API)."""

MAX_PARKED = 300
"""Long polls held at once for an endpoint: RunPod publishes a limit of 400 concurrent ``status`` requests."""

_REMEMBERED_S = 3600.0
_UNKNOWN_JOB_GRACE_S = 5.0
_MAX_UNREADABLE = 6
_METHOD_NOT_ALLOWED = 405
_EARLY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What ``/stream`` gave: the outputs not read before, possibly none, and the job's state."""

    outputs: list[Any]
    state: str


Update: TypeAlias = JobStatus | Pieces


@dataclass(slots=True)
class EndpointHabits:
    """What an endpoint was seen to do, shared by all its jobs.

    Attributes:
        no_long_poll_until_s: Until then (monotonic clock) ``/status-sync`` is not tried again.
        parked: Long polls held at the moment.
        jobs: Jobs watched at the moment.
    """

    no_long_poll_until_s: float = 0.0
    parked: int = 0
    jobs: int = 0

    def crowd(self) -> float:
        """Return the factor by which each job asks less often, since all share one rate limit."""
        return max(1.0, self.jobs / 100)


async def watch_job(
    api: EndpointApi, job_id: str, *, habits: EndpointHabits, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[Update]:
    """Yield what a job streams and each change of its state; ends after the final state and all pieces.

    Failures that pass by themselves are waited out for as long as the caller keeps asking.

    Raises:
        JobExpired: RunPod does not know the job (any more).
        ApiError: RunPod refused to answer, for example for a wrong key.
        ProtocolError: Its answers cannot be read, several times in a row.
    """
    watch = _Watch(api=api, job_id=job_id, habits=habits, clock=clock)
    habits.jobs += 1
    tasks = [asyncio.ensure_future(watch.guarded(part)) for part in (watch.follow_status, watch.follow_stream)]
    try:
        while (update := await watch.updates.get()) is not None:
            if isinstance(update, BaseException):
                raise update
            yield update
    finally:
        habits.jobs -= 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Watch:
    api: EndpointApi
    job_id: str
    habits: EndpointHabits
    clock: Callable[[], float]
    updates: asyncio.Queue[Update | BaseException | None] = field(default_factory=asyncio.Queue)
    state: str = ""
    # `ended`: the final status is known. `nudged`: the stream says that it soon will be.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    nudged: asyncio.Event = field(default_factory=asyncio.Event)
    early_answers: int = 0

    async def guarded(self, part: Callable[[], Any]) -> None:
        """Run one half; what it raises reaches whoever reads the updates."""
        try:
            await part()
        except Exception as exc:  # noqa: BLE001 - handed to the reader, not swallowed
            self.updates.put_nowait(exc)

    # -- the state -------------------------------------------------------------------------------------------------

    async def follow_status(self) -> None:
        started_s = self.clock()
        backoff = Backoff()
        unreadable = 0
        while True:
            try:
                status = await self._ask(started_s)
            except RunpodComfyError as exc:
                unreadable = unreadable + 1 if isinstance(exc, ProtocolError) else 0
                if isinstance(exc, NotFound):
                    if self.clock() - started_s > _UNKNOWN_JOB_GRACE_S:
                        raise self._expired() from exc
                elif not is_transient(exc) or unreadable >= _MAX_UNREADABLE:
                    raise
                await self._pause(backoff, exc)
                continue
            backoff.reset()
            unreadable = 0
            if status.state != self.state or status.final:
                self.state = status.state
                self.updates.put_nowait(status)
            if status.final:
                self.ended.set()
                return

    async def _ask(self, started_s: float) -> JobStatus:
        """Return the job's status: from a long poll where the endpoint holds one, else after a wait of our own."""
        if self.clock() >= self.habits.no_long_poll_until_s and self.habits.parked < MAX_PARKED:
            self.habits.parked += 1
            try:
                return await self._long_poll()
            finally:
                self.habits.parked -= 1
        age_s = self.clock() - started_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(5.0, max(0.25, age_s / 10)) * self.habits.crowd()):
                await self.nudged.wait()
        status = await self.api.status(self.job_id)
        if not status.final:
            self.nudged.clear()
        return status

    async def _long_poll(self) -> JobStatus:
        asked_s = self.clock()
        try:
            status = await self.api.status_sync(self.job_id, wait_s=LONG_POLL_S)
        except ApiError as exc:
            if not isinstance(exc, NotFound) and exc.status_code != _METHOD_NOT_ALLOWED:
                raise
            status = await self.api.status(self.job_id)
            self._remember(f"answers {exc.status_code} to /status-sync")
            return status
        if not status.final and status.state == self.state and self.clock() - asked_s < LONG_POLL_S * _EARLY:
            self.early_answers += 1
            if self.early_answers > 1:
                self._remember("does not hold /status-sync")
        else:
            self.early_answers = 0
        return status

    def _remember(self, what: str) -> None:
        logger.info("endpoint %s %s; asking /status instead", self.api.endpoint_id, what)
        self.habits.no_long_poll_until_s = self.clock() + _REMEMBERED_S

    def _expired(self) -> JobExpired:
        return JobExpired(
            f"RunPod does not know job {self.job_id} on endpoint {self.api.endpoint_id}. A result is kept for 30 "
            "minutes after the job's end (60 seconds after /runsync), and a job that waits longer than its ttl is "
            "removed.",
            job_id=self.job_id,
            endpoint_id=self.api.endpoint_id,
        )

    # -- the stream ------------------------------------------------------------------------------------------------

    async def follow_stream(self) -> None:
        backoff = Backoff()
        interval_s = 0.2
        seen_state = ""
        while True:
            ended = self.ended.is_set()
            if not ended:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s * self.habits.crowd()):
                        await self.ended.wait()
                ended = self.ended.is_set()
            try:
                state, outputs = await self.api.stream(self.job_id)
            except NotFound:
                # No stream here, or no longer: the status says the rest.
                await self.ended.wait()
                break
            except RunpodComfyError as exc:
                if not is_transient(exc) or (ended and backoff.failures >= _MAX_UNREADABLE):
                    raise
                await self._pause(backoff, exc)
                continue
            backoff.reset()
            if outputs or state != seen_state:
                seen_state = state
                self.updates.put_nowait(Pieces(outputs=outputs, state=state))
            if outputs:
                interval_s = 0.05
                continue
            if ended:
                break
            if state in FINAL_STATES:
                self.nudged.set()
                await self.ended.wait()
                # Pieces may have come between that answer and the end.
                continue
            interval_s = min(interval_s * 1.5, 3.0 if state == "IN_QUEUE" else 1.0)
        self.updates.put_nowait(None)

    async def _pause(self, backoff: Backoff, exc: RunpodComfyError) -> None:
        delay_s = backoff.next_s(at_least_s=exc.retry_after_s if isinstance(exc, RateLimited) else None)
        level = logging.WARNING if backoff.failures == 3 else logging.DEBUG  # noqa: PLR2004 - said once, not each time
        logger.log(level, "job %s: %s Trying again in %.1f s.", self.job_id, exc, delay_s)
        await asyncio.sleep(delay_s)
