"""An endpoint asked what it has, and what it says kept for the check before later runs."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from runpod_comfy.dialects.answer import AnswerReader
from runpod_comfy.dialects.description import description_request, read_description
from runpod_comfy.dialects.worker_comfyui_request import Layout
from runpod_comfy.errors import ConfigurationError, JobFailed, OutputLost, ProtocolError, RunpodComfyError, WaitTimeout
from runpod_comfy.executors.cancelling import ownership
from runpod_comfy.executors.following import follow_job
from runpod_comfy.executors.preflight import object_info_cache
from runpod_comfy.executors.sending import Parcel, policy_of, send_parcel

if TYPE_CHECKING:
    from runpod_comfy.dialects.description import PlaceDescription
    from runpod_comfy.serverless.connect import EndpointLink

__all__ = ["DESCRIBE_TIMEOUT_S", "describe_endpoint", "keep_description"]

logger = logging.getLogger(__name__)

DESCRIBE_TIMEOUT_S = 900.0
"""Long enough for a worker that has to start first, image and all."""


async def describe_endpoint(link: EndpointLink, *, place: str, object_info: bool, timeout_s: float) -> PlaceDescription:
    """Ask a worker of an endpoint what it is and has, in a job of its own; the endpoint's kind is remembered.

    Args:
        link: The endpoint.
        place: What it is called in messages.
        object_info: Ask for the inputs of all node classes too.
        timeout_s: How long to wait, for a worker to start included; then the job is cancelled.

    Raises:
        ConfigurationError: The time is none.
        ProtocolError: It runs another worker than this project's.
        JobError: The worker could not answer.
        WaitTimeout: The time is over.
    """
    if not timeout_s > 0:
        raise ConfigurationError(f"timeout is {timeout_s!r}; it takes seconds greater than 0.")
    request = {"input": description_request(object_info=object_info), "policy": policy_of(timeout_s)}
    parcel = Parcel(orjson.dumps(request), Layout())
    reader = AnswerReader()
    job_id: str | None = None
    try:
        async with asyncio.timeout(timeout_s):
            job_id = await send_parcel(link, parcel, submission_id=uuid.uuid4().hex)
            async with ownership(link, job_id), aclosing(follow_job(link, job_id, reader=reader)) as events:
                async for _ in events:
                    pass
    except TimeoutError as exc:
        if isinstance(exc, RunpodComfyError):
            raise
        raise WaitTimeout(
            f"{place} has not described itself within {timeout_s:g} s; the job was cancelled. Is a worker of it "
            "starting, or are all of them busy? Pass a longer timeout=.",
            job_id=job_id,
            endpoint_id=link.api.endpoint_id,
        ) from exc
    except (JobFailed, OutputLost, ProtocolError) as exc:
        if reader.numbered:
            raise  # this project's worker, which knows the question
        raise _unanswered(link, place, job_id, f" {exc}") from exc
    if reader.description is None:
        raise _unanswered(link, place, job_id, "")
    return await asyncio.to_thread(read_description, reader.description, place=place)


async def keep_description(target: str, about: PlaceDescription) -> None:
    """Keep the node types for the check before later runs, where they were asked for.

    A stand-in's are not kept: it runs nodes that it does not list.

    Args:
        target: The endpoint's id or the server's address.
        about: What it said of itself.
    """
    if about.object_info is None or about.is_stand_in:
        return
    try:
        await asyncio.to_thread(
            object_info_cache().store,
            target,
            dict(about.object_info.data),
            version=about.worker_version or about.comfyui_version or "",
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    except OSError as exc:
        # What was told, and may have been paid for, is there all the same.
        logger.warning("What %s has cannot be kept for later runs: %s", about.place, exc)


def _unanswered(link: EndpointLink, place: str, job_id: str | None, reason: str) -> ProtocolError:
    return ProtocolError(
        f"{place} does not describe itself: its worker is not this project's (or is broken).{reason} Workflows run on "
        "RunPod's worker-comfyui all the same; to have them checked first, give the node types of its ComfyUI as a "
        "file (--object-info FILE).",
        job_id=job_id,
        endpoint_id=link.api.endpoint_id,
    )
