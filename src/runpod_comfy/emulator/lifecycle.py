"""How jobs and workers move from state to state, by themselves as time passes or because somebody asked."""

from __future__ import annotations

import heapq
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from runpod_comfy.emulator.jobs import JobState
from runpod_comfy.emulator.records import WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_comfy.emulator.records import EndpointRecord, JobRecord

__all__ = ["CLOCK", "Lifecycle", "Listener", "Topic"]

logger = logging.getLogger(__name__)


class Topic(NamedTuple):
    """What has changed.

    Attributes:
        kind: ``job`` (state or pieces), ``queue`` (there may be a job to take), ``stop`` (a worker has jobs to stop)
            or ``clock`` (the next deadline is earlier).
        endpoint_id: The endpoint.
        key: The job or the worker; empty for ``queue``.
    """

    kind: str
    endpoint_id: str = ""
    key: str = ""


CLOCK: Final = Topic("clock")
Listener: TypeAlias = "Callable[[Topic], None]"


class Lifecycle:
    """All records, the deadlines that lie ahead of them, and who is told of changes.

    Args:
        clock: Seconds from any zero, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.endpoints: dict[str, EndpointRecord] = {}
        self._listeners: list[Listener] = []
        # (when, tie-breaker, endpoint, job or worker, whether it is a job). Entries are never removed early: what is
        # due is decided from the job or worker itself.
        self._deadlines: list[tuple[float, int, str, str, bool]] = []
        self._deadline_count = 0

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` during each change; return what ends this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tick(self) -> None:
        """Let everything happen that is due by now."""
        now = self.clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, endpoint_id, key, is_job = heapq.heappop(self._deadlines)
            endpoint = self.endpoints[endpoint_id]
            if is_job and key in endpoint.jobs:
                self._job_due(endpoint, endpoint.jobs[key], now)
            elif not is_job and key in endpoint.workers:
                self._worker_due(endpoint, endpoint.workers[key], now)

    def next_deadline_s(self) -> float | None:
        """Return when ``tick`` has something to do, on the clock's scale; None for never."""
        return self._deadlines[0][0] if self._deadlines else None

    def seen(self, endpoint: EndpointRecord, worker_id: str) -> WorkerRecord:
        """Take a sign of life; the first one registers the worker."""
        now = self.clock()
        worker = endpoint.workers.get(worker_id)
        if worker is None:
            worker = WorkerRecord(worker_id, ready_s=now + endpoint.config.cold_start_s, seen_s=now)
            endpoint.workers[worker_id] = worker
            silent_until_s = now + endpoint.config.worker_timeout_s
            self._schedule_worker(endpoint, worker, worker.ready_s if worker.ready_s > now else silent_until_s)
        worker.seen_s = now
        return worker

    def enqueue(self, endpoint: EndpointRecord, job: JobRecord, *, first: bool = False) -> None:
        """Put a job at the end of the queue, or at its front."""
        endpoint.queue[job.job_id] = None
        endpoint.queue.move_to_end(job.job_id, last=not first)
        self.schedule(endpoint, job.job_id, job.expires_s, is_job=True)
        self.notify(Topic("queue", endpoint.config.endpoint_id))
        self.notify(Topic("job", endpoint.config.endpoint_id, job.job_id))

    def requeue(self, endpoint: EndpointRecord, job: JobRecord, *, first: bool = False) -> None:
        """Queue a job again, as if it had never run."""
        endpoint.retried += 1
        job.retries += 1
        job.state = JobState.IN_QUEUE
        job.worker_id = job.started_s = job.finished_s = job.stop_s = job.output_json = job.error = None
        self.enqueue(endpoint, job, first=first)

    def finish(self, endpoint: EndpointRecord, job: JobRecord, state: JobState, *, error: str | None = None) -> None:
        """End a job; from here on its retention counts."""
        endpoint.completed += state is JobState.COMPLETED
        endpoint.failed += state in (JobState.FAILED, JobState.TIMED_OUT)
        endpoint.queue.pop(job.job_id, None)
        self.release(endpoint, job)
        job.state = state
        job.error = error
        job.finished_s = self.clock()
        if state in (JobState.COMPLETED, JobState.CANCELLED):
            # These are never run again, and a kept result should not keep megabytes of input alive.
            job.request = replace(job.request, for_worker={})
        # The ttl covers queue and run only (docs).
        retention_s = endpoint.config.sync_retention_s if job.sync else endpoint.config.async_retention_s
        job.expires_s = job.finished_s + retention_s
        self.schedule(endpoint, job.job_id, job.expires_s, is_job=True)
        self.notify(Topic("job", endpoint.config.endpoint_id, job.job_id))

    def forget(self, endpoint: EndpointRecord, job: JobRecord) -> None:
        """Remove every trace of a job; a worker that has it is told to stop."""
        self.stop_on_worker(endpoint, job)
        endpoint.queue.pop(job.job_id, None)
        del endpoint.jobs[job.job_id]
        self.notify(Topic("job", endpoint.config.endpoint_id, job.job_id))

    def release(self, endpoint: EndpointRecord, job: JobRecord) -> WorkerRecord | None:
        """Take a job away from its worker and return the worker; None if none has it."""
        worker = endpoint.workers.get(job.worker_id or "")
        if worker is None or job.job_id not in worker.jobs:
            return None
        worker.jobs.remove(job.job_id)
        return worker

    def stop_on_worker(self, endpoint: EndpointRecord, job: JobRecord) -> None:
        """Take a job away from its worker, if one has it, and let the worker be told."""
        worker = self.release(endpoint, job)
        if worker is not None:
            worker.to_stop.append(job.job_id)
            self.notify(Topic("stop", endpoint.config.endpoint_id, worker.worker_id))

    def _job_due(self, endpoint: EndpointRecord, job: JobRecord, now: float) -> None:
        if job.expires_s <= now:
            # A ttl that runs out removes the job, running or not: /status answers 404 (docs).
            self.forget(endpoint, job)
        elif job.state is JobState.IN_PROGRESS and job.stop_s is not None and job.stop_s <= now:
            self.stop_on_worker(endpoint, job)
            job.output_json = None
            self.finish(endpoint, job, JobState.TIMED_OUT, error="job timed out: executionTimeout exceeded")

    def _worker_due(self, endpoint: EndpointRecord, worker: WorkerRecord, now: float) -> None:
        if worker.due_s > now:
            return  # a deadline of an earlier worker of this name
        if worker.due_s == worker.ready_s:
            self.notify(Topic("queue", endpoint.config.endpoint_id))
        silent_until_s = worker.seen_s + endpoint.config.worker_timeout_s
        if worker.lasting:
            return
        if silent_until_s <= now:
            self.worker_lost(endpoint, worker)
        else:
            self._schedule_worker(endpoint, worker, silent_until_s)

    def worker_lost(self, endpoint: EndpointRecord, worker: WorkerRecord) -> None:
        """Remove a worker; the jobs that it had are queued again, or given up."""
        logger.info("endpoint %s: worker %s is gone", endpoint.config.endpoint_id, worker.worker_id)
        del endpoint.workers[worker.worker_id]
        self._give_back(endpoint, sorted(worker.jobs))

    def worker_replaced(self, endpoint: EndpointRecord, worker: WorkerRecord) -> None:
        """Let a worker die and another one take its name: it no longer has its jobs, and is told to stop them."""
        logger.info("endpoint %s: worker %s died and was replaced", endpoint.config.endpoint_id, worker.worker_id)
        job_ids = sorted(worker.jobs)
        for job_id in job_ids:
            self.stop_on_worker(endpoint, endpoint.jobs[job_id])
        self._give_back(endpoint, job_ids)

    def _give_back(self, endpoint: EndpointRecord, job_ids: list[str]) -> None:
        for job_id in job_ids:
            job = endpoint.jobs[job_id]
            if job.retries >= endpoint.config.max_retries:
                job.output_json = None
                self.finish(endpoint, job, JobState.FAILED, error=f"worker died; given up after {job.retries} retries")
            else:
                # Pieces that nobody has read stay: a client may see the work of both runs.
                self.requeue(endpoint, job, first=True)

    def _schedule_worker(self, endpoint: EndpointRecord, worker: WorkerRecord, when_s: float) -> None:
        worker.due_s = when_s
        self.schedule(endpoint, worker.worker_id, when_s, is_job=False)

    def schedule(self, endpoint: EndpointRecord, key: str, when_s: float, *, is_job: bool) -> None:
        """Look at a job or worker again at this moment."""
        self._deadline_count += 1
        entry = (when_s, self._deadline_count, endpoint.config.endpoint_id, key, is_job)
        heapq.heappush(self._deadlines, entry)
        if self._deadlines[0] is entry:
            self.notify(CLOCK)

    def notify(self, topic: Topic) -> None:
        """Tell every listener."""
        for listener in tuple(self._listeners):
            listener(topic)
