"""What each batch made, on its way home: waited for, fetched, named, and told in order."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.failures import called, execution_failure, node_error_texts
from runpod_comfy.comfyui.fetch import TooLarge
from runpod_comfy.comfyui.jobfiles import with_fresh_saves
from runpod_comfy.comfyui.outputs import FileRef, TextRef, UniqueNames, as_output
from runpod_comfy.errors import JobCancelled, JobFailed
from runpod_comfy.events import BatchFinished, OutputReady, Warned
from runpod_comfy.results import Origin, OutputText
from runpod_comfy.workflow.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runpod_comfy.comfyui.fetch import Content, Fetcher
    from runpod_comfy.comfyui.jobfiles import JobFiles
    from runpod_comfy.comfyui.outputs import HistoryEntry, OutputRef
    from runpod_comfy.comfyui.queueing import Batch, PromptQueue
    from runpod_comfy.events import Event
    from runpod_comfy.results import Output
    from runpod_comfy.submission import Submission

__all__ = ["Delivery"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """Delivers a run's batches.

    Attributes:
        submission: What runs.
        prompts: Its prompts.
        fetcher: Brings files.
        files: The files that the run makes.
        put: Takes each event.
    """

    submission: Submission
    prompts: PromptQueue
    fetcher: Fetcher
    files: JobFiles
    put: Callable[[Event], Awaitable[None]]
    _names: UniqueNames = field(default_factory=UniqueNames)
    _warned: set[str] = field(default_factory=set)
    _too_large: list[str] = field(default_factory=list)

    async def batch(self, batch: Batch) -> None:
        """Wait for a batch to end and pass on what it made.

        Raises:
            JobFailed: ComfyUI refused it, a node failed, or an output is gone; what it made has been passed on.
            JobCancelled: Somebody interrupted it, or removed it from the queue.
        """
        # Shielded: whoever cancels this must not cancel what the queueing will say, by which the prompt is taken back.
        queued = await asyncio.shield(batch.queued)
        entry = await self.prompts.ended(queued)
        left_out = "; ".join(node_error_texts(queued.node_errors, batch.graph))
        if left_out:
            await self._warn(f"ComfyUI left out a part of the workflow: {left_out}.")
        made = self.made(batch, entry)
        wanted = [ref for ref in made if self.submission.previews or not _is_preview(ref)]
        gpu_s = await self._outputs(batch, wanted, entry)
        self._raise_failure(batch, entry)
        if not wanted and left_out:
            raise JobFailed(f"{self._called(batch)} made nothing, since ComfyUI left out: {left_out}.")
        if not wanted:
            await self._warn(_ONLY_PREVIEWS if made else _NOTHING)
        await self.put(
            BatchFinished(batch=batch.index, batch_count=self.submission.batch_count, seed=batch.seed, gpu_s=gpu_s)
        )

    def check_all_sent(self) -> None:
        """Raise JobFailed where an output was left behind for its size; to be called when all batches are delivered."""
        if self._too_large:
            limit_mib = (self.fetcher.largest_bytes or 0) / 2**20
            raise JobFailed(
                f"Larger than the {limit_mib:,.0f} MiB that a job's stream carries for one output: "
                f"{', '.join(self._too_large)}. Everything else was sent. Make them smaller, or give the worker a "
                "bucket (BUCKET_ENDPOINT_URL and its keys), where outputs of any size go."
            )

    def made(self, batch: Batch, entry: HistoryEntry) -> list[OutputRef]:
        """Return what a batch made, and remember its files."""
        made = entry.outputs(batch.graph)
        self.files.note(ref for ref in made if isinstance(ref, FileRef))
        return made

    async def _outputs(self, batch: Batch, refs: list[OutputRef], entry: HistoryEntry) -> float | None:
        """Pass on a batch's outputs; return the seconds that ComfyUI computed for them."""
        gpu_s, again = entry.gpu_s, None
        async with aclosing(self.fetcher.in_order(refs)) as fetched:
            async for ref, content in fetched:
                if not isinstance(ref, FileRef) or content is not None:
                    await self._tell(batch, ref, content)
                elif entry.failed or _is_preview(ref):
                    await self._warn(f"{ref.filename} of {called(ref.node_id, batch.graph)} is gone.")
                else:
                    if again is None:
                        again = await self._run_again(batch, refs, ref)
                        gpu_s = (gpu_s or 0.0) + (again.gpu_s or 0.0)
                    await self._tell_replacement(batch, ref, refs, again)
        return gpu_s

    async def _run_again(self, batch: Batch, refs: list[OutputRef], missing: FileRef) -> HistoryEntry:
        """Run a batch once more so that the nodes that save do save, and nothing else runs.

        ComfyUI takes a batch that it has computed before whole from its cache, and names the file of then, whether
        or not it is still there.
        """
        savers = dict.fromkeys(ref.node_id for ref in refs if isinstance(ref, FileRef) and not _is_preview(ref))
        graph = with_fresh_saves(batch.graph, savers, uuid.uuid4().hex[:6])
        logger.info("batch %d: %s is gone; saving it again", batch.index, missing.filename)
        entry = await self.prompts.ended(await self.prompts.queue(graph, batch, front=True))
        self._raise_failure(batch, entry)
        return entry

    async def _tell_replacement(self, batch: Batch, ref: FileRef, refs: list[OutputRef], again: HistoryEntry) -> None:
        def of_node(outputs: list[OutputRef]) -> list[FileRef]:
            return [each for each in outputs if isinstance(each, FileRef) and each.node_id == ref.node_id]

        candidates = of_node(self.made(batch, again))
        position = of_node(refs).index(ref)
        content = await self.fetcher.file(candidates[position]) if position < len(candidates) else None
        if content is None:
            raise JobFailed(
                f"{self._called(batch)}: {called(ref.node_id, batch.graph)} reported the file {ref.filename!r}, and "
                "ComfyUI does not have it. Does something clean up its output folder?",
                node_id=ref.node_id,
            )
        await self._tell(batch, candidates[position], content)

    async def _tell(self, batch: Batch, ref: OutputRef, content: Content) -> None:
        if isinstance(content, TooLarge) and isinstance(ref, FileRef):
            self._too_large.append(f"{ref.filename} ({content.size_bytes / 2**20:,.0f} MiB)")
        else:
            await self.put(OutputReady(output=self._output(batch, ref, content if isinstance(content, bytes) else b"")))

    def _output(self, batch: Batch, ref: OutputRef, data: bytes) -> Output:
        title = Graph(batch.graph).title(ref.node_id)
        origin = Origin(batch=batch.index, seed=batch.seed, node_id=ref.node_id, node_title=title)
        if isinstance(ref, TextRef):
            return OutputText(text=ref.text, origin=origin)
        subfolder = self.files.subfolder_of(ref)
        return as_output(ref, data, name=self._names.name_for(ref, subfolder), subfolder=subfolder, origin=origin)

    def _raise_failure(self, batch: Batch, entry: HistoryEntry) -> None:
        if entry.interrupted:
            raise JobCancelled(f"{self._called(batch)} was interrupted in ComfyUI, by somebody else.")
        if entry.error is not None:
            raise execution_failure(entry.error, batch.graph, where=self._called(batch))
        if entry.failed:
            raise JobFailed(f"{self._called(batch)} failed, and ComfyUI did not say why. Its log does.")

    def _called(self, batch: Batch) -> str:
        return f"Batch {batch.index + 1} of {self.submission.batch_count}"

    async def _warn(self, message: str) -> None:
        """Say it once, though it be true of each batch."""
        if message not in self._warned:
            self._warned.add(message)
            await self.put(Warned(message=message))


_NOTHING = (
    "A batch made nothing: no node of the workflow reported a file or a text. Does it end in a node that saves, such "
    "as SaveImage?"
)
_ONLY_PREVIEWS = (
    "A batch made preview images only, which are not fetched. Put a SaveImage in place of the PreviewImage, or ask for "
    "previews."
)


def _is_preview(ref: OutputRef) -> bool:
    return isinstance(ref, FileRef) and ref.type == "temp"
