"""Workflows on a ComfyUI server: one on this machine, on the LAN, or behind a RunPod pod's proxy."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runpod_comfy import _loop
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.runner import run_batches
from runpod_comfy.events import Queued, Started
from runpod_comfy.executors.base import WorkflowExecutor
from runpod_comfy.executors.preflight import object_info_cache
from runpod_comfy.serverless.connect import http_session
from runpod_comfy.settings import comfyui_url, shown_url
from runpod_comfy.workflow.object_info import ObjectInfo
from runpod_comfy.workflow.object_info_cache import KeptObjectInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.results import Timings
    from runpod_comfy.submission import Submission

__all__ = ["ComfyServerWorkflowExecutor", "keep_node_types"]


class ComfyServerWorkflowExecutor(WorkflowExecutor):
    """Runs workflows on a ComfyUI server, without RunPod in between.

    >>> executor = ComfyServerWorkflowExecutor("http://127.0.0.1:8188", batch_size=4)  # doctest: +SKIP

    Args:
        url: The server's address; None reads ``COMFYUI_URL`` and then takes ``http://127.0.0.1:8188``.
        batch_size: How many images a batch has where a call does not say.
        headers: Sent with each request, for example ``{"Authorization": "Bearer …"}`` for a proxy in front.

    Raises:
        ConfigurationError: ``url`` is no http or https address.
    """

    def __init__(
        self, url: str | None = None, *, batch_size: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(batch_size=batch_size)
        self.url = comfyui_url(url)
        self._headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_url(self.url)!r}, batch_size={self.batch_size})"

    def version(self) -> str:
        """Return ComfyUI's version, as the server tells it.

        Raises:
            RunpodComfyError: It does not answer, or is not ComfyUI.
        """
        return _loop.run_sync(self._version)

    async def _version(self) -> str:
        client = ComfyUIClient(self.url, session=await http_session(), headers=self._headers)
        return str((await client.system_stats())["system"].get("comfyui_version") or "unknown")

    def _target(self) -> str:
        return self.url

    async def _refresh_node_types(self) -> KeptObjectInfo | None:
        client = ComfyUIClient(self.url, session=await http_session(), headers=self._headers)
        return await keep_node_types(client, target=self.url)

    async def _run(
        self, submission: Submission, request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        del request
        client = ComfyUIClient(self.url, session=await http_session(), headers=self._headers)
        yield Queued(job_id=submission.submission_id)
        yield Started()
        async with aclosing(run_batches(client, submission)) as events:
            async for event in events:
                if shelf is None:
                    yield event
                    continue
                for kept in await asyncio.to_thread(shelf.put_all, (event,)):
                    yield kept


async def keep_node_types(client: ComfyUIClient, *, target: str) -> KeptObjectInfo:
    """Ask a server for its node types and keep them for ``target``.

    A stand-in's are not kept: it runs nodes that it does not list.
    """
    stats, data = await asyncio.gather(client.system_stats(), client.object_info())
    kept = KeptObjectInfo(
        info=ObjectInfo(data, source=shown_url(target)),
        version=str(stats["system"].get("comfyui_version") or ""),
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if not stats["system"].get("stand_in"):
        cache = object_info_cache()
        await asyncio.to_thread(cache.store, target, data, version=kept.version, fetched_at=kept.fetched_at)
    return kept
