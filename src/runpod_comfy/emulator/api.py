"""The emulator as an HTTP server, for clients and for workers.

>>> import asyncio, aiohttp
>>> from runpod_comfy.emulator import EmulatorServer
>>> async def main() -> int:
...     async with EmulatorServer() as server, aiohttp.ClientSession() as session:
...         key = {"Authorization": "Bearer any"}
...         async with session.get(f"{server.base_url}/emulator/health", headers=key) as answer:
...             return (await answer.json())["jobs"]["inQueue"]
>>> asyncio.run(main())
0

An endpoint without workers leaves its jobs in the queue, as RunPod does: start the SDK's worker loop with
``worker_env()``, or an ``InProcessWorker`` on the same platform and loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar

import orjson
from aiohttp import web

from runpod_comfy.emulator.changes import Changes
from runpod_comfy.emulator.client_routes import ClientRoutes, authenticate, json_response
from runpod_comfy.emulator.faults import (
    CLIENT_ROUTES,
    Answer,
    ClockJump,
    Delay,
    Expire,
    Html,
    Redirect,
    Reset,
    Status,
    Truncate,
)
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.limits import RateLimiter
from runpod_comfy.emulator.platform import Platform
from runpod_comfy.emulator.worker_routes import WorkerRoutes, worker_environment
from runpod_comfy.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from aiohttp.typedefs import Handler

__all__ = ["DEFAULT_ENDPOINT_ID", "EmulatorServer", "EmulatorThread"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_ENDPOINT_ID: Final = "emulator"
_LARGEST_BODY_BYTES: Final = 512 * 1024 * 1024  # far over RunPod's limits, which answer 400 and not 413
_READ_BUFFER_BYTES: Final = 1024 * 1024
_SHUTDOWN_TIMEOUT_S: Final = 1.0
_THREAD_TIMEOUT_S: Final = 10.0


class EmulatorServer:
    """RunPod's API on this machine.

    Args:
        platform: The endpoints and jobs; by default a platform with one endpoint, ``emulator``.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        stream_hold_s: How long a read of ``/stream`` waits for a piece, in seconds; 0 answers at once.
        worker_hold_s: How long ``job-take`` and ``job-stop`` wait, in seconds.
    """

    def __init__(
        self,
        platform: Platform | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        stream_hold_s: float = 0.0,
        worker_hold_s: float = 5.0,
    ) -> None:
        self.platform = platform or Platform(EndpointConfig(endpoint_id=DEFAULT_ENDPOINT_ID))
        self._host = host
        self._port = port
        self._stream_hold_s = stream_hold_s
        self._worker_hold_s = worker_hold_s
        self._limiter = RateLimiter(self.platform.clock)
        self._changes: Changes | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address can't be had, for example because the port is in use.
        """
        self._changes = Changes(self.platform)
        app = web.Application(
            client_max_size=_LARGEST_BODY_BYTES, middlewares=[self._plan_faults, self._answer_errors, self._admit]
        )
        app.add_routes(ClientRoutes(self.platform, self._changes, stream_hold_s=self._stream_hold_s).routes())
        app.add_routes(WorkerRoutes(self.platform, self._changes, hold_s=self._worker_hold_s).routes())
        # With cancellation a client that hangs up during a long poll takes nothing away with it.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
            read_bufsize=_READ_BUFFER_BYTES,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self.stop()
            raise
        self._port = self._runner.addresses[0][1]
        logger.debug("emulator listens on %s", self.url)

    async def stop(self) -> None:
        """End all long polls and stop listening; a second call does nothing."""
        if self._changes is not None:
            self._changes.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._changes = self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The address, ``http://host:port``; the port is known once the server has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def base_url(self) -> str:
        """What clients use as RunPod's base URL (``RUNPOD_ENDPOINT_BASE_URL``)."""
        return f"{self.url}/v2"

    def worker_env(self, endpoint_id: str = DEFAULT_ENDPOINT_ID, worker_id: str = "worker-1") -> dict[str, str]:
        """Return the environment variables that make the real SDK's worker loop take this endpoint's jobs.

        Raises:
            NotFound: There is no such endpoint.
        """
        config = self.platform.config(endpoint_id)
        return worker_environment(
            base_url=self.base_url,
            endpoint_id=endpoint_id,
            worker_id=worker_id,
            worker_timeout_s=config.worker_timeout_s,
        )

    @web.middleware
    async def _plan_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let planned faults happen; everything else is inside."""
        route = request.match_info.route.resource
        action = self.platform.faults.on_request(
            (route.name if route is not None else None) or "", request.match_info.get("job_id")
        )
        match action:
            case None:
                return await handler(request)
            case Delay(delay_s=delay_s):
                await asyncio.sleep(delay_s)
                return await handler(request)
            case ClockJump(jump_s=jump_s):
                self.platform.skip(jump_s)
                return await handler(request)
            case Expire():
                self.platform.expire(request.match_info["endpoint_id"], request.match_info["job_id"])
                return await handler(request)
            case Truncate():
                return await _truncated(request, await handler(request))
        if action.processed:
            await handler(request)
        return _reset(request) if isinstance(action, Reset) else _replaced(action)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell errors as HTTP. The shape of RunPod's error bodies is unconfirmed."""
        try:
            return await handler(request)
        except ApiError as error:
            return json_response(orjson.dumps({"error": str(error)}), status=error.status_code)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check a client's key and rate; the first routes are the clients', the others the workers'."""
        resource = request.match_info.route.resource
        if resource is None or resource.name not in CLIENT_ROUTES:
            return await handler(request)
        config = self.platform.config(request.match_info["endpoint_id"])
        authenticate(config, request.headers)
        if not config.enforce_rate_limits:
            return await handler(request)
        with self._limiter.entered(config.endpoint_id, resource.name):
            return await handler(request)


class EmulatorThread:
    """An emulator on an event loop of its own, for code that has none.

    >>> with EmulatorThread() as emulator:
    ...     emulator.call(emulator.server.platform.health, "emulator")["jobs"]["inQueue"]
    0

    Args:
        server: The server; by default one with one endpoint, ``emulator``.
    """

    def __init__(self, server: EmulatorServer | None = None) -> None:
        self.server = server or EmulatorServer()
        self._thread = threading.Thread(target=self._run, name="runpod-emulator", daemon=True)
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(_THREAD_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on the loop's thread, where the platform may be used, and return its result."""

        async def on_loop() -> T:
            return function(*args, **kwargs)

        return self.run(on_loop())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started.result()).result()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        try:
            await self.server.start()
        except BaseException as error:  # noqa: BLE001 raised again in the thread that waits for the start
            self._started.set_exception(error)
            return
        self._started.set_result(asyncio.get_running_loop())
        try:
            await self._stop.wait()
        finally:
            await self.server.stop()


def _replaced(action: Status | Html | Answer | Redirect) -> web.Response:
    match action:
        case Status(code=code, retry_after_s=retry_after_s):
            answer = json_response(orjson.dumps({"error": "planned fault"}), status=code)
            if retry_after_s is not None:
                answer.headers["Retry-After"] = f"{retry_after_s:g}"
            return answer
        case Html(code=code):
            page = f"<html><head><title>{code}</title></head><body>planned fault</body></html>"
            return web.Response(text=page, status=code, content_type="text/html")
        case Answer(body=body, code=code):
            return json_response(body if isinstance(body, bytes) else orjson.dumps(body), status=code)
        case Redirect(url=url, code=code):
            return web.Response(status=code, headers={"Location": url})


def _reset(request: web.Request) -> web.Response:
    transport = request.transport
    if transport is not None:
        # A linger time of zero makes close() send RST and not FIN.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


async def _truncated(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
    half = web.StreamResponse(status=answer.status)
    half.content_type = answer.content_type
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half
