"""What the platform remembers: mutable records that only ``platform`` touches."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runpod_comfy.emulator.jobs import JobState, JobStatus

if TYPE_CHECKING:
    from runpod_comfy.emulator.jobs import EndpointConfig, Request

__all__ = ["EndpointRecord", "JobRecord", "WorkerRecord"]


@dataclass(slots=True)
class JobRecord:
    """One job.

    Attributes:
        expires_s: When it is forgotten: its ttl while it lives, its retention once it is final.
        stop_s: When its ``executionTimeout`` is over.
        pieces: What it has streamed and nobody has read.
        pieces_sent: How many pieces its workers have sent, dropped ones included.
    """

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
        """Return what ``/status`` says now."""
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
class WorkerRecord:
    """One worker.

    Attributes:
        ready_s: When its cold start is over.
        seen_s: Its last sign of life.
        due_s: When it is looked at again.
        lasting: It needs no signs of life.
        healthy: It has not reported a failed fitness check.
        jobs: The jobs that it runs.
        to_stop: The jobs that it is still to be told to stop.
    """

    worker_id: str
    ready_s: float
    seen_s: float
    due_s: float = 0
    lasting: bool = False
    healthy: bool = True
    jobs: set[str] = field(default_factory=set)
    to_stop: list[str] = field(default_factory=list)


@dataclass(slots=True)
class EndpointRecord:
    """One endpoint: ``queue`` holds the ids of the queued ones of ``jobs``; the counts are for ``/health``."""

    config: EndpointConfig
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    queue: OrderedDict[str, None] = field(default_factory=OrderedDict)
    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    completed: int = 0
    failed: int = 0
    retried: int = 0


def _milliseconds(start_s: float | None, end_s: float | None) -> int | None:
    return None if start_s is None or end_s is None else round((end_s - start_s) * 1000)
