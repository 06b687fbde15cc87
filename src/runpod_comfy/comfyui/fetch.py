"""Outputs on their way out of ComfyUI: several at a time, in order, and patient with a server that stutters."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from runpod_comfy.comfyui.client import FileTooLarge
from runpod_comfy.comfyui.follow import is_passing
from runpod_comfy.comfyui.outputs import FileRef
from runpod_comfy.errors import NotFound, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.folders import Folders
    from runpod_comfy.comfyui.outputs import OutputRef

__all__ = ["Content", "Fetcher", "TooLarge"]

_FETCHED_AHEAD = 3
_RETRY_AFTER_S = (0.25, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A file that was not fetched, since it has this many bytes."""

    size_bytes: int


Content: TypeAlias = bytes | TooLarge | None
"""A file's bytes; None where it is gone: a batch from ComfyUI's cache names files of an earlier run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Brings files from ComfyUI: from its folders where they can be reached, else through its server.

    Attributes:
        client: The server.
        folders: Its folders, or None.
        largest_bytes: A larger file is not fetched; None fetches any.
    """

    client: ComfyUIClient
    folders: Folders | None = None
    largest_bytes: int | None = None

    async def file(self, ref: FileRef) -> Content:
        """Return a file's content."""
        if self.folders is not None and (path := self.folders.path_of(ref)) is not None:
            content = await asyncio.to_thread(_read, path, self.largest_bytes)
            if content is not None:
                return content
        return await self._over_http(ref)

    async def in_order(self, refs: Sequence[OutputRef]) -> AsyncGenerator[tuple[OutputRef, Content]]:
        """Yield each output with its content (none for a text), in their order; the next ones are on their way."""

        async def fetch(ref: OutputRef) -> tuple[OutputRef, Content]:
            return ref, await self.file(ref) if isinstance(ref, FileRef) else None

        waiting = deque(refs)
        under_way: deque[asyncio.Task[tuple[OutputRef, Content]]] = deque()
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

    async def _over_http(self, ref: FileRef) -> Content:
        for pause_s in (*_RETRY_AFTER_S, None):
            try:
                return await self.client.view(ref.filename, ref.subfolder, ref.type, largest_bytes=self.largest_bytes)
            except NotFound:
                return None
            except FileTooLarge as exc:
                return TooLarge(exc.size_bytes)
            except RunpodComfyError as exc:
                if pause_s is None or not is_passing(exc):
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError  # the last try returns or raises


def _read(path: Path, largest_bytes: int | None) -> Content:
    try:
        size_bytes = path.stat().st_size
        if largest_bytes is not None and size_bytes > largest_bytes:
            return TooLarge(size_bytes)
        return path.read_bytes()
    except OSError:
        return None
