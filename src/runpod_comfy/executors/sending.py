"""One job on its way to a RunPod endpoint: its body, and the request that must not be made twice."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.dialects.native_request import encode_request
from runpod_comfy.errors import PayloadTooLarge, RateLimited, RunpodComfyError, SubmissionUncertain, TransportError
from runpod_comfy.executors.cancelling import CLEANUP_S, cancel_job
from runpod_comfy.serverless.api import MAX_RUN_BODY_BYTES
from runpod_comfy.serverless.retry import Backoff

if TYPE_CHECKING:
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.submission import Submission

__all__ = ["encode_body", "send_job"]

logger = logging.getLogger(__name__)

_MAX_CONNECTION_TRIES = 5
_MIN_EXECUTION_TIMEOUT_S = 5
_MIN_TTL_S = 10
_MAX_POLICY_S = 7 * 24 * 3600


def encode_body(submission: Submission, *, timeout_s: float | None) -> bytes:
    """Return the body of ``POST /run``.

    Args:
        submission: What to run.
        timeout_s: Where given, RunPod is told to end the job after so many seconds too (``policy``).

    Raises:
        PayloadTooLarge: It is over RunPod's limit.
    """
    request: dict[str, Any] = {"input": encode_request(submission)}
    if timeout_s is not None:
        request["policy"] = {
            "executionTimeout": _milliseconds(timeout_s, _MIN_EXECUTION_TIMEOUT_S),
            "ttl": _milliseconds(timeout_s, _MIN_TTL_S),
        }
    body = orjson.dumps(request)
    if len(body) > MAX_RUN_BODY_BYTES:
        sizes = ", ".join(f"{image.name} {len(image.data) / 2**20:.1f} MiB" for image in submission.images[:8])
        raise PayloadTooLarge(
            f"The request has {len(body) / 2**20:.1f} MiB and RunPod accepts {MAX_RUN_BODY_BYTES / 2**20:.0f} MiB "
            f"(input images: {sizes or 'none'}; base64 adds a third). Pass input_max_pixels= to scale the images "
            "down, send fewer, or save them as JPEG first.",
            size_bytes=len(body),
            limit_bytes=MAX_RUN_BODY_BYTES,
        )
    return body


def _milliseconds(seconds: float, least_s: int) -> int:
    return int(min(max(seconds, least_s), _MAX_POLICY_S) * 1000)


async def send_job(link: EndpointLink, body: bytes, *, submission_id: str) -> str:
    """Submit a job and return its id. It is sent again only where it surely was not accepted.

    Interrupted while the request is under way, this waits for the answer, cancels the job, and then gives way.
    """
    sending = asyncio.ensure_future(_send(link, body, submission_id))
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        await _take_back(link, sending)
        raise


async def _send(link: EndpointLink, body: bytes, submission_id: str) -> str:
    backoff = Backoff()
    while True:
        try:
            return (await link.api.run(body, submission_id=submission_id)).job_id
        except RateLimited as exc:
            delay_s = backoff.next_s(at_least_s=exc.retry_after_s)
        except TransportError:
            if backoff.failures >= _MAX_CONNECTION_TRIES:
                raise
            delay_s = backoff.next_s()
        logger.info("submission %s is not accepted yet; trying again in %.1f s", submission_id, delay_s)
        await asyncio.sleep(delay_s)


async def _take_back(link: EndpointLink, sending: asyncio.Task[str]) -> None:
    try:
        async with asyncio.timeout(CLEANUP_S):
            job_id = await sending
            await cancel_job(link, job_id)
    except (TimeoutError, SubmissionUncertain):
        logger.warning(
            "Interrupted while a job was being submitted to endpoint %s and no answer came: it may be running. "
            "Look at the endpoint's requests in RunPod's console.",
            link.api.endpoint_id,
        )
    except RunpodComfyError as exc:
        logger.debug("the interrupted submission was not accepted: %s", exc)
    finally:
        sending.cancel()
