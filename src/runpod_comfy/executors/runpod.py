"""Workflows on a RunPod Serverless endpoint."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal, cast, get_args

from runpod_comfy import _loop
from runpod_comfy.dialects.base import WorkerKind
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.executors.accepting import Accepted, Desk
from runpod_comfy.executors.base import WorkflowExecutor
from runpod_comfy.executors.describing import DESCRIBE_TIMEOUT_S, describe_endpoint, keep_description
from runpod_comfy.executors.handle import WorkflowHandle
from runpod_comfy.executors.jobs import Jobs
from runpod_comfy.executors.pickup import pick_up
from runpod_comfy.executors.plan import plan_jobs
from runpod_comfy.executors.recording import open_ledger
from runpod_comfy.executors.request import request_method, workflow_request
from runpod_comfy.executors.rerun import Following, rerunning
from runpod_comfy.executors.shelf import Shelf
from runpod_comfy.executors.slots import bodies, estimated_body_bytes
from runpod_comfy.serverless.connect import connect
from runpod_comfy.serverless.pacing import PUBLISHED_LIMITS
from runpod_comfy.settings import EndpointSettings, endpoint_target, ledger_path

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator

    from runpod_comfy.dialects.description import PlaceDescription
    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import OnLost, WorkflowRequest
    from runpod_comfy.ledger import Ledger
    from runpod_comfy.results import Timings
    from runpod_comfy.serverless.api import EndpointHealth
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.submission import Submission

__all__ = ["DEFAULT_MAX_CONCURRENT_JOBS", "RunpodComfyWorkflowExecutor"]

DEFAULT_MAX_CONCURRENT_JOBS = PUBLISHED_LIMITS["status"].per_window // 2
"""So many can each be asked about every five seconds, since RunPod counts in tens of seconds."""


class RunpodComfyWorkflowExecutor(WorkflowExecutor):
    """Runs workflows on a RunPod Serverless endpoint with this project's worker, or with RunPod's worker-comfyui.

    >>> executor = RunpodComfyWorkflowExecutor(endpoint="4m7x2k9q", batch_size=8)  # doctest: +SKIP
    >>> images = executor.submit_workflow(WorkflowTemplate("portrait.json.jinja"), ["me.jpg"], num_samples=16)

    Args:
        endpoint: The endpoint's id, or an object with an ``endpoint_id`` such as ``runpod.Endpoint``; None reads
            ``RUNPOD_ENDPOINT_ID``.
        batch_size: How many images a batch has where a call does not say.
        api_key: RunPod's key; None takes ``runpod.api_key``, ``RUNPOD_API_KEY``, or ``~/.runpod/config.toml``.
        base_url: Another address of RunPod's API; None reads ``RUNPOD_ENDPOINT_BASE_URL``.
        max_concurrent_jobs: How many jobs are under way at once; further calls wait, and hold no image meanwhile. By
            default as many as can each be asked about every five seconds within RunPod's rate limits: 1,000.
        max_batches_per_job: Split work of more batches into several jobs, which run side by side.
        worker: What the endpoint runs: ``native`` (this project's worker, or one of its wire format),
            ``worker-comfyui`` (RunPod's, from 4.1 on) or ``worker-comfyui-4`` (older ones). ``auto`` lets the first
            answer tell, and remembers it: the first job is one that each of them understands.
        ledger: Where jobs are written down, so that a process that dies loses none: a file, or True for the one that
            the command uses (``RUNPOD_COMFY_LEDGER``, else in the user's state folder). None writes nothing.

    Raises:
        ConfigurationError: No key or no endpoint was given, or an argument cannot be right.
    """

    def __init__(
        self,
        endpoint: object = None,
        *,
        batch_size: int = 1,
        api_key: str | None = None,
        base_url: str | None = None,
        max_concurrent_jobs: int = DEFAULT_MAX_CONCURRENT_JOBS,
        max_batches_per_job: int | None = None,
        worker: WorkerKind | Literal["auto"] = "auto",
        ledger: bool | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, max_concurrent_jobs=max_concurrent_jobs)
        if max_batches_per_job is not None and (type(max_batches_per_job) is not int or max_batches_per_job < 1):
            raise ConfigurationError(
                f"max_batches_per_job is {max_batches_per_job!r}; it takes a whole number of at least 1, or None."
            )
        self._max_batches_per_job = max_batches_per_job
        self._worker = _known_worker(worker)
        self._ledger_path = ledger_path(ledger)
        self._settings = EndpointSettings.resolve(endpoint=endpoint, api_key=api_key, base_url=base_url)

    @property
    def endpoint_id(self) -> str:
        """The endpoint's id."""
        return self._settings.endpoint_id

    @property
    def place(self) -> str:
        """The endpoint, as ``runpod://<ENDPOINT_ID>``."""
        return f"runpod://{self.endpoint_id}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint={self.endpoint_id!r}, batch_size={self.batch_size})"

    def _target(self) -> str | None:
        return endpoint_target(self.endpoint_id, self._settings.base_url)

    @request_method(workflow_request)
    def start_workflow(self, request: WorkflowRequest) -> WorkflowHandle:
        """Submit a workflow and return a handle of its job, which runs on whether anybody waits for it or not."""
        return _loop.run_sync(lambda: self._start(request))

    @request_method(workflow_request)
    def start_workflow_async(self, request: WorkflowRequest) -> asyncio.Future[WorkflowHandle]:
        """Submit a workflow and give a handle of its job, which runs on whether anybody waits for it or not."""
        return _loop.run_async(lambda: self._start(request))

    def attach(
        self,
        job_id: str,
        *,
        output_dir: str | os.PathLike[str] | None = None,
        take_over: bool = False,
        on_lost: OnLost = "rerun",
    ) -> WorkflowHandle:
        """Return a handle of a job that was started elsewhere. Nothing is sent until it is used.

        What RunPod streams can be read once. With a ledger, a job that another process reads is left alone
        (``JobInUse``), what an earlier reader has saved comes first, and what it took away and lost is made again;
        without one, attach to a job that nobody else reads.

        Args:
            job_id: The job.
            output_dir: A folder to which files are written as they arrive, as in ``submit_workflow``; None takes the
                one that the ledger names.
            take_over: Read it also where another living process does; that one is told to stop.
            on_lost: What happens where batches were lost, as in ``submit_workflow``; making them again takes a ledger
                that knows the template and the input images as files.
        """
        shelf = None if output_dir is None else Shelf.open(output_dir)
        return WorkflowHandle(
            job_id,
            endpoint_id=self.endpoint_id,
            connect=self._connect,
            begin=lambda: self._attached(job_id, shelf, take_over=take_over, on_lost=on_lost),
        )

    def health(self) -> EndpointHealth:
        """Return how many jobs and workers the endpoint has, by state."""
        return _loop.run_sync(self._health)

    def health_async(self) -> asyncio.Future[EndpointHealth]:
        """Return a future of how many jobs and workers the endpoint has, by state."""
        return _loop.run_async(self._health)

    def describe(self, *, object_info: bool = True, timeout: float = DESCRIBE_TIMEOUT_S) -> PlaceDescription:
        """Ask a worker what it has: versions, node classes, models, custom nodes. Ctrl-C cancels the job.

        It is a job without work for the GPU. Yet a worker takes it, and starts for it where none runs: what RunPod
        bills for a start, and for the idle time after it, is billed for this too (unconfirmed on hosted RunPod). So
        it is never sent but when it is asked for. With ``object_info`` the node types are kept on this machine, and
        from then on workflows for this endpoint are checked against them before they are sent (``preflight``); ask
        again when the endpoint's nodes or models have changed.

        >>> about = RunpodComfyWorkflowExecutor("4m7x2k9q").describe()  # doctest: +SKIP
        >>> "KSampler" in about.node_classes, about.models["checkpoints"]

        Args:
            object_info: Ask for the inputs of all node classes too, some hundred KB.
            timeout: Seconds to wait, for a worker to start included; then the job is cancelled.

        Raises:
            ProtocolError: The endpoint runs another worker than this project's.
            JobError: The worker could not answer, or (WaitTimeout) not in time.
        """
        return _loop.run_sync(lambda: self._while_open(self._describe(object_info, timeout)))

    def describe_async(
        self, *, object_info: bool = True, timeout: float = DESCRIBE_TIMEOUT_S
    ) -> asyncio.Future[PlaceDescription]:
        """Return a future of what :meth:`describe` returns. Cancelling the future cancels the job."""
        return _loop.run_async(lambda: self._while_open(self._describe(object_info, timeout)))

    async def _describe(self, object_info: bool, timeout_s: float) -> PlaceDescription:  # noqa: FBT001 - private
        link = await self._connect()
        about = await describe_endpoint(link, place=self.place, object_info=object_info, timeout_s=timeout_s)
        if (target := self._target()) is not None:
            await keep_description(target, about)
        return about

    async def _health(self) -> EndpointHealth:
        return await (await self._connect()).api.health()

    async def _connect(self) -> EndpointLink:
        """Return the way to the endpoint; on the background loop."""
        return await connect(self._settings)

    async def _ledger(self) -> Ledger | None:
        """Return the ledger, if there is one; on the background loop."""
        return None if self._ledger_path is None else await open_ledger(self._ledger_path)

    async def _desk(self, request: WorkflowRequest, shelf: Shelf | None) -> Desk:
        return Desk(
            link=await self._connect(),
            settings=self._settings,
            request=request,
            batch_size=self._batch_size_of(request),
            ledger=await self._ledger(),
            output_dir=None if shelf is None else shelf.folder,
            worker=self._worker,
        )

    async def _start(self, request: WorkflowRequest) -> WorkflowHandle:
        shelf = None if request.output_dir is None else Shelf.open(request.output_dir)
        desk = await self._desk(request, shelf)
        async with bodies().lend(estimated_body_bytes(request.input_images)):
            submission = await self._prepare(request)
            plan = plan_jobs(
                submission,
                worker=desk.worker or desk.link.habits.worker,
                max_batches_per_job=self._max_batches_per_job,
                uses_bucket=desk.link.habits.uses_bucket,
            )
            if len(plan.jobs) > 1:
                raise ConfigurationError(
                    f"A handle is one job's, and {plan.warnings[-1]} Ask for fewer samples, or use submit_workflow."
                )
            job = await desk.submit(submission)
        del submission
        if job.record is not None:
            await job.record.release()  # whoever uses the handle reads it, and that may be later, or never

        async def begin() -> AsyncGenerator[Event | Timings]:
            if job.record is not None:
                ledger = job.record.ledger
                await asyncio.to_thread(ledger.acquire, job.submission_id)
                row = await asyncio.to_thread(ledger.find, job.submission_id)
                if row is not None and row.reads:  # others have read it meanwhile, and let go of it
                    await job.record.release()
                    return await self._attached(job.job_id, shelf, take_over=False, on_lost=request.on_lost)
            following = Following(
                link=desk.link,
                shelf=shelf,
                owned=False,
                again=rerunning(desk, job, prepare=self._prepare) if request.on_lost == "rerun" else None,
                queue_timeout_s=request.queue_timeout_s,
            )
            return following.events(job)

        return WorkflowHandle(
            job.job_id,
            endpoint_id=self.endpoint_id,
            connect=self._connect,
            begin=begin,
            seeds=job.seeds,
            submission_id=job.submission_id,
        )

    async def _attached(
        self, job_id: str, shelf: Shelf | None, *, take_over: bool, on_lost: OnLost
    ) -> AsyncGenerator[Event | Timings]:
        link, ledger = await self._connect(), await self._ledger()
        kept = None if ledger is None else await asyncio.to_thread(ledger.find, job_id)
        if ledger is None or kept is None or kept.entry.endpoint_id != self.endpoint_id:
            return Following(link=link, shelf=shelf, owned=False).events(Accepted(job_id=job_id))
        return await pick_up(
            link,
            ledger,
            kept,
            settings=self._settings,
            prepare=self._prepare,
            shelf=shelf,
            take_over=take_over,
            on_lost=on_lost,
        )

    async def _run(
        self, submission: Submission, request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        jobs = Jobs(
            desk=await self._desk(request, shelf),
            place=self.place,
            prepare=self._prepare if request.on_lost == "rerun" else None,
            max_batches_per_job=self._max_batches_per_job,
            shelf=shelf,
        )
        run = jobs.run(submission)
        del submission
        async with aclosing(run):
            async for event in run:
                yield event


def _known_worker(worker: str) -> WorkerKind | None:
    """Return which worker was named, or None for ``auto``."""
    if worker != "auto" and worker not in get_args(WorkerKind):
        raise ConfigurationError(
            f"worker is {worker!r}; it takes 'auto', {', '.join(map(repr, get_args(WorkerKind)))}."
        )
    return None if worker == "auto" else cast("WorkerKind", worker)
