"""What the handler asks of the machine around it; each of these may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Facts", "Keeper", "OpenStore", "OutputStore"]


class Keeper(Protocol):
    """Whoever starts ComfyUI, watches its process and starts it again."""

    async def ready(self) -> None:
        """Return once ComfyUI answers, however long a restart takes.

        Raises:
            RunpodComfyError: It has died and will not be started again; the text says what its log says.
        """

    def death(self) -> asyncio.Future[str]:
        """Return a future that is done once the process that answers now has ended; its result says so in a sentence.

        It belongs to the caller's loop and may be shared; nobody cancels it.
        """

    async def condemn(self, reason: str) -> bool:
        """End the process that answers now, since it is of no more use; return whether it could be ended.

        Either way ``death()`` is done then, so that all jobs in hand learn of it.
        """


class OutputStore(Protocol):
    """Where a job's outputs go instead of its lines, such as a bucket. Its method blocks and may run in threads."""

    def put(self, name: str, data: bytes, *, media_type: str) -> str:
        """Keep a file and return the URL under which the job's caller finds it.

        Args:
            name: The output's name below the job, such as ``portraits/a_00001_.png``; no two of a job are equal.
            data: Its bytes.
            media_type: What they are, such as ``image/png``.

        Raises:
            RunpodComfyError: It could not be kept.
        """


OpenStore: TypeAlias = "Callable[[dict[str, Any]], OutputStore | None]"
"""Opens the store that a job's outputs go to, from the job as RunPod gives it; None leaves them in its lines.

It blocks, and raises ConfigurationError where what names the store is incomplete.
"""

Facts: TypeAlias = "Callable[[], dict[str, Any]]"
"""Returns what a description says of the worker itself: under ``worker`` its slots and so on, and further keys."""
