"""The real SDK's clients against the emulator: one process that does everything, and a rule per answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_comfy.emulator import EmulatorServer, EmulatorThread, EndpointConfig, InProcessWorker, Platform

SCRIPT = Path(__file__).with_name("sdk_client.py")


async def function(job):
    return {"echo": job["input"]["name"]}


async def generator(job):
    for n in range(job["input"]["count"]):
        yield {"n": n}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    platform = Platform(
        *(EndpointConfig(endpoint_id=name, api_keys=frozenset({"good"})) for name in ("function", "generator", "idle"))
    )
    with EmulatorThread(EmulatorServer(platform)) as emulator:
        workers = [
            InProcessWorker(platform, "function", function),
            InProcessWorker(platform, "generator", generator, aggregate=True),
        ]
        for worker in workers:
            emulator.run(worker.start())
        env = os.environ | {
            "RUNPOD_ENDPOINT_BASE_URL": emulator.server.base_url,
            "HOME": str(tmp_path_factory.mktemp("home")),
        }
        done = subprocess.run(
            [sys.executable, str(SCRIPT)], env=env, capture_output=True, text=True, timeout=100, check=False
        )
        for worker in workers:
            emulator.run(worker.stop())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("run_sync gives the output", {"echo": "sync"}),
        ("run and output give the output", {"echo": "async"}),
        ("the state of a finished job is COMPLETED", "COMPLETED"),
        ("stream gives every piece in order", [{"n": 0}, {"n": 1}, {"n": 2}]),
        ("a job without a worker stays in the queue", "IN_QUEUE"),
        ("the asyncio client gives the output", {"echo": "asyncio"}),
        ("a wrong key is unauthorised", "RuntimeError"),
        ("a body over the limit is a 400", 400),
        ("an unknown endpoint is a 404", 404),
        ("purge removes what is queued", {"removed": 1, "status": "completed"}),
    ],
)
def test_sdk_client(answers, rule, expected):
    assert answers[rule] == expected


def test_sdk_client_cancels_a_job(answers):
    assert answers["cancel answers"]["status"] == "CANCELLED"
    assert answers["cancelled state"] == "CANCELLED"


def test_sdk_client_reads_the_health(answers):
    assert answers["health"]["jobs"]["inQueue"] == 1
    assert answers["health"]["workers"]["ready"] == 0
