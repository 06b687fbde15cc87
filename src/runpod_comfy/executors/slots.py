"""How many jobs are under way at once, and how many bytes of their inputs are in memory."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.serverless.budget import ByteBudget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from runpod_comfy.media.inputs import ImageSource

__all__ = ["Slots", "bodies", "estimated_body_bytes"]

_MAX_BODIES_BYTES = 256 * 1024 * 1024
_LEAST_BODY_BYTES = 64 * 1024
_BODY_FACTOR = 4  # a file's bytes, their base64, and the body with that in it


class Slots:
    """So many jobs at once, first come, first served.

    Args:
        most: How many; None sets no bound.

    Raises:
        ConfigurationError: It is not a whole number of at least 1.
    """

    def __init__(self, most: int | None) -> None:
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigurationError(
                f"max_concurrent_jobs is {most!r}; it takes a whole number of at least 1, or None."
            )
        self.most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free: asyncio.Semaphore

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for a slot, and keep it for the block."""
        if self.most is None:
            yield
            return
        # A process that forked has a new loop, on which none of these jobs runs.
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._free = asyncio.Semaphore(self.most)
        async with self._free:
            yield


_bodies: tuple[asyncio.AbstractEventLoop, ByteBudget] | None = None


def bodies() -> ByteBudget:
    """Return what bounds the request bodies in memory, for all executors of the process."""
    global _bodies  # noqa: PLW0603 - one for each process, and after a fork a new one
    loop = asyncio.get_running_loop()
    if _bodies is None or _bodies[0] is not loop:
        _bodies = (loop, ByteBudget(_MAX_BODIES_BYTES))
    return _bodies[1]


def estimated_body_bytes(sources: Sequence[ImageSource]) -> int:
    """Return about how much memory preparing these images takes, without reading them."""
    return _LEAST_BODY_BYTES + _BODY_FACTOR * sum(map(_estimated_bytes, sources))


def _estimated_bytes(source: ImageSource) -> int:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return len(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            return Path(source).stat().st_size
        except (OSError, ValueError):
            return 0  # what is wrong with it is said when it is read
    width, height = getattr(source, "size", (0, 0))
    return int(width) * int(height) * 3
