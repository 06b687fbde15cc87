"""What work on the loop may ask of it: to outlive its caller, to last, to be shared."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from runpod_comfy._loop.background import CLEANUP_S, Shared, current, here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable

    from runpod_comfy._loop.background import Background

__all__ = ["be_patient", "close_shared", "farewells_said", "lasting", "outlive", "shared"]

T = TypeVar("T")


def outlive(farewell: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
    """Start what must be done before the process ends, whoever stops waiting for it. On the loop only."""
    background = _mine()
    return _start(background, farewell, background.farewells)


def lasting(work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
    """Start work that goes on between its callers' calls; it is cancelled when the process ends. On the loop only."""
    background = _mine()
    return _start(background, work, background.lasting)


def _mine() -> Background:
    background = here()
    if background is None:
        raise RuntimeError("Only work on the background loop can do that.")
    return background


def _start(
    background: Background, work: Callable[[], Coroutine[Any, Any, T]], kept: set[asyncio.Task[Any]]
) -> asyncio.Task[T]:
    task = background.loop.create_task(work())
    kept.add(task)
    task.add_done_callback(kept.discard)
    return task


def be_patient(seconds: float) -> None:
    """Let the end of the process wait so long for what must be done before it, if that takes so long. On the loop."""
    background = here()
    if background is not None:
        background.patient_until_s = max(background.patient_until_s, background.loop.time() + seconds)


async def farewells_said() -> None:
    """Wait for what outlives whoever started it, about as long as the end of the process would. On the loop only."""
    background = here()
    if background is not None:
        mine = asyncio.current_task()
        await background.finished(
            lambda: {each for each in background.farewells if each is not mine}, within_s=CLEANUP_S
        )


async def shared(key: Hashable, make: Callable[[], Awaitable[T]], close: Callable[[T], Awaitable[None]]) -> T:
    """Return the loop's one resource of that key, making it at first use; it is closed at exit. On the loop only."""
    background = current()
    if background is None or asyncio.get_running_loop() is not background.loop:
        raise RuntimeError("Shared resources belong to the background loop.")
    resource = background.shared.get(key)
    if resource is None or resource.failed:
        resource = background.shared[key] = Shared(make, close)
    # Shielded: one caller's cancellation must not take it from the others.
    result: T = await asyncio.shield(resource.making)
    return result


async def close_shared(key: Hashable) -> None:
    """Close the loop's resource of that key now, where there is one. On the loop only."""
    if (background := current()) is not None and (resource := background.shared.pop(key, None)) is not None:
        await resource.close()
