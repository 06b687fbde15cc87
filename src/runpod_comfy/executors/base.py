"""The public face of every executor, written once.

A subclass brings one thing: ``_run``, which carries a submission out and yields its events. All I/O happens on the
background loop (``_loop``); a face method does nothing but choose how the caller waits.
"""

from __future__ import annotations

import asyncio
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runpod_comfy import _loop
from runpod_comfy.errors import ConfigurationError, JobCancelled, JobError, RunpodComfyError, WaitTimeout
from runpod_comfy.events import Finished, OutputReady, Queued, Warned
from runpod_comfy.executors.collect import Collector
from runpod_comfy.executors.preflight import check_submission
from runpod_comfy.executors.request import request_method, workflow_request
from runpod_comfy.executors.shelf import Shelf
from runpod_comfy.executors.slots import Slots, bodies, estimated_body_bytes
from runpod_comfy.executors.tracing import Trace
from runpod_comfy.media.inputs import encode_images
from runpod_comfy.results import Timings, WorkflowOutputImage
from runpod_comfy.submission import batches_needed, build_submission

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator

    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.results import WorkflowResult
    from runpod_comfy.submission import Submission
    from runpod_comfy.workflow.object_info_cache import KeptObjectInfo

__all__ = ["WorkflowExecutor"]

DEFAULT_TIMEOUT_S = 24 * 3600.0
"""How long a call waits where it does not say: as long as RunPod keeps a job (``ttl``, 24 hours by default)."""

_T = TypeVar("_T")


class WorkflowExecutor(ABC):
    """Runs workflows somewhere; see the subclasses for where.

    >>> with RunpodComfyWorkflowExecutor(endpoint="…", batch_size=8) as executor:  # doctest: +SKIP
    ...     executor.submit_workflow("portrait.json.jinja", ["me.jpg"], num_samples=16).save("out")

    Args:
        batch_size: How many images a batch has where a call does not say.
        max_concurrent_jobs: How many jobs are under way at once; further calls wait, and hold no image meanwhile.
            None sets no bound.

    Attributes:
        preflight: Whether workflows are checked against the node types that are known of the place, before anything
            is sent. They are known once somebody has asked for them: ``describe()``, ``runpod-comfy describe``.

    Raises:
        ConfigurationError: One of them is not a whole number of at least 1.
    """

    def __init__(self, *, batch_size: int = 1, max_concurrent_jobs: int | None = None) -> None:
        batches_needed(1, batch_size)
        self.batch_size = batch_size
        self._slots = Slots(max_concurrent_jobs)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._ended_by_close: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.preflight = True

    @classmethod
    def connect(cls, target: str, **options: Any) -> WorkflowExecutor:
        """Return the executor for a place, named in one string.

        >>> executor = WorkflowExecutor.connect("runpod://4m7x2k9q", batch_size=8)  # doctest: +SKIP
        >>> executor = WorkflowExecutor.connect("http://127.0.0.1:8188", batch_size=8)  # doctest: +SKIP
        >>> executor = WorkflowExecutor.connect("local", batch_size=8)  # doctest: +SKIP

        Args:
            target: ``runpod://<ENDPOINT_ID>``, the address of a ComfyUI server, or ``local`` for the local stand-in.
            options: What the executor of that kind takes.

        Raises:
            ConfigurationError: It is none of these, or that executor does not take one of the options.
        """
        from runpod_comfy.executors.connect import connect  # noqa: PLC0415 - it names all subclasses

        return connect(target, options)

    @property
    @abstractmethod
    def place(self) -> str:
        """Where workflows run, as :meth:`connect` takes it."""

    @property
    def max_concurrent_jobs(self) -> int | None:
        """How many jobs are under way at once; None means without bound."""
        return self._slots.most

    @request_method(workflow_request)
    def submit_workflow(self, request: WorkflowRequest) -> WorkflowResult:
        """Run a workflow, wait, and return its images. Ctrl-C cancels the job."""
        return _loop.run_sync(lambda: self._result(request))

    @request_method(workflow_request)
    def submit_workflow_async(self, request: WorkflowRequest) -> asyncio.Future[WorkflowResult]:
        """Run a workflow and return a future of its images at once. Cancelling the future cancels the job.

        Raises RuntimeError, before anything is sent, where no event loop runs.
        """
        return _loop.run_async(lambda: self._result(request))

    @request_method(workflow_request)
    def stream_workflow(self, request: WorkflowRequest) -> Iterator[WorkflowOutputImage]:
        """Run a workflow and yield its images as they arrive. Leaving the loop early cancels the job."""
        return _loop.iterate_sync(lambda: self._images(request))

    @request_method(workflow_request)
    def stream_workflow_async(self, request: WorkflowRequest) -> AsyncIterator[WorkflowOutputImage]:
        """Run a workflow and yield its images as they arrive. Leaving the loop early cancels the job."""
        return _loop.iterate_async(lambda: self._images(request))

    @request_method(workflow_request)
    def watch_workflow(self, request: WorkflowRequest) -> Iterator[Event]:
        """Run a workflow and yield all its events, ``Finished`` last. Leaving the loop early cancels the job."""
        return _loop.iterate_sync(lambda: self._events(request))

    @request_method(workflow_request)
    def watch_workflow_async(self, request: WorkflowRequest) -> AsyncIterator[Event]:
        """Run a workflow and yield all its events, ``Finished`` last. Leaving the loop early cancels the job."""
        return _loop.iterate_async(lambda: self._events(request))

    def close(self) -> None:
        """End what this executor has under way, cancelling its jobs, and let go of what it holds.

        Jobs of handles run on. Connections are shared by all executors and closed at exit.
        """
        _loop.run_sync(self._end)

    async def aclose(self) -> None:
        """End what this executor has under way, cancelling its jobs, and let go of what it holds.

        Jobs of handles run on. Connections are shared by all executors and closed at exit.
        """
        await _loop.run_async(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # -- for subclasses; on the background loop --------------------------------------------------------------------

    @abstractmethod
    def _run(
        self, submission: Submission, request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        """Carry a submission out and yield what happens, any ``Timings`` among it.

        ``Queued`` comes when it was accepted: from then on its images must not be held. Files go onto the shelf as
        they arrive. Closing the generator early, or cancelling its task, ends the remote work before it returns.
        """

    async def _end(self) -> None:
        for task in self._under_way:
            self._ended_by_close.add(task)
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_loop.CLEANUP_S)
        await _loop.farewells_said()
        await self._close()

    async def _while_open(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do work that :meth:`close` ends."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - on the background loop there is one
        self._under_way.add(task)
        try:
            return await work
        except asyncio.CancelledError as exc:
            if task in self._ended_by_close:
                raise JobCancelled("The executor was closed while this was under way.") from exc
            raise
        finally:
            self._under_way.discard(task)

    async def _close(self) -> None:  # noqa: B027 - most subclasses hold nothing
        """Let go of what the subclass holds."""

    def _batch_size_of(self, request: WorkflowRequest) -> int:
        return self.batch_size if request.batch_size is None else request.batch_size

    async def _prepare(
        self, request: WorkflowRequest, *, seeds: tuple[int, ...] | None = None, first_seed: int | None = None
    ) -> Submission:
        """Encode the images, render the template and check the graph; the job is not sent.

        Args:
            request: What was asked for.
            seeds: The batches' seeds, where they are known; None draws them.
            first_seed: The template's ``seed``, likewise.
        """
        images = await encode_images(request.input_images, max_pixels=request.input_max_pixels)
        submission = build_submission(
            request.template,
            images=images,
            num_samples=request.num_samples,
            batch_size=self._batch_size_of(request),
            variables=request.variables,
            seed=request.seed,
            randomize_seed=request.randomize_seed,
            previews=request.previews,
            submission_id=uuid.uuid4().hex,
            seeds=seeds,
            first_seed=first_seed,
        )
        if (target := self._target()) is None or not self.preflight:
            return submission
        warnings = await check_submission(
            submission, target=target, source=request.template.name, refresh=self._refresh_node_types
        )
        return replace(submission, warnings=(*submission.warnings, *warnings))

    def _target(self) -> str | None:
        """Return the name under which the node types of the place to run are kept; None where none are."""
        return None

    async def _refresh_node_types(self) -> KeptObjectInfo | None:
        """Ask for the node types anew and keep them; None where that would cost something."""
        return None

    async def _events(self, request: WorkflowRequest) -> AsyncGenerator[Event]:
        """Yield all events of a submission; every error leaves with what had arrived."""
        started_s = time.monotonic()
        shelf = None if request.output_dir is None else Shelf.open(request.output_dir)
        collector = Collector()
        task = asyncio.current_task()
        trace = Trace("workflow", place=self.place, num_samples=request.num_samples)
        try:
            if task is not None:
                self._under_way.add(task)
            with trace:
                async with aclosing(self._carried_out(request, shelf, collector)) as run:
                    async for event in _until(run, request.timeout_s or DEFAULT_TIMEOUT_S):
                        collector.add(event)
                        trace.add(event)
                        if not isinstance(event, Timings):
                            yield event
                finished = Finished(result=collector.result(total_s=time.monotonic() - started_s))
                trace.add(finished)
        except asyncio.CancelledError as exc:
            if task in self._ended_by_close:
                closed = JobCancelled("The executor was closed while this was under way.", job_id=collector.job_id)
                raise _with_partial(closed, collector) from exc
            raise
        except RunpodComfyError as exc:
            error = _with_partial(exc, collector)
            raise error from (exc if error is not exc else exc.__cause__)
        except TimeoutError as exc:
            raise _with_partial(_wait_timeout(collector.job_id, request), collector) from exc
        finally:
            if task is not None:
                self._under_way.discard(task)
        yield finished

    async def _carried_out(
        self, request: WorkflowRequest, shelf: Shelf | None, collector: Collector
    ) -> AsyncGenerator[Event | Timings]:
        """Wait for a slot, prepare the submission and run it; its images are in memory only until it was accepted."""
        async with self._slots.taken(), AsyncExitStack() as before_acceptance:
            await before_acceptance.enter_async_context(bodies().lend(estimated_body_bytes(request.input_images)))
            submission = await self._prepare(request)
            collector.submission_id = submission.submission_id
            for message in submission.warnings:
                yield Warned(message=message)
            run = self._run(submission, request, shelf)
            del submission
            async with aclosing(run):
                async for event in run:
                    if isinstance(event, Queued):
                        await before_acceptance.aclose()
                    yield event

    async def _result(self, request: WorkflowRequest) -> WorkflowResult:
        async with aclosing(self._events(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.result
        raise ConfigurationError("The executor ended without a result.")

    async def _images(self, request: WorkflowRequest) -> AsyncGenerator[WorkflowOutputImage]:
        async with aclosing(self._events(request)) as events:
            async for event in events:
                if isinstance(event, OutputReady) and isinstance(event.output, WorkflowOutputImage):
                    yield event.output


async def _until(source: AsyncGenerator[_T], timeout_s: float) -> AsyncGenerator[_T]:
    """Yield what ``source`` yields, until the time is over: then it is stopped and TimeoutError raised."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            # The scope ends before the yield: one that spanned it would cancel whoever consumes this.
            async with asyncio.timeout_at(deadline_s):
                item = await anext(source)
        except StopAsyncIteration:
            return
        yield item


def _wait_timeout(job_id: str | None, request: WorkflowRequest) -> WaitTimeout:
    waited_s = request.timeout_s or DEFAULT_TIMEOUT_S
    return WaitTimeout(
        f"Not finished after {waited_s:g} s, the timeout of this call; "
        + (f"RunPod was asked to cancel job {job_id}." if job_id else "nothing was running yet.")
        + " Pass a longer timeout=, or split the work into smaller jobs.",
        job_id=job_id,
    )


def _with_partial(error: RunpodComfyError, collector: Collector) -> RunpodComfyError:
    """Give an error what had arrived; an error that has no place for it becomes the cause of one that has."""
    if isinstance(error, JobError):
        error.job_id = error.job_id or collector.job_id
        error.partial = collector.result()
        return error
    if collector.empty:
        return error
    return JobError(
        f"{error} {len(collector.images)} image(s) that had arrived are in .partial.",
        job_id=collector.job_id,
        endpoint_id=error.endpoint_id,
        partial=collector.result(),
    )
