"""One job followed to its end: what RunPod brings, read and judged."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runpod_comfy.dialects.answer import AnswerReader
from runpod_comfy.events import Started, Warned
from runpod_comfy.executors.elsewhere import with_fetched_outputs
from runpod_comfy.executors.outcome import judge
from runpod_comfy.results import OutputElsewhere, Timings
from runpod_comfy.serverless.api import JobStatus
from runpod_comfy.serverless.watch import watch_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from runpod_comfy.dialects.base import Heard
    from runpod_comfy.events import Event
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.serverless.watch import Update

__all__ = ["follow_job"]

_FINAL_STATUS_GRACE_S = 0.5


async def follow_job(
    link: EndpointLink, job_id: str, *, reader: AnswerReader | None = None, shelf: Shelf | None = None
) -> AsyncGenerator[Event | Timings]:
    """Yield what a job does until it has ended and everything is here, outputs in a bucket included.

    Args:
        link: The endpoint; it is noted there who answered.
        job_id: The job.
        reader: A fresh reader of its answer; None takes one that knows nothing of the request.
        shelf: Where files go as they arrive, or None to keep them in memory.

    Raises:
        JobError: It ended otherwise (see ``outcome.judge``); the partial result is for the caller to add.
    """
    reader = reader or AnswerReader()
    async with aclosing(with_fetched_outputs(_follow(link, job_id, reader, shelf), job_id, shelf=shelf)) as events:
        async for event in events:
            yield event


async def _follow(
    link: EndpointLink, job_id: str, reader: AnswerReader, shelf: Shelf | None
) -> AsyncGenerator[Heard | Timings]:
    status: JobStatus | None = None
    started = False
    async with aclosing(_updates(link, job_id, reader, shelf)) as updates:
        async for update in updates:
            if not started and update.state not in {"IN_QUEUE", ""}:
                started = True
                yield _started(update)
            if isinstance(update, JobStatus):
                status = update
            else:
                for read in update.taken:
                    for event in read.told():
                        yield event
    if status is not None:
        rest = await asyncio.to_thread(_read, lambda: reader.finish(status.output, status.error), reader, shelf)
        for event in rest.told():
            yield event
        yield Timings(queue_s=status.delay_s, execution_s=status.execution_s, gpu_s=reader.gpu_s)
    _remember(link, reader)
    error = judge(job_id, status, reader)
    if error is not None:
        error.endpoint_id = link.api.endpoint_id
        raise error
    if reader.outputs == 0:
        yield Warned(message="The job ended well and made no output. Does the workflow have a node that saves?")


@dataclass(slots=True)
class _Read:
    """What some outputs said, what kept the next one from being read, if anything did, and whether all is here now."""

    events: list[Heard] = field(default_factory=list)
    error: Exception | None = None
    complete: bool = False

    def told(self) -> Iterator[Heard]:
        """Yield the events, then raise the error."""
        yield from self.events
        if self.error is not None:
            raise self.error


def _read(bring: Callable[[], Iterator[Heard]], reader: AnswerReader, shelf: Shelf | None) -> _Read:
    """Decode what the reader brings and put away what they hold; for a thread, one call at a time for each job."""
    read = _Read()
    try:
        for event in bring():
            if shelf is None or isinstance(event, OutputElsewhere):
                read.events.append(event)
            else:
                read.events += shelf.put(event)
    except Exception as exc:  # noqa: BLE001 - told after the events that came before it
        read.error = exc
    read.complete = reader.complete
    return read


def _remember(link: EndpointLink, reader: AnswerReader) -> None:
    if reader.kind is not None:
        link.habits.worker = reader.kind
        if reader.outputs:  # else nothing told where they go
            link.habits.uses_bucket = reader.uses_bucket


async def _updates(
    link: EndpointLink, job_id: str, reader: AnswerReader, shelf: Shelf | None
) -> AsyncGenerator[Update[_Read]]:
    """Yield RunPod's updates, until the end or, with the last line here, a moment for RunPod's figures."""
    ended = complete = False
    watch = watch_job(
        link.api,
        job_id,
        habits=link.habits,
        take=lambda outputs: _read(lambda: reader.feed(outputs), reader, shelf),
        whole=lambda: reader.complete,
    )
    async with aclosing(watch) as updates:
        while not (complete and ended):
            try:
                async with asyncio.timeout(_FINAL_STATUS_GRACE_S if complete else None):
                    update = await anext(updates)
            except (StopAsyncIteration, TimeoutError):
                return
            if isinstance(update, JobStatus):
                ended = ended or update.final
            else:
                complete = complete or any(read.complete for read in update.taken)
            yield update


def _started(update: Update[_Read]) -> Started:
    if isinstance(update, JobStatus):
        return Started(worker_id=update.worker_id, queue_s=update.delay_s)
    return Started()
