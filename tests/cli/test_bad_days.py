"""Ctrl-C, SIGTERM, a closed terminal, a full disk, a read-only folder: nothing corrupt, a clear message."""

import contextlib
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from runpod_comfy import _loop
from runpod_comfy.executors.local import LocalRunpod
from runpod_comfy.ledger import Ledger, State

TEMPLATE = "portrait/workflow.json.jinja"
SLOW = """{
  "1": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
  "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 1, "steps": 20, "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}}
}"""


@pytest.fixture
def runpod(monkeypatch):
    """RunPod on this machine, as the environment names it."""
    local = LocalRunpod()
    _loop.run_sync(local.start)
    monkeypatch.setenv("RUNPOD_API_KEY", "a-key")
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", local.settings.endpoint_id)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", local.settings.base_url)
    yield local
    _loop.run_sync(local.stop)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def everything_is_sound(folder):
    """No image is half, no hidden file is left, and the ledger is whole."""
    for path in folder.iterdir() if folder.exists() else ():
        assert not path.name.startswith(".")
        with Image.open(path) as picture:
            picture.load()
    with contextlib.closing(sqlite3.connect(os.environ["RUNPOD_COMFY_LEDGER"])) as db, db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def rows():
    return Ledger(os.environ["RUNPOD_COMFY_LEDGER"]).submissions()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_the_job_and_says_so(shell, runpod, folder, number, code):
    (folder / "slow.json").write_text(SLOW)
    run = shell("exec runpod-comfy run slow.json portrait/chelsea.jpg -n 8 --progress plain")
    wait_until(lambda: any((folder / "out").glob("[!.]*")))
    run.send_signal(number)
    _, err = run.communicate(timeout=30)
    assert run.returncode == code
    assert "was cancelled" in err
    assert [str(job.state) for job in runpod.jobs()] == ["CANCELLED"]
    [row] = rows()
    assert (row.state, row.held_by) == (State.CANCELLED, None)
    assert row.outputs == len(list((folder / "out").iterdir())) >= 1
    everything_is_sound(folder / "out")


def test_a_terminal_that_is_closed_cancels_the_job(runpod, folder):
    (folder / "slow.json").write_text(SLOW)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "runpod_comfy.cli", "run", "slow.json", "portrait/chelsea.jpg", "-n", "8"]
    run = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    wait_until(lambda: [str(job.state) for job in runpod.jobs()] == ["IN_PROGRESS"])
    os.close(ours)
    run.wait(timeout=30)
    wait_until(lambda: [str(job.state) for job in runpod.jobs()] == ["CANCELLED"])
    wait_until(lambda: rows()[0].held_by is None)
    assert rows()[0].state is State.CANCELLED
    everything_is_sound(folder / "out")


def test_a_disk_that_is_full_for_images_leaves_none_half(shell, runpod, folder):
    run = shell(f"ulimit -f 20; exec runpod-comfy run {TEMPLATE} portrait -n 2 --no-ledger")
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "could not be written" in err
    assert "Make room" in err
    assert len(out.splitlines()) == len(list((folder / "out").iterdir())) == 0
    assert len(runpod.jobs()) == 1


def test_a_disk_that_is_full_for_the_ledger_sends_nothing(shell, runpod):
    run = shell(f"ulimit -f 8; exec runpod-comfy run {TEMPLATE} portrait")
    _, err = run.communicate(timeout=60)
    assert run.returncode in {1, 2}
    assert "ledger" in err
    assert "Traceback" not in err
    assert runpod.jobs() == []


def test_a_tiny_disk_that_fills_up_keeps_what_was_saved(shell, folder, runpod):
    small = folder / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("only root can mount a tiny disk")
    try:
        run = shell(f"exec runpod-comfy run {TEMPLATE} portrait -n 12 -o small")
        out, err = run.communicate(timeout=60)
        assert run.returncode == 1
        assert "No space left" in err
        saved = [Path(folder / line) for line in out.splitlines()]
        assert sorted(saved) == sorted(small.iterdir())
        [row] = rows()
        assert row.outputs == len(saved)
        assert len(runpod.jobs()) == 1
        everything_is_sound(small)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("where", ["/proc/out", "portrait/chelsea.jpg/out"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_sent(cli, runpod, where):
    run = cli("run", TEMPLATE, "portrait", "-o", where)
    assert run.code == 2
    assert "Name another folder" in run.err
    assert runpod.jobs() == []


def test_a_ledger_that_cannot_be_written_is_refused_before_anything_is_sent(cli, runpod, monkeypatch):
    monkeypatch.setenv("RUNPOD_COMFY_LEDGER", "/proc/ledger/jobs.sqlite")
    run = cli("run", TEMPLATE, "portrait")
    assert run.code == 2
    assert "RUNPOD_COMFY_LEDGER" in run.err
    assert runpod.jobs() == []
