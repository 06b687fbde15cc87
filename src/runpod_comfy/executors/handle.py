"""A handle of a job that runs on by itself."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeAlias

from runpod_comfy import _loop
from runpod_comfy.errors import JobError, RunpodComfyError, WaitTimeout
from runpod_comfy.events import Finished, Queued
from runpod_comfy.executors.cancelling import cancel_job
from runpod_comfy.executors.collect import Collector
from runpod_comfy.executors.tracing import Trace
from runpod_comfy.results import Timings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from runpod_comfy.events import Event
    from runpod_comfy.results import WorkflowResult
    from runpod_comfy.serverless.connect import EndpointLink

    Begin: TypeAlias = Callable[[], Awaitable[AsyncGenerator[Event | Timings]]]

__all__ = ["WorkflowHandle"]


class WorkflowHandle:
    """One job on a RunPod endpoint: its id, state, events and result; leaving it alone leaves the job running.

    The job's stream is read once, by this handle, from the first call of ``events`` or ``result`` on; both may be
    called as often as wanted, and each sees everything from the beginning.

    Attributes:
        job_id: RunPod's id of the job; ``executor.attach(job_id)`` makes a new handle of it in another process.
        endpoint_id: The endpoint's id.
        seeds: The seed of each batch, where this process submitted the job.
    """

    def __init__(
        self,
        job_id: str,
        *,
        endpoint_id: str,
        connect: Callable[[], Awaitable[EndpointLink]],
        begin: Begin,
        seeds: tuple[int, ...] = (),
        submission_id: str = "",
    ) -> None:
        self.job_id = job_id
        self.endpoint_id = endpoint_id
        self.seeds = seeds
        self._connect = connect
        self._begin = begin
        self._log = _EventLog(submission_id)

    def __repr__(self) -> str:
        return f"WorkflowHandle(job_id={self.job_id!r}, endpoint={self.endpoint_id!r})"

    def state(self) -> str:
        """Ask RunPod for the job's state, such as ``IN_QUEUE`` or ``COMPLETED``."""
        return _loop.run_sync(self._state)

    def state_async(self) -> asyncio.Future[str]:
        """Ask RunPod for the job's state, such as ``IN_QUEUE`` or ``COMPLETED``."""
        return _loop.run_async(self._state)

    def events(self) -> Iterator[Event]:
        """Yield what the job did and does, ``Finished`` last."""
        return _loop.iterate_sync(self._events)

    def events_async(self) -> AsyncIterator[Event]:
        """Yield what the job did and does, ``Finished`` last."""
        return _loop.iterate_async(self._events)

    def result(self, *, timeout: float | None = None) -> WorkflowResult:
        """Wait for the job's end and return its images.

        Args:
            timeout: Seconds after which ``WaitTimeout`` is raised; the job runs on.
        """
        return _loop.run_sync(lambda: self._result(timeout))

    def result_async(self, *, timeout: float | None = None) -> asyncio.Future[WorkflowResult]:
        """Wait for the job's end and return its images.

        Args:
            timeout: Seconds after which ``WaitTimeout`` is raised; the job runs on.
        """
        return _loop.run_async(lambda: self._result(timeout))

    def cancel(self) -> None:
        """Cancel the job, waiting or running."""
        _loop.run_sync(self._cancel)

    def cancel_async(self) -> asyncio.Future[None]:
        """Cancel the job, waiting or running."""
        return _loop.run_async(self._cancel)

    async def _state(self) -> str:
        return (await (await self._connect()).api.status(self.job_id)).state

    async def _cancel(self) -> None:
        await cancel_job(await self._connect(), self.job_id)

    async def _events(self) -> AsyncGenerator[Event]:
        self._log.follow(self._begin, self.job_id)
        async with aclosing(self._log.replay()) as events:
            async for event in events:
                yield event

    async def _result(self, timeout_s: float | None) -> WorkflowResult:
        try:
            async with asyncio.timeout(timeout_s), aclosing(self._events()) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        return event.result
        except TimeoutError as exc:
            if isinstance(exc, RunpodComfyError):
                raise
            raise WaitTimeout(
                f"Job {self.job_id} has not finished after {timeout_s:g} s and runs on. Ask again, or cancel it.",
                job_id=self.job_id,
                endpoint_id=self.endpoint_id,
                partial=self._log.collector.result(),
            ) from exc
        raise JobError(f"Job {self.job_id} ended without a result.", job_id=self.job_id)


class _EventLog:
    """Everything a job did, kept while it is read in the background, for any number of readers."""

    def __init__(self, submission_id: str) -> None:
        self.collector = Collector(submission_id=submission_id)
        self._events: list[Event] = []
        self._error: BaseException | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ended = False
        self._news = asyncio.Event()

    def follow(self, begin: Begin, job_id: str) -> None:
        """Begin to read the job, once."""
        if self._reading is None:
            self._add(Queued(job_id=job_id))
            self._reading = _loop.lasting(lambda: self._read(begin, Trace("follow")))

    async def replay(self) -> AsyncGenerator[Event]:
        """Yield all events from the first on, and the error there was."""
        index = 0
        while self._reading is not None:
            news = self._news
            while index < len(self._events):
                yield self._events[index]
                index += 1
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            await news.wait()

    def _add(self, event: Event) -> None:
        self.collector.add(event)
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _read(self, begin: Begin, trace: Trace) -> None:
        started_s = time.monotonic()
        try:
            with trace:
                trace.add(self._events[0])
                async with aclosing(await begin()) as events:
                    async for event in events:
                        trace.add(event)
                        if isinstance(event, Timings):
                            self.collector.add(event)
                        else:
                            self._add(event)
                finished = Finished(result=self.collector.result(total_s=time.monotonic() - started_s))
                trace.add(finished)
            self._add(finished)
        except BaseException as exc:
            if isinstance(exc, JobError):
                exc.partial = self.collector.result()
            self._error = exc
            if not isinstance(exc, Exception):
                raise
        finally:
            self._ended = True
            self._wake()
