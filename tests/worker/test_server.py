import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from runpod_comfy.comfyui.follow import FollowPace
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.errors import TransportError
from runpod_comfy.worker.handler import native_handler
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine
from runpod_comfy.worker.server import ComfyUIServer

QUICK = FollowPace(silent_s=0.3, alone_s=0.1, queue_s=0.3, give_up_s=1.0, stop_s=0.5)
COMMAND = (sys.executable, str(Path(__file__).with_name("comfyui_child.py")))


@pytest.fixture
def start(tmp_path, unused_tcp_port_factory):
    """Make servers whose ComfyUI is a process of their own; all are stopped in the end."""
    servers = []

    def make(*arguments, **more):
        server = ComfyUIServer(
            f"http://127.0.0.1:{unused_tcp_port_factory()}", command=(*COMMAND, *arguments), cwd=str(tmp_path), **more
        )
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@asynccontextmanager
async def soon():
    async with asyncio.timeout(30):
        yield


async def test_comfyui_is_started_and_answers_at_the_address_it_was_given(start):
    server = start()
    assert not server.alive
    async with soon():
        await asyncio.gather(server.ready(), server.ready())
    assert (server.alive, server.version) == (True, "0.3.64")
    assert server.failed_custom_nodes == ["/comfyui/custom_nodes/broken"]


async def test_comfyui_gets_the_environment_without_the_workers_keys(start, tmp_path, monkeypatch):
    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("RUNPOD_AI_API_KEY", "hidden")
    monkeypatch.setenv("HF_TOKEN", "a node's own")
    server = start()
    async with soon():
        await server.ready()
    names = (tmp_path / "env").read_text().splitlines()
    assert "HF_TOKEN" in names
    assert not {"BUCKET_SECRET_ACCESS_KEY", "RUNPOD_AI_API_KEY"}.intersection(names)


async def test_comfyui_that_dies_is_noticed_at_once_and_started_again_once(start, tmp_path):
    server = start()
    async with soon():
        await server.ready()
        first, second = server.death(), server.death()
        assert first is second
        for restarts_left in (1, 0):
            death = server.death()
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            assert "was killed by SIGKILL (out of memory?)" in await death
            assert not server.alive
            if restarts_left:
                await server.ready()
                assert server.alive
        assert first.done()
        with pytest.raises(TransportError, match=r"killed by SIGKILL.*not started again"):
            await server.ready()


async def test_comfyui_that_ends_while_it_starts_is_tried_once_more_and_its_last_lines_are_told(start):
    server = start("--fail")
    async with soon():
        with pytest.raises(TransportError, match=r"exit code 1\. Its last lines: .*Found no NVIDIA driver"):
            await server.ready()
        with pytest.raises(TransportError, match="not started again"):
            await server.ready()


async def test_comfyui_that_ends_once_while_it_starts_is_no_error(start, tmp_path):
    server = start("--fail-once", str(tmp_path / "failed"))
    async with soon():
        await server.ready()
    assert server.alive


async def test_program_that_cannot_be_started_is_named(tmp_path):
    server = ComfyUIServer("http://127.0.0.1:1", command=(str(tmp_path / "absent"),))
    with pytest.raises(TransportError, match=r"cannot be started with '.*absent': No such file"):
        await server.ready()


async def test_job_that_is_cancelled_while_comfyui_starts_does_not_take_it_from_the_others(start):
    server = start()
    async with soon():
        impatient, patient = (asyncio.create_task(server.ready()) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        await patient
    assert server.alive


async def test_server_lives_on_when_the_loop_that_started_it_has_ended(start):
    server = start()
    await asyncio.to_thread(asyncio.run, server.ready())
    assert server.alive
    async with soon():
        await server.ready()
        death = server.death()
        await asyncio.to_thread(server.stop)
        assert "exit code 0" in await death


async def test_comfyui_that_computes_no_more_is_ended_for_all_jobs_in_hand_and_started_again(start, tmp_path, nap):
    server = start("--die-computing-once", str(tmp_path / "died"))
    handler = native_handler(Machine(link=ComfyUILink(server.url), keeper=server, pace=QUICK))

    async def answer(colour):
        return [piece async for piece in handler({"id": "job", "input": {"workflow": nap(colour=colour)}})]

    async with soon():
        first, second = await asyncio.gather(answer(1), answer(2))
        for pieces in (first, second):
            assert "its thread that computes has ended" in pieces[-1]["error"]
            assert "Its last lines: " in pieces[-1]["error"]
            assert "a node calls exit()" in pieces[-1]["error"]
        assert '"done"' in (await answer(3))[-1]


async def test_comfyui_whose_process_lives_and_answers_nobody_is_ended_and_started_again(start, tmp_path, nap):
    server = start("--deafen-once", str(tmp_path / "deaf"))
    asked = []
    machine = Machine(link=ComfyUILink(server.url), keeper=server, pace=QUICK, refresh=lambda: asked.append(1))
    handler = native_handler(machine)

    async def answer():
        return [piece async for piece in handler({"id": "job", "input": {"workflow": nap(0.5)}})]

    async with soon():
        assert "did not answer" in (await answer())[-1]["error"]
        assert '"done"' in (await answer())[-1]
    assert not asked


async def test_comfyui_of_somebody_else_that_computes_no_more_fails_all_jobs_and_asks_for_a_fresh_worker(nap):
    async with ComfyUIStandIn() as comfyui, soon():
        comfyui.die_computing(known=False)
        asked = []
        machine = Machine(
            link=ComfyUILink(comfyui.url), keeper=ComfyUIServer(comfyui.url), pace=replace(QUICK, stall_s=0.5),
            refresh=lambda: asked.append(1),
        )  # fmt: skip
        handler = native_handler(machine)

        async def answer():
            return [piece async for piece in handler({"id": "job", "input": {"workflow": nap()}})]

        both = await asyncio.gather(answer(), answer())
        assert ["no sign of life" in pieces[-1]["error"] for pieces in both] == [True, True]
        assert asked == [1]
        await comfyui.stop()
        await comfyui.start()
        assert '"done"' in (await answer())[-1]


async def test_models_and_custom_nodes_of_the_volume_are_made_known_to_comfyui(start, tmp_path, capfdbinary):
    volume = tmp_path / "volume"
    (volume / "models" / "checkpoints").mkdir(parents=True)
    (volume / "custom_nodes").mkdir()
    server = start(volume=volume)
    async with soon():
        await server.ready()
    [line] = [each for each in capfdbinary.readouterr().err.splitlines() if each.startswith(b"paths ")]
    assert json.loads(line.removeprefix(b"paths ")) == {
        "volume_0": {"base_path": str(volume), "checkpoints": "models/checkpoints", "custom_nodes": "custom_nodes"}
    }


async def test_worker_waits_for_a_comfyui_that_somebody_else_starts(unused_tcp_port, caplog):
    caplog.set_level(logging.INFO)
    server = ComfyUIServer(f"http://127.0.0.1:{unused_tcp_port}")
    waiting = asyncio.create_task(server.ready())
    await asyncio.sleep(0.4)
    assert not waiting.done()
    assert "waiting for ComfyUI" in caplog.text
    async with ComfyUIStandIn(port=unused_tcp_port), soon():
        await waiting
    assert (server.alive, server.version) == (True, "0.3.64")
    assert not server.death().done()


async def test_worker_does_not_take_another_server_for_comfyui(caplog):
    caplog.set_level(logging.INFO)

    async def hello(_):
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/{path:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = ComfyUIServer(f"http://127.0.0.1:{runner.addresses[0][1]}")
    waiting = asyncio.create_task(server.ready())
    await asyncio.sleep(0.4)
    waiting.cancel()
    await asyncio.wait([waiting])
    await runner.cleanup()
    assert waiting.cancelled()
    assert "Is it ComfyUI?" in caplog.text
