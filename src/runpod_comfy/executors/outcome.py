"""What a job's end means: pure judgement over RunPod's last word and the worker's lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import JobCancelled, JobFailed, JobTimedOut, OutputLost, ProtocolError

if TYPE_CHECKING:
    from runpod_comfy.dialects.answer import AnswerReader
    from runpod_comfy.errors import JobError, RunpodComfyError
    from runpod_comfy.serverless.api import JobStatus

__all__ = ["judge"]


def judge(job_id: str, status: JobStatus | None, reader: AnswerReader) -> RunpodComfyError | None:
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
            return JobTimedOut(
                f"RunPod ended job {job_id}: it ran longer than its executionTimeout (600 s unless the endpoint or "
                "timeout= says otherwise), or waited longer than its ttl. Ask for fewer samples in a job, or pass a "
                "longer timeout=.",
                job_id=job_id,
            )
        case _:
            return _incomplete(job_id, status.output if status else None, reader)


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


def _incomplete(job_id: str, output: Any, reader: AnswerReader) -> JobError | ProtocolError | None:
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
    if loss:
        return OutputLost(
            f"Job {job_id} ended, and {loss}. What arrived whole is in .partial; run the rest again with "
            "the same seed=.",
            job_id=job_id,
        )
    if reader.kind is not None:
        # A worker that does not number its lines: all of them were readable, and RunPod says that it is done.
        return None
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
