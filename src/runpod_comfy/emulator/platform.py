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
Listeners are called during a change and must not call back.
"""

from __future__ import annotations

import heapq
import logging
import time
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import orjson

from runpod_comfy.emulator.faults import FaultPlan
from runpod_comfy.emulator.jobs import EndpointConfig, JobState, JobStatus, Request, StreamRead, TakenJob, parse_request
from runpod_comfy.errors import ApiError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLOCK", "Listener", "Platform", "Report", "Topic"]

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


class Report(IntEnum):
    """How a worker's report was received, as the HTTP status that tells it."""

    ACCEPTED = 200
    REFUSED = 400  # too large, or not JSON; the SDK does not send it again
    UNKNOWN = 404  # no such job (any more)


@dataclass(slots=True)
class _Job:
    job_id: str
    request: Request
    sync: bool
    submitted_s: float
    expires_s: float
    state: JobState = JobState.IN_QUEUE
    started_s: float | None = None
    finished_s: float | None = None
    stop_s: float | None = None
    worker_id: str | None = None
    retries: int = 0
    output_json: bytes | None = None
    error: str | None = None
    pieces: deque[bytes] = field(default_factory=deque)
    pieces_sent: int = 0

    def status(self) -> JobStatus:
        return JobStatus(
            job_id=self.job_id,
            state=self.state,
            delay_ms=_milliseconds(self.submitted_s, self.started_s),
            execution_ms=_milliseconds(self.started_s, self.finished_s),
            worker_id=self.worker_id,
            retries=self.retries,
            output_json=self.output_json,
            error=self.error,
        )


@dataclass(slots=True)
class _Worker:
    worker_id: str
    ready_s: float
    seen_s: float
    lasting: bool = False
    healthy: bool = True
    jobs: set[str] = field(default_factory=set)
    to_stop: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Endpoint:
    config: EndpointConfig
    jobs: dict[str, _Job] = field(default_factory=dict)
    queue: OrderedDict[str, None] = field(default_factory=OrderedDict)
    workers: dict[str, _Worker] = field(default_factory=dict)
    completed: int = 0
    failed: int = 0
    retried: int = 0


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
        self.clock = clock
        self._new_id = new_id
        self._endpoints: dict[str, _Endpoint] = {}
        self._listeners: list[Listener] = []
        # (when, tie-breaker, endpoint, job or worker, whether it is a job). Entries are never removed early: what is due
        # is decided from the job or worker itself.
        self._deadlines: list[tuple[float, int, str, str, bool]] = []
        self._deadline_count = 0
        for config in endpoints:
            self.add_endpoint(config)

    # Endpoints, listeners and the clock

    def add_endpoint(self, config: EndpointConfig) -> None:
        """Add an endpoint, or give an existing one another configuration."""
        if config.endpoint_id in self._endpoints:
            self._endpoints[config.endpoint_id].config = config
        else:
            self._endpoints[config.endpoint_id] = _Endpoint(config)

    def config(self, endpoint_id: str) -> EndpointConfig:
        """Return an endpoint's configuration.

        Raises:
            NotFound: There is no such endpoint.
        """
        return self._endpoint(endpoint_id).config

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` during each change; return what ends this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tick(self) -> None:
        """Let everything happen that is due by now."""
        now = self.clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, endpoint_id, key, is_job = heapq.heappop(self._deadlines)
            endpoint = self._endpoints[endpoint_id]
            if is_job and key in endpoint.jobs:
                self._job_due(endpoint, endpoint.jobs[key], now)
            elif not is_job and key in endpoint.workers:
                self._worker_due(endpoint, endpoint.workers[key], now)

    def next_deadline_s(self) -> float | None:
        """Return when ``tick`` has something to do, on the clock's scale; None for never."""
        return self._deadlines[0][0] if self._deadlines else None

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
        job = _Job(job_id, request, sync, submitted_s=now, expires_s=now + request.policy.ttl_s)
        endpoint.jobs[job_id] = job
        self._enqueue(endpoint, job)
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
            self._schedule(endpoint, job.job_id, job.expires_s, is_job=True)
        return job.status()

    def statuses(self, endpoint_id: str) -> list[JobStatus]:
        """Return all jobs that the endpoint remembers, oldest first (``/requests``)."""
        return [job.status() for job in self._endpoint(endpoint_id).jobs.values()]

    def read_stream(self, endpoint_id: str, job_id: str) -> StreamRead:
        """Take away what the job has streamed since the last read (``/stream``): reads consume."""
        _, job = self._find(endpoint_id, job_id)
        pieces = tuple(job.pieces)
        job.pieces.clear()
        return StreamRead(state=job.state, pieces=pieces)

    def cancel(self, endpoint_id: str, job_id: str) -> JobStatus:
        """Cancel a job (``/cancel``): its worker is told to stop. A final job stays as it is (unconfirmed)."""
        endpoint, job = self._find(endpoint_id, job_id)
        if not job.state.is_final:
            self._stop_on_worker(endpoint, job)
            job.output_json = None
            self._finish(endpoint, job, JobState.CANCELLED)
        return job.status()

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
        self._requeue(endpoint, job)
        return job.status()

    def purge_queue(self, endpoint_id: str) -> int:
        """Forget all queued jobs and return how many; running ones go on (``/purge-queue``).

        That a purged job is then unknown, and not CANCELLED, is unconfirmed.
        """
        endpoint = self._endpoint(endpoint_id)
        queued = list(endpoint.queue)
        for job_id in queued:
            self._forget(endpoint, endpoint.jobs[job_id])
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
        worker = self._seen(self._endpoint(endpoint_id), worker_id)
        worker.healthy = healthy
        worker.lasting = worker.lasting or lasting

    def leave(self, endpoint_id: str, worker_id: str) -> None:
        """Remove a worker; the jobs that it had are queued again."""
        endpoint = self._endpoint(endpoint_id)
        if worker_id in endpoint.workers:
            self._worker_lost(endpoint, endpoint.workers[worker_id])

    def take(self, endpoint_id: str, worker_id: str, *, limit: int = 1) -> list[TakenJob]:
        """Hand up to ``limit`` jobs to a worker (``job-take``); none while it starts."""
        endpoint = self._endpoint(endpoint_id)
        worker = self._seen(endpoint, worker_id)
        now = self.clock()
        taken: list[TakenJob] = []
        while worker.healthy and worker.ready_s <= now and endpoint.queue and len(taken) < limit:
            job = endpoint.jobs[endpoint.queue.popitem(last=False)[0]]
            job.state = JobState.IN_PROGRESS
            job.worker_id = worker_id
            job.started_s = now
            job.stop_s = now + job.request.policy.execution_timeout_s
            worker.jobs.add(job.job_id)
            self._schedule(endpoint, job.job_id, job.stop_s, is_job=True)
            self._notify(Topic("job", endpoint_id, job.job_id))
            taken.append(TakenJob(job_id=job.job_id, body=orjson.dumps({"id": job.job_id} | job.request.for_worker)))
        return taken

    def report(
        self, endpoint_id: str, worker_id: str, job_id: str, body: bytes, *, is_stream: bool = False
    ) -> Report:
        """Take a result or a progress update (``job-done``).

        Args:
            endpoint_id: The endpoint.
            worker_id: The worker.
            job_id: The job.
            body: ``{"output": …}`` or ``{"error": …}`` or both, or ``{"status": "IN_PROGRESS", "output": …}``.
            is_stream: Whether the job has streamed; changes nothing here.
        """
        del is_stream
        endpoint, job = self._held(endpoint_id, worker_id, job_id)
        if job is None:
            # The platform owns the state: what arrives after a cancel or for a lost job is accepted and ignored.
            return Report.ACCEPTED if job_id in endpoint.jobs else Report.UNKNOWN
        config = endpoint.config
        if len(body) > (config.runsync_output_limit_bytes if job.sync else config.run_output_limit_bytes):
            logger.warning("job %s: a result of %d bytes is too large and is lost", job_id, len(body))
            job.output_json = None
            self._finish(endpoint, job, JobState.COMPLETED)
            return Report.REFUSED
        report = _json_object(body)
        if report is None:
            return Report.REFUSED
        output_json = orjson.dumps(report["output"]) if "output" in report else None
        if report.get("status") == JobState.IN_PROGRESS:
            job.output_json = output_json
            self._notify(Topic("job", endpoint_id, job_id))
            return Report.ACCEPTED
        progress_json = job.output_json
        error = report.get("error")
        job.output_json = output_json
        if not error:
            self._finish(endpoint, job, JobState.COMPLETED)
        elif isinstance(error, str):
            self._finish(endpoint, job, JobState.FAILED, error=error)
        else:
            # An error that is no string: seen as COMPLETED without output (runpod-python#299).
            job.output_json = None
            self._finish(endpoint, job, JobState.COMPLETED)
        if progress_json is not None and self.faults.overtakes_result(job_id):
            job.state, job.finished_s, job.output_json, job.error = JobState.IN_PROGRESS, None, progress_json, None
        return Report.ACCEPTED

    def add_piece(self, endpoint_id: str, worker_id: str, job_id: str, body: bytes) -> Report:
        """Take a streamed piece, ``{"output": …}`` (``job-stream``)."""
        endpoint, job = self._held(endpoint_id, worker_id, job_id)
        if job is None:
            return Report.ACCEPTED if job_id in endpoint.jobs else Report.UNKNOWN
        message = _json_object(body)
        if message is None or "output" not in message:
            return Report.REFUSED
        index = job.pieces_sent
        job.pieces_sent += 1
        if not self.faults.drops_piece(job_id, index):
            job.pieces += _cut(message["output"], endpoint.config.stream_piece_limit_bytes)
            self._notify(Topic("job", endpoint_id, job_id))
        return Report.ACCEPTED

    def stop_signals(self, endpoint_id: str, worker_id: str) -> list[str]:
        """Take away the ids of the jobs that this worker is to stop (``job-stop``)."""
        worker = self._seen(self._endpoint(endpoint_id), worker_id)
        job_ids, worker.to_stop = worker.to_stop, []
        return job_ids

    # Inside

    def _endpoint(self, endpoint_id: str) -> _Endpoint:
        self.tick()
        try:
            return self._endpoints[endpoint_id]
        except KeyError:
            raise NotFound(f"no endpoint {endpoint_id!r}", status_code=404, endpoint_id=endpoint_id) from None

    def _find(self, endpoint_id: str, job_id: str) -> tuple[_Endpoint, _Job]:
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

    def _held(self, endpoint_id: str, worker_id: str, job_id: str) -> tuple[_Endpoint, _Job | None]:
        """Find a job if this worker holds it; any word from a worker is a sign of life."""
        endpoint = self._endpoint(endpoint_id)
        worker = self._seen(endpoint, worker_id)
        return endpoint, endpoint.jobs[job_id] if job_id in worker.jobs else None

    def _seen(self, endpoint: _Endpoint, worker_id: str) -> _Worker:
        now = self.clock()
        worker = endpoint.workers.get(worker_id)
        if worker is None:
            worker = _Worker(worker_id, ready_s=now + endpoint.config.cold_start_s, seen_s=now)
            endpoint.workers[worker_id] = worker
            for when in {worker.ready_s, now + endpoint.config.worker_timeout_s}:
                self._schedule(endpoint, worker_id, when, is_job=False)
        worker.seen_s = now
        return worker

    def _enqueue(self, endpoint: _Endpoint, job: _Job, *, first: bool = False) -> None:
        endpoint.queue[job.job_id] = None
        endpoint.queue.move_to_end(job.job_id, last=not first)
        self._schedule(endpoint, job.job_id, job.expires_s, is_job=True)
        self._notify(Topic("queue", endpoint.config.endpoint_id))
        self._notify(Topic("job", endpoint.config.endpoint_id, job.job_id))

    def _requeue(self, endpoint: _Endpoint, job: _Job, *, first: bool = False) -> None:
        endpoint.retried += 1
        job.retries += 1
        job.state = JobState.IN_QUEUE
        job.worker_id = job.started_s = job.finished_s = job.stop_s = job.output_json = job.error = None
        self._enqueue(endpoint, job, first=first)

    def _finish(self, endpoint: _Endpoint, job: _Job, state: JobState, *, error: str | None = None) -> None:
        endpoint.completed += state is JobState.COMPLETED
        endpoint.failed += state in (JobState.FAILED, JobState.TIMED_OUT)
        endpoint.queue.pop(job.job_id, None)
        self._release(endpoint, job)
        job.state = state
        job.error = error
        job.finished_s = self.clock()
        # The ttl covers queue and run; from here on the retention counts.
        retention_s = endpoint.config.sync_retention_s if job.sync else endpoint.config.async_retention_s
        job.expires_s = job.finished_s + retention_s
        self._schedule(endpoint, job.job_id, job.expires_s, is_job=True)
        self._notify(Topic("job", endpoint.config.endpoint_id, job.job_id))

    def _forget(self, endpoint: _Endpoint, job: _Job) -> None:
        self._stop_on_worker(endpoint, job)
        endpoint.queue.pop(job.job_id, None)
        del endpoint.jobs[job.job_id]
        self._notify(Topic("job", endpoint.config.endpoint_id, job.job_id))

    def _release(self, endpoint: _Endpoint, job: _Job) -> _Worker | None:
        worker = endpoint.workers.get(job.worker_id or "")
        if worker is None or job.job_id not in worker.jobs:
            return None
        worker.jobs.remove(job.job_id)
        return worker

    def _stop_on_worker(self, endpoint: _Endpoint, job: _Job) -> None:
        worker = self._release(endpoint, job)
        if worker is not None:
            worker.to_stop.append(job.job_id)
            self._notify(Topic("stop", endpoint.config.endpoint_id, worker.worker_id))

    def _job_due(self, endpoint: _Endpoint, job: _Job, now: float) -> None:
        if job.expires_s <= now:
            # A ttl that runs out removes the job, running or not: /status answers 404 (docs).
            self._forget(endpoint, job)
        elif job.state is JobState.IN_PROGRESS and job.stop_s is not None and job.stop_s <= now:
            self._stop_on_worker(endpoint, job)
            job.output_json = None
            self._finish(endpoint, job, JobState.TIMED_OUT, error="job timed out: executionTimeout exceeded")

    def _worker_due(self, endpoint: _Endpoint, worker: _Worker, now: float) -> None:
        if worker.ready_s <= now:
            self._notify(Topic("queue", endpoint.config.endpoint_id))
        silent_until_s = worker.seen_s + endpoint.config.worker_timeout_s
        if worker.lasting:
            return
        if silent_until_s <= now:
            self._worker_lost(endpoint, worker)
        elif worker.ready_s <= now:
            self._schedule(endpoint, worker.worker_id, silent_until_s, is_job=False)

    def _worker_lost(self, endpoint: _Endpoint, worker: _Worker) -> None:
        logger.info("endpoint %s: worker %s is gone", endpoint.config.endpoint_id, worker.worker_id)
        del endpoint.workers[worker.worker_id]
        for job_id in sorted(worker.jobs):
            job = endpoint.jobs[job_id]
            if job.retries >= endpoint.config.max_retries:
                job.output_json = None
                self._finish(endpoint, job, JobState.FAILED, error=f"worker died; given up after {job.retries} retries")
            else:
                # Pieces that nobody has read stay: a client may see the work of both runs.
                self._requeue(endpoint, job, first=True)

    def _schedule(self, endpoint: _Endpoint, key: str, when_s: float, *, is_job: bool) -> None:
        self._deadline_count += 1
        entry = (when_s, self._deadline_count, endpoint.config.endpoint_id, key, is_job)
        heapq.heappush(self._deadlines, entry)
        if self._deadlines[0] is entry:
            self._notify(CLOCK)

    def _notify(self, topic: Topic) -> None:
        for listener in tuple(self._listeners):
            listener(topic)


def _milliseconds(start_s: float | None, end_s: float | None) -> int | None:
    return None if start_s is None or end_s is None else round((end_s - start_s) * 1000)


def _json_object(body: bytes) -> dict[str, Any] | None:
    """Read a worker's message. The SDK writes NaN as ``NaN``, which is not JSON; what RunPod does then is unconfirmed."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return message if isinstance(message, dict) else None


def _cut(output: Any, limit_bytes: int) -> list[bytes]:
    """Encode a piece; one over the limit becomes several strings.

    The documents say that larger outputs are split over chunks; how is unconfirmed. Here a string is cut into strings
    and the JSON text of any other value into strings.
    """
    encoded = orjson.dumps(output)
    if len(encoded) <= limit_bytes:
        return [encoded]
    text = output if isinstance(output, str) else encoded.decode()
    # A character takes at most six bytes of JSON; most take one, so the common case is tried first.
    step = limit_bytes - 2 if text.isascii() and "\\" not in text and '"' not in text else max(1, (limit_bytes - 2) // 6)
    return [orjson.dumps(text[start : start + step]) for start in range(0, len(text), step)]
