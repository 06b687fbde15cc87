"""The ComfyUI that this worker drives: for now, waiting until it answers."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.errors import RunpodComfyError

__all__ = ["wait_until_ready"]

logger = logging.getLogger(__name__)

_ASK_EVERY_S = 0.25
_LOG_EVERY_S = 10.0


async def wait_until_ready(url: str) -> str:
    """Wait until ComfyUI answers, and return its version. How long loading takes is not known, so there is no limit.

    Args:
        url: ComfyUI's address.
    """
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    log_at = begun_at
    async with aiohttp.ClientSession() as session:
        client = ComfyUIClient(url, session=session)
        while True:
            try:
                system = (await client.system_stats())["system"]
            except RunpodComfyError as exc:
                if loop.time() >= log_at:
                    logger.info("waiting for ComfyUI, %.0f s so far: %s", loop.time() - begun_at, exc)
                    log_at = loop.time() + _LOG_EVERY_S
                await asyncio.sleep(_ASK_EVERY_S)
                continue
            version = str(system.get("comfyui_version") or "of an unknown version")
            logger.info("ComfyUI %s answers at %s", version, client.origin)
            return version
