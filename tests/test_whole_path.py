"""Template and photos in, images out, through the real pieces: the SDK, another project's client, a real ComfyUI."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from PIL import Image, ImageChops, ImageOps

from runpod_comfy import (
    ComfyServerWorkflowExecutor,
    JobFailed,
    LocalWorkflowExecutor,
    RunpodComfyWorkflowExecutor,
    WorkflowTemplate,
    _loop,
)
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.local import LOCAL_ENDPOINT_ID, LocalRunpod

# No node of these needs a model, so the pixels can be computed here.
INVERTED = """{
  "1": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
  "2": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[1] }}"}},
  "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}},
  "4": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
  "5": {"class_type": "FixtureSleep", "inputs": {"image": ["4", 0], "seconds": 0.1, "steps": 2, "seed": 0}},
  "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "whole/path"},
        "_meta": {"title": "Result"}}
}"""
FAILING = INVERTED.replace("FixtureSleep", "FixtureRaise").replace("seconds", "message")
SLOW = INVERTED.replace('"seconds": 0.1', '"seconds": 60').replace('"steps": 2', '"steps": 600')
FROM_FOLDER = """{
  "1": {"class_type": "LoadImagesFromDir",
        "inputs": {"directory": "{{ input_images_dir }}", "image_load_cap": 0, "start_index": 0, "load_always": false}},
  "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "folder"}}
}"""
PORTRAIT = """{
  "1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "{{ input_images_dir }}"}},
  "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": {{ batch_size|int }}}},
  "3": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
  "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["3", 1]}},
  "5": {"class_type": "KSampler", "inputs": {"model": ["3", 0], "positive": ["4", 0], "negative": ["4", 0],
        "latent_image": ["2", 0], "seed": 1, "steps": 2, "cfg": 7, "sampler_name": "euler", "scheduler": "normal",
        "denoise": 1}},
  "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["3", 2]}},
  "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "peer"}}
}"""


def photo(color):
    """A picture with edges, so that turning or scaling it shows."""
    image = Image.new("RGB", (48, 32), color)
    image.paste((255, 255, 255), (0, 0, 8, 8))
    return image


PHOTOS = [photo("red"), photo("blue")]


def jpeg(image):
    data = io.BytesIO()
    image.save(data, "jpeg", quality=95)
    return data.getvalue()


def differs(one, other):
    """The largest difference of any channel of any pixel: ComfyUI computes in floats."""
    assert one.size == other.size
    extrema = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()
    return max(high for _, high in extrema)


@pytest.fixture
def executor_at():
    """Yield a function that gives an executor for one of the places a workflow can run at."""
    opened = []

    def make(place, comfyui_url=None):
        if place == "server":
            if comfyui_url is None:
                stand_in = ComfyUIStandIn()
                _loop.run_sync(stand_in.start)
                opened.append(lambda: _loop.run_sync(stand_in.stop))
                comfyui_url = stand_in.url
            executor = ComfyServerWorkflowExecutor(comfyui_url, batch_size=2)
        else:
            executor = LocalWorkflowExecutor(batch_size=2, comfyui_url=comfyui_url)
        opened.append(executor.close)
        return executor

    yield make
    for close in reversed(opened):
        close()


def check_whole_path(executor):
    template = WorkflowTemplate.from_string(INVERTED)
    result = executor.submit_workflow(template, PHOTOS, num_samples=6, seed=40)
    assert [image.batch for image in result] == [0, 0, 1, 1, 2, 2]
    assert [image.seed for image in result] == [40, 40, 41, 41, 42, 42]
    assert result.seeds == (40, 41, 42)
    assert {image.subfolder for image in result} == {"whole"}
    assert {image.origin.node_title for image in result} == {"Result"}
    assert len({image.name for image in result}) == 6
    for image, sent in zip(result, PHOTOS * 3, strict=True):
        assert differs(image.item, ImageOps.invert(sent)) <= 1
        assert '"ImageInvert"' in image.item.text["prompt"]  # the PNG keeps its workflow


def check_folder(executor):
    template = WorkflowTemplate.from_string(FROM_FOLDER)
    sent = [jpeg(photo("green")), jpeg(photo("yellow"))]
    result = executor.submit_workflow(template, sent, randomize_seed=False)
    assert len(result) == 2
    for image, data in zip(result, sent, strict=True):
        assert differs(image.item, ImageOps.invert(Image.open(io.BytesIO(data)))) <= 1


def check_failure(executor):
    template = WorkflowTemplate.from_string(FAILING)
    with pytest.raises(JobFailed) as caught:
        executor.submit_workflow(template, PHOTOS)
    assert (caught.value.node_id, caught.value.node_type) == ("5", "FixtureRaise")


CHECKS = [check_whole_path, check_folder, check_failure]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("place", ["server", "emulator and worker"])
def test_with_the_stand_in(place, check, executor_at):
    check(executor_at(place))


@pytest.mark.real_comfyui
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("place", ["server", "emulator and worker"])
def test_with_a_real_comfyui(place, check, executor_at, real_comfyui_url):
    check(executor_at(place, real_comfyui_url))


# -- RunPod's own SDK --------------------------------------------------------------------------------------------------


@pytest.fixture
def sdk_endpoint(tmp_path):
    """The emulator with the stand-in, and the real `runpod` worker loop as a process of its own."""
    local = LocalRunpod(workers=0)
    _loop.run_sync(local.start)
    env = {
        **os.environ,
        **local.server.worker_env(LOCAL_ENDPOINT_ID, "sdk-worker"),
        "COMFYUI_URL": local.comfyui.url,
        "COMFYUI_DIR": str(local.comfyui.folder),
        "HOME": str(tmp_path),
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "runpod_comfy.worker"], env=env, stdout=file, stderr=file, start_new_session=True
        )
        yield local
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(10)
        _loop.run_sync(local.stop)


def test_images_come_through_the_real_sdks_worker_loop(sdk_endpoint):
    settings = sdk_endpoint.settings
    with RunpodComfyWorkflowExecutor(
        settings.endpoint_id, api_key=settings.api_key, base_url=settings.base_url, batch_size=2
    ) as executor:
        check_whole_path(executor)
        check_failure(executor)
        states = [str(job.state) for job in sdk_endpoint.jobs()]
        assert states == ["COMPLETED", "FAILED"]


def test_cancelling_reaches_the_real_sdks_worker_and_comfyui(sdk_endpoint):
    settings = sdk_endpoint.settings
    executor = RunpodComfyWorkflowExecutor(settings.endpoint_id, api_key=settings.api_key, base_url=settings.base_url)
    slow = WorkflowTemplate.from_string(SLOW)
    for event in executor.watch_workflow(slow, PHOTOS, num_samples=2):
        if getattr(event, "node_id", None) == "5":
            break
    deadline = time.monotonic() + 20
    while sdk_endpoint.jobs()[0].state != "CANCELLED" or _loop.run_sync(lambda: remaining(sdk_endpoint)):
        assert time.monotonic() < deadline, sdk_endpoint.jobs()
        time.sleep(0.05)
    # The worker lives on.
    assert len(executor.submit_workflow(WorkflowTemplate.from_string(INVERTED), PHOTOS)) == 2


async def remaining(local):
    return local.comfyui._engine.remaining


# -- another project's client of the same wire format ------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.usefixtures("runpod_emulator")
def test_an_existing_client_of_the_wire_format_works_unchanged(tmp_path):
    python = os.environ.get("COMFY_EXECUTORS_PYTHON")
    if not python:
        pytest.skip("no COMFY_EXECUTORS_PYTHON")
    (tmp_path / "template.json").write_text(PORTRAIT)
    script = """
        import runpod
        runpod.api_key = "a-key"
        from comfy_executors import RunPodWorkflowExecutor, WorkflowTemplate
        from PIL import Image
        executor = RunPodWorkflowExecutor("local", batch_size=3)
        template = WorkflowTemplate.from_file("template.json")
        photos = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
        images = list(executor.submit_workflow(template, photos, num_samples=6))
        assert [image.image.size for image in images] == [(64, 64)] * 6, images
        assert len({image.name for image in images}) == 6
        broken = WorkflowTemplate(open("template.json").read().replace('"steps": 2', '"steps": 0'))
        try:
            list(executor.submit_workflow(broken, photos))
        except Exception as exc:
            print("refused:", exc)
        else:
            raise SystemExit("a broken workflow was not refused")
    """
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": ""}
    done = subprocess.run(
        [python, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused:" in done.stdout
