"""A worker in this process: drives a handler as the SDK's loop does, without the SDK, HTTP and its sleeps.

>>> import asyncio
>>> from runpod_comfy.emulator import EndpointConfig, InProcessWorker, Platform
>>> async def shout(job):
...     return {"text": job["input"]["text"].upper()}
>>> async def main():
...     platform = Platform(EndpointConfig(endpoint_id="demo"))
...     async with InProcessWorker(platform, "demo", shout):
...         job = platform.submit("demo", b'{"input": {"text": "hello"}}')
...         while not platform.status("demo", job.job_id).state.is_final:
...             await asyncio.sleep(0.01)
...         return platform.status("demo", job.job_id).output
>>> asyncio.run(main())
{'text': 'HELLO'}

What is copied from runpod 1.12 (rp_job.py, rp_http.py, rp_scale.py), with its hazards:

* A handler that is no coroutine and no generator runs on the event loop and blocks it, and with it everything else
  on this loop.
* Messages are JSON as ``json.dumps`` writes it. One that can't be written is logged and never sent: a piece is lost,
  a result leaves the job to time out.
* A stopped job's task is cancelled and nothing is reported. An async generator that stands at a ``yield`` then gets
  nothing thrown in, not even GeneratorExit, until the worker stops.
* A yielded ``{"error": …}`` ends the job as failed; that chunk is not streamed. An exception's text goes to the
  client with its traceback.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import traceback
from collections.abc import AsyncGenerator, Generator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import orjson

from runpod_comfy.emulator.changes import Changes
from runpod_comfy.emulator.lifecycle import Topic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from runpod_comfy.emulator.jobs import TakenJob
    from runpod_comfy.emulator.platform import Platform

__all__ = ["Handler", "InProcessWorker"]

logger = logging.getLogger(__name__)

Handler: TypeAlias = "Callable[[dict[str, Any]], Any]"
_Generator: TypeAlias = AsyncGenerator[Any, None] | Generator[Any, None, None]


class InProcessWorker:
    """Takes an endpoint's jobs straight from the platform; used on the platform's loop.

    Args:
        platform: Where the jobs are.
        endpoint_id: Whose jobs to take.
        handler: What the SDK's ``start({"handler": …})`` takes: a function, coroutine function, generator function or
            async generator function of the job.
        concurrency: How many jobs to run at the same time.
        aggregate: The SDK's ``return_aggregate_stream``: repeat all pieces as the result.
        worker_id: The worker's id.
    """

    def __init__(
        self,
        platform: Platform,
        endpoint_id: str,
        handler: Handler,
        *,
        concurrency: int = 1,
        aggregate: bool = False,
        worker_id: str = "in-process",
    ) -> None:
        self.worker_id = worker_id
        self._platform = platform
        self._endpoint_id = endpoint_id
        self._handler = handler
        self._aggregate = aggregate
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._changes: Changes | None = None
        self._loops: list[asyncio.Task[None]] = []
        # By task: a job that timed out can be back while its first run still ends.
        self._jobs: dict[asyncio.Task[None], str] = {}
        # For each job that streams: what runs the handler's generator, and that generator. Those of stopped jobs stay
        # here, for a generator without references would be closed.
        self._generators: list[list[_Generator]] = []

    async def start(self) -> None:
        """Register with the platform and take jobs."""
        self._changes = Changes(self._platform)
        self._slots = asyncio.Semaphore(self._concurrency)
        self._platform.ping(self._endpoint_id, self.worker_id, lasting=True)
        self._loops = [
            asyncio.create_task(self._take_jobs(self._changes)),
            asyncio.create_task(self._stop_jobs(self._changes)),
        ]

    async def stop(self) -> None:
        """Leave as a worker does that is killed: its jobs are queued again. A second call does nothing."""
        if self._changes is None:
            return
        self._changes.close()
        self._changes = None
        self._platform.leave(self._endpoint_id, self.worker_id)
        tasks = [*self._loops, *self._jobs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The end of the process: what generators are left get closed; what they raise then is nobody's.
        left, self._generators = self._generators, []
        await asyncio.gather(*(_close(generators) for generators in left), return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def progress_update(self, job: dict[str, Any], progress: Any) -> None:
        """Do what ``runpod.serverless.progress_update`` does: the job's ``output`` while it runs; the last one wins."""
        self._send(self._platform.report, job["id"], {"status": "IN_PROGRESS", "output": progress})

    async def _take_jobs(self, changes: Changes) -> None:
        topic = Topic("queue", self._endpoint_id)
        while True:
            await self._slots.acquire()
            taken = await changes.wait(
                topic, lambda: self._platform.take(self._endpoint_id, self.worker_id) or None, timeout_s=None
            )
            if taken is None:
                return
            [job] = taken
            task = asyncio.create_task(self._run(job))
            self._jobs[task] = job.job_id
            task.add_done_callback(self._ended)

    async def _stop_jobs(self, changes: Changes) -> None:
        topic = Topic("stop", self._endpoint_id, self.worker_id)
        while True:
            job_ids = await changes.wait(
                topic,
                lambda: self._platform.stop_signals(self._endpoint_id, self.worker_id) or None,
                timeout_s=None,
            )
            if job_ids is None:
                return
            for task, job_id in self._jobs.items():
                if job_id in job_ids:
                    task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._jobs[task]
        self._slots.release()

    async def _run(self, taken: TakenJob) -> None:
        job = orjson.loads(taken.body)
        try:
            if inspect.isgeneratorfunction(self._handler) or inspect.isasyncgenfunction(self._handler):
                result = await self._stream(job)
            else:
                result = await self._call(job)
        except Exception:
            # The SDK logs it and sends nothing, for example when a yielded string has lone surrogates.
            logger.exception("job %s: the worker loop failed; nothing is reported", taken.job_id)
            return
        self._send(self._platform.report, taken.job_id, result)

    async def _call(self, job: dict[str, Any]) -> dict[str, Any]:
        try:
            output = self._handler(job)
            if inspect.isawaitable(output):
                output = await output
        except Exception as exc:  # noqa: BLE001 whatever a handler raises is the job's error
            logger.info("job %s: the handler raised %s", job["id"], type(exc).__name__)
            return {"error": self._describe(exc)}
        if not isinstance(output, dict):
            return {"output": output}
        error = output.pop("error", None)
        stop_pod = output.pop("refresh_worker", None)
        return (
            ({"output": output} if output else {})
            | ({"error": error} if error else {})
            | ({"stopPod": True} if stop_pod else {})
        )

    async def _stream(self, job: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {"output": []}
        generators: list[_Generator] = []
        messages = self._messages(job, generators)
        generators.append(messages)
        self._generators.append(generators)
        async for message in messages:
            output = message.get("output")
            if isinstance(output, dict) and output.get("error"):
                result = {"error": str(output["error"])}
                break
            if message.get("error"):
                result = message
                break
            if self._aggregate:
                result["output"].append(output)
            self._send(self._platform.add_piece, job["id"], output)
            # Where the SDK waits for its POST: others run, and a stop signal lands here.
            await asyncio.sleep(0)
        self._generators.remove(generators)
        return result

    async def _messages(
        self, job: dict[str, Any], generators: list[_Generator]
    ) -> AsyncGenerator[dict[str, Any], None]:
        try:
            pieces = self._handler(job)
            generators.append(pieces)
            if inspect.isasyncgenfunction(self._handler):
                async for piece in pieces:
                    yield {"output": piece}
            else:
                for piece in pieces:
                    yield {"output": piece}
        except Exception as exc:  # noqa: BLE001 whatever a handler raises is the job's error
            logger.info("job %s: the handler raised %s", job["id"], type(exc).__name__)
            yield {"error": f"handler: {exc} \ntraceback: {traceback.format_exc()}"}

    def _send(self, receive: Callable[[str, str, str, bytes], object], job_id: str, message: Any) -> None:
        try:
            body = _encode(message)
        except (TypeError, RuntimeError) as exc:
            logger.error("job %s: what the handler gave is not JSON and is lost: %s", job_id, exc)  # noqa: TRY400 as the SDK
            return
        receive(self._endpoint_id, self.worker_id, job_id, body)

    def _describe(self, exc: Exception) -> str:
        try:
            sdk_version = version("runpod")
        except PackageNotFoundError:
            sdk_version = "unknown"
        return json.dumps(
            {
                "error_type": str(type(exc)),
                "error_message": str(exc),
                "error_traceback": traceback.format_exc(),
                "hostname": os.environ.get("RUNPOD_POD_HOSTNAME", "unknown"),
                "worker_id": self.worker_id,
                "runpod_version": sdk_version,
            }
        )


async def _close(generators: list[_Generator]) -> None:
    for generator in generators:
        if isinstance(generator, AsyncGenerator):
            await generator.aclose()
        else:
            generator.close()


def _encode(message: Any) -> bytes:
    """Encode as the SDK does, which decides what counts as JSON (int keys do, dataclasses do not)."""
    if type(message) is str and message.isascii():
        return orjson.dumps(message)  # most of the traffic; the same JSON, several times as fast
    return json.dumps(message, ensure_ascii=False).encode()
