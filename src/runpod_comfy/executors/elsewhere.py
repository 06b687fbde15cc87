"""Outputs that a worker put into a bucket, fetched from there and checked.

The URL comes from the worker: nothing of ours goes with the request, no redirect is followed, and where the worker
announced size and hash, what arrives counts only if it has them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from runpod_comfy.errors import OutputLost
from runpod_comfy.events import OutputReady
from runpod_comfy.results import OutputElsewhere
from runpod_comfy.serverless.connect import http_session
from runpod_comfy.serverless.exchange import proxy_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.events import Event
    from runpod_comfy.executors.filing import Filing
    from runpod_comfy.results import OutputFile, Timings

__all__ = ["MAX_FETCHED_BYTES", "fetch_output", "with_fetched_outputs"]

logger = logging.getLogger(__name__)

MAX_FETCHED_BYTES = 4 * 1024**3
"""A larger output is not fetched into memory; its URL is in the worker's answer."""

_RETRY_AFTER_S = (0.5, 2.0, 5.0)
_CHUNK_BYTES = 1024 * 1024
_SILENT_S, _SLOWEST_BYTES_PER_S = 60.0, 100_000
_OK, _FIRST_SERVER_ERROR = 200, 500


async def with_fetched_outputs(
    events: AsyncGenerator[Event | Timings | OutputElsewhere], job_id: str, *, filing: Filing
) -> AsyncGenerator[Event | Timings]:
    """Yield a job's events with each output in a bucket fetched, in its place, and filed.

    Raises:
        OutputLost: One could not be fetched; all others have been yielded.
    """
    lost = []
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, OutputElsewhere):
                yield event
                continue
            try:
                here = OutputReady(output=await fetch_output(event))
            except OutputLost as exc:
                logger.warning("job %s: %s", job_id, exc, extra={"job_id": job_id})
                lost.append(str(exc))
                continue
            for kept in (await asyncio.to_thread(filing.file_fetched, here)).told():
                if not isinstance(kept, OutputElsewhere):
                    yield kept
    if lost:
        raise OutputLost(" ".join(lost), job_id=job_id)


async def fetch_output(stored: OutputElsewhere) -> OutputFile:
    """Return the output with its bytes.

    Raises:
        OutputLost: The storage does not have it any more, does not answer, or has something else.
    """
    host = _host(stored)
    largest_bytes = MAX_FETCHED_BYTES if stored.size_bytes is None else stored.size_bytes
    if largest_bytes > MAX_FETCHED_BYTES:
        raise OutputLost(f"{stored.name} has {stored.size_bytes:,} bytes, more than are fetched from {host}.")
    for pause_s in (*_RETRY_AFTER_S, None):
        try:
            async with asyncio.timeout(_SILENT_S + largest_bytes / _SLOWEST_BYTES_PER_S):
                data = await _read(stored, host, largest_bytes)
            return await asyncio.to_thread(stored.with_data, data)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            if pause_s is None:
                raise OutputLost(f"{stored.name} could not be fetched from {host}: {type(exc).__name__}.") from exc
        except ValueError as exc:
            raise OutputLost(f"{stored.name} at {host} is not what the worker put there.") from exc
        await asyncio.sleep(pause_s)
    raise AssertionError  # the last try returns or raises


async def _read(stored: OutputElsewhere, host: str, largest_bytes: int) -> bytes:
    async with (await http_session()).get(
        stored.url,
        allow_redirects=False,
        proxy=proxy_for(stored.url),
        timeout=aiohttp.ClientTimeout(total=None, connect=15.0, sock_read=_SILENT_S),
    ) as response:
        if response.status >= _FIRST_SERVER_ERROR:
            response.raise_for_status()
        if response.status != _OK:
            raise OutputLost(
                f"{stored.name}: {host} answered {response.status}. Has its URL expired, or was it removed there?"
            )
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > largest_bytes:
                raise OutputLost(f"{stored.name} at {host} is not what the worker put there.")
        return bytes(data)


def _host(stored: OutputElsewhere) -> str:
    try:
        parts = urlsplit(stored.url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in {"https", "http"}:
        raise OutputLost(f"{stored.name} went to a bucket, and the worker's URL of it is none.")
    return host
