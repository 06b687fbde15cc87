"""The real SDK's worker loop against the emulator; and that the worker without the SDK does the same."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from runpod_comfy.emulator import (
    EmulatorServer,
    EmulatorThread,
    EndpointConfig,
    InProcessWorker,
    JobState,
    JobStatus,
    Platform,
)

SCRIPT = Path(__file__).with_name("sdk_worker.py")
WAIT_S = 40
LIMIT_BYTES = 100_000


def load_handlers():
    spec = importlib.util.spec_from_file_location("sdk_worker", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Endpoint:
    def __init__(self, emulator, endpoint_id):
        self.emulator = emulator
        self.platform = emulator.server.platform
        self.endpoint_id = endpoint_id

    def call(self, name, *args):
        return self.emulator.call(getattr(self.platform, name), self.endpoint_id, *args)

    def submit(self, values, **request):
        return self.call("submit", orjson.dumps({"input": values} | request)).job_id

    def until(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not (value := condition()):
            assert time.monotonic() < deadline, self.call("statuses")
            time.sleep(0.02)
        return value

    def final(self, job_id) -> JobStatus:
        self.until(lambda: self.call("status", job_id).state.is_final)
        return self.call("status", job_id)

    def pieces(self, job_id):
        return [orjson.loads(piece) for piece in self.call("read_stream", job_id).pieces]


@contextlib.contextmanager
def sdk_worker(emulator, endpoint_id, kind, home, *, slots=4):
    env = os.environ | emulator.server.worker_env(endpoint_id, f"sdk-{endpoint_id}") | {"HOME": str(home)}
    with (home / f"{endpoint_id}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(slots)], env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            # The group holds the worker and the process that pings for it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def emulator():
    configs = [
        EndpointConfig(endpoint_id=name, run_output_limit_bytes=LIMIT_BYTES, min_execution_timeout_s=0.1)
        for name in ("function", "generator", "own-function", "own-generator")
    ] + [EndpointConfig(endpoint_id="mortal", worker_timeout_s=2)]
    with EmulatorThread(EmulatorServer(Platform(*configs), worker_hold_s=0.5)) as running:
        yield running


@pytest.fixture(scope="module")
def workers(emulator, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    handlers = load_handlers()
    own = [
        InProcessWorker(emulator.server.platform, "own-function", handlers.function),
        InProcessWorker(emulator.server.platform, "own-generator", handlers.generator, concurrency=4, aggregate=True),
    ]
    with (
        sdk_worker(emulator, "function", "function", home),
        sdk_worker(emulator, "generator", "generator", home),
        sdk_worker(emulator, "mortal", "function", home, slots=1) as mortal,
    ):
        for worker in own:
            emulator.run(worker.start())
        yield SimpleNamespace(emulator=emulator, mortal=mortal)
        for worker in own:
            emulator.run(worker.stop())


@pytest.fixture
def function(workers):
    return Endpoint(workers.emulator, "function")


@pytest.fixture
def generator(workers):
    return Endpoint(workers.emulator, "generator")


def outcomes(endpoint, values):
    """Return how the job ended under the SDK, and how under the worker without it."""
    both = endpoint, Endpoint(endpoint.emulator, f"own-{endpoint.endpoint_id}")
    # What is never reported ends by its timeout.
    policy = {"executionTimeout": 1000 if "no json" in str(values) else 30_000}
    job_ids = [each.submit(values, policy=policy) for each in both]
    return [outcome(each, job_id) for each, job_id in zip(both, job_ids, strict=True)]


def outcome(endpoint, job_id):
    status = endpoint.final(job_id)
    error = status.error
    if error is not None and error.startswith("{"):
        error = {key: value for key, value in orjson.loads(error).items() if key.startswith("error_")}
    return status.state, status.output_json, repr(error).partition("raceback")[0], endpoint.pieces(job_id)


FUNCTION_INPUTS = [
    {"return": {"a": [1, None, "ü"]}},
    {"return": {}},
    {"return": None},
    {"return": False},
    {"return": {"error": "broke", "details": [1]}},
    {"return": {"error": {"not": "a string"}}},
    {"raise": "broke"},
    {"large": LIMIT_BYTES},
]
GENERATOR_INPUTS = [
    {"yield": []},
    {"yield": ["a", {"b": 1}, "ü\n"]},
    {"yield": ["a", {"error": "broke", "more": 1}, "never"]},
    {"yield": ["a", "raise", "never"]},
    {"yield": ["a", "x" * LIMIT_BYTES]},
    {"yield": ["no json", "b"]},
]


@pytest.mark.parametrize("values", FUNCTION_INPUTS, ids=lambda values: str(values)[:40])
def test_sdk_and_own_worker_do_the_same_with_a_function(function, values):
    sdk, own = outcomes(function, values)
    assert sdk == own


@pytest.mark.parametrize("values", GENERATOR_INPUTS, ids=lambda values: str(values)[:40])
def test_sdk_and_own_worker_do_the_same_with_a_generator(generator, values):
    sdk, own = outcomes(generator, values)
    assert sdk == own


def test_pieces_of_the_sdk_arrive_in_order_and_whole(generator):
    pieces = [f"{n}:" + "x" * 200_000 for n in range(8)]
    job_id = generator.submit({"yield": pieces})
    generator.final(job_id)
    assert generator.pieces(job_id) == pieces


def test_error_from_the_sdk_fails_the_job(function):
    status = function.final(function.submit({"return": {"error": "broke", "details": 1}}))
    assert (status.state, status.error, status.output) == (JobState.FAILED, "broke", {"details": 1})


def test_result_of_the_sdk_over_the_limit_ends_completed_without_output(function):
    status = function.final(function.submit({"large": LIMIT_BYTES}))
    assert (status.state, status.output_json) == (JobState.COMPLETED, None)


def test_s3_config_reaches_the_handler_of_the_sdk(function):
    s3 = {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "d"}
    assert function.final(function.submit({"job": "s3Config"}, s3Config=s3)).output == s3


def test_cancel_stops_the_handler_under_the_sdk(generator, tmp_path):
    marker = tmp_path / "marker"
    job_id = generator.submit({"wait_and_mark": str(marker), "yield": []})
    assert generator.until(lambda: generator.pieces(job_id)) == ["started"]
    time.sleep(0.1)  # past the yield: a generator that stands at one hears nothing
    generator.call("cancel", job_id)
    generator.until(marker.exists)
    assert generator.call("status", job_id).state is JobState.CANCELLED


def test_execution_timeout_stops_the_handler_under_the_sdk(generator, tmp_path):
    marker = tmp_path / "marker"
    job_id = generator.submit({"wait_and_mark": str(marker), "yield": []}, policy={"executionTimeout": 500})
    assert generator.final(job_id).state is JobState.TIMED_OUT
    generator.until(marker.exists)


def test_progress_update_of_the_sdk_is_the_output_while_the_job_runs(function):
    job_id = function.submit({"progress": {"percent": 50}})
    assert function.until(lambda: function.call("status", job_id).output) == {"percent": 50}
    assert function.call("status", job_id).state is JobState.IN_PROGRESS
    function.call("cancel", job_id)


def test_worker_lives_by_its_pings_and_when_it_is_killed_its_job_is_queued_again(workers):
    mortal = Endpoint(workers.emulator, "mortal")
    # A blocked event loop polls nothing: only the process that pings gives signs of life.
    status = mortal.final(mortal.submit({"block_s": 2.5}))
    assert (status.state, status.retries) == (JobState.COMPLETED, 0)
    job_id = mortal.submit({"progress": 1})
    mortal.until(lambda: mortal.call("status", job_id).output)
    os.killpg(workers.mortal.pid, signal.SIGKILL)
    mortal.until(lambda: mortal.call("status", job_id).state is JobState.IN_QUEUE)
    assert mortal.call("status", job_id).retries == 1
