"""``python -m runpod_comfy.worker``: the worker under RunPod's SDK, beside a ComfyUI server.

| variable | meaning |
| --- | --- |
| ``COMFYUI_URL`` | The ComfyUI server; default ``http://127.0.0.1:8188``. |
| ``COMFYUI_DIR`` | ComfyUI's folder, where it can be reached from here. Default: ask a server on this machine. |
| ``WORKER_SLOTS`` | How many jobs are in hand at once; default 3, see ``docs/worker-measurements.md``. |
| ``BUCKET_ENDPOINT_URL`` | Set: RunPod keeps all lines for ``/status`` too. |
| ``RUNPOD_LOG_LEVEL`` | The SDK's; ``INFO`` unless set. ``DEBUG``, the SDK's own default, logs what the worker sends. |
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from runpod_comfy.settings import WorkerSettings
from runpod_comfy.worker.handler import make_handler
from runpod_comfy.worker.server import wait_until_ready

MAX_ANSWER_BYTES = 9_000_000
"""How much of an answer is left to RunPod to keep: its limit is 10 MB (docs), the exact figure is unconfirmed."""


def main() -> None:
    """Wait for ComfyUI and take jobs until RunPod stops the worker."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = WorkerSettings.from_env()
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # read when the SDK is imported
    asyncio.run(wait_until_ready(settings.comfyui_url))
    import runpod  # noqa: PLC0415 - takes 1.5 s, and reads its settings at import

    config: dict[str, Any] = {
        "return_aggregate_stream": settings.aggregate,
        "concurrency_modifier": lambda _: settings.slots,
    }
    config["handler"] = make_handler(
        comfyui_url=settings.comfyui_url,
        comfyui_dir=settings.comfyui_dir,
        # The SDK looks at it after each job, and RunPod puts a fresh worker in this one's place.
        refresh=lambda: config.update(refresh_worker=True),
        max_answer_bytes=MAX_ANSWER_BYTES if settings.aggregate else None,
    )
    runpod.serverless.start(config)


if __name__ == "__main__":
    main()
