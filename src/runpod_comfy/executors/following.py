"""One job followed to its end: what RunPod brings, read and judged."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from runpod_comfy.dialects.native import NativeReader
from runpod_comfy.events import Started, Warned
from runpod_comfy.executors.outcome import judge
from runpod_comfy.results import Timings
from runpod_comfy.serverless.api import JobStatus
from runpod_comfy.serverless.watch import watch_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from runpod_comfy.events import Event
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.serverless.watch import Update

__all__ = ["follow_job"]

_FINAL_STATUS_GRACE_S = 0.5


async def follow_job(link: EndpointLink, job_id: str) -> AsyncGenerator[Event | Timings]:
    """Yield what a job does until it has ended and everything is here.

    Raises:
        JobError: It ended otherwise (see ``outcome.judge``); the partial result is for the caller to add.
    """
    reader = NativeReader()
    status: JobStatus | None = None
    started = False
    async with aclosing(_updates(link, job_id, reader)) as updates:
        async for update in updates:
            if not started and update.state not in {"IN_QUEUE", ""}:
                started = True
                yield _started(update)
            if isinstance(update, JobStatus):
                status = update
            else:
                for event in _read(reader, update.outputs):
                    yield event
    if status is not None:
        for event in _fill_from_aggregate(reader, status.output):
            yield event
        yield Timings(queue_s=status.delay_s, execution_s=status.execution_s, gpu_s=reader.gpu_s)
    error = judge(job_id, status, reader)
    if error is not None:
        error.endpoint_id = link.api.endpoint_id
        raise error
    if reader.outputs == 0:
        yield Warned(message="The job ended well and made no output. Does the workflow have a node that saves?")


async def _updates(link: EndpointLink, job_id: str, reader: NativeReader) -> AsyncGenerator[Update]:
    """Yield RunPod's updates, until the end or, with the last line here, a moment for RunPod's figures."""
    ended = False
    async with aclosing(watch_job(link.api, job_id, habits=link.habits)) as updates:
        while not (reader.complete and ended):
            try:
                async with asyncio.timeout(_FINAL_STATUS_GRACE_S if reader.complete else None):
                    update = await anext(updates)
            except (StopAsyncIteration, TimeoutError):
                return
            ended = ended or (isinstance(update, JobStatus) and update.final)
            yield update


def _started(update: Update) -> Started:
    if isinstance(update, JobStatus):
        return Started(worker_id=update.worker_id, queue_s=update.delay_s)
    return Started()


def _read(reader: NativeReader, outputs: list[Any]) -> Iterator[Event]:
    for piece in outputs:
        yield from reader.feed(piece)


def _fill_from_aggregate(reader: NativeReader, output: Any) -> Iterator[Event]:
    """Read again, from ``/status``, what ``/stream`` did not bring; a worker keeps it there only when told to."""
    if isinstance(output, list) and not reader.complete and (reader.numbered or not reader.lines):
        reader.start_over()
        yield from _read(reader, output)
