"""RunPod's job-take API as the SDK's worker loop sees it (runpod 1.12: rp_job.py, rp_http.py, rp_ping.py).

This protocol is private to RunPod and its SDK. Its routes ask for no key: the SDK sends the one in
``~/.runpod/config.toml`` where there is one, whatever the environment says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from runpod_comfy.emulator.bodies import parse_message
from runpod_comfy.emulator.client_routes import json_response
from runpod_comfy.emulator.lifecycle import Topic
from runpod_comfy.emulator.platform import Report

if TYPE_CHECKING:
    from runpod_comfy.emulator.changes import Changes
    from runpod_comfy.emulator.jobs import TakenJob
    from runpod_comfy.emulator.platform import Platform

__all__ = ["WorkerRoutes", "worker_environment"]

_MAX_BATCH: Final = 1000
_MIN_PING_INTERVAL_MS: Final = 1000


class WorkerRoutes:
    """The handlers; each turns a request into one call of the platform.

    Args:
        platform: The jobs.
        changes: The platform's changes on this loop.
        hold_s: How long ``job-take`` and ``job-stop`` wait, in seconds. RunPod holds them for up to 90; the SDK ends
            only when both have answered.
    """

    def __init__(self, platform: Platform, changes: Changes, *, hold_s: float) -> None:
        self._platform = platform
        self._changes = changes
        self._hold_s = hold_s

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, named as in ``faults.WORKER_ROUTES``."""
        base = "/v2/{endpoint_id}"
        return [
            web.get(f"{base}/job-take/{{worker_id}}", self.take, name="job-take"),
            web.get(f"{base}/job-take-batch/{{worker_id}}", self.take_batch, name="job-take-batch"),
            web.post(f"{base}/job-done/{{worker_id}}/{{job_id}}", self.done, name="job-done"),
            web.post(f"{base}/job-stream/{{worker_id}}/{{job_id}}", self.stream, name="job-stream"),
            web.get(f"{base}/job-stop/{{worker_id}}", self.stop, name="job-stop"),
            web.get(f"{base}/ping/{{worker_id}}", self.ping, name="ping"),
        ]

    async def take(self, request: web.Request) -> web.Response:
        """Hand out one job, or 204."""
        jobs = await self._take(request, limit=1)
        return json_response(jobs[0].body) if jobs else web.Response(status=204)

    async def take_batch(self, request: web.Request) -> web.Response:
        """Hand out up to ``?batch_size=`` jobs as an array, or 204."""
        batch_size = request.query.get("batch_size", "1")
        jobs = await self._take(request, limit=min(int(batch_size), _MAX_BATCH) if batch_size.isdecimal() else 1)
        return json_response(b"[" + b",".join(job.body for job in jobs) + b"]") if jobs else web.Response(status=204)

    async def done(self, request: web.Request) -> web.Response:
        """Take a result or a progress update: JSON, though the SDK labels it as a form."""
        return _answer(self._platform.report(*_worker(request), request.match_info["job_id"], await request.read()))

    async def stream(self, request: web.Request) -> web.Response:
        """Take a streamed piece, ``{"output": …}``."""
        message = parse_message(await request.read())
        if message is None or "output" not in message:
            return _answer(Report.REFUSED)
        output_json = orjson.dumps(message["output"])
        return _answer(self._platform.add_piece(*_worker(request), request.match_info["job_id"], output_json))

    async def stop(self, request: web.Request) -> web.Response:
        """Tell which jobs to stop, or 204."""
        endpoint_id, worker_id = _worker(request)
        job_ids = await self._changes.wait(
            Topic("stop", endpoint_id, worker_id),
            lambda: self._platform.stop_signals(endpoint_id, worker_id) or None,
            timeout_s=self._hold_s,
        )
        return json_response(orjson.dumps({"jobsToStop": job_ids})) if job_ids else web.Response(status=204)

    async def ping(self, request: web.Request) -> web.Response:
        """Take a sign of life, or the report of a failed fitness check."""
        self._platform.ping(*_worker(request), healthy=request.query.get("status") != "unhealthy")
        return json_response(b"{}")

    async def _take(self, request: web.Request, *, limit: int) -> list[TakenJob] | None:
        endpoint_id, worker_id = _worker(request)
        return await self._changes.wait(
            Topic("queue", endpoint_id),
            lambda: self._platform.take(endpoint_id, worker_id, limit=limit) or None,
            timeout_s=self._hold_s,
        )


def worker_environment(*, base_url: str, endpoint_id: str, worker_id: str, worker_timeout_s: float) -> dict[str, str]:
    """Return the variables that make ``runpod.serverless.start`` work for an emulator.

    Args:
        base_url: The emulator's address with ``/v2``.
        endpoint_id: The endpoint whose jobs to take.
        worker_id: The worker's id.
        worker_timeout_s: How long the worker may be silent; it pings four times as often where whole seconds allow.
    """
    # The SDK replaces $ID and $RUNPOD_POD_ID, and appends "&…": a URL without "?" would break.
    base, query = f"{base_url}/{endpoint_id}", "?gpu=none"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID{query}",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID{query}",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID{query}",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID{query}",
        "RUNPOD_PING_INTERVAL": str(max(_MIN_PING_INTERVAL_MS, round(worker_timeout_s / 4) * 1000)),
        "RUNPOD_AI_API_KEY": "emulator",  # without one the SDK sends no pings
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        # The fitness checks want 4 GB of memory, a tenth of the disk free, the internet and a GPU, or the worker exits.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        # At DEBUG, its default, the SDK prints what handlers return.
        "RUNPOD_LOG_LEVEL": "INFO",
        # The pings go through `requests`, which would hand them to a proxy.
        "NO_PROXY": "127.0.0.1,localhost,::1",
        "no_proxy": "127.0.0.1,localhost,::1",
    }


def _worker(request: web.Request) -> tuple[str, str]:
    return request.match_info["endpoint_id"], request.match_info["worker_id"]


def _answer(report: Report) -> web.Response:
    if report is Report.ACCEPTED:
        return json_response(b"{}")
    return json_response(orjson.dumps({"error": report.name.lower()}), status=report)
