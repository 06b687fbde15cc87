"""Progress of a run: which node of which batch computes, told a few times a second at most."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.messages import Executing, NodeProgress, Preview
from runpod_comfy.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_comfy.comfyui.messages import Message
    from runpod_comfy.workflow.graph import Graph

__all__ = ["PROGRESS_EVERY_S", "ProgressThrottle"]

PROGRESS_EVERY_S = 0.25
"""Each of them is a request of its own where a worker streams to RunPod."""


class ProgressThrottle:
    """Makes :class:`Progress` of websocket messages. Of what comes too fast the latest is told, and that for certain.

    Args:
        graph: Where node titles come from.
        batch_count: How many batches the run has.
        emit: Gets each progress.
        previews: Whether it carries the sampler's preview image too.
    """

    def __init__(
        self, graph: Graph, *, batch_count: int, emit: Callable[[Progress], None], previews: bool = False
    ) -> None:
        self._graph = graph
        self._batch_count = batch_count
        self._emit = emit
        self._previews = previews
        self._current: tuple[str, Progress] | None = None
        self._batches: dict[str, int] = {}
        self._latest: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def expect(self, prompt_id: str, batch: int) -> None:
        """Know the batch of a prompt's messages."""
        self._batches[prompt_id] = batch

    def forget(self, prompt_id: str) -> None:
        """Tell no more of a prompt."""
        batch = self._batches.pop(prompt_id, None)
        if self._latest is not None and self._latest.batch == batch:
            self._latest = None
        if self._current is not None and self._current[0] == prompt_id:
            self._current = None

    def message(self, message: Message) -> None:
        """Take a message of the websocket."""
        match message:
            case Executing(prompt_id=str(prompt_id), node_id=node_id) if prompt_id in self._batches:
                self._note(prompt_id, node_id, 0, 0)
            case NodeProgress(prompt_id=str(prompt_id), node_id=str(node_id)) if prompt_id in self._batches:
                self._note(prompt_id, node_id, message.value, message.maximum)
            case Preview(data=data, prompt_id=prompt_id) if self._previews and self._current is not None:
                # Older ComfyUI does not say whose it is; the socket is this run's own, so it is what computes now.
                if prompt_id in {None, self._current[0]}:
                    self._tell_soon(self._current[0], replace(self._current[1], preview=data))

    def close(self) -> None:
        """Tell no more at all."""
        self._batches.clear()
        self._latest = self._current = None
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, prompt_id: str, node_id: str, value: int, maximum: int) -> None:
        progress = Progress(
            batch=self._batches[prompt_id],
            batch_count=self._batch_count,
            node_id=node_id,
            node_title=self._graph.title(node_id),
            value=value,
            maximum=maximum,
        )
        # A preview comes just before the step that it shows.
        preview = self._latest.preview if self._latest is not None else None
        self._tell_soon(prompt_id, replace(progress, preview=preview))

    def _tell_soon(self, prompt_id: str, progress: Progress) -> None:
        self._latest = progress
        self._current = prompt_id, replace(progress, preview=None)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next_at), self._tell)

    def _tell(self) -> None:
        self._timer = None
        if self._latest is not None:
            self._next_at = asyncio.get_running_loop().time() + PROGRESS_EVERY_S
            self._emit(self._latest)
            self._latest = None
