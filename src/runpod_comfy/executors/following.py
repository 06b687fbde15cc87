"""One job followed to its end: what RunPod brings, read and judged."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runpod_comfy.dialects.answer import AnswerReader
from runpod_comfy.errors import JobExpired
from runpod_comfy.events import Started, Waiting, Warned
from runpod_comfy.executors.elsewhere import with_fetched_outputs
from runpod_comfy.executors.filing import Filing
from runpod_comfy.executors.outcome import NO_TERMS, judge, judge_expired
from runpod_comfy.results import Timings
from runpod_comfy.serverless.api import JobStatus
from runpod_comfy.serverless.watch import watch_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from runpod_comfy.dialects.base import Heard
    from runpod_comfy.events import Event
    from runpod_comfy.executors.filing import Filed
    from runpod_comfy.executors.outcome import JobTerms
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.serverless.watch import Update

__all__ = ["follow_job"]

_FINAL_STATUS_GRACE_S = 0.5
_LOST_REPORT_GRACE_S = 30.0
"""How long a job that the worker has ended may still run by RunPod's word: its report may be lost, and never come."""


async def follow_job(
    link: EndpointLink,
    job_id: str,
    *,
    reader: AnswerReader | None = None,
    filing: Filing | None = None,
    terms: JobTerms = NO_TERMS,
) -> AsyncGenerator[Event | Timings]:
    """Yield what a job does until it has ended and everything is here, outputs in a bucket included.

    Args:
        link: The endpoint; it is noted there who answered.
        job_id: The job.
        reader: A fresh reader of its answer; None takes one that knows nothing of the request.
        filing: Where what arrives goes; None keeps it in memory.
        terms: What was asked for.

    Raises:
        JobError: It ended otherwise (see ``outcome.judge``); the partial result is for the caller to add.
    """
    reader, filing = reader or AnswerReader(), filing or Filing()
    if filing.record is not None:
        reader.resume(await asyncio.to_thread(filing.pick_up))
        if reader.complete:
            return  # an earlier reader had everything, and was killed before it could say so
    followed = _follow(link, job_id, reader, filing, terms)
    try:
        async with aclosing(with_fetched_outputs(followed, job_id, filing=filing)) as events:
            async for event in events:
                yield event
    except JobExpired as exc:
        if (error := judge_expired(exc, reader, terms)) is not None:
            raise error from exc.__cause__


async def _follow(
    link: EndpointLink, job_id: str, reader: AnswerReader, filing: Filing, terms: JobTerms
) -> AsyncGenerator[Heard | Timings]:
    status: JobStatus | None = None
    told = _Told()
    async with aclosing(_updates(link, job_id, reader, filing, read_failed=told.read_failed)) as updates:
        async for update in updates:
            for event in told.of_state(update):
                yield event
            if isinstance(update, JobStatus):
                status = update
                continue
            for heard in (heard for read in update.taken for heard in read.told()):
                yield heard
    if status is not None:
        rest = await asyncio.to_thread(_read, lambda: reader.finish(status.output, status.error), reader, filing)
        for heard in rest.told():
            yield heard
        await filing.ended(status)
        yield Timings(queue_s=status.delay_s, execution_s=status.execution_s, gpu_s=reader.gpu_s)
    _remember(link, reader)
    if told.reads_failed and link.habits.worker in {None, "native"}:  # the others' answers are not read away
        terms = replace(terms, read_before=True)
    error = judge(job_id, status, reader, terms)
    if error is not None:
        error.endpoint_id = link.api.endpoint_id
        raise error
    if reader.outputs == 0 and not reader.arrived:
        yield Warned(message="The job ended well and made no output. Does the workflow have a node that saves?")


def _read(bring: Callable[[], Iterator[Heard]], reader: AnswerReader, filing: Filing) -> Filed:
    """Decode what the reader brings and put away what they hold; for a thread, one call at a time for each job."""
    filed = filing.file(bring(), reader.arrived)
    filed.complete = reader.complete
    return filed


def _remember(link: EndpointLink, reader: AnswerReader) -> None:
    if reader.kind is not None:
        link.habits.worker = reader.kind
        if reader.outputs:  # else nothing told where they go
            link.habits.uses_bucket = reader.uses_bucket


async def _updates(
    link: EndpointLink, job_id: str, reader: AnswerReader, filing: Filing, *, read_failed: Callable[[], None]
) -> AsyncGenerator[Update[Filed]]:
    """Yield RunPod's updates, until the end or, with the last line here, a moment for RunPod's figures."""
    ended = complete = False
    watch = watch_job(
        link.api,
        job_id,
        habits=link.habits,
        take=lambda outputs: _read(lambda: reader.feed(outputs), reader, filing),
        whole=lambda: reader.complete,
        read_failed=read_failed,
        clock=asyncio.get_running_loop().time,
    )
    async with aclosing(watch) as updates:
        while not (complete and ended):
            try:
                async with asyncio.timeout(
                    _FINAL_STATUS_GRACE_S if complete else _LOST_REPORT_GRACE_S if reader.done else None
                ):
                    update = await anext(updates)
            except (StopAsyncIteration, TimeoutError):
                return
            if isinstance(update, JobStatus):
                ended = ended or update.final
            else:
                complete = complete or any(read.complete for read in update.taken)
            yield update


@dataclass(slots=True)
class _Told:
    """What was said of a job's state, so that each change is said once; and whether reads of its stream failed."""

    started: bool = False
    restarts: int = 0
    reads_failed: int = 0

    def read_failed(self) -> None:
        """Remember that pieces may have been taken from the stream and lost."""
        self.reads_failed += 1

    def of_state(self, update: Update[Filed]) -> Iterator[Event]:
        """Yield what an update's state adds to what was said."""
        queued = update.state == "IN_QUEUE"
        if not self.started and not queued and update.state:
            self.started = True
            if isinstance(update, JobStatus):
                yield Started(worker_id=update.worker_id, queue_s=update.delay_s)
            else:
                yield Started()
        elif self.started and queued:
            self.started = False
            self.restarts += 1
            again = "" if self.restarts == 1 else f", for the {self.restarts}th time: it may crash on this very job"
            yield Waiting(
                reason="restarted",
                message=f"The worker that had the job is gone, and RunPod has queued it again{again}.",
                waited_s=0.0,
            )
