"""One prompt after the other: the queue, the cache, the history, and the events in ComfyUI's order.

Recorded from ComfyUI 0.3.64: what is cached is keyed on class, inputs and upstream, not on ids; only the last prompt's
results are kept; a prompt that is wholly cached shows its old file names again and writes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.emulator.comfyui.computing import Computer, NodeFailure, list_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PREVIEW", "Engine", "QueueItem"]

PREVIEW = "<preview>"
"""The kind of an event that goes over the socket as bytes."""


@dataclass(order=True, slots=True)
class QueueItem:
    """A prompt in the queue."""

    number: float
    order: int
    prompt_id: str = field(compare=False)
    graph: dict[str, Any] = field(compare=False, repr=False)
    extra_data: dict[str, Any] = field(compare=False, repr=False)
    outputs: list[str] = field(compare=False)

    def described(self) -> list[Any]:
        """Return it as ``/queue`` does."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]


class _Interrupted(Exception):
    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id


class _Failed(Exception):
    def __init__(self, node_id: str, cause: Exception) -> None:
        super().__init__(node_id)
        self.node_id = node_id
        self.cause = cause


class Engine:
    """The queue and what runs it.

    Args:
        folder: The base folder.
        tell: Called on the loop with client id (None for everybody), event type and data.
        seconds_per_node: How long each node that is not cached takes, in seconds.
    """

    def __init__(
        self, folder: Path, tell: Callable[[str | None, str, dict[str, Any]], None], *, seconds_per_node: float = 0.0
    ) -> None:
        self._folder = folder
        self._tell = tell
        self._seconds_per_node = seconds_per_node
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._cache: dict[str, tuple[tuple[Any, ...], dict[str, Any] | None]] = {}
        self._interrupted: str | None = None
        self.failing: dict[str, NodeFailure] = {}
        self.reported_too: dict[str, dict[str, Any]] = {}
        self.loses_files = False
        self.ignores_interrupts = False
        self.stalled = False
        self.dies_computing = False
        self.preview: bytes | None = None
        self.pending: list[QueueItem] = []
        self.running: QueueItem | None = None
        self.history: dict[str, dict[str, Any]] = {}

    @property
    def remaining(self) -> int:
        """How many prompts wait or run."""
        return len(self.pending) + (self.running is not None)

    def put(
        self,
        graph: dict[str, Any],
        extra_data: dict[str, Any],
        outputs: list[str],
        *,
        front: bool,
        prompt_id: str | None,
    ) -> QueueItem:
        """Queue a prompt that was found valid."""
        order = next(self._order)
        number = float(-order if front else order)
        item = QueueItem(number, order, prompt_id or str(uuid.uuid4()), graph, extra_data, outputs)
        heapq.heappush(self.pending, item)
        self._tell_status()
        self._wake.set()
        return item

    def delete(self, prompt_ids: list[Any]) -> None:
        """Remove prompts that wait; they leave no trace."""
        self.pending = [item for item in self.pending if item.prompt_id not in prompt_ids]
        heapq.heapify(self.pending)
        self._tell_status()

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the prompt that runs, if it is the one that is meant."""
        if self.ignores_interrupts:
            return
        if self.running is not None and prompt_id in {None, self.running.prompt_id}:
            self._interrupted = self.running.prompt_id

    def free(self) -> None:
        """Forget what is cached."""
        self._cache.clear()

    async def run(self) -> None:
        """Work through the queue for as long as the task lives."""
        while True:
            while self.pending and not self.stalled:
                self.running = heapq.heappop(self.pending)
                self._tell_status()
                if self.dies_computing:
                    return
                try:
                    await self._execute(self.running)
                finally:
                    self.running = None
            self._wake.clear()
            await self._wake.wait()

    def _tell_status(self) -> None:
        self._tell(None, "status", {"status": {"exec_info": {"queue_remaining": self.remaining}}})

    async def _execute(self, item: QueueItem) -> None:
        prompt = _Prompt(item, self._tell)
        self._interrupted = None
        prompt.message("execution_start", {})
        order = _execution_order(item.graph, item.outputs)
        signatures = self._signatures(item.graph, order)
        cached = [node_id for node_id in order if signatures[node_id] in self._cache]
        prompt.message("execution_cached", {"nodes": cached})
        values: dict[str, tuple[Any, ...]] = {}
        done: list[str] = []
        try:
            for node_id in order:
                if node_id not in cached:
                    await self._node(prompt, node_id, signatures[node_id], values)
                else:
                    values[node_id], shown = self._cache[signatures[node_id]]
                    if shown is not None:
                        prompt.show(node_id, shown)
                        prompt.progress_state(node_id, 1, 1, "finished")
                done.append(node_id)
        except _Interrupted as exc:
            about = {"node_id": exc.node_id, "node_type": item.graph[exc.node_id]["class_type"], "executed": done}
            prompt.end("execution_interrupted", about)
        except _Failed as exc:
            prompt.end("execution_error", _error_report(item, exc, done))
        else:
            prompt.end("execution_success", {})
        self._cache = {
            signature: self._cache[signature] for signature in signatures.values() if signature in self._cache
        }
        # As on a real server: the entry is there before the last event, and not surely before the one before it.
        self.history[item.prompt_id] = prompt.entry()
        self.running = None
        self._tell_status()
        prompt.tell("executing", {"node": None})

    async def _node(self, prompt: _Prompt, node_id: str, signature: str, values: dict[str, tuple[Any, ...]]) -> None:
        item, loop = prompt.item, asyncio.get_running_loop()
        self._stop_if_interrupted(item, node_id)
        prompt.progress_state(node_id, 0, 1, "running")
        prompt.tell("executing", {"node": node_id, "display_node": node_id})
        class_type = item.graph[node_id]["class_type"]

        def step(value: int, maximum: int) -> None:
            """In the computing thread: one step is done."""
            if self._seconds_per_node:
                time.sleep(self._seconds_per_node / maximum)
            loop.call_soon_threadsafe(prompt.step, node_id, value, maximum, self.preview)
            self._stop_if_interrupted(item, node_id)

        computer = Computer(self._folder, item.graph, item.extra_data, values, step)
        try:
            if class_type in self.failing:
                raise self.failing[class_type]  # noqa: TRY301 - one way out for planned and other failures
            outputs, shown = await asyncio.to_thread(computer.compute, node_id)
        except _Interrupted:
            raise
        except Exception as exc:
            raise _Failed(node_id, exc) from exc
        if self._seconds_per_node and "Sampler" not in class_type:
            await asyncio.sleep(self._seconds_per_node)
        self._stop_if_interrupted(item, node_id)
        if shown is not None and (more := self.reported_too.get(class_type)):
            shown = {**shown, **more}
        values[node_id] = outputs
        self._cache[signature] = (outputs, shown)
        if self.loses_files:
            self._lose(shown or {})
        prompt.show(node_id, shown)
        prompt.progress_state(node_id, 1, 1, "finished")

    def _lose(self, shown: dict[str, Any]) -> None:
        for reported in (each for many in shown.values() for each in many if isinstance(each, dict)):
            (self._folder / reported["type"] / reported["subfolder"] / reported["filename"]).unlink()

    def _stop_if_interrupted(self, item: QueueItem, node_id: str) -> None:
        if self._interrupted == item.prompt_id:
            raise _Interrupted(node_id)

    def _signatures(self, graph: dict[str, Any], order: list[str]) -> dict[str, str]:
        """Return what each node's result is cached under."""
        signatures: dict[str, str] = {}
        for node_id in order:
            node = graph[node_id]
            inputs = {
                name: [signatures.get(value[0]), value[1]] if _is_link(value) else value
                for name, value in sorted(node["inputs"].items())
            }
            content = self._content(node["class_type"], node["inputs"])
            raw = orjson.dumps([node["class_type"], inputs, content], default=str, option=orjson.OPT_NON_STR_KEYS)
            signatures[node_id] = hashlib.sha256(raw).hexdigest()
        return signatures

    def _content(self, class_type: str, inputs: dict[str, Any]) -> str:
        """Return what changes when the files that a node reads change."""
        try:
            if class_type == "LoadImage":
                return hashlib.sha256((self._folder / "input" / str(inputs.get("image"))).read_bytes()).hexdigest()
            if class_type == "LoadImagesFromDir":
                if inputs.get("load_always"):
                    return uuid.uuid4().hex
                files = list_pictures(self._folder / "input", inputs)
                return "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        except (OSError, NodeFailure):
            return "unreadable"
        return ""


class _Prompt:
    """One prompt while it runs: its events, and what its history entry will say."""

    def __init__(self, item: QueueItem, tell: Callable[[str | None, str, dict[str, Any]], None]) -> None:
        self.item = item
        client_id = item.extra_data.get("client_id")
        self._client_id = client_id if isinstance(client_id, str) else ""
        self._tell = tell
        self._messages: list[list[Any]] = []
        self._outputs: dict[str, Any] = {}
        self._nodes: dict[str, Any] = {}
        self._ended = ""

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event to the prompt's own client."""
        if self._client_id:
            self._tell(self._client_id, kind, {**data, "prompt_id": self.item.prompt_id})

    def message(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event that the history keeps."""
        stamped = {"prompt_id": self.item.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        self._messages.append([kind, stamped])
        self.tell(kind, stamped)

    def end(self, kind: str, data: dict[str, Any]) -> None:
        self._ended = kind
        self.message(kind, data)

    def step(self, node_id: str, value: int, maximum: int, preview: bytes | None) -> None:
        self.tell("progress", {"value": value, "max": maximum, "node": node_id})
        if preview is not None:
            self.tell(PREVIEW, {"node_id": node_id, "display_node_id": node_id, "image": preview})
        self.progress_state(node_id, value, maximum, "running")

    def progress_state(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self.item.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        self.tell("progress_state", {"nodes": dict(self._nodes)})

    def show(self, node_id: str, shown: dict[str, Any] | None) -> None:
        if shown is not None:
            self._outputs[node_id] = shown
            self.tell("executed", {"node": node_id, "display_node": node_id, "output": shown})

    def entry(self) -> dict[str, Any]:
        """Return the history entry."""
        well = self._ended == "execution_success"
        nodes = {"display_node": None, "parent_node": None}
        return {
            "prompt": self.item.described(),
            "outputs": self._outputs,
            "status": {"status_str": "success" if well else "error", "completed": well, "messages": self._messages},
            "meta": {each: {"node_id": each, **nodes, "display_node": each} for each in self._outputs},
        }


def _execution_order(graph: dict[str, Any], outputs: list[str]) -> list[str]:
    """Return the nodes that the outputs need, each after what feeds it; of those that could run, outputs go first."""
    waits_for = {node_id: _sources(graph[node_id]) & graph.keys() for node_id in _needed(graph, outputs)}
    feeds_output = {source for node_id in outputs for source in waits_for[node_id]}
    order: list[str] = []
    while waits_for:
        ready = [node_id for node_id, sources in waits_for.items() if not sources]
        # `min` takes the first of equals.
        chosen = min(ready, key=lambda node_id: (node_id not in outputs, node_id not in feeds_output))
        del waits_for[chosen]
        for sources in waits_for.values():
            sources.discard(chosen)
        order.append(chosen)
    return order


def _needed(graph: dict[str, Any], outputs: list[str]) -> list[str]:
    """Return the outputs and all that feeds them, what feeds first."""
    found: dict[str, None] = {}
    stack = [(node_id, False) for node_id in reversed(outputs)]
    while stack:
        node_id, fed = stack.pop()
        if fed:
            found[node_id] = None
        elif node_id not in found:
            stack.append((node_id, True))
            stack += [(source, False) for source in _sources(graph[node_id])]
    return list(found)


def _sources(node: dict[str, Any]) -> set[str]:
    return {value[0] for value in node["inputs"].values() if _is_link(value)}


def _error_report(item: QueueItem, failed: _Failed, done: list[str]) -> dict[str, Any]:
    node = item.graph[failed.node_id]
    cause = failed.cause
    return {
        "node_id": failed.node_id,
        "node_type": node["class_type"],
        "executed": done,
        "exception_message": f"{cause}\n",
        "exception_type": cause.kind if isinstance(cause, NodeFailure) else type(cause).__name__,
        "traceback": traceback.format_exception(cause),
        "current_inputs": {name: [str(value)] for name, value in node["inputs"].items()},
        "current_outputs": list(item.graph),
    }


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)  # noqa: PLR2004 - node id and slot
