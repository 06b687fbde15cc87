"""One job on a RunPod endpoint: sent once, followed to its end, cancelled when nobody wants it any more."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.dialects.native import NativeReader
from runpod_comfy.dialects.native_request import encode_request
from runpod_comfy.errors import (
    JobError,
    PayloadTooLarge,
    RateLimited,
    RunpodComfyError,
    SubmissionUncertain,
    TransportError,
    WaitTimeout,
)
from runpod_comfy.events import Started, Warned
from runpod_comfy.executors.outcome import judge
from runpod_comfy.results import Timings
from runpod_comfy.serverless.api import MAX_RUN_BODY_BYTES, JobStatus
from runpod_comfy.serverless.retry import Backoff
from runpod_comfy.serverless.watch import watch_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from runpod_comfy.events import Event
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.serverless.watch import Update
    from runpod_comfy.submission import Submission

__all__ = ["CLEANUP_S", "cancel_job", "encode_body", "follow_job", "ownership", "send_job"]

logger = logging.getLogger(__name__)

CLEANUP_S = 5.0
"""What an interrupted caller waits at most for the remote job to be cancelled."""

_MAX_CONNECTION_TRIES = 5
_FINAL_STATUS_GRACE_S = 0.5
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


async def cancel_job(link: EndpointLink, job_id: str) -> None:
    """Cancel a job, trying for a few seconds; a failure is logged, since the caller is leaving for another reason."""
    backoff = Backoff(first_s=0.1)
    try:
        async with asyncio.timeout(CLEANUP_S):
            while True:
                try:
                    await link.api.cancel(job_id)
                except (TransportError, RateLimited):
                    await asyncio.sleep(backoff.next_s())
                else:
                    logger.info("job %s cancelled", job_id)
                    return
    except (TimeoutError, RunpodComfyError) as exc:
        logger.warning("Job %s could not be cancelled and may still be running (%s).", job_id, exc or "time-out")


class ownership:  # noqa: N801 - reads as a statement: `async with ownership(…):`
    """Cancels the job when the block is left before the job has ended, for whatever reason."""

    def __init__(self, link: EndpointLink, job_id: str) -> None:
        self._link = link
        self._job_id = job_id

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        ended = kind is None or (isinstance(exc, JobError) and not isinstance(exc, WaitTimeout))
        if not ended:
            # Shielded: a second interrupt ends the waiting, not the request.
            with suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.ensure_future(cancel_job(self._link, self._job_id)))


async def follow_job(link: EndpointLink, job_id: str) -> AsyncGenerator[Event | Timings]:
    """Yield what a job does until it has ended and everything is here.

    Raises:
        JobError: It ended otherwise (see ``outcome.judge``); the partial result is for the caller to add.
    """
    reader = NativeReader()
    status: JobStatus | None = None
    started = False
    async with aclosing(_updates(link, job_id, reader)) as updates:
        async for update in updates:
            if not started and update.state not in {"IN_QUEUE", ""}:
                started = True
                yield _started(update)
            if isinstance(update, JobStatus):
                status = update
            else:
                for event in _read(reader, update.outputs):
                    yield event
    if status is not None:
        for event in _fill_from_aggregate(reader, status.output):
            yield event
        yield Timings(queue_s=status.delay_s, execution_s=status.execution_s, gpu_s=reader.gpu_s)
    error = judge(job_id, status, reader)
    if error is not None:
        error.endpoint_id = link.api.endpoint_id
        raise error
    if reader.outputs == 0:
        yield Warned(message="The job ended well and made no output. Does the workflow have a node that saves?")


async def _updates(link: EndpointLink, job_id: str, reader: NativeReader) -> AsyncGenerator[Update]:
    """Yield RunPod's updates, until the end or, with the last line here, a moment for RunPod's figures."""
    ended = False
    async with aclosing(watch_job(link.api, job_id, habits=link.habits)) as updates:
        while not (reader.complete and ended):
            try:
                async with asyncio.timeout(_FINAL_STATUS_GRACE_S if reader.complete else None):
                    update = await anext(updates)
            except (StopAsyncIteration, TimeoutError):
                return
            ended = ended or (isinstance(update, JobStatus) and update.final)
            yield update


def _started(update: Update) -> Started:
    if isinstance(update, JobStatus):
        return Started(worker_id=update.worker_id, queue_s=update.delay_s)
    return Started()


def _read(reader: NativeReader, outputs: list[Any]) -> Iterator[Event]:
    for piece in outputs:
        yield from reader.feed(piece)


def _fill_from_aggregate(reader: NativeReader, output: Any) -> Iterator[Event]:
    """Read again, from ``/status``, what ``/stream`` did not bring; a worker keeps it there only when told to."""
    if isinstance(output, list) and not reader.complete and (reader.numbered or not reader.lines):
        reader.start_over()
        yield from _read(reader, output)
