"""``python -m runpod_comfy.worker``: the worker under RunPod's SDK. ``docs/worker.md`` lists its variables."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy.bucket import BucketSettings
from runpod_comfy.comfyui.follow import FollowPace
from runpod_comfy.errors import ConfigurationError, RunpodComfyError
from runpod_comfy.settings import WorkerSettings
from runpod_comfy.worker.handler import native_handler
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine
from runpod_comfy.worker.official import official_handler
from runpod_comfy.worker.server import ComfyUIServer
from runpod_comfy.worker.store import store_opener
from runpod_comfy.worker.volume import misplaced_models

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 9_000_000
"""How much of an answer is left to RunPod to keep: its limit is 10 MB (docs), the exact figure is unconfirmed."""

MAX_KEPT_BYTES = 4 * 1024**3
"""The largest output that is read into memory on its way to a bucket."""


def main() -> None:
    """Start ComfyUI, or wait for one, and take jobs until RunPod stops the worker."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings, bucket = WorkerSettings.from_env(), BucketSettings.from_env()
    except ConfigurationError as exc:
        sys.exit(f"The worker cannot start: {exc}")
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # read when the SDK is imported
    # Until the SDK takes the signal over, it must end ComfyUI too, which only a regular exit does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = ComfyUIServer(
        settings.comfyui_url, command=settings.command, cwd=settings.comfyui_dir, volume=Path(settings.volume)
    )
    config: dict[str, Any] = {"concurrency_modifier": lambda _: settings.slots}
    # The SDK looks at it after each job, and RunPod puts a fresh worker in this one's place.
    machine = _machine(settings, bucket, server, refresh=lambda: config.update(refresh_worker=True))
    asyncio.run(_prepare(server, machine, settings.warmup))
    import runpod  # noqa: PLC0415 - takes 1.5 s, and reads its settings at import

    if settings.protocol == "native":
        config |= {"handler": native_handler(machine), "return_aggregate_stream": settings.aggregate}
    else:
        config["handler"] = official_handler(machine)
    runpod.serverless.start(config)


def _machine(
    settings: WorkerSettings, bucket: BucketSettings | None, server: ComfyUIServer, *, refresh: Callable[[], None]
) -> Machine:
    def facts() -> dict[str, Any]:
        return {
            "worker": {"answers": settings.protocol, "slots": settings.slots, "input_urls": settings.input_urls},
            "failed_custom_nodes": list(server.failed_custom_nodes),
            "misplaced_models": misplaced_models(Path(settings.volume)),
        }

    return Machine(
        link=ComfyUILink(settings.comfyui_url, comfyui_dir=settings.comfyui_dir, largest_bytes=MAX_KEPT_BYTES),
        keeper=server,
        pace=FollowPace(stall_s=settings.stall_s),
        open_store=store_opener(bucket, public_only=settings.input_urls != "any"),
        refresh=refresh,
        max_answer_bytes=MAX_ANSWER_BYTES if settings.aggregate else None,
        input_urls=settings.input_urls,
        comfy_org_api_key=settings.comfy_org_api_key,
        facts=facts,
    )


async def _prepare(server: ComfyUIServer, machine: Machine, warmup: str | None) -> None:
    """Be ready before the first job is taken: in the queue it waits without using up its execution time."""
    try:
        await server.ready()
        if warmup is not None:
            await machine.warm_up(Path(warmup))
    except RunpodComfyError as exc:
        # Jobs are taken all the same: the first one tells its caller what is wrong, where a worker that
        # only ends would leave it in the queue without a word.
        logger.error("%s", exc)  # noqa: TRY400 - the text says it all


if __name__ == "__main__":
    main()
