"""A submission carried out on an endpoint, in as many jobs as it takes, told as if it were one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runpod_comfy.dialects.answer import AnswerReader
from runpod_comfy.dialects.names import DistinctNames
from runpod_comfy.dialects.worker_comfyui_request import refuse_directories
from runpod_comfy.errors import JobFailed, ProtocolError
from runpod_comfy.events import OutputReady, Warned
from runpod_comfy.executors.merging import merged
from runpod_comfy.executors.parts import as_of_the_whole, batches_of
from runpod_comfy.executors.plan import plan_jobs
from runpod_comfy.executors.rerun import Following, rerunning
from runpod_comfy.results import OutputFile, Timings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.dialects.base import WorkerKind
    from runpod_comfy.events import Event
    from runpod_comfy.executors.accepting import Desk
    from runpod_comfy.executors.rerun import Prepare
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.submission import Submission

__all__ = ["Jobs"]

_SENT_AT_ONCE = 2  # each body holds the photos once more


@dataclass(slots=True)
class Jobs:
    """What one submission's jobs have in common.

    Attributes:
        desk: The endpoint, and what was asked for.
        place: What the endpoint is called in results.
        prepare: Prepares the submission once more, where batches of it were lost; None leaves a loss an error.
        max_batches_per_job: The caller's own bound.
        shelf: Where files go as they arrive.
    """

    desk: Desk
    place: str
    prepare: Prepare | None = None
    max_batches_per_job: int | None = None
    shelf: Shelf | None = None
    _names: DistinctNames = field(default_factory=DistinctNames)
    _timings: Timings = field(default_factory=Timings)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_SENT_AT_ONCE))

    async def run(self, submission: Submission, batches: range | None = None) -> AsyncGenerator[Event | Timings]:
        """Run a submission, or some of its batches, and yield what happens; leaving early cancels what runs.

        Raises:
            RunpodComfyError: A job failed; of several, all others have run to their ends.
        """
        batches = range(submission.batch_count) if batches is None else batches
        worker = self.desk.worker or self.desk.link.habits.worker
        plan = plan_jobs(
            batches_of(submission, batches),
            worker=worker,
            max_batches_per_job=self.max_batches_per_job,
            uses_bucket=self.desk.link.habits.uses_bucket,
        )
        runs = [self._run_job(submission, batches[part.start : part.stop], worker) for part in plan.jobs]
        del submission
        for message in plan.warnings:
            yield Warned(message=message)
        async with aclosing(runs[0] if len(runs) == 1 else merged(runs)) as run:
            async for event in run:
                yield event

    async def _run_job(
        self, submission: Submission, batches: range, worker: WorkerKind | None
    ) -> AsyncGenerator[Event | Timings]:
        """Run some batches as one job; what a worker that was not known leaves undone is done in further ones."""
        batch_count = submission.batch_count
        async with self._turns:
            part = batches_of(submission, batches)
            if batches.start:  # the ledger has a page for each job
                part = replace(part, submission_id=f"{submission.submission_id}-{batches.start}")
            job = await self.desk.submit(part)
            del part
        # Photos are not held while a job runs, unless there may be more to send.
        whole = submission if worker is None else None
        del submission
        reader = AnswerReader(job.layout, batch_count=None if whole else len(batches))
        following = Following(
            link=self.desk.link,
            shelf=self.shelf,
            place=self.place,
            again=None if self.prepare is None else rerunning(self.desk, job, prepare=self.prepare),
            queue_timeout_s=self.desk.request.queue_timeout_s,
        )
        try:
            async with aclosing(following.events(job, reader)) as events:
                async for event in events:
                    told = as_of_the_whole(event, first=batches.start, batch_count=batch_count)
                    yield self._added_up(told) if isinstance(told, Timings) else self._renamed(told)
        except JobFailed as exc:
            self._check_kind(reader.kind, job.job_id, after=exc)
            if whole is not None and reader.kind == "worker-comfyui":
                refuse_directories(whole)  # then that is why
            raise
        self._check_kind(reader.kind, job.job_id)
        if whole is None or reader.kind in {None, "native"} or len(batches) == 1:
            return
        # It knows nothing of batches and has run the first one: the others were neither run nor paid for.
        yield Warned(
            message=f"The endpoint turned out to run {reader.kind}, which has run one of {len(batches)} batches: the "
            "others follow in further jobs. It is known from now on."
        )
        async with aclosing(self.run(whole, batches[1:])) as run:
            async for event in run:
                yield event

    def _check_kind(self, seen: WorkerKind | None, job_id: str, *, after: JobFailed | None = None) -> None:
        """Refuse to go on where the caller said otherwise than what answered."""
        if self.desk.worker is None or seen in {None, self.desk.worker}:
            return
        if after is None and "native" not in {self.desk.worker, seen}:
            return  # versions of one worker, and this one gave what was asked for
        raise ProtocolError(
            f"worker={self.desk.worker!r} was given, and the endpoint's answer to job {job_id} is that of {seen!r}. "
            f"Pass worker={seen!r}, or worker='auto'." + (f" {after}" if after else ""),
            job_id=job_id,
        ) from after

    def _added_up(self, timings: Timings) -> Timings:
        """Return what all jobs so far have taken: each is paid for."""
        self._timings = Timings(
            queue_s=timings.queue_s if self._timings.queue_s is None else self._timings.queue_s,
            execution_s=_sum(self._timings.execution_s, timings.execution_s),
            gpu_s=_sum(self._timings.gpu_s, timings.gpu_s),
        )
        return self._timings

    def _renamed(self, event: Event) -> Event:
        """Return the event with a name that no other output of the submission has, whichever job made it."""
        if not isinstance(event, OutputReady) or not isinstance(event.output, OutputFile):
            return event
        output = event.output
        name = self._names.name_for(output.name, output.subfolder)
        return event if name == output.name else OutputReady(output=output.but(name=name))


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one + (other or 0.0)
