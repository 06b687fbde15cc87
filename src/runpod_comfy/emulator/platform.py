"""RunPod's queue: endpoints, jobs, workers and the clock, without I/O.

>>> from runpod_comfy.emulator.jobs import EndpointConfig
>>> platform = Platform(EndpointConfig(endpoint_id="demo"), new_id=lambda: "1")
>>> job = platform.submit("demo", b'{"input": {"prompt": "a cat"}}')
>>> [taken] = platform.take("demo", "worker-a")
>>> taken.body
b'{"id":"1-e1","input":{"prompt":"a cat"}}'
>>> platform.report("demo", "worker-a", "1-e1", b'{"output": "purr"}')
<Report.ACCEPTED: 200>
>>> platform.status("demo", "1-e1").output
'purr'

Time passes only where the clock says so: every call first lets happen what is due, ``tick`` does nothing else, and
``next_deadline_s`` says when to call it. A platform is used from one thread (its event loop's); it has no locks.
Listeners are called during a change: they may look at ``next_deadline_s`` and must call nothing else.
"""

from __future__ import annotations

import logging
import time
import uuid
from enum import IntEnum
from typing import TYPE_CHECKING

import orjson

from runpod_comfy.emulator.bodies import cut_piece, parse_message, parse_request
from runpod_comfy.emulator.fault_plan import FaultPlan
from runpod_comfy.emulator.faults import (
    DropPiece,
    DropReport,
    DuplicatePiece,
    LateProgress,
    ReplaceReport,
    WorkerDies,
)
from runpod_comfy.emulator.jobs import JobState, StreamRead, TakenJob
from runpod_comfy.emulator.lifecycle import CLOCK, Lifecycle, Topic
from runpod_comfy.emulator.records import EndpointRecord, JobRecord
from runpod_comfy.errors import ApiError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_comfy.emulator.jobs import EndpointConfig, JobStatus
    from runpod_comfy.emulator.lifecycle import Listener

__all__ = ["Platform", "Report"]

logger = logging.getLogger(__name__)


class Report(IntEnum):
    """How a worker's report was received, as the HTTP status that tells it."""

    ACCEPTED = 200
    REFUSED = 400  # too large, or not JSON; the SDK does not send it again
    UNKNOWN = 404  # no such job (any more)


class Platform:
    """All endpoints of one emulated RunPod.

    Args:
        *endpoints: The endpoints; more can follow with ``add_endpoint``.
        clock: Seconds from any zero, never going back.
        new_id: Gives the ids of jobs, without prefix and suffix.
        faults: Faults on purpose; shared with the server in front.
    """

    def __init__(
        self,
        *endpoints: EndpointConfig,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        faults: FaultPlan | None = None,
    ) -> None:
        self.faults = FaultPlan() if faults is None else faults
        self._clock = clock
        self._skipped_s = 0.0
        self._new_id = new_id
        self._life = Lifecycle(self.clock)
        for config in endpoints:
            self.add_endpoint(config)

    # Endpoints, listeners and the clock

    def add_endpoint(self, config: EndpointConfig) -> None:
        """Add an endpoint, or give an existing one another configuration."""
        if config.endpoint_id in self._life.endpoints:
            self._life.endpoints[config.endpoint_id].config = config
        else:
            self._life.endpoints[config.endpoint_id] = EndpointRecord(config)

    def config(self, endpoint_id: str) -> EndpointConfig:
        """Return an endpoint's configuration.

        Raises:
            NotFound: There is no such endpoint.
        """
        return self._endpoint(endpoint_id).config

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` during each change; return what ends this."""
        return self._life.subscribe(listener)

    def clock(self) -> float:
        """Return the platform's time: that of its clock, and what was skipped."""
        return self._clock() + self._skipped_s

    def skip(self, jump_s: float) -> None:
        """Let the clock jump ahead by so many seconds; what falls due happens at once."""
        self._skipped_s += jump_s
        self.tick()
        self._life.notify(CLOCK)

    def tick(self) -> None:
        """Let everything happen that is due by now."""
        self._life.tick()

    def next_deadline_s(self) -> float | None:
        """Return when ``tick`` has something to do, on the clock's scale; None for never."""
        return self._life.next_deadline_s()

    # The client's side

    def submit(self, endpoint_id: str, body: bytes, *, sync: bool = False) -> JobStatus:
        """Queue a job (``/run``; with ``sync``, ``/runsync``).

        Args:
            endpoint_id: The endpoint.
            body: The request body: ``{"input": {…}}`` with, optionally, ``policy``, ``s3Config`` and ``webhook``.
            sync: Take the limits and the retention of ``/runsync``.

        Raises:
            NotFound: There is no such endpoint.
            ApiError: 400, the body is not acceptable.
        """
        endpoint = self._endpoint(endpoint_id)
        request = parse_request(body, endpoint.config, sync=sync)
        # Seen ids: "<uuid>-e1", and "sync-<uuid>-e1" for /runsync; what the suffix means is unconfirmed.
        job_id = f"{'sync-' if sync else ''}{self._new_id()}-e1"
        now = self.clock()
        job = JobRecord(job_id, request, sync, submitted_s=now, expires_s=now + request.policy.ttl_s)
        endpoint.jobs[job_id] = job
        self._life.enqueue(endpoint, job)
        return job.status()

    def status(self, endpoint_id: str, job_id: str, *, ttl_s: float | None = None) -> JobStatus:
        """Return a job's state (``/status``).

        Args:
            endpoint_id: The endpoint.
            job_id: The job.
            ttl_s: Forget the job so many seconds from now, which can drop a result early. That it counts from now is
                unconfirmed.

        Raises:
            NotFound: There is no such endpoint or job, or it has expired.
        """
        endpoint, job = self._find(endpoint_id, job_id)
        if ttl_s is not None:
            job.expires_s = self.clock() + ttl_s
            self._life.schedule(endpoint, job.job_id, job.expires_s, is_job=True)
        return job.status()

    def statuses(self, endpoint_id: str) -> list[JobStatus]:
        """Return all jobs that the endpoint remembers, oldest first (``/requests``)."""
        return [job.status() for job in self._endpoint(endpoint_id).jobs.values()]

    def read_stream(self, endpoint_id: str, job_id: str) -> StreamRead:
        """Take away what the job has streamed since the last read (``/stream``): reads consume."""
        _, job = self._find(endpoint_id, job_id)
        pieces = tuple(job.pieces)
        if not pieces or not self.faults.repeats_pieces(job_id):
            job.pieces.clear()
        return StreamRead(state=job.state, pieces=pieces)

    def cancel(self, endpoint_id: str, job_id: str) -> JobStatus:
        """Cancel a job (``/cancel``): its worker is told to stop. A final job stays as it is (unconfirmed)."""
        endpoint, job = self._find(endpoint_id, job_id)
        if not job.state.is_final:
            self._life.stop_on_worker(endpoint, job)
            job.output_json = None
            self._life.finish(endpoint, job, JobState.CANCELLED)
        return job.status()

    def expire(self, endpoint_id: str, job_id: str) -> None:
        """Forget a job at once, as at the end of its ttl or of its result's retention."""
        endpoint, job = self._find(endpoint_id, job_id)
        self._life.forget(endpoint, job)

    def retry(self, endpoint_id: str, job_id: str) -> JobStatus:
        """Queue a failed or timed out job again, with the same id and input and without its output (``/retry``).

        Raises:
            ApiError: 400, the job is in another state. The code is unconfirmed.
        """
        endpoint, job = self._find(endpoint_id, job_id)
        if job.state not in (JobState.FAILED, JobState.TIMED_OUT):
            raise ApiError(
                f"only FAILED and TIMED_OUT jobs can be retried; this one is {job.state}",
                status_code=400,
                endpoint_id=endpoint_id,
                job_id=job_id,
            )
        job.submitted_s = self.clock()
        job.expires_s = job.submitted_s + job.request.policy.ttl_s
        job.pieces.clear()
        self._life.requeue(endpoint, job)
        return job.status()

    def purge_queue(self, endpoint_id: str) -> int:
        """Forget all queued jobs and return how many; running ones go on (``/purge-queue``).

        That a purged job is then unknown, and not CANCELLED, is unconfirmed.
        """
        endpoint = self._endpoint(endpoint_id)
        queued = list(endpoint.queue)
        for job_id in queued:
            self._life.forget(endpoint, endpoint.jobs[job_id])
        return len(queued)

    def health(self, endpoint_id: str) -> dict[str, dict[str, int]]:
        """Return the body of ``/health``. How RunPod counts ``ready`` and how long it remembers are unconfirmed."""
        endpoint = self._endpoint(endpoint_id)
        now = self.clock()
        workers = endpoint.workers.values()
        ready = [worker for worker in workers if worker.healthy and worker.ready_s <= now]
        running = sum(1 for worker in ready if worker.jobs)
        return {
            "jobs": {
                "completed": endpoint.completed,
                "failed": endpoint.failed,
                "inProgress": sum(1 for job in endpoint.jobs.values() if job.state is JobState.IN_PROGRESS),
                "inQueue": len(endpoint.queue),
                "retried": endpoint.retried,
            },
            "workers": {
                "idle": len(ready) - running,
                "initializing": sum(1 for worker in workers if worker.healthy and worker.ready_s > now),
                "ready": len(ready),
                "running": running,
                "throttled": 0,
                "unhealthy": sum(1 for worker in workers if not worker.healthy),
            },
        }

    # The worker's side

    def ping(self, endpoint_id: str, worker_id: str, *, healthy: bool = True, lasting: bool = False) -> None:
        """Take a sign of life; the first one registers the worker.

        Args:
            endpoint_id: The endpoint.
            worker_id: The worker.
            healthy: False after a failed fitness check: it gets no jobs.
            lasting: It needs no further signs, since it lives in this process and says when it leaves.
        """
        worker = self._life.seen(self._endpoint(endpoint_id), worker_id)
        worker.healthy = healthy
        worker.lasting = worker.lasting or lasting

    def leave(self, endpoint_id: str, worker_id: str) -> None:
        """Remove a worker; the jobs that it had are queued again."""
        endpoint = self._endpoint(endpoint_id)
        if worker_id in endpoint.workers:
            self._life.worker_lost(endpoint, endpoint.workers[worker_id])

    def take(self, endpoint_id: str, worker_id: str, *, limit: int = 1) -> list[TakenJob]:
        """Hand up to ``limit`` jobs to a worker (``job-take``); none while it starts."""
        endpoint = self._endpoint(endpoint_id)
        worker = self._life.seen(endpoint, worker_id)
        now = self.clock()
        taken: list[TakenJob] = []
        while worker.healthy and worker.ready_s <= now and endpoint.queue and len(taken) < limit:
            job = endpoint.jobs[endpoint.queue.popitem(last=False)[0]]
            job.state = JobState.IN_PROGRESS
            job.worker_id = worker_id
            job.started_s = now
            job.stop_s = now + job.request.policy.execution_timeout_s
            worker.jobs.add(job.job_id)
            self._life.schedule(endpoint, job.job_id, job.stop_s, is_job=True)
            self._life.notify(Topic("job", endpoint_id, job.job_id))
            taken.append(TakenJob(job_id=job.job_id, body=orjson.dumps({"id": job.job_id} | job.request.for_worker)))
        return taken

    def report(self, endpoint_id: str, worker_id: str, job_id: str, body: bytes) -> Report:
        """Take a result or a progress update (``job-done``).

        Args:
            endpoint_id: The endpoint.
            worker_id: The worker.
            job_id: The job.
            body: ``{"output": …}`` or ``{"error": …}`` or both, or ``{"status": "IN_PROGRESS", "output": …}``.
        """
        endpoint, job = self._held(endpoint_id, worker_id, job_id)
        if job is None:
            # The platform owns the state: what arrives after a cancel or for a lost job is accepted and ignored.
            return Report.ACCEPTED if job_id in endpoint.jobs else Report.UNKNOWN
        config = endpoint.config
        if len(body) > (config.runsync_output_limit_bytes if job.sync else config.run_output_limit_bytes):
            logger.warning("job %s: a result of %d bytes is too large and is lost", job_id, len(body))
            job.output_json = None
            self._life.finish(endpoint, job, JobState.COMPLETED)
            return Report.REFUSED
        report = parse_message(body)
        if report is None:
            return Report.REFUSED
        output_json = orjson.dumps(report["output"]) if "output" in report else None
        if report.get("status") == JobState.IN_PROGRESS:
            job.output_json = output_json
            self._life.notify(Topic("job", endpoint_id, job_id))
            return Report.ACCEPTED
        match self.faults.on_report(job_id, has_progress=job.output_json is not None):
            case LateProgress() | DropReport():
                self._life.release(endpoint, job)
                return Report.ACCEPTED
            case ReplaceReport(report=other):
                report = other
                output_json = orjson.dumps(report["output"]) if "output" in report else None
            case None:
                pass
        error = report.get("error")
        job.output_json = output_json
        if not error:
            self._life.finish(endpoint, job, JobState.COMPLETED)
        elif isinstance(error, str):
            self._life.finish(endpoint, job, JobState.FAILED, error=error)
        else:
            # An error that is no string: seen as COMPLETED without output (runpod-python#299).
            job.output_json = None
            self._life.finish(endpoint, job, JobState.COMPLETED)
        return Report.ACCEPTED

    def add_piece(self, endpoint_id: str, worker_id: str, job_id: str, output_json: bytes) -> Report:
        """Take a streamed piece (``job-stream``).

        Args:
            endpoint_id: The endpoint.
            worker_id: The worker.
            job_id: The job.
            output_json: What the handler yielded, as JSON; taken as it is.
        """
        endpoint, job = self._held(endpoint_id, worker_id, job_id)
        if job is None:
            return Report.ACCEPTED if job_id in endpoint.jobs else Report.UNKNOWN
        index = job.pieces_sent
        job.pieces_sent += 1
        copies = 1
        match self.faults.on_piece(job_id, index):
            case WorkerDies():
                self._life.worker_replaced(endpoint, endpoint.workers[worker_id])
                return Report.ACCEPTED
            case DropPiece():
                return Report.ACCEPTED
            case DuplicatePiece():
                copies = 2
            case None:
                pass
        job.pieces += cut_piece(output_json, endpoint.config.stream_piece_limit_bytes) * copies
        self._life.notify(Topic("job", endpoint_id, job_id))
        return Report.ACCEPTED

    def stop_signals(self, endpoint_id: str, worker_id: str) -> list[str]:
        """Take away the ids of the jobs that this worker is to stop (``job-stop``)."""
        worker = self._life.seen(self._endpoint(endpoint_id), worker_id)
        job_ids, worker.to_stop = worker.to_stop, []
        return job_ids

    # Inside

    def _endpoint(self, endpoint_id: str) -> EndpointRecord:
        self.tick()
        try:
            return self._life.endpoints[endpoint_id]
        except KeyError:
            raise NotFound(f"no endpoint {endpoint_id!r}", status_code=404, endpoint_id=endpoint_id) from None

    def _find(self, endpoint_id: str, job_id: str) -> tuple[EndpointRecord, JobRecord]:
        endpoint = self._endpoint(endpoint_id)
        try:
            return endpoint, endpoint.jobs[job_id]
        except KeyError:
            raise NotFound(
                f"no job {job_id!r}: it never existed or has expired",
                status_code=404,
                endpoint_id=endpoint_id,
                job_id=job_id,
            ) from None

    def _held(self, endpoint_id: str, worker_id: str, job_id: str) -> tuple[EndpointRecord, JobRecord | None]:
        """Find a job if this worker holds it; any word from a worker is a sign of life."""
        endpoint = self._endpoint(endpoint_id)
        worker = self._life.seen(endpoint, worker_id)
        return endpoint, endpoint.jobs[job_id] if job_id in worker.jobs else None
