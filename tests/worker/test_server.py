import asyncio
import logging

from aiohttp import web

from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.worker.server import wait_until_ready


async def test_worker_waits_for_a_comfyui_that_is_still_starting(unused_tcp_port, caplog):
    caplog.set_level(logging.INFO)
    waiting = asyncio.create_task(wait_until_ready(f"http://127.0.0.1:{unused_tcp_port}"))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    assert "waiting for ComfyUI" in caplog.text
    async with ComfyUIStandIn(port=unused_tcp_port):
        async with asyncio.timeout(20):
            assert await waiting == "0.3.64"


async def test_worker_does_not_take_another_server_for_comfyui(caplog):
    caplog.set_level(logging.INFO)

    async def hello(_):
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/{path:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    waiting = asyncio.create_task(wait_until_ready(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    await asyncio.sleep(0.4)
    waiting.cancel()
    await asyncio.wait([waiting])
    await runner.cleanup()
    assert waiting.cancelled()
    assert "Is it ComfyUI?" in caplog.text
