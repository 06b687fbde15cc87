"""Workflows on a ComfyUI server: one on this machine, on the LAN, or behind a RunPod pod's proxy."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp

from runpod_comfy import _loop
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.follow import FollowPace
from runpod_comfy.comfyui.runner import run_batches
from runpod_comfy.dialects.description import read_description
from runpod_comfy.errors import ConfigurationError, NotFound, ProtocolError
from runpod_comfy.events import Queued, Started
from runpod_comfy.executors.base import WorkflowExecutor
from runpod_comfy.executors.credentials import request_headers, without_credentials
from runpod_comfy.executors.describing import keep_description
from runpod_comfy.executors.preflight import object_info_cache
from runpod_comfy.serverless.connect import http_session
from runpod_comfy.settings import comfyui_url, shown_url
from runpod_comfy.worker.describe import describe_comfyui
from runpod_comfy.workflow.object_info import ObjectInfo
from runpod_comfy.workflow.object_info_cache import KeptObjectInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from runpod_comfy.dialects.description import PlaceDescription
    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.results import Timings
    from runpod_comfy.submission import Submission

__all__ = ["ComfyServerWorkflowExecutor", "keep_node_types"]


class ComfyServerWorkflowExecutor(WorkflowExecutor):
    """Runs workflows on a ComfyUI server, without RunPod in between.

    >>> executor = ComfyServerWorkflowExecutor("http://127.0.0.1:8188", batch_size=4)  # doctest: +SKIP
    >>> executor = ComfyServerWorkflowExecutor("https://<POD_ID>-8188.proxy.runpod.net")  # doctest: +SKIP

    Args:
        url: The server's address, also with a path in front of ComfyUI's own; None reads ``COMFYUI_URL`` and then
            takes ``http://127.0.0.1:8188``. It may hold ``name:password@``.
        batch_size: How many images a batch has where a call does not say.
        max_concurrent_jobs: How many jobs are under way at once; None sets no bound.
        give_up_s: How long ComfyUI may answer nothing at all, in seconds, until it counts as gone.
        token: A bearer token for the proxy in front.
        auth: Name and password for a proxy with HTTP basic authentication.
        headers: Further headers for each request, for proxies with their own ideas.
        ca_file: The certificate (PEM) that signed the server's, where no public authority did.

    Raises:
        ConfigurationError: ``url`` is no http or https address, credentials were given twice, or ``ca_file`` cannot be
            read.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        batch_size: int = 1,
        max_concurrent_jobs: int | None = None,
        give_up_s: float = 60.0,
        token: str | None = None,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, max_concurrent_jobs=max_concurrent_jobs)
        self.url, in_url = without_credentials(comfyui_url(url))
        if auth is not None and in_url is not None:
            raise ConfigurationError("Credentials were given twice: in the address and as auth=. Give one of them.")
        self._headers = request_headers(token=token, auth=auth or in_url, headers=headers)
        self._tls = None if ca_file is None else _tls_context(ca_file)
        self._pace = FollowPace(give_up_s=give_up_s)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, batch_size={self.batch_size})"

    def version(self) -> str:
        """Return ComfyUI's version, as the server tells it.

        Raises:
            RunpodComfyError: It does not answer, or is not ComfyUI.
        """
        return _loop.run_sync(self._version)

    def describe(self, *, object_info: bool = True) -> PlaceDescription:
        """Return what the server has: versions, node classes, models, custom nodes.

        Node types are kept on this machine as :meth:`RunpodComfyWorkflowExecutor.describe` does.

        Args:
            object_info: Return, and keep, the inputs of all node classes too.

        Raises:
            RunpodComfyError: It does not answer, or is not ComfyUI.
        """
        return _loop.run_sync(lambda: self._while_open(self._describe(object_info)))

    def describe_async(self, *, object_info: bool = True) -> asyncio.Future[PlaceDescription]:
        """Return a future of what :meth:`describe` returns."""
        return _loop.run_async(lambda: self._while_open(self._describe(object_info)))

    async def _describe(self, object_info: bool) -> PlaceDescription:  # noqa: FBT001 - private
        client = ComfyUIClient(self.url, session=await self._session(), headers=self._headers)
        await _recognise(client)
        told, info = await describe_comfyui(client)
        about = read_description(told, place=self.place, object_info=info if object_info else None)
        await keep_description(self.url, about)
        return about

    async def _version(self) -> str:
        client = ComfyUIClient(self.url, session=await self._session(), headers=self._headers)
        return str((await client.system_stats())["system"].get("comfyui_version") or "unknown")

    def _target(self) -> str:
        return self.url

    async def _refresh_node_types(self) -> KeptObjectInfo | None:
        client = ComfyUIClient(self.url, session=await self._session(), headers=self._headers)
        return await keep_node_types(client, target=self.url)

    @property
    def place(self) -> str:
        """The server's address."""
        return self.url

    async def _run(
        self, submission: Submission, request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        del request
        client = ComfyUIClient(self.url, session=await self._session(), headers=self._headers)
        await _recognise(client)
        yield Queued(job_id=submission.submission_id, place=self.place)
        started = False
        async with aclosing(run_batches(client, submission, pace=self._pace)) as events:
            async for event in events:
                if not started:
                    started = True
                    yield Started()
                for kept in await asyncio.to_thread(shelf.put_all, (event,)) if shelf else (event,):
                    yield kept

    async def _session(self) -> aiohttp.ClientSession:
        if self._tls is None:
            return await http_session()
        return await _loop.shared(self, self._open_session, aiohttp.ClientSession.close)

    async def _open_session(self) -> aiohttp.ClientSession:
        assert self._tls is not None  # noqa: S101 - else the shared session is taken
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def _close(self) -> None:
        await _loop.close_shared(self)


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


async def _recognise(client: ComfyUIClient) -> None:
    """See that ComfyUI answers there, before photos are sent to whatever else it is."""
    try:
        await client.system_stats()
    except NotFound as exc:
        raise ProtocolError(
            f"{client.origin} answers, and has no /system_stats, which ComfyUI has had since 2023. Check the address: "
            "is there a path in front of ComfyUI's own? Behind a RunPod proxy, see that the pod runs and exposes the "
            "port. Else update ComfyUI."
        ) from exc


def _tls_context(ca_file: str | os.PathLike[str]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=os.fspath(ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(
            f"ca_file {os.fspath(ca_file)} cannot be used: {exc}. It takes a file of PEM certificates."
        ) from exc
