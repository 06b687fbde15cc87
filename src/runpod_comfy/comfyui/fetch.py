"""Outputs on their way out of ComfyUI: several at a time, in order, and patient with a server that stutters."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.follow import is_passing
from runpod_comfy.comfyui.outputs import FileRef
from runpod_comfy.errors import NotFound, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.outputs import OutputRef

__all__ = ["fetch_file", "fetch_in_order"]

_FETCHED_AHEAD = 3
_RETRY_AFTER_S = (0.25, 1.0, 3.0)


async def fetch_file(client: ComfyUIClient, ref: FileRef) -> bytes | None:
    """Return a file's bytes, or None where it is gone: a batch from ComfyUI's cache names files of an earlier run."""
    for pause_s in (*_RETRY_AFTER_S, None):
        try:
            return await client.view(ref.filename, ref.subfolder, ref.type)
        except NotFound:
            return None
        except RunpodComfyError as exc:
            if pause_s is None or not is_passing(exc):
                raise
        await asyncio.sleep(pause_s)
    raise AssertionError  # the last try returns or raises


async def fetch_in_order(
    client: ComfyUIClient, refs: Sequence[OutputRef]
) -> AsyncGenerator[tuple[OutputRef, bytes | None]]:
    """Yield each output with its bytes (none for a text), in their order; the next ones are on their way meanwhile."""

    async def fetch(ref: OutputRef) -> tuple[OutputRef, bytes | None]:
        return ref, await fetch_file(client, ref) if isinstance(ref, FileRef) else None

    waiting = deque(refs)
    under_way: deque[asyncio.Task[tuple[OutputRef, bytes | None]]] = deque()
    try:
        while waiting or under_way:
            while waiting and len(under_way) <= _FETCHED_AHEAD:
                under_way.append(asyncio.create_task(fetch(waiting.popleft())))
            yield await under_way[0]
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
