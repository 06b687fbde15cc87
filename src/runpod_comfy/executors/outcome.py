"""What a job's end means: pure judgement over RunPod's last word and the worker's lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import JobCancelled, JobFailed, JobTimedOut, OutputLost, ProtocolError

if TYPE_CHECKING:
    from runpod_comfy.dialects.answer import AnswerReader
    from runpod_comfy.errors import JobError, JobExpired, RunpodComfyError
    from runpod_comfy.serverless.api import JobStatus

__all__ = ["NO_TERMS", "JobTerms", "judge", "judge_expired"]

_DEFAULT_EXECUTION_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTerms:
    """What was asked of RunPod with a job, as far as it is known.

    Attributes:
        batch_count: How many batches it has; 0 where that is not known.
        execution_s: ``policy.executionTimeout``, in seconds; None where RunPod's own counts.
        ttl_s: ``policy.ttl``, in seconds; None where RunPod's own counts.
        read_before: Whether a part of the answer may have been taken from the stream and lost: by a reader that died,
            or by a read whose answer never came.
        is_lossy: Whether it is known to have ended well, with a part of its output lost.
    """

    batch_count: int = 0
    execution_s: float | None = None
    ttl_s: float | None = None
    read_before: bool = False
    is_lossy: bool = False


NO_TERMS = JobTerms()


def judge(
    job_id: str, status: JobStatus | None, reader: AnswerReader, terms: JobTerms = NO_TERMS
) -> RunpodComfyError | None:
    """Return the error that a job's end amounts to, or None where everything arrived.

    The worker's own lines weigh more than RunPod's state: with its last line and all before it here, the result is
    whole, even where the report of the end was lost.
    """
    if reader.complete:
        return None
    if reader.error is not None:
        return JobFailed(
            f"The worker failed: {reader.error.message}",
            node_id=reader.error.node_id,
            node_type=reader.error.node_type,
            traceback=reader.error.traceback,
            job_id=job_id,
        )
    match status.state if status else "":
        case "FAILED":
            return _failed(job_id, status.error if status else None)
        case "CANCELLED":
            return JobCancelled(f"Job {job_id} was cancelled.", job_id=job_id)
        case "TIMED_OUT":
            return _timed_out_or_lost(job_id, status, reader, terms)
        case _:
            return _incomplete(job_id, status.output if status else None, reader, terms)


def judge_expired(expired: JobExpired, reader: AnswerReader, terms: JobTerms) -> JobError | None:
    """Return the error that it amounts to that RunPod knows a job no longer, or None where everything is here.

    One that had ended with a loss has still lost no more than that.
    """
    if not terms.is_lossy:
        return expired
    missing = reader.missing_batches(terms.batch_count)
    if missing == ():
        return None
    error = OutputLost(f"A part of what job {expired.job_id} made was lost. {expired}", job_id=expired.job_id)
    error.missing_batches = tuple(range(terms.batch_count)) if missing is None else missing
    return error


def _timed_out_or_lost(job_id: str, status: JobStatus | None, reader: AnswerReader, terms: JobTerms) -> JobError | None:
    """Return the error: a job whose report was lost is IN_PROGRESS until RunPod ends it, and was done long before."""
    text = _timed_out(job_id, status, terms)
    missing = reader.missing_batches(terms.batch_count)
    if missing == ():
        return None  # every batch is here; what was lost is the word that these were all
    if not (terms.read_before or reader.done or reader.has_gap):
        return JobTimedOut(text, job_id=job_id)
    error = OutputLost(f"{text} It may well have been done: a part of its answer was lost on its way.", job_id=job_id)
    error.missing_batches = tuple(range(terms.batch_count)) if missing is None else missing
    return error


def _timed_out(job_id: str, status: JobStatus | None, terms: JobTerms) -> str:
    """Name the limit that ended a job."""
    ran_s = status.execution_s if status else None
    waited_s = status.delay_s if status else None
    limit_s = terms.execution_s or _DEFAULT_EXECUTION_S
    whose = "as timeout= said" if terms.execution_s else "RunPod's default"
    if ran_s is None and waited_s is None and (status is None or status.worker_id is None):
        return (
            f"RunPod ended job {job_id} before a worker took it: it waited longer than its ttl "
            f"({terms.ttl_s or 24 * 3600:g} s). Look at the endpoint's workers in RunPod's console; a longer timeout= "
            "lets a job wait longer."
        )
    if ran_s is None or ran_s >= limit_s * 0.95:
        ran = "" if ran_s is None else f" after {ran_s:.0f} s"
        return (
            f"RunPod ended job {job_id}{ran}: it ran longer than its executionTimeout ({limit_s:g} s, {whose}, unless "
            "the endpoint has one of its own). Pass a longer timeout=, or ask for fewer samples in a job. What arrived "
            "is in .partial."
        )
    return (
        f"RunPod ended job {job_id} after {ran_s:.0f} s, before its executionTimeout of {limit_s:g} s: the "
        "endpoint has a shorter one of its own, or the worker failed to report in time. Look at the endpoint's "
        "settings and logs. What arrived is in .partial."
    )


def _failed(job_id: str, error: str | None) -> JobFailed:
    """Read RunPod's ``error``: for an exception in a handler it is itself JSON with a traceback (runpod SDK 1.12)."""
    text, traceback = error or "the worker gave no reason; see the endpoint's logs in RunPod's console", None
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if isinstance(told, dict) and isinstance(told.get("error_message"), str):
        kind = str(told.get("error_type", "")).removeprefix("<class '").removesuffix("'>")
        text = f"{kind}: {told['error_message']}".removeprefix(": ")
        traceback = str(told["error_traceback"]) if told.get("error_traceback") else None
    return JobFailed(f"Job {job_id} failed: {text}", traceback=traceback, job_id=job_id)


def _incomplete(job_id: str, output: Any, reader: AnswerReader, terms: JobTerms) -> JobError | ProtocolError | None:
    if reader.foreign:
        return ProtocolError(
            f"The worker of job {job_id} streamed {reader.foreign}, which is nothing that a ComfyUI worker known here "
            f"says. {_REMEDY}",
            job_id=job_id,
        )
    if reader.kind is None and output not in (None, "", [], {}):
        return ProtocolError(
            f"Job {job_id} ended with {_shape(output)} for an answer, which no ComfyUI worker known here gives. "
            f"{_REMEDY}",
            job_id=job_id,
        )
    loss = reader.describe_loss()
    missing = reader.missing_batches(terms.batch_count)
    if missing == ():
        return None  # what was lost comes after the last batch, and says nothing but that it was the last
    if loss:
        named = f" Not whole: batch {', '.join(str(batch + 1) for batch in missing)}." if missing else ""
        error = OutputLost(
            f"Job {job_id} ended, and {loss}.{named} What arrived whole is in .partial; run the rest again with "
            "the same seed=.",
            job_id=job_id,
        )
        error.missing_batches = missing or ()
        return error
    if reader.kind is not None:
        # A worker that does not number its lines: all of them were readable, and RunPod says that it is done.
        return None
    return _nothing_left(job_id, terms)


def _nothing_left(job_id: str, terms: JobTerms) -> OutputLost:
    if terms.read_before:
        error = OutputLost(
            f"Job {job_id} is COMPLETED, and what it made was taken from its stream and lost: the connection broke, or "
            "the process that read it died.",
            job_id=job_id,
        )
        error.missing_batches = tuple(range(terms.batch_count))
        return error
    return OutputLost(
        f"Job {job_id} is COMPLETED and has no output. Either its result was over RunPod's limit (10 MB after /run: "
        "take a smaller batch_size= or max_batches_per_job=, or give the endpoint a bucket), or another reader took "
        "its stream, or the endpoint runs no worker for ComfyUI. The endpoint's logs say which.",
        job_id=job_id,
    )


_REMEDY = (
    "Is it an endpoint for something else, such as a language model? Name one that runs this project's worker or "
    "RunPod's worker-comfyui."
)


def _shape(output: Any) -> str:
    if isinstance(output, dict):
        return "an object with the keys " + ", ".join(sorted(map(str, output))[:6])
    if isinstance(output, str):
        return "a web page" if output.lstrip()[:1] == "<" else "a string"
    return "a list" if isinstance(output, list) else "a number"
