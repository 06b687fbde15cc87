"""A submission run on a ComfyUI server, as events: inputs up, all batches into the queue, outputs home batch by batch.

::

    inputs → queue: POST /prompt, one after the other ───────────┐
             follower: websocket and /history → ends of prompts ─┼→ delivery, in order → channel → run_batches()
                                              → progress ────────┘

The delivery fetches one batch's outputs while ComfyUI computes the next. The channel is short, so a slow consumer
leaves outputs on ComfyUI's disk instead of in this process's memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack, aclosing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.comfyui.catalog import NodeCatalog
from runpod_comfy.comfyui.delivery import Delivery
from runpod_comfy.comfyui.failures import ComputingStopped
from runpod_comfy.comfyui.fetch import Fetcher
from runpod_comfy.comfyui.follow import FollowPace, PromptFollower
from runpod_comfy.comfyui.inputs import localised_graph
from runpod_comfy.comfyui.jobfiles import JobFiles, with_metadata
from runpod_comfy.comfyui.progress import ProgressThrottle
from runpod_comfy.comfyui.queueing import Batch, PromptQueue
from runpod_comfy.comfyui.shelf import InputShelf
from runpod_comfy.errors import JobFailed, RunpodComfyError, TransportError
from runpod_comfy.events import Progress
from runpod_comfy.workflow.editor import editor_workflow
from runpod_comfy.workflow.graph import Graph
from runpod_comfy.workflow.seeds import draw_seeds, with_seed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.folders import Folders
    from runpod_comfy.comfyui.queueing import Queued
    from runpod_comfy.events import Event
    from runpod_comfy.submission import Submission

__all__ = ["Site", "all_stopped", "run_batches"]

logger = logging.getLogger(__name__)

_CHANNEL_EVENTS = 4
_TRIES, _ASK_AGAIN_S = 30, 2.0
_LONGEST_NODE_S = 4 * 3600.0
_stopping: set[asyncio.Task[None]] = set()  # a task without a reference may vanish before it is done


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A ComfyUI that belongs to whoever runs workflows on it, so that runs clean up after themselves.

    Attributes:
        shelf: The input images of all runs there.
        catalog: Its node classes.
        folders: ComfyUI's folders, or None where they cannot be reached; files stay there then.
        largest_bytes: A larger output is not fetched, and fails the run once all the rest is delivered; None fetches
            any.
        emptied: Folders below the output folder that files of runs were removed from, which may be empty now.
        stay: Keeps the client that a run was given usable, also after the run, for as long as the context lasts.
    """

    shelf: InputShelf
    catalog: NodeCatalog = field(default_factory=NodeCatalog)
    folders: Folders | None = None
    largest_bytes: int | None = None
    emptied: set[Path] = field(default_factory=set)
    stay: Callable[[], AbstractAsyncContextManager[object]] = nullcontext


async def run_batches(
    client: ComfyUIClient,
    submission: Submission,
    *,
    input_dir: str | None = None,
    rng: random.Random | None = None,
    pace: FollowPace | None = None,
    site: Site | None = None,
    death: asyncio.Future[str] | None = None,
) -> AsyncGenerator[Event]:
    """Run a submission's batches and yield what happens; the outputs come strictly batch by batch, in node order.

    Closed or cancelled, it takes its waiting prompts off the queue and interrupts its running one, and no other's, and
    with a ``site`` removes what it made; in all within ``pace.stop_s``. A node that does not let itself be interrupted
    computes on: what is to be removed then is removed when it has ended, by a task that :func:`all_stopped` waits for.

    Args:
        client: The server. Several runs may share it.
        submission: What to run.
        input_dir: ComfyUI's input folder as ComfyUI's nodes see it; None asks the server.
        rng: Where seeds come from that the submission leaves to us.
        pace: How patient to be with a silent server.
        site: What the runs of a worker share; None leaves inputs, outputs and history on the server, which is
            somebody's own.
        death: Done, with the reason, once ComfyUI's process has ended; None where nobody knows.

    Raises:
        JobFailed: ComfyUI refused a batch, a node failed, or an output is gone; what was made before has been yielded.
        JobCancelled: Somebody interrupted a batch, or removed it from the queue.
        InputError: An input image cannot be written.
        TransportError: ComfyUI does not answer.
        ApiError: Something in front of ComfyUI refuses the requests.
        ProtocolError: What answers is not ComfyUI.
    """
    pace = pace or FollowPace()
    run = _Run(client.sibling(), submission, rng=rng or random.SystemRandom(), pace=pace, site=site)
    main = asyncio.create_task(run.main(input_dir, death))
    try:
        async with aclosing(run.events(main)) as events:
            async for event in events:
                yield event
    finally:
        # Shielded: who cancels twice must not leave prompts behind.
        await asyncio.shield(_in_the_background(run.stop(main)))


async def all_stopped() -> None:
    """Wait until runs that were given up on this loop have cleaned up after themselves, however long that takes."""
    loop = asyncio.get_running_loop()
    while left := [task for task in _stopping if task.get_loop() is loop]:
        await asyncio.wait(left)


def _in_the_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _stopping.add(task)
    task.add_done_callback(_stopping.discard)
    return task


class _Run:
    def __init__(
        self,
        client: ComfyUIClient,
        submission: Submission,
        *,
        rng: random.Random,
        pace: FollowPace,
        site: Site | None,
    ) -> None:
        self._client = client
        self._pace = pace
        self._submission = submission
        self._site = site
        self._seeds = _seeds(submission, rng)
        self._progress = ProgressThrottle(
            Graph(submission.workflow),
            batch_count=submission.batch_count,
            emit=self._offer,
            previews=submission.previews,
        )
        self._follower = PromptFollower(client, on_message=self._progress.message, pace=pace)
        self._prompts = PromptQueue(client, follower=self._follower, progress=self._progress)
        folders = site.folders if site else None
        self._files = JobFiles(folders)
        self._delivery = Delivery(
            submission=submission,
            prompts=self._prompts,
            fetcher=Fetcher(client=client, folders=folders, largest_bytes=site.largest_bytes if site else None),
            files=self._files,
            put=self._put,
        )
        self._inputs = AsyncExitStack()
        self._classes: Mapping[str, Any] = {}
        self._queueing: asyncio.Task[None] | None = None
        self._undelivered: list[Batch] = []
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

    async def main(self, input_dir: str | None, death: asyncio.Future[str] | None) -> None:
        """Run to the end."""
        following = asyncio.create_task(self._follower.run())
        following.add_done_callback(self._follower_ended)
        if death is not None:
            death.add_done_callback(self._server_died)
        try:
            shelf = self._site.shelf if self._site else InputShelf()
            await self._inputs.enter_async_context(shelf.hold(self._client, self._submission.images))
            graph = await localised_graph(self._client, self._submission, input_dir=input_dir)
            if self._site is not None:
                classes = (node["class_type"] for node in graph.values())
                self._classes = await self._site.catalog.of(self._client, classes)
            self._undelivered = [self._batch(index, seed, graph) for index, seed in enumerate(self._seeds)]
            await self._follower.ready()
            self._queueing = asyncio.create_task(self._prompts.queue_all(list(self._undelivered)))
            while self._undelivered:
                await self._delivery.batch(self._undelivered[0])
                self._undelivered.pop(0)
            self._delivery.check_all_sent()
        finally:
            if death is not None:
                death.remove_done_callback(self._server_died)
            self._progress.close()
            following.cancel()
            await asyncio.wait([following])

    async def stop(self, main: asyncio.Task[None]) -> None:
        """Leave nothing of this run behind in ComfyUI."""
        async with AsyncExitStack() as stay:
            if self._site is not None:
                await stay.enter_async_context(self._site.stay())
            if await self._is_stopped_in_time(main) or self._site is None:
                await self._remove_files()
            else:
                _in_the_background(self._clean_up_later(stay.pop_all()))

    async def _is_stopped_in_time(self, main: asyncio.Task[None]) -> bool:
        """End the run, and return whether nothing of it computes any more."""
        self._prompts.close()
        main.cancel()
        try:
            async with asyncio.timeout(self._pace.stop_s):
                await asyncio.wait([main])
                if self._queueing is not None:
                    # A prompt that is on its way must have arrived to be taken back.
                    await asyncio.wait([self._queueing])
                failure = None if main.cancelled() else main.exception()
                await self._take_back(wait=not isinstance(failure, ComputingStopped))
        except TimeoutError:
            logger.warning("%s still computes for a run that was given up", self._client.origin)
            return False
        except RunpodComfyError as exc:
            logger.warning("a run was given up, and its prompts may stay in ComfyUI's queue: %s", exc)
        finally:
            if self._queueing is not None:
                self._queueing.cancel()
            await self._inputs.aclose()
        return True

    async def _take_back(self, *, wait: bool) -> None:
        """Take the prompts back, and learn what they made.

        Args:
            wait: Until they have ended, where there is something to be removed then.
        """
        if not self._prompts.is_clear:
            await self._prompts.withdraw(wait=wait and self._site is not None)
        if self._site is not None:
            await self._note_undelivered()
            await self._prompts.forget()

    async def _clean_up_later(self, stay: AsyncExitStack) -> None:
        """Remove what the run made once its prompt has ended, which took longer than anybody waits."""
        async with stay:
            try:
                async with asyncio.timeout(_LONGEST_NODE_S):
                    await self._take_back_at_last()
            except (TimeoutError, RunpodComfyError) as exc:
                logger.warning("what a run made is removed, though its prompt may not have ended: %s", exc)
            finally:
                await self._remove_files()

    async def _remove_files(self) -> None:
        """Remove what the run made, and the folders that are empty then, once nothing computes.

        A node that saves makes its folder a moment before its file.
        """
        emptied = await self._files.remove()
        if self._site is None or self._site.folders is None:
            return
        self._site.emptied.update(emptied)
        with suppress(RunpodComfyError):
            if self._site.emptied and await self._client.queue() == ([], []):
                self._site.folders.remove_empty(self._site.emptied)
                self._site.emptied.clear()

    async def _take_back_at_last(self) -> None:
        """Take the prompts back from a server that may be too busy to answer, unless it is gone."""
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._take_back(wait=True)
            except TransportError:
                if not tries_left:
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)
        return None

    async def _note_undelivered(self) -> None:
        """Learn what prompts made that nobody waited for any more; they end in their order."""
        for batch in self._undelivered:
            if not batch.queued.done() or batch.queued.exception():
                return
            entry = await self._prompts.entry_of(batch.queued.result())
            if entry is None:
                return
            self._delivery.made(batch, entry)

    def _follower_ended(self, following: asyncio.Task[None]) -> None:
        if not following.cancelled() and (error := following.exception()):
            self._follower.fail(RuntimeError(f"following ComfyUI failed: {error!r}"))

    def _server_died(self, death: asyncio.Future[str]) -> None:
        if not death.cancelled() and not death.exception():
            self._follower.fail(JobFailed(death.result()))

    def _batch(self, index: int, seed: int | None, graph: dict[str, Any]) -> Batch:
        queued: asyncio.Future[Queued] = asyncio.get_running_loop().create_future()
        # Where nobody is left to wait for it, its error is no message at exit.
        queued.add_done_callback(lambda done: done.cancelled() or done.exception())
        shown = graph if seed is None else with_seed(graph, seed)
        return Batch(
            index=index,
            seed=seed,
            graph=self._files.placed(shown),
            extra_data=lambda: self._extra_data(shown),
            queued=queued,
        )

    def _extra_data(self, shown: dict[str, Any]) -> Mapping[str, Any]:
        """Return what goes with a graph so that files show it as the workflow has it."""
        if self._site is None:
            return self._submission.extra_data
        return with_metadata(
            self._submission.extra_data,
            prompt=shown if self._files.placed(shown) is not shown else None,
            workflow=editor_workflow(shown, self._classes),
        )

    async def _put(self, event: Event) -> None:
        await self._room.acquire()
        self._channel.put_nowait(event)

    def _offer(self, progress: Progress) -> None:
        """Pass progress on, unless the consumer is behind."""
        if self._channel.qsize() < _CHANNEL_EVENTS:
            self._channel.put_nowait(progress)


def _seeds(submission: Submission, rng: random.Random) -> Sequence[int | None]:
    if submission.seeds:
        return submission.seeds
    if submission.randomize_seed:
        return draw_seeds(submission.batch_count, seed=None, rng=rng)
    return [None] * submission.batch_count
