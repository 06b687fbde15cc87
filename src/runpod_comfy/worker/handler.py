"""The worker's handler: a job in, native lines out, in the shape that RunPod's SDK drives.

The SDK ends a job by cancelling its task. A generator that stands at a ``yield`` then, while the SDK sends a piece, is
never told: no GeneratorExit, no ``finally`` (seen for 45 s and more with runpod 1.12). So the work is done in a task of
its own, which ends when the job's task does.

Several jobs run at once. ComfyUI computes one prompt after the other all the same: the next job's images are up and its
prompts wait in ComfyUI's queue by the time the GPU is free.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from runpod_comfy.comfyui.runner import all_stopped
from runpod_comfy.worker.job import MAX_OUTPUT_BYTES, Job
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from runpod_comfy.worker.job import Piece
    from runpod_comfy.worker.surroundings import Keeper, OpenStore

__all__ = ["MAX_OUTPUT_BYTES", "Handler", "all_ended", "make_handler", "native_handler"]

_PIECES_AHEAD = 8

Handler: TypeAlias = "Callable[[dict[str, Any]], AsyncGenerator[str | dict[str, str]]]"


def make_handler(
    *,
    comfyui_url: str,
    comfyui_dir: str | None = None,
    keeper: Keeper | None = None,
    open_store: OpenStore | None = None,
    refresh: Callable[[], None] | None = None,
    max_answer_bytes: int | None = None,
) -> Handler:
    """Return what ``runpod.serverless.start({"handler": …})`` takes.

    The handler yields strings that, joined, are the lines of the native dialect; after an error's line it yields
    ``{"error": <the same text>}``, so that RunPod shows the job as FAILED. It never raises.

    Args:
        comfyui_url: The ComfyUI server to run jobs on.
        comfyui_dir: ComfyUI's folder as seen from here; None asks a server on this machine. Where the folders can be
            reached, inputs are written and outputs read there, and both are removed when the job has ended.
        keeper: Who watches ComfyUI's process; None takes a server that does not answer for lost.
        open_store: Where outputs go instead of the lines.
        refresh: Called when ComfyUI cannot be used any more: asks RunPod for a fresh worker.
        max_answer_bytes: How large all pieces together may be as JSON, where RunPod repeats them in ``/status``; None
            sets no limit.
    """
    largest_bytes = MAX_OUTPUT_BYTES if open_store is None else None
    return native_handler(
        Machine(
            link=ComfyUILink(comfyui_url, comfyui_dir=comfyui_dir, largest_bytes=largest_bytes),
            keeper=keeper,
            open_store=open_store,
            refresh=refresh,
            max_answer_bytes=max_answer_bytes,
        )
    )


def native_handler(machine: Machine) -> Handler:
    """Return the handler that answers in native lines, on this machine."""

    async def handler(job: dict[str, Any]) -> AsyncGenerator[str | dict[str, str]]:
        pieces: asyncio.Queue[Piece] = asyncio.Queue(_PIECES_AHEAD)
        work = asyncio.create_task(Job(job, pieces, machine).run())
        _running.add(work)
        work.add_done_callback(_running.discard)

        def give_up(_: object = None) -> None:
            # Once: a second cancellation would cut the clean-up that the first has begun.
            if not work.cancelling():
                work.cancel()

        if (own_task := asyncio.current_task()) is not None:
            own_task.add_done_callback(give_up)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            give_up()
            if own_task is not None:
                # The task may live on and run the next job; what it remembers of this one must not pile up.
                own_task.remove_done_callback(give_up)

    return handler


async def all_ended() -> None:
    """Wait until jobs on this loop whose handlers have ended, or were given up, have cleaned up after themselves."""
    loop = asyncio.get_running_loop()
    while left := [task for task in _running if task.get_loop() is loop]:
        await asyncio.wait(left)
    await all_stopped()


_running: set[asyncio.Task[None]] = set()  # a task without a reference may vanish before it is done
