"""A job's events, with words for why it waits, and an end to the waiting where the caller set one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from runpod_comfy.errors import WaitTimeout
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Started, Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.events import Event
    from runpod_comfy.results import Timings
    from runpod_comfy.serverless.connect import EndpointLink

__all__ = ["with_waiting"]

_FIRST_LOOK_S = 5.0
_NEXT_LOOK_S = 15.0

_T = TypeVar("_T")


async def with_waiting(
    link: EndpointLink,
    job_id: str,
    events: AsyncGenerator[Event | Timings],
    *,
    queue_timeout_s: float | None = None,
) -> AsyncGenerator[Event | Timings]:
    """Yield a job's events and, while it waits for a worker, a ``Waiting`` whenever the reason changes.

    Args:
        link: The endpoint.
        job_id: The job.
        events: What is known of it otherwise; closed at the end.
        queue_timeout_s: How long it may wait for a worker, in seconds, or None.

    Raises:
        WaitTimeout: It has waited too long.
    """
    loop = asyncio.get_running_loop()
    queued_s = loop.time()
    look_s, said = queued_s + _FIRST_LOOK_S, ""
    deadline_s = None if queue_timeout_s is None else queued_s + queue_timeout_s
    waits = True
    pending = asyncio.ensure_future(_next(events))
    try:
        while True:
            wake_s = None if not waits else look_s if deadline_s is None else min(look_s, deadline_s)
            await asyncio.wait({pending}, timeout=None if wake_s is None else max(0.0, wake_s - loop.time()))
            if pending.done():
                try:
                    event = pending.result()
                except StopAsyncIteration:
                    return
                match event:
                    case Started(queue_s=waited_s):
                        waits = False
                        link.habits.queueing.started(waited_s)
                    case Waiting():  # its worker is gone, and it waits again
                        waits, queued_s, said = True, loop.time(), event.reason
                        look_s = queued_s + _FIRST_LOOK_S
                    case OutputReady() | Progress() | BatchFinished():
                        waits = False
                yield event
                pending = asyncio.ensure_future(_next(events))
            elif deadline_s is not None and loop.time() >= deadline_s:
                raise _too_long(link, job_id, queue_timeout_s or 0.0, said)
            else:
                look_s = loop.time() + _NEXT_LOOK_S
                waited_s = loop.time() - queued_s
                reason = await link.habits.queueing.reason(link.api, waited_s=waited_s, now_s=loop.time())
                if reason is not None and reason.word != said:
                    said = reason.word
                    yield Waiting(reason=reason.word, message=reason.sentence, waited_s=waited_s)
    finally:
        pending.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
            await pending
        await events.aclose()


async def _next(events: AsyncGenerator[_T]) -> _T:
    return await anext(events)


def _too_long(link: EndpointLink, job_id: str, queue_timeout_s: float, said: str) -> WaitTimeout:
    why = f" (last known reason: {said})" if said else ""
    return WaitTimeout(
        f"No worker took job {job_id} within {queue_timeout_s:g} s, the queue_timeout of this call{why}. Look at the "
        "endpoint's workers in RunPod's console, or pass a longer queue_timeout=.",
        job_id=job_id,
        endpoint_id=link.api.endpoint_id,
    )
