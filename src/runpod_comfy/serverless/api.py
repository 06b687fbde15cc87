"""RunPod's HTTP API for one queue-based endpoint: one method a route, values out, errors of our tree.

Routes and shapes: RunPod docs, serverless/endpoints/operation-reference, and the official Python, JavaScript and Go
SDKs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import orjson

from runpod_comfy.errors import (
    ProtocolError,
    ServerError,
    SubmissionUncertain,
    TransportError,
)
from runpod_comfy.serverless.exchange import Exchange, NotSent, chunks
from runpod_comfy.serverless.stream_body import CUT_BYTES, StreamBody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Executor
    from datetime import datetime

    import aiohttp

    from runpod_comfy.serverless.budget import ByteBudget
    from runpod_comfy.serverless.pacing import Pacer
    from runpod_comfy.settings import EndpointSettings

    _Work: TypeAlias = Callable[[Callable[[], list[Any]], int], Awaitable[None]]

__all__ = [
    "FINAL_STATES",
    "MAX_RUNSYNC_BODY_BYTES",
    "MAX_RUN_BODY_BYTES",
    "EndpointApi",
    "EndpointHealth",
    "JobStatus",
    "StreamAnswer",
]

MAX_RUN_BODY_BYTES = 10 * 1024 * 1024
"""RunPod refuses larger bodies of ``/run`` (docs: 10 MB; the message says 10MiB)."""

MAX_RUNSYNC_BODY_BYTES = 20_000_000
"""RunPod's limit for ``/runsync`` (docs: 20 MB; whether it means 10⁶ or 2²⁰ is unconfirmed, so the smaller one)."""

FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})

_RUNSYNC_WAIT_MS = 1000  # the least that RunPod takes: the job is followed by its id, which comes with the answer

_INLINE_BYTES = 32 * 1024
"""A smaller answer is parsed where it arrives: handing it to a thread would take longer."""

_UNKNOWN_LENGTH_BYTES = 1024 * 1024

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What RunPod says of a job.

    Attributes:
        job_id: The job.
        state: ``IN_QUEUE``, ``IN_PROGRESS``, ``COMPLETED``, ``FAILED``, ``CANCELLED``, ``TIMED_OUT``, or a state that
            RunPod may add.
        output: What the handler returned, or its last progress update; None where there is none.
        error: The worker's error text, or None.
        delay_s: How long it waited, in seconds (``delayTime``), or None.
        execution_s: How long it has run, in seconds (``executionTime``), or None.
        worker_id: The worker that has or had it, or None.
        raw: The whole answer.
    """

    job_id: str
    state: str
    output: Any = None
    error: str | None = None
    delay_s: float | None = None
    execution_s: float | None = None
    worker_id: str | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def final(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointHealth:
    """What ``/health`` says: numbers of jobs and workers by state, under RunPod's own names.

    Attributes:
        jobs: ``completed`` ``failed`` ``inProgress`` ``inQueue`` ``retried``.
        workers: ``idle`` ``initializing`` ``ready`` ``running`` ``throttled`` ``unhealthy``.
    """

    jobs: Mapping[str, int]
    workers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StreamAnswer(Generic[_T]):
    """What ``/stream`` gave.

    Attributes:
        state: The job's state, or "".
        taken: What was made of the outputs, part by part.
        broken: Why the answer ended early, or None. What came before is in ``taken``; the rest is lost, since reads
            consume.
    """

    state: str
    taken: list[_T]
    broken: TransportError | None = None


class EndpointApi:
    """One endpoint over HTTP.

    Args:
        settings: Endpoint, key and address.
        session: The connection pool.
        pacer: Keeps the endpoint's rate limits.
        budget: Bounds the streamed bytes that are in memory at once.
        threads: Where long answers are parsed.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        session: aiohttp.ClientSession,
        pacer: Pacer,
        budget: ByteBudget,
        threads: Executor,
    ) -> None:
        self._exchange = Exchange(settings, session=session, pacer=pacer)
        self._budget = budget
        self._threads = threads

    @property
    def endpoint_id(self) -> str:
        """The endpoint's id."""
        return self._exchange.endpoint_id

    async def run(
        self, body: bytes, *, submission_id: str | None = None, on_send: Callable[[], None] | None = None
    ) -> JobStatus:
        """Submit a job: ``POST /run`` with a JSON body of at most 10 MiB.

        Until ``on_send`` is called RunPod knows nothing of it, and it can be cancelled without a trace.

        Raises:
            TransportError: No connection was made, so nothing was sent.
            SubmissionUncertain: It was sent and never answered.
            ApiError: RunPod refused it.
        """
        return await self._submit("run", "run", body, submission_id, on_send)

    async def runsync(
        self, body: bytes, *, submission_id: str | None = None, on_send: Callable[[], None] | None = None
    ) -> JobStatus:
        """Submit a job whose body has at most 20 MB: ``POST /runsync``, answered after a second or at the job's end.

        RunPod keeps the result of such a job for 60 s, so whoever submits it must follow it at once.

        Raises:
            TransportError: No connection was made, so nothing was sent.
            SubmissionUncertain: It was sent and never answered.
            ApiError: RunPod refused it.
        """
        return await self._submit("runsync", f"runsync?wait={_RUNSYNC_WAIT_MS}", body, submission_id, on_send)

    async def _submit(
        self, operation: str, path: str, body: bytes, submission_id: str | None, on_send: Callable[[], None] | None
    ) -> JobStatus:
        try:
            answer = await self._exchange.json("POST", operation, path, data=body, timeout_s=120, on_send=on_send)
            return _job_status(answer, endpoint_id=self.endpoint_id)
        except NotSent:
            raise
        except (TransportError, ServerError, ProtocolError) as exc:
            raise SubmissionUncertain(
                f"POST /{operation} was sent to endpoint {self.endpoint_id} and the answer was: {exc} "
                "The job may or may not be running, so it was not sent again. Look at the endpoint's requests in "
                "RunPod's console before you submit it once more.",
                submission_id=submission_id,
                endpoint_id=self.endpoint_id,
            ) from exc

    async def status(self, job_id: str) -> JobStatus:
        """Ask for a job's state and, where it has ended, its output: ``GET /status/{id}``."""
        answer = await self._exchange.json("GET", "status", f"status/{_segment(job_id)}", job_id=job_id)
        return _job_status(answer, endpoint_id=self.endpoint_id, job_id=job_id)

    async def status_sync(self, job_id: str, *, wait_s: float) -> JobStatus:
        """Ask for a job's state and let RunPod hold the answer for up to ``wait_s`` (at most 90) until it has ended.

        Documented until September 2025, and what RunPod's JavaScript SDK still uses; whether it is supported is
        unconfirmed. It counts as a ``status`` request.
        """
        path = f"status-sync/{_segment(job_id)}?wait={int(wait_s * 1000)}"
        answer = await self._exchange.json("GET", "status", path, job_id=job_id, timeout_s=wait_s + 15)
        return _job_status(answer, endpoint_id=self.endpoint_id, job_id=job_id)

    async def stream(self, job_id: str, take: Callable[[list[Any]], _T]) -> StreamAnswer[_T]:
        """Take what a job has yielded since the last call, and its state: ``GET /stream/{id}``.

        Reads consume: what one call got, no other call gets, so a job has one reader.

        Args:
            job_id: The job.
            take: Makes something of outputs; called for each part of a long answer as it arrives, in a thread, so
                that the part's bytes can be forgotten.
        """
        body = StreamBody()
        taken: list[_T] = []

        async def work(part: Callable[[], list[Any]], size_bytes: int) -> None:
            def do() -> None:
                if outputs := part():
                    taken.append(take(outputs))

            if size_bytes < _INLINE_BYTES:
                do()
            else:
                await asyncio.get_running_loop().run_in_executor(self._threads, do)

        try:
            path = f"stream/{_segment(job_id)}"
            async with self._exchange.answer("GET", "stream", path, job_id=job_id, timeout_s=120) as answer:
                await self._read_body(answer, body, work)
        except TransportError as exc:
            await work(body.cut, _INLINE_BYTES)
            if not taken:
                raise
            return StreamAnswer(body.state, taken, broken=exc)
        except ValueError as exc:
            raise ProtocolError(
                f"RunPod's answer to /stream cannot be read: {exc}.", job_id=job_id, endpoint_id=self.endpoint_id
            ) from exc
        return StreamAnswer(body.state, taken)

    async def _read_body(self, answer: aiohttp.ClientResponse, body: StreamBody, work: _Work) -> None:
        total = 0
        # Lent when the answer is there, so that whoever waits for memory holds none.
        async with self._budget.lend(min(answer.content_length or _UNKNOWN_LENGTH_BYTES, 2 * CUT_BYTES)):
            async for chunk in chunks(answer):
                body.add(chunk)
                total += len(chunk)
                if body.is_long:
                    await work(body.cut, total)
            await work(body.end, total)

    async def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job, waiting or running: ``POST /cancel/{id}``."""
        answer = await self._exchange.json("POST", "cancel", f"cancel/{_segment(job_id)}", job_id=job_id, timeout_s=10)
        return _job_status(answer, endpoint_id=self.endpoint_id, job_id=job_id)

    async def purge_queue(self) -> int:
        """Remove the jobs that wait, whoever submitted them, and return how many: ``POST /purge-queue``."""
        answer = await self._exchange.json("POST", "purge-queue", "purge-queue", timeout_s=15)
        removed = answer.get("removed") if isinstance(answer, dict) else None
        return removed if isinstance(removed, int) else 0

    async def health(self) -> EndpointHealth:
        """Ask how many jobs and workers the endpoint has: ``GET /health``."""
        return (await self.health_and_date())[0]

    async def health_and_date(self) -> tuple[EndpointHealth, datetime | None]:
        """Do what :meth:`health` does, and return what time it is there (the answer's ``Date``), where that is told."""
        answer, headers = await self._exchange.json_and_headers("GET", "health", "health", timeout_s=15)
        if not isinstance(answer, dict):
            raise ProtocolError("RunPod's answer to /health is no object.", endpoint_id=self.endpoint_id)
        health = EndpointHealth(jobs=_counts(answer.get("jobs")), workers=_counts(answer.get("workers")))
        try:
            return health, parsedate_to_datetime(headers.get("Date", ""))
        except ValueError:
            return health, None


def _job_status(answer: Any, *, endpoint_id: str, job_id: str | None = None) -> JobStatus:
    found = answer.get("id", job_id) if isinstance(answer, dict) else None
    if not isinstance(found, str) or not (job_id or found.strip()) or not isinstance(answer.get("status"), str):
        raise ProtocolError(
            "RunPod's answer has no job id and status. Is this a queue-based endpoint (not a load-balancing one)?",
            job_id=job_id,
            endpoint_id=endpoint_id,
        )
    error = answer.get("error")
    return JobStatus(
        job_id=job_id or found,
        state=answer["status"],
        output=answer.get("output"),
        error=error if isinstance(error, str) or error is None else orjson.dumps(error).decode(),
        delay_s=_seconds(answer.get("delayTime")),
        execution_s=_seconds(answer.get("executionTime")),
        worker_id=answer.get("workerId") if isinstance(answer.get("workerId"), str) else None,
        raw=answer,
    )


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) else None


def _counts(value: Any) -> dict[str, int]:
    return {name: n for name, n in value.items() if isinstance(n, int)} if isinstance(value, dict) else {}


def _segment(job_id: str) -> str:
    return quote(job_id, safe="")
