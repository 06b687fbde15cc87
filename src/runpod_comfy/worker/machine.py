"""What all jobs of a worker have in common: its ComfyUI, what surrounds it, and the way a submission runs on it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.comfyui.failures import ComputingStopped
from runpod_comfy.comfyui.runner import run_batches
from runpod_comfy.dialects.native_request import input_urls_of, parse_request
from runpod_comfy.errors import JobFailed, RunpodComfyError, TransportError
from runpod_comfy.worker.describe import describe
from runpod_comfy.worker.input_urls import with_fetched_inputs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runpod_comfy.comfyui.follow import FollowPace
    from runpod_comfy.events import Event
    from runpod_comfy.settings import InputUrls
    from runpod_comfy.submission import Submission
    from runpod_comfy.worker.link import ComfyUILink
    from runpod_comfy.worker.surroundings import Facts, Keeper, OpenStore

__all__ = ["Machine"]

logger = logging.getLogger(__name__)

_DEATH_KNOWN_WITHIN_S, _ANSWERS_WITHIN_S = 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One worker's means.

    Attributes:
        link: The way to ComfyUI.
        keeper: Who watches ComfyUI's process; None takes a server that does not answer for lost.
        pace: How patient to be with ComfyUI.
        open_store: Where outputs go instead of the answer; None leaves them there.
        refresh: Called when ComfyUI cannot be used any more: asks RunPod for a fresh worker.
        max_answer_bytes: How large an answer's pieces together may be as JSON, where RunPod repeats them in
            ``/status``; None sets no limit.
        input_urls: Which inputs by URL are fetched.
        comfy_org_api_key: The key for nodes that call paid services, where a request brings none.
        facts: What a description of this worker says besides ComfyUI's part.
    """

    link: ComfyUILink
    keeper: Keeper | None = None
    pace: FollowPace | None = None
    open_store: OpenStore | None = None
    refresh: Callable[[], None] | None = None
    max_answer_bytes: int | None = None
    input_urls: InputUrls = "https"
    comfy_org_api_key: str | None = field(default=None, repr=False)
    facts: Facts | None = None

    async def read(self, body: object) -> Submission:
        """Return what a job's input asks for, with its inputs fetched.

        Raises:
            InputError: A part of it cannot be used, or an input cannot be fetched.
            WorkflowGraphError: The workflow is no graph that ComfyUI's API accepts.
        """
        submission = await asyncio.to_thread(parse_request, body)
        submission = await with_fetched_inputs(submission, input_urls_of(body), allowed=self.input_urls)
        if self.comfy_org_api_key and "api_key_comfy_org" not in submission.extra_data:
            extra_data = {**submission.extra_data, "api_key_comfy_org": self.comfy_org_api_key}
            return replace(submission, extra_data=extra_data)
        return submission

    async def run(self, submission: Submission, tell: Callable[[Event], Awaitable[None]]) -> None:
        """Run a submission on ComfyUI, within its own time limit, and tell what happens.

        Raises:
            RunpodComfyError: It failed; what was made before has been told.
        """
        try:
            async with asyncio.timeout(submission.timeout_s) as limit:
                await self._run(submission, tell)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise JobFailed(
                f"The job's own limit of {submission.timeout_s:g} s (timeout_s) is over, waiting for its turn on this "
                "worker included. Batches that had finished were sent; the others were taken back."
            ) from exc

    async def warm_up(self, path: Path) -> None:
        """Run a workflow (API format) so that its models are loaded before the first job; a failure is only logged."""
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        try:
            workflow = orjson.loads(await asyncio.to_thread(path.read_bytes))
            await self.run(parse_request({"workflow": workflow}), _drop)
        except (OSError, ValueError, RunpodComfyError) as exc:
            logger.warning("the warm-up workflow %s failed, and jobs are taken all the same: %s", path, exc)
        else:
            logger.info("warmed up with %s in %.1f s", path, loop.time() - begun_at)

    async def describe(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return what this worker is, without work for the GPU.

        Raises:
            RunpodComfyError: ComfyUI does not answer, or has died for good.
        """
        await self._server_ready()
        facts = self.facts() if self.facts is not None else {}
        async with self.link.borrow() as client:
            return await describe(client, body, facts=facts)

    async def _run(self, submission: Submission, tell: Callable[[Event], Awaitable[None]]) -> None:
        death = await self._server_ready()
        try:
            async with self.link.borrow() as client:
                site = await self.link.site(client)
                input_dir = self.link.input_dir(site)
                running = run_batches(client, submission, input_dir=input_dir, pace=self.pace, site=site, death=death)
                async with aclosing(running) as events:
                    async for event in events:
                        await tell(event)
        except TransportError as exc:
            raise await self._lost(exc, death) from exc

    async def _lost(self, error: TransportError, death: asyncio.Future[str] | None) -> RunpodComfyError:
        """Return a job's error after ComfyUI was lost to it; what is of no more use is ended, and started again."""
        answers = isinstance(error, ComputingStopped)
        if death is not None:
            # A connection breaks a moment before the process is known to have ended.
            await asyncio.wait([death], timeout=0 if answers else _DEATH_KNOWN_WITHIN_S)
            if death.done():
                return JobFailed(death.result())
        if not answers and await self._answers():
            return error
        # Where several jobs notice it, the first one ends it.
        if self.keeper is not None and death is not None and await self.keeper.condemn(str(error)):
            await asyncio.wait([death])
            return JobFailed(death.result())
        self._give_up()
        return error

    async def _answers(self) -> bool:
        """Return whether ComfyUI answers, so that what was lost was one request."""
        try:
            async with self.link.borrow() as client, asyncio.timeout(_ANSWERS_WITHIN_S):
                await client.system_stats()
        except (TransportError, TimeoutError):
            return False
        except RunpodComfyError:
            pass
        return True

    async def _server_ready(self) -> asyncio.Future[str] | None:
        if self.keeper is None:
            return None
        try:
            await self.keeper.ready()
        except RunpodComfyError:
            self._give_up()
            raise
        return self.keeper.death()

    def _give_up(self) -> None:
        """Ask for a fresh worker."""
        logger.error("ComfyUI cannot be used any more; asking for a fresh worker")
        if self.refresh is not None:
            self.refresh()


async def _drop(_: Event) -> None:
    """Do nothing with what a warm-up makes."""
