"""What a job's end means: pure judgement over RunPod's last word and the worker's lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import JobCancelled, JobFailed, JobTimedOut, OutputLost, ProtocolError

if TYPE_CHECKING:
    from runpod_comfy.dialects.native import NativeReader
    from runpod_comfy.errors import JobError, RunpodComfyError
    from runpod_comfy.serverless.api import JobStatus

__all__ = ["judge"]


def judge(job_id: str, status: JobStatus | None, reader: NativeReader) -> RunpodComfyError | None:
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


def _incomplete(job_id: str, output: Any, reader: NativeReader) -> JobError | ProtocolError | None:
    if reader.foreign and not reader.lines:
        return ProtocolError(
            f"The worker of job {job_id} streamed {reader.foreign}, which is no line of the native format. The "
            "endpoint runs another kind of worker; deploy this project's.",
            job_id=job_id,
        )
    loss = reader.describe_loss()
    if loss:
        return OutputLost(
            f"Job {job_id} ended, and {loss}. What arrived whole is in .partial; run the rest again with "
            "the same seed=.",
            job_id=job_id,
        )
    if reader.lines:
        # A worker that does not number its lines: all of them were readable, and RunPod says that it is done.
        return None
    if isinstance(output, (dict, str)) and output:
        return ProtocolError(
            f"Job {job_id} ended with an answer in another format ({_dialect(output)}). This executor needs a worker "
            "that streams the native format; deploy this project's worker on the endpoint.",
            job_id=job_id,
        )
    return OutputLost(
        f"Job {job_id} is COMPLETED and has no output. Either its result was over RunPod's limit (10 MB after /run), "
        "or another reader took its stream, or the endpoint's worker does not stream. The endpoint's logs say which.",
        job_id=job_id,
    )


def _dialect(output: dict[str, Any] | str) -> str:
    if isinstance(output, str):
        return "a string"
    images = output.get("images")
    if (isinstance(images, list) and "type" in str(images[:1])[:200]) or output.get("status") in {
        "success",
        "success_no_images",
    }:
        return "that of RunPod's worker-comfyui"
    return "an object with the keys " + ", ".join(sorted(map(str, output))[:6])
