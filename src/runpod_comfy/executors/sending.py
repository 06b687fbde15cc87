"""One job on its way to a RunPod endpoint: its body, its route, and the request that must not be made twice.

A body of up to 10 MiB goes to ``/run``. A larger one goes to ``/runsync``, which takes 20 MB; its result is kept for 60
s and not for 30 minutes, which is enough for whoever follows it at once. Of one that is larger still the images go
through a bucket, where there is one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy import _loop
from runpod_comfy.dialects.request import encode_request
from runpod_comfy.errors import PayloadTooLarge, RateLimited, RunpodComfyError, SubmissionUncertain, TransportError
from runpod_comfy.executors.bucket_inputs import with_images_in_bucket
from runpod_comfy.executors.cancelling import CLEANUP_S, cancel_job
from runpod_comfy.ledger import State
from runpod_comfy.serverless.api import MAX_RUN_BODY_BYTES, MAX_RUNSYNC_BODY_BYTES
from runpod_comfy.serverless.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runpod_comfy.dialects.base import WorkerKind
    from runpod_comfy.dialects.worker_comfyui_request import Layout
    from runpod_comfy.executors.recording import Record
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.submission import Submission

__all__ = ["Parcel", "pack", "policy_of", "send_job", "send_parcel"]

logger = logging.getLogger(__name__)

_MAX_CONNECTION_TRIES = 5
_MIN_EXECUTION_TIMEOUT_S = 5
_MIN_TTL_S = 10
_MAX_POLICY_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Parcel:
    """A body that RunPod takes.

    Attributes:
        body: The JSON.
        layout: What its answer will be read with.
        sync: Whether it is too large for ``/run`` and goes to ``/runsync``.
    """

    body: bytes = field(repr=False)
    layout: Layout = field(repr=False)
    sync: bool = False


def pack(submission: Submission, *, timeout_s: float | None, worker: WorkerKind | None) -> Parcel:
    """Return the body of the request for a job; it may take milliseconds for each MB.

    Args:
        submission: What to run.
        timeout_s: Where given, RunPod is told to end the job after so many seconds too (``policy``), and so is the
            worker: whether RunPod tells a worker of a job that it has ended is unconfirmed.
        worker: Who gets it, or None where that is not known.

    Raises:
        PayloadTooLarge: It is over RunPod's limits.
        TemplateError: That worker cannot give a variable that the template used.
    """
    if timeout_s is not None:
        submission = replace(submission, timeout_s=timeout_s)
    job_input, layout = encode_request(submission, worker)
    request: dict[str, Any] = {"input": job_input}
    if timeout_s is not None:
        request["policy"] = policy_of(timeout_s)
    body = orjson.dumps(request)
    if len(body) <= MAX_RUN_BODY_BYTES:
        return Parcel(body, layout)
    if len(body) <= MAX_RUNSYNC_BODY_BYTES:
        return Parcel(body, layout, sync=True)
    # Only this project's worker fetches images by URL.
    if worker == "native" and (in_bucket := with_images_in_bucket(job_input, submission)) is not None:
        return Parcel(orjson.dumps(request | {"input": in_bucket}), layout)
    largest = sorted(submission.images, key=lambda image: len(image.data), reverse=True)[:8]
    sizes = ", ".join(f"{image.name} {len(image.data) / 1e6:.1f} MB" for image in largest)
    raise PayloadTooLarge(
        f"The request has {len(body) / 1e6:.1f} MB and RunPod accepts {MAX_RUNSYNC_BODY_BYTES / 1e6:.0f} MB "
        f"(input images: {sizes or 'none'}; base64 adds a third). Pass input_max_pixels= to scale the images down, "
        'send fewer, or save them as JPEG first. With this project\'s worker (worker="native") and a bucket in '
        "BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY they go through that.",
        size_bytes=len(body),
        limit_bytes=MAX_RUNSYNC_BODY_BYTES,
    )


def policy_of(timeout_s: float) -> dict[str, int]:
    """Return the part of a request that tells RunPod when to end the job."""
    return {
        "executionTimeout": _milliseconds(timeout_s, _MIN_EXECUTION_TIMEOUT_S),
        "ttl": _milliseconds(timeout_s, _MIN_TTL_S),
    }


def _milliseconds(seconds: float, least_s: int) -> int:
    return int(min(max(seconds, least_s), _MAX_POLICY_S) * 1000)


async def send_job(
    link: EndpointLink,
    submission: Submission,
    *,
    timeout_s: float | None,
    worker: WorkerKind | None,
    record: Record | None = None,
) -> tuple[str, Layout]:
    """Submit a job, as ``send_parcel`` does; return its id, and what its answer will be read with.

    Args:
        link: The endpoint.
        submission: What to run.
        timeout_s: Where given, RunPod is told to end the job after so many seconds too.
        worker: Who gets it, or None where that is not known.
        record: Its page in the ledger, which then says how this ended.

    Raises:
        PayloadTooLarge: It is over RunPod's limits; nothing was sent.
        TemplateError: That worker cannot give a variable that the template used; nothing was sent.
        SubmissionUncertain: It was sent and never answered.
    """
    try:
        parcel = await asyncio.to_thread(pack, submission, timeout_s=timeout_s, worker=worker)
    except BaseException as exc:
        await _noted_end(record, State.REFUSED, f"Nothing was sent. {exc}")
        raise
    return await send_parcel(link, parcel, submission_id=submission.submission_id, record=record), parcel.layout


async def send_parcel(link: EndpointLink, parcel: Parcel, *, submission_id: str, record: Record | None = None) -> str:
    """Submit a job and return its id. It is sent again only where it surely was not accepted.

    Interrupted while the request is under way, this waits for the answer, cancels the job, and then gives way; while it
    waits for its turn, this gives way at once.
    """
    dispatch = _Dispatch()
    sending = asyncio.ensure_future(_noted(_send(link, parcel, submission_id, dispatch), dispatch, record))
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        dispatch.wanted = False
        if not dispatch.on_wire:
            sending.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.shield(_loop.outlive(lambda: _take_back(link, sending, record)))
        raise


class _Dispatch:
    """What whoever sends a job and whoever wants it know of each other."""

    def __init__(self) -> None:
        self.wanted = True
        self.on_wire = False

    def leaves(self) -> None:
        """Take note that RunPod can know of it from now on."""
        self.on_wire = True


async def _noted(sending: Coroutine[Any, Any, str], dispatch: _Dispatch, record: Record | None) -> str:
    try:
        job_id = await sending
    except SubmissionUncertain as exc:
        await _noted_end(record, State.UNCERTAIN, str(exc))
        raise
    except RunpodComfyError as exc:
        await _noted_end(record, State.REFUSED, str(exc))
        raise
    except asyncio.CancelledError:
        state = State.UNCERTAIN if dispatch.on_wire else State.REFUSED
        await _noted_end(record, state, "Interrupted before an answer came.")
        raise
    if record is not None:
        await record.accepted(job_id)
    return job_id


async def _noted_end(record: Record | None, state: State, note: str) -> None:
    if record is not None:
        await record.now_is(state, note)
        await record.release()


async def _send(link: EndpointLink, parcel: Parcel, submission_id: str, dispatch: _Dispatch) -> str:
    backoff = Backoff()
    submit = link.api.runsync if parcel.sync else link.api.run
    while True:
        try:
            return (await submit(parcel.body, submission_id=submission_id, on_send=dispatch.leaves)).job_id
        except RateLimited:
            dispatch.on_wire = False
            if not dispatch.wanted:
                raise
            # The pacer holds everybody back, and lets them through one by one.
            logger.info("submission %s is not accepted yet: too many requests", submission_id)
        except TransportError:
            dispatch.on_wire = False
            if backoff.failures >= _MAX_CONNECTION_TRIES or not dispatch.wanted:
                raise
            delay_s = backoff.next_s()
            logger.info("submission %s is not accepted yet; trying again in %.1f s", submission_id, delay_s)
            await asyncio.sleep(delay_s)


async def _take_back(link: EndpointLink, sending: asyncio.Task[str], record: Record | None) -> None:
    try:
        async with asyncio.timeout(CLEANUP_S):
            job_id = await sending
            if await cancel_job(link, job_id):
                await _noted_end(record, State.CANCELLED, "Cancelled by whoever had submitted it.")
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
