"""The worker as it is deployed: its own process under RunPod's real SDK, with a ComfyUI that it starts itself."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from runpod_comfy import JobFailed, RunpodComfyWorkflowExecutor, WorkflowTemplate
from runpod_comfy.emulator import EmulatorServer, EmulatorThread, EndpointConfig, Platform

CHILD = Path(__file__).with_name("comfyui_child.py")
NAP = (
    '{"1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": {{ colour }}}},'
    '"2": {"class_type": "FixtureSleep", "inputs": '
    '{"image": ["1", 0], "seconds": {{ seconds }}, "steps": 9, "seed": 1}},'
    '"3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "nap"}}}'
)
TEMPLATE = WorkflowTemplate.from_string(NAP)


@pytest.fixture(scope="module")
def emulator():
    configs = [EndpointConfig(endpoint_id=name) for name in ("native", "official", "broken")]
    with EmulatorThread(EmulatorServer(Platform(*configs), worker_hold_s=0.5)) as running:
        yield running


@pytest.fixture
def start(emulator, tmp_path, unused_tcp_port_factory):
    """`start(endpoint_id, **env)` starts a worker process; it returns the process and an executor for it."""
    with contextlib.ExitStack() as stack:

        def make(endpoint_id, *, command=f"{sys.executable} {CHILD}", **env):
            more = {
                "HOME": str(tmp_path),
                "COMFYUI_URL": f"http://127.0.0.1:{unused_tcp_port_factory()}",
                "COMFYUI_COMMAND": command,
                "COMFYUI_DIR": str(tmp_path),
                "WORKER_VOLUME": str(tmp_path / "volume"),
            }
            environment = os.environ | emulator.server.worker_env(endpoint_id, f"worker-{endpoint_id}") | more | env
            log = stack.enter_context((tmp_path / "log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "runpod_comfy.worker"],
                env=environment, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path,
            )  # fmt: skip
            stack.callback(end, process, tmp_path)
            return process, RunpodComfyWorkflowExecutor(endpoint_id, api_key="k", base_url=emulator.server.base_url)

        yield make


def nap(colour):
    return NAP.replace("{{ colour }}", str(colour)).replace("{{ seconds }}", "0.05")


def end(process, folder):
    # The SDK leaves only after its long poll; its group holds the process that pings for it, not ComfyUI.
    for pid in (process.pid, int((folder / "pid").read_text()) if (folder / "pid").exists() else None):
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.killpg(pid, signal.SIGKILL)
    process.wait()


def test_worker_starts_comfyui_runs_jobs_and_survives_its_death_once(start, tmp_path):
    (tmp_path / "warmup.json").write_text(nap(7))
    _, executor = start("native", WORKER_WARMUP=str(tmp_path / "warmup.json"))
    [image] = executor.submit_workflow(TEMPLATE, variables={"colour": 255, "seconds": 0.05}, timeout=60)
    assert image.item.getpixel((0, 0)) == (0, 0, 255)
    assert "warmed up with" in (tmp_path / "log").read_text()

    handle = executor.start_workflow(TEMPLATE, variables={"colour": 1, "seconds": 30})
    until(lambda: handle.state() == "IN_PROGRESS")
    time.sleep(0.5)  # ComfyUI has the prompt by now, or refuses the connection: the job fails either way
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    with pytest.raises(JobFailed, match="ComfyUI was killed by SIGKILL"):
        handle.result(timeout=30)

    [image] = executor.submit_workflow(TEMPLATE, variables={"colour": 65280, "seconds": 0.05}, timeout=60)
    assert image.item.getpixel((0, 0)) == (0, 255, 0)


def test_worker_in_place_of_the_official_one_answers_in_its_shape(start, emulator):
    start("official", WORKER_PROTOCOL="worker-comfyui")
    body = json.dumps({"input": {"workflow": json.loads(nap(255))}}).encode()
    job_id = emulator.call(emulator.server.platform.submit, "official", body).job_id
    status = until(lambda: final(emulator, "official", job_id))
    [image] = status.output["images"]
    assert (status.state.name, image["type"]) == ("COMPLETED", "base64")
    assert Image.open(io.BytesIO(base64.b64decode(image["data"]))).size == (32, 32)


def test_worker_whose_comfyui_cannot_start_says_so_to_the_first_job_and_makes_room_for_another(start):
    process, executor = start("broken", command=f"{sys.executable} {CHILD} --fail")
    with pytest.raises(JobFailed, match=r"exit code 1\. Its last lines: .*Found no NVIDIA driver"):
        executor.submit_workflow(TEMPLATE, variables={"colour": 1, "seconds": 0}, timeout=60)
    # RunPod's SDK ends a worker that is to be replaced.
    until(lambda: process.poll() is not None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("BUCKET_ENDPOINT_URL", "https://s3.example/photos"), ("WORKER_PROTOCOL", "x"), ("COMFYUI_URL", "no address")],
)
def test_worker_with_a_setting_that_cannot_be_right_ends_at_once_and_names_it(variable, value):
    done = subprocess.run(
        [sys.executable, "-m", "runpod_comfy.worker"],
        env=os.environ | {variable: value}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The worker cannot start: " in done.stderr
    assert variable.removesuffix("_ENDPOINT_URL") in done.stderr
    assert "Traceback" not in done.stderr


def final(emulator, endpoint_id, job_id):
    status = emulator.call(emulator.server.platform.status, endpoint_id, job_id)
    return status if status.state.is_final else None


def until(condition):
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value
