"""Ctrl-C on `runpod-comfy batch`: what is cancelled, what is said, and what the next start finds."""

import json
import signal
import time
from pathlib import Path

import pytest

from runpod_comfy import _loop
from runpod_comfy.emulator.api import EmulatorServer
from runpod_comfy.emulator.faults import Delay, Fault, Status
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.platform import Platform

TEMPLATE = """{
  "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": {{ color }}}},
  "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": {{ seconds | default(0) }}, "steps": 1,
        "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "p"}}
}"""
JOBS = 80
BATCH = f"exec runpod-comfy batch t.jinja --grid color=1..{JOBS} --jobs {JOBS} -o out -y"


@pytest.fixture(autouse=True)
def _template(folder):
    (folder / "t.jinja").write_text(TEMPLATE)


@pytest.fixture
def queue(monkeypatch):
    """An endpoint without workers: its jobs wait for ever, and RunPod's limits hold."""
    platform = Platform(EndpointConfig(endpoint_id="queue", enforce_rate_limits=True))
    server = EmulatorServer(platform)
    _loop.run_sync(server.start)
    for name, value in {"API_KEY": "key", "ENDPOINT_ID": "queue", "ENDPOINT_BASE_URL": server.base_url}.items():
        monkeypatch.setenv(f"RUNPOD_{name}", value)
    yield platform
    _loop.run_sync(server.stop)


def alive(platform, endpoint_id="queue"):
    async def count():
        return sum(not job.state.is_final for job in platform.statuses(endpoint_id))

    return _loop.run_sync(count)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines():
    return [json.loads(line) for line in Path("out/manifest.jsonl").read_text("utf-8").splitlines()]


def jobs_noted():
    return sum(line["schema"] == "job/1" for line in lines()) if Path("out/manifest.jsonl").exists() else 0


def interrupted(process):
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return err


def test_many_waiting_jobs_are_all_cancelled_and_said_to_be(shell, queue):
    process = shell(BATCH)
    wait_until(lambda: jobs_noted() == JOBS)
    err = interrupted(process)
    assert process.returncode == 130, err
    assert alive(queue) == 0
    assert f"Stopping: {JOBS} jobs are being cancelled" in err
    assert "Traceback" not in err
    assert "destroyed" not in err


def test_a_second_ctrl_c_leaves_at_once_and_says_how_to_collect(shell, queue):
    process = shell(BATCH.replace(str(JOBS), "3"))
    wait_until(lambda: jobs_noted() == 3)
    queue.faults.add(Fault("cancel", Delay(60), times=None))
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # it waits for what it cancels
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began_s < 4  # far from the five seconds that one interrupt waits
    assert process.returncode == 130, err
    assert "3 jobs may still run" in err
    ids = [line["job_id"] for line in lines() if line["schema"] == "job/1"]
    assert f"runpod-comfy collect {' '.join(ids)} --endpoint queue --wait" in err
    assert "next: runpod-comfy batch t.jinja" in err
    assert "Traceback" not in err


def test_running_jobs_may_finish_where_that_is_asked_for(shell, runpod_emulator):
    command = "exec runpod-comfy batch t.jinja --grid color=1..9 -n 2 --var seconds=0.7 --jobs 3 -o out -y"
    process = shell(f"{command} --on-interrupt finish")
    # With its first image here, a job is known to run.
    wait_until(lambda: jobs_noted() == 3 and any(Path("out").rglob("*.png")))
    err = interrupted(process)
    assert process.returncode == 130, err
    states = [str(job.state) for job in runpod_emulator.jobs()]
    assert set(states) == {"CANCELLED", "COMPLETED"}
    assert len(states) == 3
    assert "those that run may finish" in err
    whole = [line["task"] for line in lines() if line["schema"] == "batch/1"]
    assert len(whole) == 2 * states.count("COMPLETED")


def test_what_cancelled_jobs_had_made_is_collected_by_the_next_start(shell, runpod_emulator):
    platform = runpod_emulator.platform
    platform.faults.add(Fault("stream", Status(503), times=None))  # made, and not fetched yet
    process = shell("exec runpod-comfy batch t.jinja --grid color=1,2 -n 3 --var seconds=0.4 --jobs 2 -o out -y")
    wait_until(lambda: jobs_noted() == 2)
    wait_until(lambda: made(platform) >= 1)
    err = interrupted(process)
    assert process.returncode == 130, err
    assert alive(platform, "local") == 0
    assert not any(line["schema"] == "image/1" for line in lines())
    before = jobs_noted()
    platform.faults.clear()
    process = shell("exec runpod-comfy batch t.jinja --grid color=1,2 -n 3 --var seconds=0.4 --jobs 2 -o out -y")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    whole = [(line["task"], line["batch"]) for line in lines() if line["schema"] == "batch/1"]
    assert sorted(whole) == sorted(set(whole))  # nothing was made twice
    assert len(whole) == 6
    # What the cancelled jobs had made was read first: a new job begins behind it.
    begun = [line["first_batch"] for line in lines() if line["schema"] == "job/1"][before:]
    assert max(begun) >= 1
    assert len(list(Path("out").rglob("*.png"))) == 6


def made(platform):
    """How many images wait to be read."""

    async def count():
        return sum(b"sha256" in piece for job in platform._endpoint("local").jobs.values() for piece in job.pieces)

    return _loop.run_sync(count)
