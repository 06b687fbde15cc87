"""A submission on its way to being a job: written down, sent, and repeated only where the caller wants that."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runpod_comfy.errors import SubmissionUncertain
from runpod_comfy.executors.outcome import NO_TERMS, JobTerms
from runpod_comfy.executors.pages import entry_of
from runpod_comfy.executors.recording import Record
from runpod_comfy.executors.sending import send_job

if TYPE_CHECKING:
    from pathlib import Path

    from runpod_comfy.dialects.base import WorkerKind
    from runpod_comfy.dialects.worker_comfyui_request import Layout
    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.ledger import Ledger
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.settings import EndpointSettings
    from runpod_comfy.submission import Submission

__all__ = ["Accepted", "Desk"]

logger = logging.getLogger(__name__)

_MOST_RESUBMISSIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A job that RunPod has accepted.

    Attributes:
        job_id: RunPod's id of it.
        submission_id: Ours.
        seeds: The seed of each batch.
        first_seed: The seed that the template was rendered with, if any.
        layout: What its answer is read with; None for a job of another process.
        terms: What was asked for with it.
        record: Its page in the ledger, or None.
        root_id: The submission whose lost batches it makes again, if it does.
        numbers: The numbers that its batches have there, likewise.
    """

    job_id: str
    submission_id: str = ""
    seeds: tuple[int, ...] = ()
    first_seed: int | None = None
    layout: Layout | None = None
    terms: JobTerms = NO_TERMS
    record: Record | None = None
    root_id: str | None = None
    numbers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where the submissions of one call are handed in.

    Attributes:
        link: The endpoint.
        settings: Its id and address.
        request: What was asked for.
        batch_size: The template's ``batch_size``.
        ledger: The ledger, if there is one.
        output_dir: Where files go, or None.
        worker: Which worker the caller says it runs; None goes by what it was seen to run.
    """

    link: EndpointLink
    settings: EndpointSettings
    request: WorkflowRequest
    batch_size: int
    ledger: Ledger | None = None
    output_dir: Path | None = None
    worker: WorkerKind | None = None

    async def submit(
        self,
        submission: Submission,
        *,
        parent_id: str | None = None,
        batches: tuple[int, ...] | None = None,
        while_reading: str | None = None,
    ) -> Accepted:
        """Write a submission down and send it.

        Args:
            submission: What is sent.
            parent_id: The submission whose lost batches this one makes again.
            batches: Which batches of it these are.
            while_reading: The submission that must be ours to read for that, if the ledger knows it.

        Raises:
            JobInUse: It is no longer; nothing was sent.
            LedgerError: It cannot be written down; nothing was sent.
            SubmissionUncertain: It was sent and never answered, and ``on_uncertain`` is ``raise``, or this happened
                three times.
        """
        request = self.request
        worker = self.worker or self.link.habits.worker
        for resubmissions in range(_MOST_RESUBMISSIONS + 1):
            record = None
            if self.ledger is not None:
                entry = await asyncio.to_thread(
                    entry_of,
                    submission,
                    request,
                    settings=self.settings,
                    batch_size=self.batch_size,
                    output_dir=self.output_dir,
                    parent_id=parent_id,
                    batches=batches,
                )
                record = Record(self.ledger, submission.submission_id)
                await record.begin(entry, while_reading=while_reading)
            try:
                job_id, layout = await send_job(
                    self.link, submission, timeout_s=request.timeout_s, worker=worker, record=record
                )
            except SubmissionUncertain as exc:
                if request.on_uncertain != "resubmit" or resubmissions == _MOST_RESUBMISSIONS:
                    raise
                logger.warning("submission %s is sent once more, as you asked: %s", submission.submission_id, exc)
                if batches is None:
                    parent_id = submission.submission_id
                submission = replace(submission, submission_id=uuid.uuid4().hex)
                continue
            terms = JobTerms(batch_count=submission.batch_count, execution_s=request.timeout_s, ttl_s=request.timeout_s)
            return Accepted(
                job_id=job_id,
                submission_id=submission.submission_id,
                seeds=submission.seeds,
                first_seed=submission.first_seed,
                layout=layout,
                terms=terms,
                record=record,
                root_id=None if batches is None else parent_id,
                numbers=batches,
            )
        raise AssertionError  # the last round returns or raises
