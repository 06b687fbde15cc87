"""What an endpoint, a request and a job are, as values.

Evidence for RunPod's rules is marked as in the project's fact sheet: documented, seen, or *unconfirmed* where the
hosted platform was never observed and the emulator had to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

__all__ = ["EndpointConfig", "JobState", "JobStatus", "Policy", "Request", "StreamRead", "TakenJob"]

_MIB: Final = 1024 * 1024
_DAY_S: Final = 24 * 60 * 60


class JobState(StrEnum):
    """RunPod's job states."""

    IN_QUEUE = "IN_QUEUE"  # POST /run was accepted, or a retry
    IN_PROGRESS = "IN_PROGRESS"  # a worker took it
    COMPLETED = "COMPLETED"  # the worker reported, and no error
    FAILED = "FAILED"  # the worker reported an error, or too many workers died over it
    CANCELLED = "CANCELLED"  # POST /cancel
    TIMED_OUT = "TIMED_OUT"  # it ran longer than policy.executionTimeout

    @property
    def is_final(self) -> bool:
        """Whether the job stays in this state."""
        return self not in (JobState.IN_QUEUE, JobState.IN_PROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """One emulated endpoint; the defaults are RunPod's documented ones unless a line says otherwise.

    Attributes:
        endpoint_id: The id in the URL.
        api_keys: The keys that clients may use; None takes any bearer key.
        run_body_limit_bytes: Largest body of ``/run``.
        runsync_body_limit_bytes: Largest body of ``/runsync``.
        run_output_limit_bytes: Largest result of a ``/run`` job. The documents give the same numbers for results; the
            exact cut-off is unconfirmed.
        runsync_output_limit_bytes: Largest result of a ``/runsync`` job.
        stream_piece_limit_bytes: Largest streamed piece; a larger one is cut into several strings.
        async_retention_s: How long the result of a ``/run`` job is kept.
        sync_retention_s: How long the result of a ``/runsync`` job is kept.
        default_ttl_s: How long a job may queue and run when its policy has no ``ttl``.
        min_ttl_s: Smallest ``ttl`` that a policy may have.
        default_execution_timeout_s: How long a job may run when its policy has no ``executionTimeout``.
        min_execution_timeout_s: Smallest ``executionTimeout`` that a policy may have.
        max_policy_s: Largest value of both.
        worker_timeout_s: A worker silent for so long is dead. Unconfirmed.
        max_retries: How often a job whose worker died is queued again before it fails. Unconfirmed.
        cold_start_s: A new worker gets its first job after this time; 0 models a warm worker.
        status_sync: Whether ``/status-sync`` exists. It left the documentation in 2025 and official SDKs still use it.
        enforce_rate_limits: Whether the published rate limits answer 429.
    """

    endpoint_id: str
    api_keys: frozenset[str] | None = field(default=None, repr=False)
    run_body_limit_bytes: int = 10 * _MIB
    runsync_body_limit_bytes: int = 20 * _MIB
    run_output_limit_bytes: int = 10 * _MIB
    runsync_output_limit_bytes: int = 20 * _MIB
    stream_piece_limit_bytes: int = 1_000_000
    async_retention_s: float = 30 * 60
    sync_retention_s: float = 60
    default_ttl_s: float = _DAY_S
    min_ttl_s: float = 10
    default_execution_timeout_s: float = 600
    min_execution_timeout_s: float = 5
    max_policy_s: float = 7 * _DAY_S
    worker_timeout_s: float = 30
    max_retries: int = 3
    cold_start_s: float = 0
    status_sync: bool = True
    enforce_rate_limits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A job's ``policy``, in seconds.

    Attributes:
        execution_timeout_s: How long it may run.
        ttl_s: How long it may queue and run together.
        low_priority: Start no extra workers for it; kept, and changes nothing here.
    """

    execution_timeout_s: float
    ttl_s: float
    low_priority: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A client's request body, checked.

    Attributes:
        for_worker: What the worker gets beside the id, as JSON values: ``input`` and, where given, ``s3Config`` and
            ``webhook``. Never echoed to a client: it may hold secrets.
        policy: The limits of this job.
    """

    for_worker: dict[str, Any] = field(repr=False)
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What ``/status`` says of a job at one moment.

    Attributes:
        job_id: RunPod's id of the job.
        state: Its state.
        delay_ms: How long it waited for a worker, in milliseconds; None before it was taken.
        execution_ms: How long it ran, in milliseconds; None before it ended.
        worker_id: The worker that has or had it.
        retries: How often it was queued again.
        output_json: The output, or while it runs the last progress update, as JSON; None where there is none.
        error: The error text, or None.
    """

    job_id: str
    state: JobState
    delay_ms: int | None = None
    execution_ms: int | None = None
    worker_id: str | None = None
    retries: int = 0
    output_json: bytes | None = field(default=None, repr=False)
    error: str | None = None

    @property
    def output(self) -> Any:
        """The output as a JSON value; None where there is none."""
        return None if self.output_json is None else orjson.loads(self.output_json)

    def to_json(self) -> bytes:
        """Return the body of ``/status``: absent fields are left out, as on RunPod."""
        fields: dict[str, Any] = {
            "delayTime": self.delay_ms,
            "error": self.error,
            "executionTime": self.execution_ms,
            "id": self.job_id,
            "output": None if self.output_json is None else orjson.Fragment(self.output_json),
            "retries": self.retries or None,
            "status": self.state,
            "workerId": self.worker_id,
        }
        return orjson.dumps({name: value for name, value in fields.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRead:
    """What one read of ``/stream`` took away.

    Attributes:
        state: The job's state at this moment.
        pieces: The pieces since the last read, each as JSON.
    """

    state: JobState
    pieces: tuple[bytes, ...] = field(repr=False)

    def to_json(self) -> bytes:
        """Return the body of ``/stream``. The pieces are spliced in, not parsed again: they are most of the traffic."""
        parts = [b'{"status":"', self.state.encode(), b'","stream":[']
        for index, piece in enumerate(self.pieces):
            parts += (b',{"output":' if index else b'{"output":', piece, b"}")
        return b"".join((*parts, b"]}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenJob:
    """A job as a worker gets it.

    Attributes:
        job_id: RunPod's id of the job.
        body: The JSON object that becomes the handler's argument.
    """

    job_id: str
    body: bytes = field(repr=False)
