"""RunPod's endpoint API as clients see it: ``/v2/{endpoint_id}/…``."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from runpod_comfy.emulator.lifecycle import Topic
from runpod_comfy.errors import ApiError, AuthenticationError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

    from runpod_comfy.emulator.changes import Changes
    from runpod_comfy.emulator.jobs import EndpointConfig, JobStatus, StreamRead
    from runpod_comfy.emulator.platform import Platform

__all__ = ["ClientRoutes", "authenticate", "json_response"]

_DEFAULT_WAIT_MS: Final = 90_000
_MIN_WAIT_MS: Final = 1_000
_MAX_WAIT_MS: Final = 300_000


class ClientRoutes:
    """The handlers; each turns a request into one call of the platform.

    Args:
        platform: The jobs.
        changes: The platform's changes on this loop.
        stream_hold_s: How long a read of ``/stream`` waits for a piece, in seconds. What RunPod does is unconfirmed;
            0 answers at once, so that a client has to poll.
    """

    def __init__(self, platform: Platform, changes: Changes, *, stream_hold_s: float) -> None:
        self._platform = platform
        self._changes = changes
        self._stream_hold_s = stream_hold_s

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, named as in ``faults.CLIENT_ROUTES``."""
        base = "/v2/{endpoint_id}"
        # GET and POST: the Go SDK posts to /status and /status-sync, the old documents allow both for /stream.
        return [
            web.post(f"{base}/run", self.run, name="run"),
            web.post(f"{base}/runsync", self.runsync, name="runsync"),
            *_get_and_post(f"{base}/status/{{job_id}}", self.status, "status"),
            *_get_and_post(f"{base}/status-sync/{{job_id}}", self.status_sync, "status-sync"),
            *_get_and_post(f"{base}/stream/{{job_id}}", self.stream, "stream"),
            web.post(f"{base}/cancel/{{job_id}}", self.cancel, name="cancel"),
            web.post(f"{base}/retry/{{job_id}}", self.retry, name="retry"),
            web.post(f"{base}/purge-queue", self.purge_queue, name="purge-queue"),
            web.get(f"{base}/health", self.health, name="health"),
            web.get(f"{base}/requests", self.requests, name="requests"),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Queue a job and answer at once."""
        body = await request.read()
        return json_response(self._platform.submit(request.match_info["endpoint_id"], body).to_json())

    async def runsync(self, request: web.Request) -> web.Response:
        """Queue a job and wait for it, up to ``?wait=`` milliseconds."""
        endpoint_id = request.match_info["endpoint_id"]
        wait_s = _wait_s(request)
        job = self._platform.submit(endpoint_id, await request.read(), sync=True)
        return json_response(await self._final(endpoint_id, job.job_id, wait_s))

    async def status(self, request: web.Request) -> web.Response:
        """Answer with the job's state; ``?ttl=`` milliseconds from now it is forgotten."""
        ttl_s = _milliseconds(request, "ttl") / 1000 if "ttl" in request.query else None
        return json_response(self._platform.status(*_job(request), ttl_s=ttl_s).to_json())

    async def status_sync(self, request: web.Request) -> web.Response:
        """Answer as soon as the state is final, or with the state after ``?wait=`` milliseconds."""
        endpoint_id, job_id = _job(request)
        if not self._platform.config(endpoint_id).status_sync:
            raise NotFound("404 page not found", status_code=404, endpoint_id=endpoint_id)
        return json_response(await self._final(endpoint_id, job_id, _wait_s(request)))

    async def stream(self, request: web.Request) -> web.Response:
        """Take away what the job has streamed since the last read."""
        endpoint_id, job_id = _job(request)

        def read() -> StreamRead | None:
            found = self._platform.read_stream(endpoint_id, job_id)
            return found if found.pieces or found.state.is_final else None

        topic = Topic("job", endpoint_id, job_id)
        found = await self._changes.wait(topic, read, timeout_s=self._stream_hold_s) if self._stream_hold_s else None
        return json_response((found or self._platform.read_stream(endpoint_id, job_id)).to_json())

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel the job."""
        return json_response(_id_and_state(self._platform.cancel(*_job(request))))

    async def retry(self, request: web.Request) -> web.Response:
        """Queue a failed job again."""
        return json_response(_id_and_state(self._platform.retry(*_job(request))))

    async def purge_queue(self, request: web.Request) -> web.Response:
        """Forget all queued jobs."""
        removed = self._platform.purge_queue(request.match_info["endpoint_id"])
        return json_response(orjson.dumps({"removed": removed, "status": "completed"}))

    async def health(self, request: web.Request) -> web.Response:
        """Answer with the counts of jobs and workers."""
        return json_response(orjson.dumps(self._platform.health(request.match_info["endpoint_id"])))

    async def requests(self, request: web.Request) -> web.Response:
        """Answer with the jobs. Only the name of this route is documented; the shape is this emulator's."""
        jobs = self._platform.statuses(request.match_info["endpoint_id"])
        return json_response(orjson.dumps({"requests": [{"id": job.job_id, "status": job.state} for job in jobs]}))

    async def _final(self, endpoint_id: str, job_id: str, wait_s: float) -> bytes:
        def final() -> JobStatus | None:
            job = self._platform.status(endpoint_id, job_id)
            return job if job.state.is_final else None

        job = await self._changes.wait(Topic("job", endpoint_id, job_id), final, timeout_s=wait_s)
        return (job or self._platform.status(endpoint_id, job_id)).to_json()


def authenticate(config: EndpointConfig, headers: Mapping[str, str]) -> None:
    """Check a client's key.

    Raises:
        AuthenticationError: 401, the key is missing or wrong. A bare key without ``Bearer``, as some of RunPod's own
            samples send it, is refused: whether RunPod takes it is unconfirmed.
    """
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    known = config.api_keys is None or any(hmac.compare_digest(key.encode(), k.encode()) for k in config.api_keys)
    if scheme.lower() != "bearer" or not key.strip() or not known:
        raise AuthenticationError("unauthorized", status_code=401, endpoint_id=config.endpoint_id)


def json_response(body: bytes, *, status: int = 200) -> web.Response:
    """Answer with JSON that is already encoded."""
    return web.Response(body=body, status=status, content_type="application/json")


def _get_and_post(path: str, handler: Handler, name: str) -> list[web.RouteDef]:
    # No HEAD: it would consume what /stream has. Neighbours of one path and name are one resource for aiohttp.
    return [web.get(path, handler, name=name, allow_head=False), web.post(path, handler, name=name)]


def _job(request: web.Request) -> tuple[str, str]:
    return request.match_info["endpoint_id"], request.match_info["job_id"]


def _id_and_state(job: JobStatus) -> bytes:
    return orjson.dumps({"id": job.job_id, "status": job.state})


def _wait_s(request: web.Request) -> float:
    wait_ms = _milliseconds(request, "wait") if "wait" in request.query else _DEFAULT_WAIT_MS
    return min(max(wait_ms, _MIN_WAIT_MS), _MAX_WAIT_MS) / 1000


def _milliseconds(request: web.Request, name: str) -> float:
    try:
        return int(request.query[name])
    except ValueError as exc:
        raise ApiError(f"{name} must be a number of milliseconds", status_code=400) from exc
