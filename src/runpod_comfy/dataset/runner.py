"""A plan carried out: many jobs at once, each image on disk as it arrives, each row's failure its own.

The same run again goes on where it ended, after a crash too: batches that are whole are not asked for again, and a job
that was under way is read to its end where RunPod still has it, since it is paid for already.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from runpod_comfy.dataset.thumbs import drop_thumb, keep_thumb
from runpod_comfy.dataset.wholeness import SampleNumbers, batches_in, missing_stretches, whole_batches
from runpod_comfy.errors import (
    AuthenticationError,
    ConfigurationError,
    LedgerError,
    NotFound,
    ProtocolError,
    RateLimited,
    RunpodComfyError,
    ServerError,
    SubmissionUncertain,
    TransportError,
)
from runpod_comfy.events import BatchFinished, Finished, OutputReady, Queued, Started, Waiting, Warned
from runpod_comfy.results import OutputFile, OutputText, WorkflowOutputImage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from runpod_comfy.dataset.folder import OutputFolder
    from runpod_comfy.dataset.plan import Task
    from runpod_comfy.events import Event
    from runpod_comfy.executors.base import WorkflowExecutor
    from runpod_comfy.results import Timings
    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["DatasetRunner", "RunOptions", "Tally", "pending"]

logger = logging.getLogger(__name__)

_RESULT_KEPT_S = 25 * 60.0  # RunPod keeps a result for 30 minutes after the job's end
_MET_BY_ALL = (AuthenticationError, ConfigurationError, LedgerError, NotFound, ProtocolError)
_OF_THE_SERVICE = (RateLimited, ServerError, SubmissionUncertain, TransportError)
_MOST_UNANSWERED = _MOST_FAILED_AT_FIRST = 20
_KNOWN_AFTER_S = 10.0  # by then a job that RunPod does not know is gone, and not new
_SEEDS_BELOW, _LARGE_SEEDS_BELOW = 2**32, 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is carried out.

    Attributes:
        batch_size: Images in a batch.
        jobs_at_once: Jobs that run or wait on the endpoint at once.
        price_per_hour_usd: What a worker costs, for ``max_cost_usd`` and what is shown; None where it is not known.
        max_cost_usd: Start nothing more once the lower bound of the cost has reached this.
        max_gpu_s: Start nothing more once so many seconds of execution have been used.
        timeout_s: Give up one job after so many seconds.
        template_sha256: Of the template and what it includes; kept with each image.
        sidecar: ``txt`` for a file with the caption beside each image, ``json`` for one with its columns, or None.
    """

    batch_size: int = 1
    jobs_at_once: int = 8
    price_per_hour_usd: float | None = None
    max_cost_usd: float | None = None
    max_gpu_s: float | None = None
    timeout_s: float | None = None
    template_sha256: str | None = None
    sidecar: str | None = None


@dataclass(slots=True)
class Tally:
    """How far a run is; the same object all along.

    Attributes:
        images_wanted: Images that all tasks of this run make, those that were there already included.
        images: Images on disk.
        tasks_done: Tasks that are whole.
        tasks_failed: Tasks that are not, and were tried.
        running: Tasks under way.
        waiting: Tasks not begun.
        execution_s: What RunPod called execution time, of all jobs of this run together.
        failures: How often tasks failed, by code and node class.
        examples: For each of these the first task's key and message.
        stopped_by: Why nothing more is started, or None.
    """

    images_wanted: int = 0
    images: int = 0
    tasks_done: int = 0
    tasks_failed: int = 0
    running: int = 0
    waiting: int = 0
    execution_s: float = 0.0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    stopped_by: str | None = None

    def cost_usd(self, price_per_hour_usd: float) -> float:
        """Return what the execution alone has cost; RunPod also bills a worker's start and its idle time."""
        return self.execution_s / 3600 * price_per_hour_usd


def pending(tasks: Sequence[Task], folder: OutputFolder, *, batch_size: int, retry_failed: bool = True) -> list[Task]:
    """Return the tasks that are not whole.

    Args:
        tasks: All tasks.
        folder: Where their images are.
        batch_size: Images in a batch.
        retry_failed: Whether a task that has failed before is tried again.
    """

    def wanted(task: Task) -> bool:
        record = folder.manifest.tasks.get(task.key)
        if record is None:
            return True
        if record.failures and not retry_failed:
            return False
        return len(whole_batches(record, folder)) < batches_in(task.num_samples, batch_size)

    return [task for task in tasks if wanted(task)]


class DatasetRunner:
    """Carries out tasks on an executor, into a folder.

    Args:
        executor: Where jobs run.
        template: What they run.
        folder: Where images go.
        options: How.
        on_change: Called after each change of the tally.
    """

    def __init__(
        self,
        executor: WorkflowExecutor,
        template: WorkflowTemplate,
        folder: OutputFolder,
        *,
        options: RunOptions,
        on_change: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self._executor = executor
        self._template = template
        self._folder = folder
        self._options = options
        self._on_change = on_change
        self._taken = {record.index for record in folder.manifest.tasks.values()}
        self._unanswered = 0  # failures in a row that were no row's fault
        self._counted: set[tuple[int, int]] = set()  # images of this run that the tally knows
        self._in_queue: set[asyncio.Task[Any]] = set()  # those whose job no worker has taken yet
        self.tally = Tally()

    async def run(self, tasks: Sequence[Task], *, already: int = 0) -> Tally:
        """Carry tasks out, several at once, and return the tally; a task that fails stops no other.

        Args:
            tasks: In the order in which they start.
            already: Images that other tasks have on disk, for the tally.

        Raises:
            RunpodComfyError: Something is wrong that every task would meet, such as a refused key.
            OSError: The folder cannot be written any more.
        """
        tally = self.tally
        tally.images = already + sum(self._kept(task) for task in tasks)
        tally.images_wanted = already + sum(task.num_samples for task in tasks)
        tally.waiting = len(tasks)
        queue = iter(tasks)
        stop = asyncio.Event()
        keeping = asyncio.create_task(self._folder.keep_metadata(stop))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._options.jobs_at_once, len(tasks))):
                    group.create_task(self._work(queue))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            stop.set()
            await keeping
        return tally

    def finish_running(self) -> None:
        """Start nothing more, give up the jobs that no worker has taken yet, and let the others end."""
        self.tally.stopped_by = "interrupted"
        for each in list(self._in_queue):
            each.cancel()

    async def _work(self, queue: Iterator[Task]) -> None:
        while self._may_start() and (task := next(queue, None)) is not None:
            self.tally.waiting -= 1
            self.tally.running += 1
            self._on_change(self.tally)
            try:
                await self._carry_out(task)
            finally:
                self.tally.running -= 1
                self._on_change(self.tally)

    def _may_start(self) -> bool:
        options, tally = self._options, self.tally
        if options.max_gpu_s is not None and tally.execution_s >= options.max_gpu_s:
            tally.stopped_by = f"{options.max_gpu_s:g} GPU seconds are used"
        price = options.price_per_hour_usd
        if options.max_cost_usd is not None and price is not None and tally.cost_usd(price) >= options.max_cost_usd:
            tally.stopped_by = f"${options.max_cost_usd:g} are spent"
        if self._unanswered >= _MOST_UNANSWERED:
            tally.stopped_by = f"the service failed {_MOST_UNANSWERED} times in a row"
        elif not tally.tasks_done and tally.tasks_failed >= _MOST_FAILED_AT_FIRST:
            tally.stopped_by = (
                f"the first {_MOST_FAILED_AT_FIRST} jobs all failed (--no-retry-failed begins with the others)"
            )
        return tally.stopped_by is None

    async def _carry_out(self, task: Task) -> None:
        try:
            await self._finish_old_job(task)
            for stretch in missing_stretches(self._whole(task), self._batch_count(task)):
                await self._follow(task, self._submit(task, stretch), first_batch=stretch.start)
        except RunpodComfyError as exc:
            self._fail(task, exc)
            if isinstance(exc, _MET_BY_ALL) and self.tally.tasks_done == 0 and self.tally.tasks_failed == 1:
                # The very first answer says no, and not for reasons of this row: so will all the others.
                raise
        else:
            self.tally.tasks_done += 1
            self._unanswered = 0

    async def _finish_old_job(self, task: Task) -> None:
        """Read a job that an earlier run left under way, where RunPod still has it."""
        record = self._folder.manifest.tasks.get(task.key)
        attach = getattr(self._executor, "attach", None)
        if record is None or record.job is None or record.job_ended or attach is None:
            return
        if time.time() - record.job["at"] > _RESULT_KEPT_S:
            return
        if record.job.get("place") not in {None, getattr(self._executor, "place", None)}:
            return  # another endpoint's
        try:
            handle = attach(record.job["job_id"])
            if time.time() - record.job["at"] > _KNOWN_AFTER_S:
                await handle.state_async()  # one that was purged is not there, which following takes long to believe
            await self._follow(task, handle.events_async(), first_batch=record.job["first_batch"], is_new=False)
        except RunpodComfyError as exc:
            logger.info("task %s: what was left of its job could not be read: %s", task.key, exc)

    def _submit(self, task: Task, batches: range) -> AsyncGenerator[Event]:
        first = batches.start * self._options.batch_size
        below = _SEEDS_BELOW if task.seed < _SEEDS_BELOW else _LARGE_SEEDS_BELOW
        return cast(
            "AsyncGenerator[Event]",
            self._executor.watch_workflow_async(
                self._template,
                task.photos,
                min(len(batches) * self._options.batch_size, task.num_samples - first),
                batch_size=self._options.batch_size,
                seed=(task.seed + batches.start) % below,
                variables=task.variables,
                timeout=self._options.timeout_s,
            ),
        )

    async def _follow(self, task: Task, events: Any, *, first_batch: int, is_new: bool = True) -> None:
        index = self._folder.index_for(task, self._taken)
        record = self._folder.manifest.tasks.get(task.key)
        numbers = SampleNumbers(record, batch_size=self._options.batch_size)
        base = {"task": task.key, "index": index}
        about_job: dict[str, Any] = {"job_id": record.job["job_id"] if record and record.job else None}
        async with aclosing(events) as following:
            async for event in following:
                self._note_progress(event)
                match event:
                    case Queued(job_id=job_id, place=place) if is_new:
                        at = round(time.time(), 3)
                        job = {"job_id": job_id, "place": place, "first_batch": first_batch, "at": at}
                        about_job["job_id"] = job_id
                        self._folder.manifest.add({"schema": "job/1", **base, **job})
                    case Started(worker_id=worker_id):
                        about_job["worker_id"] = worker_id
                    case OutputReady(output=OutputText()):
                        pass
                    case OutputReady(output=OutputFile() as output):
                        batch = first_batch + (output.batch or 0)
                        sample = numbers.next_of(batch)
                        line = await asyncio.to_thread(self._save, task, output, index, sample)
                        self._folder.manifest.add({"schema": "image/1", **base, "batch": batch, **line, **about_job})
                        if isinstance(output, WorkflowOutputImage):
                            self.tally.images += (index, sample) not in self._counted
                            self._counted.add((index, sample))
                            await asyncio.to_thread(keep_thumb, self._folder.root, index, sample, output.data)
                        self._on_change(self.tally)
                    case BatchFinished(batch=batch):
                        about = {"batch": first_batch + batch, "batches": self._batch_count(task)}
                        self._folder.manifest.add({"schema": "batch/1", **base, **about})
                    case Finished(result=result):
                        self._count(result.timings)
                        self._folder.manifest.add({"schema": "done/1", **base, **about_job, **asdict(result.timings)})

    def _note_progress(self, event: Event) -> None:
        mine = asyncio.current_task()
        if mine is None or isinstance(event, Warned):
            return
        if isinstance(event, Queued | Waiting):
            self._in_queue.add(mine)
        else:
            self._in_queue.discard(mine)

    def _save(self, task: Task, output: OutputFile, index: int, sample: int) -> dict[str, Any]:
        is_image = isinstance(output, WorkflowOutputImage)
        seed = None if output.seed is None else str(output.seed)
        numbers = {"id": task.row.id, "index": index, "row": index, "sample": sample, "seed": seed}
        values = {**numbers, **task.row.values, **task.variables, **numbers}
        # Should this end here, the next one must not find the thumbnail of the picture that was there before.
        drop_thumb(self._folder.root, index, sample)
        path = self._folder.save(output, index, sample, is_image=is_image, values=values)
        width, height = _size(output) if is_image else (None, None)
        line = {
            "row_id": task.row.id,
            "sample": sample,
            "file": path.as_posix(),
            "name": output.name,
            "kind": output.kind if is_image else "files",
            "sha256": output.sha256,
            "size_bytes": output.size_bytes,
            "width": width,
            "height": height,
            "media_type": output.media_type,
            **_asked(task),
            # As text: JavaScript rounds what is above 2**53.
            "seed": seed,
            "node": {"id": output.node_id, "title": output.origin.node_title},
            "photos": [photo.as_posix() for photo in task.photos],
            "template_sha256": self._options.template_sha256,
        }
        if is_image and self._options.sidecar:
            self._folder.write_sidecar({**line, "index": index}, self._options.sidecar)
        return line

    def _fail(self, task: Task, exc: RunpodComfyError) -> None:
        partial = getattr(exc, "partial", None)
        if partial is not None:
            self._count(partial.timings)
        node_type = getattr(exc, "node_type", None) or ""
        record = self._folder.manifest.tasks.get(task.key)
        index = self._folder.index_for(task, self._taken)
        tries = len(record.failures) + 1 if record else 1
        error = {
            "code": exc.code,
            "message": str(exc),
            "node_id": getattr(exc, "node_id", None),
            "node_type": node_type,
        }
        about = {
            "row_id": task.row.id,
            "line": task.row.line,
            "try": tries,
            "error": error,
            "job_id": exc.job_id,
            **_asked(task),
        }
        self._folder.manifest.add({"schema": "failure/1", "task": task.key, "index": index, **about})
        self.tally.tasks_failed += 1
        self._unanswered = self._unanswered + 1 if isinstance(exc, _OF_THE_SERVICE) else 0
        self.tally.failures[exc.code, node_type] += 1
        self.tally.examples.setdefault((exc.code, node_type), (task.key, str(exc)))

    def _count(self, timings: Timings) -> None:
        self.tally.execution_s += timings.execution_s or timings.gpu_s or 0.0

    def _whole(self, task: Task) -> set[int]:
        return whole_batches(self._folder.manifest.tasks.get(task.key), self._folder)

    def _batch_count(self, task: Task) -> int:
        return batches_in(task.num_samples, self._options.batch_size)

    def _kept(self, task: Task) -> int:
        record = self._folder.manifest.tasks.get(task.key)
        whole = self._whole(task)
        return sum(1 for each in record.images.values() if each["batch"] in whole) if record else 0


def _asked(task: Task) -> dict[str, Any]:
    """Return what a line says of its row: the template's variables, and the row's other columns."""
    extra = {name: value for name, value in task.row.values.items() if name not in task.variables}
    return {
        "variables": dict(task.variables),
        "columns": {name: value for name, value in extra.items() if name != "seed"},
    }


def _size(output: OutputFile) -> tuple[int | None, int | None]:
    from PIL import Image  # noqa: PLC0415 - reads the header alone

    try:
        with Image.open(io.BytesIO(output.data)) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None, None
