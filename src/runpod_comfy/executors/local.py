"""Everything on this machine: RunPod's emulator, the worker, and a ComfyUI or its stand-in, in one process.

The images come through the very code that talks to RunPod: requests over HTTP, a queue, a worker that streams lines.
Only the far ends are local. Without a ComfyUI, pictures are labelled proofs of what was sent.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Self

from runpod_comfy import _loop
from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor
from runpod_comfy.serverless.connect import connect
from runpod_comfy.settings import EndpointSettings, comfyui_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runpod_comfy.emulator.api import EmulatorServer
    from runpod_comfy.emulator.comfyui import ComfyUIStandIn
    from runpod_comfy.emulator.jobs import JobStatus
    from runpod_comfy.emulator.platform import Platform
    from runpod_comfy.serverless.connect import EndpointLink

__all__ = ["LOCAL_API_KEY", "LOCAL_ENDPOINT_ID", "LocalRunpod", "LocalWorkflowExecutor"]

LOCAL_ENDPOINT_ID = "local"
LOCAL_API_KEY = "local-emulator-key"

_CLEANUP_S = 4.5  # a shared resource has `_loop.CLEANUP_S` to close


class LocalRunpod:
    """RunPod Serverless on this machine: an emulated endpoint with a worker on it.

    Args:
        comfyui_url: A ComfyUI server for the worker; None starts the stand-in.
        host: The address that the emulator listens on.
        port: Its port; 0 takes a free one.
        workers: How many workers the endpoint has; 0 leaves jobs in the queue.
    """

    def __init__(
        self, *, comfyui_url: str | None = None, host: str = "127.0.0.1", port: int = 0, workers: int = 1
    ) -> None:
        self._comfyui_url = comfyui_url
        self._host = host
        self._port = port
        self._workers = workers
        self._exits = AsyncExitStack()
        self.server: EmulatorServer
        self.comfyui: ComfyUIStandIn | None = None

    @property
    def platform(self) -> Platform:
        """The emulated platform: its jobs, clock and faults."""
        return self.server.platform

    @property
    def settings(self) -> EndpointSettings:
        """How a client reaches the endpoint."""
        return EndpointSettings(endpoint_id=LOCAL_ENDPOINT_ID, api_key=LOCAL_API_KEY, base_url=self.server.base_url)

    def jobs(self) -> list[JobStatus]:
        """Return what the endpoint's jobs have come to, from any thread but the background loop's."""

        async def statuses() -> list[JobStatus]:
            return list(self.platform.statuses(LOCAL_ENDPOINT_ID))

        return _loop.run_sync(statuses)

    async def start(self) -> None:
        """Start the stand-in, the emulator and the workers."""
        from runpod_comfy.emulator.api import EmulatorServer  # noqa: PLC0415 - clients of RunPod never load a server
        from runpod_comfy.emulator.inprocess import InProcessWorker  # noqa: PLC0415 - likewise
        from runpod_comfy.emulator.jobs import EndpointConfig  # noqa: PLC0415 - likewise
        from runpod_comfy.emulator.platform import Platform  # noqa: PLC0415 - likewise
        from runpod_comfy.worker.handler import all_ended, make_handler  # noqa: PLC0415 - likewise

        async with AsyncExitStack() as starting:
            url = self._comfyui_url
            if url is None:
                from runpod_comfy.emulator.comfyui import ComfyUIStandIn  # noqa: PLC0415 - likewise

                stand_in = await starting.enter_async_context(ComfyUIStandIn())
                self.comfyui, url = stand_in, stand_in.url
            starting.push_async_callback(_within, _CLEANUP_S, all_ended)
            platform = Platform(EndpointConfig(endpoint_id=LOCAL_ENDPOINT_ID))
            self.server = await starting.enter_async_context(EmulatorServer(platform, host=self._host, port=self._port))
            handler = make_handler(comfyui_url=url)
            for number in range(self._workers):
                worker = InProcessWorker(platform, LOCAL_ENDPOINT_ID, handler, worker_id=f"local-{number}")
                await starting.enter_async_context(worker)
            self._exits = starting.pop_all()

    async def stop(self) -> None:
        """Stop everything that was started, once jobs under way have cleaned up after themselves."""
        await self._exits.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


async def _within(limit_s: float, work: Callable[[], Awaitable[None]]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await work()


class LocalWorkflowExecutor(RunpodComfyWorkflowExecutor):
    """Runs workflows on this machine, through an emulated RunPod endpoint: no account, no GPU, no network.

    >>> with LocalWorkflowExecutor(batch_size=8) as executor:  # doctest: +SKIP
    ...     executor.submit_workflow("portrait.json.jinja", ["me.jpg"], num_samples=16).save("out")

    Args:
        batch_size: How many images a batch has where a call does not say.
        comfyui_url: A ComfyUI server to compute on; None starts a stand-in, whose pictures show what was sent and are
            never to be taken for generated ones.
    """

    def __init__(self, *, batch_size: int = 1, comfyui_url: str | None = None) -> None:
        super().__init__(LOCAL_ENDPOINT_ID, batch_size=batch_size, api_key=LOCAL_API_KEY, worker="native")
        self._comfyui_url = comfyui_url
        self._key = object()

    @property
    def place(self) -> str:
        """The word ``local``."""
        return "local"

    def __repr__(self) -> str:
        return f"LocalWorkflowExecutor(batch_size={self.batch_size}, comfyui_url={self._comfyui_url!r})"

    def _target(self) -> str | None:
        # Not the endpoint's id, which every emulator has.
        return None if self._comfyui_url is None else comfyui_url(self._comfyui_url)

    async def _connect(self) -> EndpointLink:
        # Shared under a key of its own, so that it is started once and stopped at exit.
        local = await _loop.shared(self._key, self._start_local, LocalRunpod.stop)
        return await connect(local.settings)

    async def _start_local(self) -> LocalRunpod:
        local = LocalRunpod(comfyui_url=self._comfyui_url)
        await local.start()
        return local

    async def _close(self) -> None:
        await _loop.close_shared(self._key)
