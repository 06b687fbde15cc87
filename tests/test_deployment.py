"""The files of the image and of RunPod's Hub, as far as they can be checked without a Docker engine."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate
from runpod_comfy.dialects.native import NativeReader
from runpod_comfy.emulator import EmulatorServer, EmulatorThread, EndpointConfig, Platform
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.worker.handler import make_handler

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
SETTINGS = ROOT / "docs" / "worker.md"


def instructions():
    """The Dockerfile's instructions, each on one line, with its build arguments filled in."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    arguments = dict(re.findall(r"(?m)^ARG (\w+)=(\S+)$", text))
    for name, value in arguments.items():
        text = text.replace(f"${{{name}}}", value)
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of_kind(kind):
    return [rest for name, rest in instructions() if name == kind]


def test_every_base_image_is_pinned_to_a_full_version():
    for image in of_kind("FROM"):
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image)


def test_every_path_that_the_image_copies_exists_and_is_part_of_its_context():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for rest in of_kind("COPY"):
        *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
        assert target.startswith("/")
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == path or source.startswith(f"{path}/") for path in allowed), source


def test_everything_that_is_installed_is_pinned_or_bounded():
    installs = [part for rest in of_kind("RUN") for part in re.split(r"&&|;", rest) if "pip install" in part]
    assert len(installs) == 3
    for command in installs:
        words = shlex.split(command.partition("pip install")[2])
        options = {"--index-url": 1, "-r": 1, "-c": 1}
        names, skip = [], 0
        for word in words:
            if skip:
                skip -= 1
            elif word in options:
                skip = options[word]
            else:
                names.append(word)
        assert all("==" in name or ("<" in name and ">=" in name) or name.startswith("/") for name in names), names
        assert "-r" not in words or "-c" in words
    for line in (ROOT / "docker" / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_what_is_cloned_is_pinned_and_package_lists_are_not_kept():
    for rest in of_kind("RUN"):
        assert "git clone" not in rest or re.search(r"--branch \"?v\d", rest)
        assert "apt-get install" not in rest or (
            "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest
        )
        assert not re.search(r"curl|wget|\bsudo\b|apt-get upgrade", rest)


def test_sdk_of_the_image_spreads_jobs_over_the_workers_of_an_endpoint_with_a_volume():
    assert any("runpod>=1.10.1" in rest for rest in of_kind("RUN"))


def test_neither_the_image_nor_the_hub_holds_a_secret():
    secret = re.compile(r"rpa_\w{8}|AKIA[0-9A-Z]{12}|hf_\w{8}|(?i:(secret|token|password|key)\w*=['\"]?\w{12})")
    for name in ("docker/Dockerfile", "docker/start.sh", ".runpod/hub.json", ".runpod/tests.json", "docker/README.md"):
        assert not secret.search((ROOT / name).read_text()), name


def test_hub_builds_the_same_image():
    assert (ROOT / ".runpod" / "Dockerfile").read_text() == DOCKERFILE.read_text()


def test_start_script_is_executable_and_passes_its_arguments_on():
    script = ROOT / "docker" / "start.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run(
        [script, "--rp_serve_api"],
        env=os.environ | {"WORKER_PYTHON": "echo"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["-m", "runpod_comfy.worker", "--rp_serve_api"]


def test_entry_point_of_the_image_is_the_start_script_under_an_init():
    assert [json.loads(rest) for rest in of_kind("ENTRYPOINT")] == [["tini", "--", "/start.sh"]]


def test_start_script_brings_up_a_worker_that_does_a_job(tmp_path, unused_tcp_port):
    child = Path(__file__).parent / "worker" / "comfyui_child.py"
    with EmulatorThread(EmulatorServer(Platform(EndpointConfig(endpoint_id="e")), worker_hold_s=0.5)) as emulator:
        env = {
            "HOME": str(tmp_path),
            "WORKER_PYTHON": sys.executable,
            "COMFYUI_COMMAND": f"{sys.executable} {child}",
            "COMFYUI_URL": f"http://127.0.0.1:{unused_tcp_port}",
            "COMFYUI_DIR": str(tmp_path),
        }
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [ROOT / "docker" / "start.sh"],
                env=os.environ | emulator.server.worker_env("e", "w") | env,
                stdout=log, stderr=log, start_new_session=True, cwd=tmp_path,
            )  # fmt: skip
        try:
            executor = RunpodComfyWorkflowExecutor("e", api_key="k", base_url=emulator.server.base_url)
            [image] = executor.submit_workflow(
                WorkflowTemplate.from_string(json.dumps(hub_tests()["one_image_without_models"]["workflow"])),
                timeout=60,
            )
            # Told to stop as a container is: ComfyUI goes with the worker.
            comfyui = int((tmp_path / "pid").read_text())
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 60
            while Path(f"/proc/{comfyui}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not Path(f"/proc/{comfyui}").exists()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert image.item.size == (512, 512)


def hub_tests():
    return {test["name"]: test["input"] for test in json.loads((ROOT / ".runpod" / "tests.json").read_text())["tests"]}


def test_hub_file_has_the_shape_that_the_hub_documents():
    hub = json.loads((ROOT / ".runpod" / "hub.json").read_text())
    assert hub.keys() <= {"title", "description", "type", "category", "iconUrl", "config"}
    assert {"title", "description", "type", "category", "config"} <= hub.keys()
    assert hub["type"] == "serverless"
    assert hub["category"] in {"audio", "embedding", "language", "video", "image"}
    config = hub["config"]
    assert {"runsOn", "containerDiskInGb", "gpuCount", "gpuIds"} <= config.keys()
    assert (config["runsOn"], config["gpuCount"]) == ("GPU", 1)
    types = {"string": str, "number": int, "boolean": bool}
    for variable in config["env"]:
        about = variable["input"]
        assert {"name", "type", "description", "default"} <= about.keys()
        assert isinstance(about["default"], types[about["type"]])
        choices = [option["value"] for option in about.get("options", [])]
        assert not choices or about["default"] in choices
    known = {variable["key"] for variable in config["env"]}
    for preset in config["presets"]:
        assert preset["name"]
        assert preset["defaults"].keys() <= known


def test_hub_tests_have_the_shape_that_the_hub_documents():
    tests = json.loads((ROOT / ".runpod" / "tests.json").read_text())
    assert tests.keys() == {"tests", "config"}
    assert {"gpuTypeId", "gpuCount"} <= tests["config"].keys()
    for test in tests["tests"]:
        assert test.keys() <= {"name", "input", "timeout"}
        assert isinstance(test["input"], dict)
        assert 0 < test["timeout"] <= 600_000


@pytest.mark.parametrize("name", hub_tests())
async def test_each_of_the_hubs_tests_passes_on_a_worker(name):
    async with ComfyUIStandIn() as comfyui, asyncio.timeout(60):
        reader = NativeReader()
        async for piece in make_handler(comfyui_url=comfyui.url)({"id": "hub", "input": hub_tests()[name]}):
            list(reader.feed(piece))
    assert reader.complete


def test_every_variable_that_is_read_or_offered_is_documented():
    documented = set(re.findall(r"^\| `(\w+)` \|", SETTINGS.read_text(), re.MULTILINE))
    sources = [*(ROOT / "src/runpod_comfy/worker").glob("*.py"), ROOT / "src/runpod_comfy/bucket.py", DOCKERFILE]
    sources += [ROOT / "src/runpod_comfy/settings.py", ROOT / "docker/start.sh"]
    pattern = re.compile(r"\b(?:WORKER|COMFYUI|COMFY_ORG|BUCKET)_[A-Z_]+\b")
    read = {name for path in sources for name in pattern.findall(path.read_text())}
    build_arguments = {"COMFYUI_VERSION"}
    assert read - build_arguments <= documented
    offered = {variable["key"] for variable in json.loads((ROOT / ".runpod/hub.json").read_text())["config"]["env"]}
    assert offered <= documented
