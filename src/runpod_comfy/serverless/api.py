"""RunPod's HTTP API for one queue-based endpoint: one method a route, values out, errors of our tree.

Routes and shapes: RunPod docs, serverless/endpoints/operation-reference, and the official Python, JavaScript and Go
SDKs. The bodies of errors are documented nowhere, so they are kept as text and never interpreted.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import logging
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from runpod_comfy.errors import (
    ApiError,
    AuthenticationError,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    SubmissionUncertain,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.serverless.pacing import Pacer
    from runpod_comfy.settings import EndpointSettings

__all__ = ["FINAL_STATES", "MAX_RUN_BODY_BYTES", "EndpointApi", "EndpointHealth", "JobStatus", "proxy_for"]

logger = logging.getLogger(__name__)

MAX_RUN_BODY_BYTES = 10 * 1024 * 1024
"""RunPod refuses larger bodies of ``/run`` (docs: 10 MB; the message says 10MiB)."""

FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})

# An answer holds at most the lines of one job that were not read yet; a hostile one must not fill the memory.
_MAX_ANSWER_BYTES = 512 * 1024 * 1024
_SHOWN_BODY_CHARS = 400
_DEFAULT_PAUSE_S = 2.0
_CONNECT_S = 15.0


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


class EndpointApi:
    """One endpoint over HTTP. The key goes to the configured address only: redirects are not followed."""

    def __init__(self, settings: EndpointSettings, *, session: aiohttp.ClientSession, pacer: Pacer) -> None:
        self._settings = settings
        self._session = session
        self._pacer = pacer
        self._root = f"{settings.base_url}/{quote(settings.endpoint_id, safe='')}"
        self._headers = {"Authorization": f"Bearer {settings.api_key}"}
        self._proxy = proxy_for(settings.base_url)

    @property
    def endpoint_id(self) -> str:
        """The endpoint's id."""
        return self._settings.endpoint_id

    async def run(self, body: bytes, *, submission_id: str | None = None) -> JobStatus:
        """Submit a job: ``POST /run`` with a JSON body of at most 10 MiB.

        Raises:
            TransportError: No connection was made, so nothing was sent.
            SubmissionUncertain: It was sent and never answered.
            ApiError: RunPod refused it.
        """
        try:
            answer = await self._request("POST", "run", "run", data=body, timeout_s=120)
            return _job_status(answer, endpoint_id=self.endpoint_id)
        except _NotSent:
            raise
        except (TransportError, ServerError, ProtocolError) as exc:
            raise SubmissionUncertain(
                f"POST /run was sent to endpoint {self.endpoint_id} and the answer was: {exc} "
                "The job may or may not be running, so it was not sent again. Look at the endpoint's requests in "
                "RunPod's console before you submit it once more.",
                submission_id=submission_id,
                endpoint_id=self.endpoint_id,
            ) from exc

    async def status(self, job_id: str) -> JobStatus:
        """Ask for a job's state and, where it has ended, its output: ``GET /status/{id}``."""
        answer = await self._request("GET", "status", f"status/{_segment(job_id)}", job_id=job_id)
        return _job_status(answer, endpoint_id=self.endpoint_id, job_id=job_id)

    async def status_sync(self, job_id: str, *, wait_s: float) -> JobStatus:
        """Ask for a job's state and let RunPod hold the answer for up to ``wait_s`` (at most 90) until it has ended.

        Documented until September 2025, and what RunPod's JavaScript SDK still uses; whether it is supported is
        unconfirmed. It counts as a ``status`` request.
        """
        path = f"status-sync/{_segment(job_id)}?wait={int(wait_s * 1000)}"
        answer = await self._request("GET", "status", path, job_id=job_id, timeout_s=wait_s + 15)
        return _job_status(answer, endpoint_id=self.endpoint_id, job_id=job_id)

    async def stream(self, job_id: str) -> tuple[str, list[Any]]:
        """Take what a job has yielded since the last call, and its state: ``GET /stream/{id}``.

        Reads consume: what one call got, no other call gets, so a job has one reader.
        """
        answer = await self._request("GET", "stream", f"stream/{_segment(job_id)}", job_id=job_id, timeout_s=120)
        # The docs show a bare list; both official SDKs read an object. Either is taken.
        pieces = answer if isinstance(answer, list) else answer.get("stream") if isinstance(answer, dict) else None
        if not isinstance(pieces, list):
            raise ProtocolError("RunPod's answer to /stream has no list of outputs.", job_id=job_id)
        state = answer.get("status") if isinstance(answer, dict) else None
        outputs = [piece.get("output") if isinstance(piece, dict) else piece for piece in pieces]
        return (state if isinstance(state, str) else ""), outputs

    async def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job, waiting or running: ``POST /cancel/{id}``."""
        answer = await self._request("POST", "cancel", f"cancel/{_segment(job_id)}", job_id=job_id, timeout_s=10)
        return _job_status(answer, endpoint_id=self.endpoint_id, job_id=job_id)

    async def health(self) -> EndpointHealth:
        """Ask how many jobs and workers the endpoint has: ``GET /health``."""
        answer = await self._request("GET", "health", "health", timeout_s=15)
        if not isinstance(answer, dict):
            raise ProtocolError("RunPod's answer to /health is no object.", endpoint_id=self.endpoint_id)
        return EndpointHealth(jobs=_counts(answer.get("jobs")), workers=_counts(answer.get("workers")))

    async def _request(
        self,
        method: str,
        operation: str,
        path: str,
        *,
        data: bytes | None = None,
        timeout_s: float = 30,
        job_id: str | None = None,
    ) -> Any:
        headers = {**self._headers, "Content-Type": "application/json"} if method == "POST" else self._headers
        if method == "POST" and data is None:
            data = b"{}"
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=_CONNECT_S)
        async with self._pacer.turn(operation):
            try:
                async with self._session.request(
                    method,
                    f"{self._root}/{path}",
                    # aiohttp warns of large bytes, and is content with the same bytes behind a file.
                    data=io.BytesIO(data) if data is not None else None,
                    headers=headers,
                    timeout=timeout,
                    proxy=self._proxy,
                    allow_redirects=False,
                ) as response:
                    content = await _read(response)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
                raise _NotSent(
                    f"No connection to {_origin(self._root)}: {_reason(exc)}. Check the network and the address.",
                    job_id=job_id,
                    endpoint_id=self.endpoint_id,
                ) from exc
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise TransportError(
                    f"{_origin(self._root)} did not answer to {operation}: {_reason(exc)}.",
                    job_id=job_id,
                    endpoint_id=self.endpoint_id,
                ) from exc
        if response.ok and response.status < 300:  # noqa: PLR2004 - the first redirect
            return self._parse(content, operation, job_id)
        error = self._api_error(response, content, operation, job_id)
        if isinstance(error, RateLimited):
            self._pacer.slow_down(operation, error.retry_after_s or _DEFAULT_PAUSE_S)
        raise error

    def _parse(self, content: bytes, operation: str, job_id: str | None) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as exc:
            raise ProtocolError(
                f"{_origin(self._root)} answered to {operation} with something that is not JSON "
                f"({len(content):,} bytes). Is the base URL right?",
                job_id=job_id,
                endpoint_id=self.endpoint_id,
            ) from exc

    def _api_error(
        self, response: aiohttp.ClientResponse, content: bytes, operation: str, job_id: str | None
    ) -> ApiError:
        status = response.status
        body = content[: 4 * _SHOWN_BODY_CHARS].decode("utf-8", "replace").replace(self._settings.api_key, "<key>")
        body = " ".join(body.split())[:_SHOWN_BODY_CHARS]
        kind, advice = _meaning(status, operation, self.endpoint_id)
        error = kind(
            f"RunPod answered {status} to {operation}: {advice}" + (f" It said: {body}" if body else ""),
            status_code=status,
            body=body,
            job_id=job_id,
            endpoint_id=self.endpoint_id,
        )
        if isinstance(error, RateLimited):
            error.retry_after_s = _retry_after_s(response.headers.get("Retry-After"))
        return error


class _NotSent(TransportError):
    """No connection was made, so the server cannot have seen the request."""


def _meaning(  # noqa: PLR0911 - a table of statuses
    status: int, operation: str, endpoint_id: str
) -> tuple[type[ApiError], str]:
    match status:
        case 401 | 403:
            return AuthenticationError, "the API key is missing, wrong, or not allowed to use this endpoint."
        case 404 if operation in {"run", "health"}:
            return NotFound, f"there is no endpoint {endpoint_id!r}. Check the endpoint's id."
        case 404:
            return NotFound, "it does not know the job (results are kept for 30 minutes), or there is no such endpoint."
        case 429:
            return RateLimited, "too many requests."
        case 400 | 413 if operation == "run":
            return ApiError, "it does not accept the request (bodies over 10 MiB are refused in this way too)."
        case _ if status >= 500:  # noqa: PLR2004 - server errors
            return ServerError, "the service failed; trying again later may help."
        case _ if 300 <= status < 400:  # noqa: PLR2004 - redirects
            return (
                ApiError,
                "a redirect, which is not followed, since the key must not go elsewhere. Check the base URL.",
            )
        case _:
            return ApiError, "the request was refused."


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, or None; loopback addresses never use one.

    aiohttp's own ``trust_env`` is not used, since it would also send what ``~/.netrc`` holds.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, up to a bound."""
    length = response.content_length
    if length is not None and length > _MAX_ANSWER_BYTES:
        raise ProtocolError(f"RunPod's answer has {length:,} bytes; more than {_MAX_ANSWER_BYTES:,} are not read.")
    chunks: list[bytes] = []
    total = 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > _MAX_ANSWER_BYTES:
            raise ProtocolError(
                f"RunPod's answer has more than {_MAX_ANSWER_BYTES:,} bytes and was not read to its end."
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _job_status(answer: Any, *, endpoint_id: str, job_id: str | None = None) -> JobStatus:
    found = answer.get("id", job_id) if isinstance(answer, dict) else None
    if not isinstance(found, str) or not isinstance(answer.get("status"), str):
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


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _reason(exc: BaseException) -> str:
    if isinstance(exc, (asyncio.TimeoutError, TimeoutError)):
        return "time-out"
    return str(exc) or type(exc).__name__


def _retry_after_s(header: str | None) -> float | None:
    """Read the seconds of a ``Retry-After`` (the date form is not used by APIs); bounded, since it is outside data."""
    try:
        return min(300.0, max(0.0, float(header))) if header else None
    except ValueError:
        return None
