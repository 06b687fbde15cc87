"""Jobs of an endpoint that nobody wants any more, taken back together where they are many.

RunPod publishes a limit of 100 cancellations in ten seconds, so 500 jobs one by one take fifty seconds, in which they
start and are paid for. ``/purge-queue`` takes all waiting jobs away with one request, and those of other programs too.
So it is sent only where no other program's job waits: ``/health`` counts no more jobs in the queue than ``/status``
says of ours. (That both are current to the moment is unconfirmed on hosted RunPod; a job that somebody else submits
between the count and the purge would go with ours.) Running jobs are cancelled first: they are what costs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runpod_comfy import _loop
from runpod_comfy.errors import NotFound, RunpodComfyError
from runpod_comfy.serverless.pacing import PUBLISHED_LIMITS, WINDOW_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runpod_comfy.serverless.api import EndpointApi

__all__ = ["Withdrawals"]

logger = logging.getLogger(__name__)

_MANY: Final = 60
"""Fewer go through at once, each by itself."""

_PER_S: Final = PUBLISHED_LIMITS["cancel"].per_window * 0.8 / WINDOW_S  # as they leave, bursts and pauses together
_QUIET_S, _LONGEST_GATHERING_S = 0.15, 2.0
_PURGE_TIMEOUT_S: Final = 20.0
_QUEUED: Final = "IN_QUEUE"


class Withdrawals:
    """What is under way on an endpoint, and what of it is to be cancelled; one for each endpoint."""

    def __init__(self) -> None:
        self._owned: Counter[str] = Counter()
        self._unwanted: set[str] = set()
        self._gone: set[str] = set()
        self._purging: asyncio.Task[None] | None = None

    @contextmanager
    def owned(self, job_id: str) -> Iterator[None]:
        """Let it be known that a job is under way, and that it may have to be cancelled."""
        self._owned[job_id] += 1
        try:
            yield
        finally:
            self._owned[job_id] -= 1
            if not self._owned[job_id]:
                del self._owned[job_id]
                self._gone.discard(job_id)

    @contextmanager
    def unwanted(self, job_id: str) -> Iterator[None]:
        """Let it be known that a job is to be cancelled."""
        self._unwanted.add(job_id)
        try:
            yield
        finally:
            self._unwanted.discard(job_id)

    async def together(self, api: EndpointApi, job_id: str) -> bool:
        """Take the job back with others, if there are many; False where it must be cancelled by itself."""
        if len(self._owned) > _MANY and job_id not in self._gone:
            if self._purging is None or self._purging.done():
                self._purging = asyncio.ensure_future(self._take_back(api))
            await asyncio.shield(self._purging)
        return job_id in self._gone

    def note_gone(self, job_ids: Iterable[str]) -> None:
        """Take note of jobs that are cancelled, so that nobody does it again."""
        gone = set(job_ids)
        self._gone |= gone & self._owned.keys()
        self._unwanted -= gone

    @property
    def waiting_s(self) -> float:
        """How long cancelling all that is left takes, within RunPod's limits."""
        return len(self._unwanted) / _PER_S if len(self._unwanted) > _MANY else 0.0

    async def _take_back(self, api: EndpointApi) -> None:
        await self._gathered()
        if len(self._unwanted) <= _MANY:
            return
        try:
            async with asyncio.timeout(_PURGE_TIMEOUT_S):
                await self._purge(api)
        except (RunpodComfyError, TimeoutError) as exc:
            logger.info("endpoint %s: the queue was not purged: %s", api.endpoint_id, exc or "time-out")
        if (left_s := self.waiting_s) > 0:
            _loop.be_patient(left_s + _loop.CLEANUP_S)
            logger.warning(
                "%d jobs of endpoint %s are being cancelled one by one, in about %.0f s: RunPod takes 100 in ten "
                "seconds. Interrupt again to leave them to run.",
                len(self._unwanted),
                api.endpoint_id,
                left_s,
            )

    async def _gathered(self) -> None:
        """Wait until no more jobs join: those who give up together don't all do it in the same moment."""
        loop = asyncio.get_running_loop()
        latest_s = loop.time() + _LONGEST_GATHERING_S
        before = -1
        while before != len(self._unwanted) and loop.time() < latest_s:
            before = len(self._unwanted)
            await asyncio.sleep(_QUIET_S)

    async def _purge(self, api: EndpointApi) -> None:
        asked = list(self._unwanted)
        if await _in_queue(api) > len(asked):
            logger.info("endpoint %s: other jobs wait too; ours are cancelled one by one", api.endpoint_id)
            return
        queued, running, ended = await _by_state(api, asked)
        self.note_gone(ended)
        for job_id in running[:_MANY]:
            await api.cancel(job_id)
            self.note_gone([job_id])
        waiting = await _in_queue(api)
        if waiting > len(queued):
            logger.info("endpoint %s: other jobs wait too; ours are cancelled one by one", api.endpoint_id)
            return
        removed = await api.purge_queue()
        logger.info("endpoint %s: %d waiting jobs taken back", api.endpoint_id, removed)
        if removed > len(queued):
            logger.warning(
                "endpoint %s: %d jobs that others had submitted in the same moment were removed too.",
                api.endpoint_id,
                removed - len(queued),
            )
        if removed < len(queued):  # a worker has taken some meanwhile, or not all were removed
            _, _, queued = await _by_state(api, queued)
        self.note_gone(queued)


async def _in_queue(api: EndpointApi) -> int:
    """Return how many jobs wait on the endpoint, whoever submitted them.

    Raises:
        RunpodComfyError: It does not say.
    """
    jobs = (await api.health()).jobs
    if "inQueue" not in jobs:
        raise RunpodComfyError("RunPod's /health does not say how many jobs wait.", endpoint_id=api.endpoint_id)
    return jobs["inQueue"]


async def _by_state(api: EndpointApi, job_ids: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return which jobs wait, which run, and which have ended; of one that cannot be asked about, that it runs."""
    queued: list[str] = []
    running: list[str] = []
    ended: list[str] = []

    async def ask(job_id: str) -> None:
        try:
            status = await api.status(job_id)
        except NotFound:
            ended.append(job_id)
        except RunpodComfyError:
            running.append(job_id)
        else:
            (ended if status.final else queued if status.state == _QUEUED else running).append(job_id)

    await asyncio.gather(*map(ask, job_ids))
    return queued, running, ended
