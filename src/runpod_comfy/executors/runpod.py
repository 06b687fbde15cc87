"""Workflows on a RunPod Serverless endpoint."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from runpod_comfy import _loop
from runpod_comfy.events import Queued
from runpod_comfy.executors.base import WorkflowExecutor
from runpod_comfy.executors.cancelling import ownership
from runpod_comfy.executors.following import follow_job
from runpod_comfy.executors.handle import WorkflowHandle
from runpod_comfy.executors.request import request_method, workflow_request
from runpod_comfy.executors.sending import send_job
from runpod_comfy.executors.shelf import Shelf
from runpod_comfy.executors.slots import bodies, estimated_body_bytes
from runpod_comfy.serverless.connect import connect
from runpod_comfy.serverless.pacing import PUBLISHED_LIMITS
from runpod_comfy.settings import EndpointSettings

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import AsyncGenerator

    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.results import Timings
    from runpod_comfy.serverless.api import EndpointHealth
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.submission import Submission

__all__ = ["DEFAULT_MAX_CONCURRENT_JOBS", "RunpodComfyWorkflowExecutor"]

DEFAULT_MAX_CONCURRENT_JOBS = PUBLISHED_LIMITS["status"].per_window // 2
"""So many can each be asked about every five seconds, since RunPod counts in tens of seconds."""


class RunpodComfyWorkflowExecutor(WorkflowExecutor):
    """Runs workflows on a RunPod Serverless endpoint that runs this project's worker, or one of the same wire format.

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

    Raises:
        ConfigurationError: No key or no endpoint was given, or one of them cannot be right.
    """

    def __init__(
        self,
        endpoint: object = None,
        *,
        batch_size: int = 1,
        api_key: str | None = None,
        base_url: str | None = None,
        max_concurrent_jobs: int = DEFAULT_MAX_CONCURRENT_JOBS,
    ) -> None:
        super().__init__(batch_size=batch_size, max_concurrent_jobs=max_concurrent_jobs)
        self._settings = EndpointSettings.resolve(endpoint=endpoint, api_key=api_key, base_url=base_url)

    @property
    def endpoint_id(self) -> str:
        """The endpoint's id."""
        return self._settings.endpoint_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint={self.endpoint_id!r}, batch_size={self.batch_size})"

    def _target(self) -> str:
        return self.endpoint_id

    @request_method(workflow_request)
    def start_workflow(self, request: WorkflowRequest) -> WorkflowHandle:
        """Submit a workflow and return a handle of its job, which runs on whether anybody waits for it or not."""
        return _loop.run_sync(lambda: self._start(request))

    @request_method(workflow_request)
    def start_workflow_async(self, request: WorkflowRequest) -> asyncio.Future[WorkflowHandle]:
        """Submit a workflow and give a handle of its job, which runs on whether anybody waits for it or not."""
        return _loop.run_async(lambda: self._start(request))

    def attach(self, job_id: str, *, output_dir: str | os.PathLike[str] | None = None) -> WorkflowHandle:
        """Return a handle of a job that was started elsewhere. Nothing is sent until it is used.

        What RunPod streams can be read once: attach to a job that nobody else reads.

        Args:
            job_id: The job.
            output_dir: A folder to which files are written as they arrive, as in ``submit_workflow``.
        """
        return WorkflowHandle(
            job_id,
            endpoint_id=self.endpoint_id,
            connect=self._connect,
            shelf=None if output_dir is None else Shelf.open(output_dir),
        )

    def health(self) -> EndpointHealth:
        """Return how many jobs and workers the endpoint has, by state."""
        return _loop.run_sync(self._health)

    def health_async(self) -> asyncio.Future[EndpointHealth]:
        """Return a future of how many jobs and workers the endpoint has, by state."""
        return _loop.run_async(self._health)

    async def _health(self) -> EndpointHealth:
        return await (await self._connect()).api.health()

    async def _connect(self) -> EndpointLink:
        """Return the way to the endpoint; on the background loop."""
        return await connect(self._settings)

    async def _start(self, request: WorkflowRequest) -> WorkflowHandle:
        shelf = None if request.output_dir is None else Shelf.open(request.output_dir)
        async with bodies().lend(estimated_body_bytes(request.input_images)):
            submission = await self._prepare(request)
            job_id = await send_job(await self._connect(), submission, timeout_s=request.timeout_s)
        return WorkflowHandle(
            job_id,
            endpoint_id=self.endpoint_id,
            connect=self._connect,
            seeds=submission.seeds,
            submission_id=submission.submission_id,
            shelf=shelf,
        )

    async def _run(
        self, submission: Submission, request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        link = await self._connect()
        job_id = await send_job(link, submission, timeout_s=request.timeout_s)
        del submission
        async with ownership(link, job_id):
            yield Queued(job_id=job_id)
            async with aclosing(follow_job(link, job_id, shelf=shelf)) as events:
                async for event in events:
                    yield event
