"""``python -m runpod_comfy.worker``: the worker under RunPod's SDK, beside a ComfyUI server.

| variable | meaning |
| --- | --- |
| ``COMFYUI_URL`` | The ComfyUI server; default ``http://127.0.0.1:8188``. |
| ``COMFYUI_DIR`` | ComfyUI's folder, whose ``input`` the workflows' photos go to. Default: ask the server. |
| ``BUCKET_ENDPOINT_URL`` | Set: RunPod keeps all lines for ``/status`` too. |
| ``RUNPOD_LOG_LEVEL`` | The SDK's; ``INFO`` unless set. ``DEBUG``, the SDK's own default, logs what the worker sends. |
"""

from __future__ import annotations

import asyncio
import logging
import os

from runpod_comfy.settings import WorkerSettings
from runpod_comfy.worker.handler import make_handler
from runpod_comfy.worker.server import wait_until_ready


def main() -> None:
    """Wait for ComfyUI and take jobs until RunPod stops the worker."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = WorkerSettings.from_env()
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # read when the SDK is imported
    asyncio.run(wait_until_ready(settings.comfyui_url))
    import runpod  # noqa: PLC0415 - takes 1.5 s, and reads its settings at import

    runpod.serverless.start(
        {
            "handler": make_handler(
                comfyui_url=settings.comfyui_url,
                input_dir=f"{settings.comfyui_dir.rstrip('/')}/input" if settings.comfyui_dir else None,
            ),
            "return_aggregate_stream": settings.aggregate,
        }
    )


if __name__ == "__main__":
    main()
