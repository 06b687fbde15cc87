"""What all jobs of a process share: one connection pool, and one pacer and one memory for each endpoint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from runpod_comfy import _loop
from runpod_comfy._version import __version__
from runpod_comfy.serverless.api import EndpointApi
from runpod_comfy.serverless.budget import ByteBudget
from runpod_comfy.serverless.exchange import sending_trace
from runpod_comfy.serverless.habits import EndpointHabits
from runpod_comfy.serverless.pacing import Pacer

if TYPE_CHECKING:
    from runpod_comfy.settings import EndpointSettings

__all__ = ["EndpointLink", "connect", "http_session"]

_MAX_CONNECTIONS = 1000

_MAX_ANSWERS_BYTES = 32 * 1024 * 1024
"""How much of streamed answers is in memory at once, before it is parsed and decoded (which takes three times that)."""

_THREADS = 1  # parsing holds Python's lock, so more would only take it from the caller's own threads


@dataclass(frozen=True, slots=True)
class EndpointLink:
    """One endpoint, ready to be used on the background loop."""

    api: EndpointApi
    habits: EndpointHabits


async def connect(settings: EndpointSettings) -> EndpointLink:
    """Return the link to an endpoint; must run on the background loop. Nothing is sent."""
    session = await http_session()
    place = (settings.base_url, settings.endpoint_id)
    pacer, habits = await _loop.shared(("endpoint", *place), _shared_state, _nothing_to_close)
    budget, threads = await _loop.shared("reading", _open_reading, _close_reading)
    return EndpointLink(EndpointApi(settings, session=session, pacer=pacer, budget=budget, threads=threads), habits)


async def http_session() -> aiohttp.ClientSession:
    """Return the process's one connection pool; must run on the background loop."""
    return await _loop.shared("http-session", _open_session, aiohttp.ClientSession.close)


async def _open_session() -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, limit_per_host=0),
        headers={"User-Agent": f"runpod-comfy-client/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[sending_trace()],
    )
    # aiohttp repeats a GET by itself when a kept connection breaks. A read of /stream consumes, so a repeated one says
    # that nothing was there, and nobody learns of what the first one took. There is no public switch; aiohttp's own
    # test client uses this one.
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # noqa: SLF001 - see above
    return session


async def _shared_state() -> tuple[Pacer, EndpointHabits]:
    return Pacer(), EndpointHabits()


async def _open_reading() -> tuple[ByteBudget, ThreadPoolExecutor]:
    return ByteBudget(_MAX_ANSWERS_BYTES), ThreadPoolExecutor(_THREADS, thread_name_prefix="runpod-comfy-read")


async def _close_reading(reading: tuple[ByteBudget, ThreadPoolExecutor]) -> None:
    reading[1].shutdown(wait=False, cancel_futures=True)


async def _nothing_to_close(_: object) -> None:
    return
