"""The command as people start it: in a process of its own, or in this one where that is enough."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from runpod_comfy import _loop
from runpod_comfy.cli.verbs import run_command
from runpod_comfy.emulator.comfyui import ComfyUIStandIn

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def _hang_ups_end_processes():
    """Where the tests run under ``nohup``, what they start must still see a closed terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the portrait example, where the command starts."""
    shutil.copytree(ROOT / "examples" / "portrait", tmp_path / "portrait")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder, capfd, monkeypatch):
    """Run the command in this process; gives exit code, stdout and stderr."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*args):
        capfd.readouterr()
        words = [str(arg) for arg in args]
        monkeypatch.setattr(sys, "argv", ["runpod-comfy", *words])
        code = run_command(words)
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, lines=out.splitlines(), folder=folder)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stand_in():
    """A stand-in ComfyUI."""
    server = ComfyUIStandIn()
    _loop.run_sync(server.start)
    yield server
    _loop.run_sync(server.stop)


@pytest.fixture
def shell(folder):
    """Start a line of bash that may say `runpod-comfy`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def start(line, **options):
        env = {**os.environ, "PATH": path, **options.pop("env", {})}
        return subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=env,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )

    return start


@pytest.fixture
def rest(monkeypatch):
    """RunPod's management API (REST v2) at the seam, in the shape of its OpenAPI document: what it answers, by path.

    The value of a path is JSON data, or text for server-sent events, or a status. Nothing of it is confirmed.
    """
    answers = {
        "/serverless/local": {
            "id": "local",
            "name": "comfy",
            "gpu": {"pools": ["ADA_24"], "count": 1},
            "workers": {"min": 0, "max": 3, "idleTimeout": 30},
        },
        "/serverless/local/workers": {
            "workers": [{"id": "w1", "status": "RUNNING", "isStale": False, "gpuTypeId": "NVIDIA GeForce RTX 4090"}],
            "summary": {"running": 1, "total": 1},
        },
        "/catalog/gpus": {
            "gpus": [
                {"id": "NVIDIA L4", "name": "L4", "pool": "ADA_24", "price": {"serverless": 1.2}},
                {"id": "NVIDIA GeForce RTX 4090", "name": "RTX 4090", "pool": "ADA_24", "price": {"serverless": 1.1}},
                {"id": "NVIDIA H200", "name": "H200", "pool": "HOPPER_141", "price": {"serverless": 0.1}},
            ]
        },
        "/billing/serverless": {
            "records": [
                {
                    "startTime": "2026-11-24T00:00:00Z",
                    "endTime": "2026-11-25T00:00:00Z",
                    "serverlessId": "local",
                    "totalAmount": 8.9,
                    "gpuAmount": 7.5,
                    "cpuAmount": 0,
                    "diskAmount": 0.4,
                    "feeAmount": 1.0,
                }
            ]
        },
    }
    seen = []

    async def answer(request):
        seen.append(request)
        found = answers.get(request.path.removeprefix("/v2"), 404)
        if isinstance(found, int):
            return web.json_response({"error": "no"}, status=found)
        if isinstance(found, str):
            return web.Response(text=found, content_type="text/event-stream")
        return web.json_response(found)

    async def start():
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = _loop.run_sync(start)
    monkeypatch.setenv("RUNPOD_REST_BASE_URL", f"http://127.0.0.1:{runner.addresses[0][1]}/v2")
    yield SimpleNamespace(answers=answers, seen=seen)
    _loop.run_sync(runner.cleanup)
