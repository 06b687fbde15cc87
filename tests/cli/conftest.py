"""The command as people start it: in a process of its own, or in this one where that is enough."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from runpod_comfy import _loop
from runpod_comfy.cli.verbs import run_command
from runpod_comfy.emulator.comfyui import ComfyUIStandIn

ROOT = Path(__file__).parents[2]


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
