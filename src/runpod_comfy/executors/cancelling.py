"""Jobs that nobody wants any more: cancelled, also when their owner leaves in a hurry."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from runpod_comfy import _loop
from runpod_comfy.errors import JobError, RateLimited, RunpodComfyError, TransportError, WaitTimeout
from runpod_comfy.ledger import State
from runpod_comfy.serverless.retry import Backoff

if TYPE_CHECKING:
    from runpod_comfy.executors.recording import Record
    from runpod_comfy.serverless.connect import EndpointLink

__all__ = ["CLEANUP_S", "cancel_job", "ownership"]

logger = logging.getLogger(__name__)

CLEANUP_S = 5.0
"""What an interrupted caller waits at most for the remote job to be cancelled."""


async def cancel_job(link: EndpointLink, job_id: str) -> bool:
    """Cancel a job, trying for a few seconds, and return whether that worked.

    A failure is logged, since the caller is leaving for another reason.
    """
    withdrawals = link.habits.withdrawals
    try:
        with withdrawals.unwanted(job_id):
            if not await withdrawals.together(link.api, job_id):
                async with asyncio.timeout(CLEANUP_S + withdrawals.waiting_s):
                    await _cancel_alone(link, job_id)
            withdrawals.note_gone([job_id])
        logger.info("job %s cancelled", job_id, extra={"job_id": job_id})
        return True  # noqa: TRY300 - what is above may fail
    except (TimeoutError, RunpodComfyError) as exc:
        logger.warning(
            "Job %s could not be cancelled and may still be running (%s).",
            job_id,
            exc or "time-out",
            extra={"job_id": job_id},
        )
        return False


async def _cancel_alone(link: EndpointLink, job_id: str) -> None:
    backoff = Backoff(first_s=0.1)
    while True:
        try:
            await link.api.cancel(job_id)
        except (TransportError, RateLimited):
            await asyncio.sleep(backoff.next_s())
        else:
            return


class ownership:  # noqa: N801 - reads as a statement: `async with ownership(…):`
    """Cancels the job when the block is left before the job has ended, for whatever reason.

    Who was taken over by another reader no longer owns it.
    """

    def __init__(self, link: EndpointLink, job_id: str, *, record: Record | None = None) -> None:
        self._link = link
        self._job_id = job_id
        self._record = record
        self._known = link.habits.withdrawals.owned(job_id)

    async def __aenter__(self) -> None:
        self._known.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        ended = kind is None or (isinstance(exc, JobError) and not isinstance(exc, WaitTimeout))
        if ended:
            self._known.__exit__(None, None, None)
            return
        # Shielded: a second interrupt ends the waiting, not the request.
        with suppress(asyncio.CancelledError):
            await asyncio.shield(_loop.outlive(self._cancel))

    async def _cancel(self) -> None:
        try:
            await self._cancelled()
        finally:
            self._known.__exit__(None, None, None)

    async def _cancelled(self) -> None:
        if self._record is not None and await asyncio.to_thread(self._record.taken_over):
            logger.info("job %s is another reader's by now, and runs on", self._job_id)
            return
        if await cancel_job(self._link, self._job_id) and self._record is not None:
            await self._record.now_is(State.CANCELLED, "Cancelled by whoever had submitted it.")
