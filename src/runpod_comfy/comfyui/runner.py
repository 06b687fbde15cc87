"""A submission run on a ComfyUI server, as events: inputs up, all batches into the queue, outputs home batch by batch.

::

    uploads → queue: POST /prompt, one after the other ──────────┐
              follower: websocket and /history → ends of prompts ├→ delivery, in order → channel → run_batches()
                                               → progress ───────┘

The delivery fetches one batch's outputs while ComfyUI computes the next. The channel is short, so a slow consumer
leaves outputs on ComfyUI's disk instead of in this process's memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.comfyui.failures import called, execution_failure, node_error_texts
from runpod_comfy.comfyui.fetch import fetch_file, fetch_in_order
from runpod_comfy.comfyui.follow import PromptFollower
from runpod_comfy.comfyui.inputs import prepare_inputs, with_other_prefixes
from runpod_comfy.comfyui.outputs import FileRef, TextRef, UniqueNames, as_output
from runpod_comfy.comfyui.progress import ProgressThrottle
from runpod_comfy.errors import JobCancelled, JobFailed, RunpodComfyError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.results import Origin, OutputText
from runpod_comfy.workflow.graph import Graph
from runpod_comfy.workflow.seeds import draw_seeds, with_seed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.follow import FollowPace
    from runpod_comfy.comfyui.outputs import HistoryEntry, OutputRef
    from runpod_comfy.events import Event
    from runpod_comfy.results import OutputFile, WorkflowOutputImage
    from runpod_comfy.submission import Submission

__all__ = ["STOP_WITHIN_S", "run_batches"]

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 4.0
"""How long a run that is given up may take to clean up after itself."""

_CHANNEL_EVENTS = 4
_stopping: set[asyncio.Task[None]] = set()  # a task without a reference may vanish before it is done


async def run_batches(
    client: ComfyUIClient,
    submission: Submission,
    *,
    input_dir: str | None = None,
    rng: random.Random | None = None,
    pace: FollowPace | None = None,
) -> AsyncGenerator[Event]:
    """Run a submission's batches and yield what happens; the outputs come strictly batch by batch, in node order.

    Closed or cancelled, it takes its waiting prompts off the queue and interrupts its running one, and no other's,
    within ``STOP_WITHIN_S``.

    Args:
        client: The server. Several runs may share it.
        submission: What to run.
        input_dir: ComfyUI's input folder as ComfyUI's nodes see it; None asks the server.
        rng: Where seeds come from that the submission leaves to us.
        pace: How patient to be with a silent server.

    Raises:
        JobFailed: ComfyUI refused a batch, a node failed, or an output is gone; what was made before has been yielded.
        JobCancelled: Somebody interrupted a batch, or removed it from the queue.
        TransportError: ComfyUI does not answer.
        ApiError: Something in front of ComfyUI refuses the requests.
        ProtocolError: What answers is not ComfyUI.
    """
    run = _Run(client.sibling(), submission, rng=rng or random.SystemRandom(), pace=pace)
    main = asyncio.create_task(run.main(input_dir))
    try:
        async with aclosing(run.events(main)) as events:
            async for event in events:
                yield event
    finally:
        stop = asyncio.create_task(run.stop(main))
        _stopping.add(stop)
        stop.add_done_callback(_stopping.discard)
        # Shielded: who cancels twice must not leave prompts behind.
        await asyncio.shield(stop)


@dataclass(slots=True)
class _Batch:
    """One batch and the prompt that ComfyUI makes of it."""

    index: int
    seed: int | None
    graph: dict[str, Any] = field(repr=False)
    queued: asyncio.Future[_Queued] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Queued:
    """A prompt in ComfyUI's queue."""

    prompt_id: str
    node_errors: Mapping[str, Any] = field(repr=False)
    end: asyncio.Future[HistoryEntry] = field(repr=False)


class _Run:
    def __init__(
        self, client: ComfyUIClient, submission: Submission, *, rng: random.Random, pace: FollowPace | None
    ) -> None:
        self._client = client
        self._submission = submission
        self._seeds = _seeds(submission, rng)
        self._names = UniqueNames()
        self._titles = Graph(submission.workflow)
        self._progress = ProgressThrottle(self._titles, batch_count=submission.batch_count, emit=self._offer)
        self._follower = PromptFollower(client, on_message=self._progress.message, pace=pace)
        self._queueing: asyncio.Task[None] | None = None
        self._closing = False
        self._warned: set[str] = set()
        # What ComfyUI may have of ours: an id is noted before it is sent, and forgotten when its end is known.
        self._prompt_ids: set[str] = set()
        self._room = asyncio.Semaphore(_CHANNEL_EVENTS)
        self._channel: asyncio.Queue[Event | None] = asyncio.Queue()

    async def events(self, main: asyncio.Task[None]) -> AsyncGenerator[Event]:
        """Yield what ``main`` tells, and at its end raise what it raised."""
        main.add_done_callback(lambda _: self._channel.put_nowait(None))
        while (event := await self._channel.get()) is not None:
            if not isinstance(event, Progress):
                self._room.release()
            yield event
        await main

    async def main(self, input_dir: str | None) -> None:
        """Run to the end."""
        following = asyncio.create_task(self._follower.run())
        following.add_done_callback(self._follower_ended)
        try:
            graph = await prepare_inputs(self._client, self._submission, input_dir=input_dir)
            batches = [self._batch(index, seed, graph) for index, seed in enumerate(self._seeds)]
            await self._follower.ready()
            self._queueing = asyncio.create_task(self._queue_all(batches))
            for batch in batches:
                await self._deliver(batch)
        finally:
            self._progress.close()
            following.cancel()
            await asyncio.wait([following])

    async def stop(self, main: asyncio.Task[None]) -> None:
        """Leave nothing of this run behind in ComfyUI."""
        self._closing = True
        main.cancel()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await asyncio.wait([main])
                if self._queueing is not None:
                    # A prompt that is on its way must have arrived to be taken back.
                    await asyncio.wait([self._queueing])
                if self._prompt_ids:
                    await self._withdraw()
        except TimeoutError:
            logger.warning("%s did not answer while a run was given up; its prompts may stay", self._client.origin)
        except RunpodComfyError as exc:
            logger.warning("a run was given up, and its prompts may stay in ComfyUI's queue: %s", exc)
        finally:
            if self._queueing is not None:
                self._queueing.cancel()

    async def _withdraw(self) -> None:
        await self._client.delete_pending(self._prompt_ids)
        # None of ours can start any more, so what runs now is all there is to interrupt.
        running, _ = await self._client.queue()
        for prompt_id in self._prompt_ids.intersection(running):
            await self._client.interrupt(prompt_id)

    def _follower_ended(self, following: asyncio.Task[None]) -> None:
        if not following.cancelled() and (error := following.exception()):
            self._follower.fail(RuntimeError(f"following ComfyUI failed: {error!r}"))

    def _batch(self, index: int, seed: int | None, graph: dict[str, Any]) -> _Batch:
        queued: asyncio.Future[_Queued] = asyncio.get_running_loop().create_future()
        # Where nobody is left to wait for it, its error is no message at exit.
        queued.add_done_callback(lambda done: done.cancelled() or done.exception())
        return _Batch(index=index, seed=seed, graph=graph if seed is None else with_seed(graph, seed), queued=queued)

    async def _queue_all(self, batches: list[_Batch]) -> None:
        """Queue every batch, one after the other, since ComfyUI numbers prompts as they come."""
        for batch in batches:
            if self._closing:
                return
            try:
                batch.queued.set_result(await self._queue(batch.graph, batch.index))
            except Exception as exc:  # noqa: BLE001 - it is the batch's, which raises it in its turn
                batch.queued.set_exception(exc)
                return

    async def _queue(self, graph: dict[str, Any], index: int, *, front: bool = False) -> _Queued:
        prompt_id = str(uuid.uuid4())
        self._prompt_ids.add(prompt_id)
        self._progress.expect(prompt_id, index)
        try:
            queued = await self._client.queue_prompt(graph, prompt_id=prompt_id, front=front)
        except JobFailed:  # refused, so there is nothing to take back
            self._prompt_ids.discard(prompt_id)
            raise
        if queued.prompt_id != prompt_id:  # older ComfyUI makes up its own
            self._prompt_ids.discard(prompt_id)
            self._prompt_ids.add(queued.prompt_id)
            self._progress.expect(queued.prompt_id, index)
        return _Queued(queued.prompt_id, queued.node_errors, self._follower.follow(queued.prompt_id))

    async def _ended(self, queued: _Queued) -> HistoryEntry:
        entry = await queued.end
        self._prompt_ids.discard(queued.prompt_id)
        self._progress.forget(queued.prompt_id)
        return entry

    async def _deliver(self, batch: _Batch) -> None:
        """Wait for a batch to end and pass on what it made."""
        queued = await batch.queued
        entry = await self._ended(queued)
        left_out = "; ".join(node_error_texts(queued.node_errors, batch.graph))
        if left_out:
            await self._warn(f"ComfyUI left out a part of the workflow: {left_out}.")
        made = entry.outputs(batch.graph)
        wanted = [ref for ref in made if self._submission.previews or not _is_preview(ref)]
        gpu_s = await self._deliver_outputs(batch, wanted, entry)
        self._raise_failure(batch, entry)
        if not wanted and left_out:
            raise JobFailed(f"{self._called(batch)} made nothing, since ComfyUI left out: {left_out}.")
        if not wanted:
            await self._warn(_ONLY_PREVIEWS if made else _NOTHING)
        await self._put(
            BatchFinished(batch=batch.index, batch_count=self._submission.batch_count, seed=batch.seed, gpu_s=gpu_s)
        )

    async def _deliver_outputs(self, batch: _Batch, refs: list[OutputRef], entry: HistoryEntry) -> float | None:
        """Pass on a batch's outputs; return the seconds that ComfyUI computed for them."""
        gpu_s, again = entry.gpu_s, None
        async with aclosing(fetch_in_order(self._client, refs)) as fetched:
            async for ref, data in fetched:
                if isinstance(ref, FileRef) and data is None:
                    if entry.failed or _is_preview(ref):
                        await self._warn(f"{ref.filename} of {called(ref.node_id, batch.graph)} is gone.")
                        continue
                    if again is None:
                        again = await self._run_again(batch, ref)
                        gpu_s = (gpu_s or 0.0) + (again.gpu_s or 0.0)
                    output = await self._replacement(batch, ref, refs, again)
                else:
                    output = self._output(batch, ref, data)
                await self._put(OutputReady(output=output))
        return gpu_s

    async def _run_again(self, batch: _Batch, missing: FileRef) -> HistoryEntry:
        """Run a batch once more under other file names.

        ComfyUI takes a batch that it has computed before whole from its cache, and names the file of then, whether
        or not it is still there. Under another prefix the nodes that save run again, and nothing else does.
        """
        graph = with_other_prefixes(batch.graph, f"-{uuid.uuid4().hex[:6]}")
        if graph is None:
            raise self._lost(batch, missing)
        logger.info("batch %d: %s is gone; saving it again", batch.index, missing.filename)
        entry = await self._ended(await self._queue(graph, batch.index, front=True))
        self._raise_failure(batch, entry)
        return entry

    async def _replacement(
        self, batch: _Batch, ref: FileRef, refs: list[OutputRef], again: HistoryEntry
    ) -> WorkflowOutputImage | OutputFile | OutputText:
        def of_node(outputs: list[OutputRef]) -> list[FileRef]:
            return [each for each in outputs if isinstance(each, FileRef) and each.node_id == ref.node_id]

        candidates = of_node(again.outputs(batch.graph))
        position = of_node(refs).index(ref)
        data = await fetch_file(self._client, candidates[position]) if position < len(candidates) else None
        if data is None:
            raise self._lost(batch, ref)
        return self._output(batch, candidates[position], data)

    def _output(
        self, batch: _Batch, ref: OutputRef, data: bytes | None
    ) -> WorkflowOutputImage | OutputFile | OutputText:
        origin = Origin(
            batch=batch.index, seed=batch.seed, node_id=ref.node_id, node_title=self._titles.title(ref.node_id)
        )
        if isinstance(ref, TextRef):
            return OutputText(text=ref.text, origin=origin)
        return as_output(ref, data or b"", name=self._names.name_for(ref), origin=origin)

    def _raise_failure(self, batch: _Batch, entry: HistoryEntry) -> None:
        if entry.interrupted:
            raise JobCancelled(f"{self._called(batch)} was interrupted in ComfyUI, by somebody else.")
        if entry.error is not None:
            raise execution_failure(entry.error, batch.graph, where=self._called(batch))
        if entry.failed:
            raise JobFailed(f"{self._called(batch)} failed, and ComfyUI did not say why. Its log does.")

    def _lost(self, batch: _Batch, ref: FileRef) -> JobFailed:
        return JobFailed(
            f"{self._called(batch)}: {called(ref.node_id, batch.graph)} reported the file {ref.filename!r}, and "
            "ComfyUI does not have it. Does something clean up its output folder?",
            node_id=ref.node_id,
        )

    def _called(self, batch: _Batch) -> str:
        return f"Batch {batch.index + 1} of {self._submission.batch_count}"

    async def _warn(self, message: str) -> None:
        """Say it once, though it be true of each batch."""
        if message not in self._warned:
            self._warned.add(message)
            await self._put(Warned(message=message))

    async def _put(self, event: Event) -> None:
        await self._room.acquire()
        self._channel.put_nowait(event)

    def _offer(self, progress: Progress) -> None:
        """Pass progress on, unless the consumer is behind."""
        if self._channel.qsize() < _CHANNEL_EVENTS:
            self._channel.put_nowait(progress)


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


def _seeds(submission: Submission, rng: random.Random) -> Sequence[int | None]:
    if submission.seeds:
        return submission.seeds
    if submission.randomize_seed:
        return draw_seeds(submission.batch_count, seed=None, rng=rng)
    return [None] * submission.batch_count
