"""A run's prompts in ComfyUI's queue: put there one after the other, followed to their ends, or taken back."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.comfyui.failures import nearest_class
from runpod_comfy.comfyui.outputs import HistoryEntry
from runpod_comfy.errors import JobFailed, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.follow import PromptFollower
    from runpod_comfy.comfyui.progress import ProgressThrottle

__all__ = ["Batch", "PromptQueue", "Queued"]

logger = logging.getLogger(__name__)

_LEAVING_CHECKS_S, _LONGEST_PAUSE_S = 0.05, 2.0


@dataclass(slots=True)
class Batch:
    """One batch and the prompt that ComfyUI makes of it.

    Attributes:
        index: Its number, counted from 0.
        seed: Its seed, or None.
        graph: What ComfyUI computes.
        extra_data: Makes what goes with the graph, when it is queued: it may be larger than the graph itself.
        queued: Set once ComfyUI has accepted or refused the prompt.
    """

    index: int
    seed: int | None
    graph: dict[str, Any] = field(repr=False)
    extra_data: Callable[[], Mapping[str, Any]] = field(repr=False)
    queued: asyncio.Future[Queued] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Queued:
    """A prompt in ComfyUI's queue, the nodes that ComfyUI leaves out, and what it will come to."""

    prompt_id: str
    node_errors: Mapping[str, Any] = field(repr=False)
    end: asyncio.Future[HistoryEntry] = field(repr=False)


class PromptQueue:
    """The prompts of one run."""

    def __init__(self, client: ComfyUIClient, *, follower: PromptFollower, progress: ProgressThrottle) -> None:
        self._client = client
        self._follower = follower
        self._progress = progress
        self._closing = False
        # What ComfyUI may have of ours: an id is noted before it is sent, and forgotten when its end is known.
        self._open: set[str] = set()
        self._ended: set[str] = set()

    @property
    def is_clear(self) -> bool:
        """Whether ComfyUI has nothing of ours that has not ended."""
        return not self._open

    def close(self) -> None:
        """Queue no more."""
        self._closing = True

    async def queue_all(self, batches: list[Batch]) -> None:
        """Queue every batch, one after the other, since ComfyUI numbers prompts as they come."""
        for batch in batches:
            if self._closing:
                return
            try:
                batch.queued.set_result(await self.queue(batch.graph, batch))
            except Exception as exc:  # noqa: BLE001 - it is the batch's, which raises it in its turn
                batch.queued.set_exception(exc)
                return

    async def queue(self, graph: dict[str, Any], batch: Batch, *, front: bool = False) -> Queued:
        """Queue a graph for a batch.

        Raises:
            JobFailed: ComfyUI refuses it.
            TransportError: No answer.
        """
        prompt_id = str(uuid.uuid4())
        self._open.add(prompt_id)
        self._progress.expect(prompt_id, batch.index)
        try:
            queued = await self._client.queue_prompt(
                graph, prompt_id=prompt_id, extra_data=batch.extra_data(), front=front
            )
        except JobFailed as exc:  # refused, so there is nothing to take back
            self._open.discard(prompt_id)
            raise await self._with_near_name(exc) from exc
        if queued.prompt_id != prompt_id:  # older ComfyUI makes up its own
            self._open.discard(prompt_id)
            self._open.add(queued.prompt_id)
            self._progress.expect(queued.prompt_id, batch.index)
        return Queued(queued.prompt_id, queued.node_errors, self._follower.follow(queued.prompt_id))

    async def ended(self, queued: Queued) -> HistoryEntry:
        """Wait for a prompt's end."""
        entry = await queued.end
        self._open.discard(queued.prompt_id)
        self._ended.add(queued.prompt_id)
        self._progress.forget(queued.prompt_id)
        return entry

    async def withdraw(self, *, wait: bool) -> None:
        """Take back what waits, and interrupt what runs and is ours; to be called again where that could not be done.

        Args:
            wait: Until it has left. A node looks for an interruption when it likes, and many never do.

        Raises:
            RunpodComfyError: ComfyUI does not answer.
        """
        await self._client.delete_pending(self._open)
        # None of ours can start any more, so what runs now is all there is to interrupt.
        running, _ = await self._client.queue()
        for prompt_id in self._open.intersection(running):
            await self._client.interrupt(prompt_id)
        pause_s = _LEAVING_CHECKS_S
        while wait and self._open.intersection(running):
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.2)
            running, _ = await self._client.queue()
        self._ended |= self._open
        self._open.clear()

    async def entry_of(self, queued: Queued) -> HistoryEntry | None:
        """Return what a prompt came to, if it has ended; without waiting."""
        if queued.end.done() and not queued.end.cancelled() and not queued.end.exception():
            return queued.end.result()
        entry = await self._client.history(queued.prompt_id)
        return HistoryEntry(entry) if entry is not None else None

    async def forget(self) -> None:
        """Drop what ComfyUI remembers of the prompts that have ended."""
        if self._ended:
            try:
                await self._client.forget(self._ended)
            except RunpodComfyError as exc:
                logger.info("%s: ended prompts stay in its history: %s", self._client.origin, exc)

    async def _with_near_name(self, error: JobFailed) -> JobFailed:
        """Name the installed node class that is nearest to one that is missing."""
        if error.node_type is None or "does not exist" not in str(error):
            return error
        try:
            installed = await self._client.object_info()
        except RunpodComfyError:
            installed = {}
        return nearest_class(error, installed)
