"""The same call at every place; and what is special about endpoints that run RunPod's worker-comfyui."""

import asyncio
import base64
import contextlib
import io
import itertools

import aiohttp
import pytest
from aiohttp import web
from PIL import Image

from runpod_comfy import (
    ComfyServerWorkflowExecutor,
    ConfigurationError,
    JobError,
    JobFailed,
    LocalWorkflowExecutor,
    OutputLost,
    ProtocolError,
    TemplateError,
    WorkflowTemplate,
    _loop,
)
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.events import Queued
from runpod_comfy.worker.handler import make_handler
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine
from runpod_comfy.worker.official import official_handler

TEMPLATE = WorkflowTemplate.from_string(
    """{"1": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[1] }}"}},
        "3": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "area", "width": 64,
              "height": 64, "crop": "disabled"}},
        "4": {"class_type": "VAEEncode", "inputs": {"pixels": ["3", 0], "vae": ["9", 0]}},
        "5": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2, "cfg": 7, "sampler_name": "euler",
              "scheduler": "normal", "denoise": 1, "model": ["8", 0], "positive": ["7", 0], "negative": ["7", 0],
              "latent_image": ["4", 0]}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["9", 0]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["8", 1]}},
        "8": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
        "9": {"class_type": "VAELoader", "inputs": {"vae_name": "x.safetensors"}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "cats/tom"},
               "_meta": {"title": "Keep"}}}"""
)
FROM_FOLDER = WorkflowTemplate.from_string(
    """{"1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "{{ input_images_dir }}"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}}"""
)
LATENT = WorkflowTemplate.from_string(
    """{"1": {"class_type": "EmptyLatentImage",
              "inputs": {"width": {{ size|default(64) }}, "height": 64, "batch_size": {{ batch_size }}}},
        "2": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2, "cfg": 7, "sampler_name": "euler",
              "scheduler": "normal", "denoise": 1, "model": ["4", 0], "positive": ["5", 0], "negative": ["5", 0],
              "latent_image": ["1", 0]}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["4", 2]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
        "5": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "a"}}}"""
)


def photo(color):
    data = io.BytesIO()
    Image.new("RGB", (48, 32), color).save(data, "png")
    return data.getvalue()


PHOTOS = [photo("red"), photo("blue")]


class WorkerComfyui:
    """A handler that answers in the documented shapes of worker-comfyui, over a stand-in ComfyUI.

    Attributes:
        version: 5 answers all images; 3 answers the last one of the history.
        bucket: An address to name outputs under, in place of sending them; what was stored is in ``stored``.
    """

    def __init__(self, comfyui, *, version=5, bucket=None):
        self.comfyui = comfyui
        self.version = version
        self.bucket = bucket
        self.stored = {}
        self.inputs = []

    async def __call__(self, job):
        self.inputs.append(job["input"])
        async with aiohttp.ClientSession() as session:
            return await self._handled(session, job["input"])

    async def _handled(self, session, body):
        if body.get("workflow") is None:
            return {"error": "Missing 'workflow' parameter"}
        for image in body.get("images") or []:
            form = aiohttp.FormData({"overwrite": "true"})
            form.add_field("image", base64.b64decode(image["image"]), filename=image["name"], content_type="image/png")
            async with session.post(f"{self.comfyui.url}/upload/image", data=form) as answer:
                if answer.status != 200:
                    return {"error": "Failed to upload one or more input images", "details": [image["name"]]}
        async with session.post(f"{self.comfyui.url}/prompt", json={"prompt": body["workflow"]}) as answer:
            if answer.status == 400:
                told = await answer.json()
                return {"error": f"Workflow validation failed:\n• {told['node_errors'] or told['error']}"}
            prompt_id = (await answer.json())["prompt_id"]
        while True:
            async with session.get(f"{self.comfyui.url}/history/{prompt_id}") as answer:
                if entry := (await answer.json()).get(prompt_id):
                    break
            await asyncio.sleep(0.01)
        return await (self._answer if self.version == 5 else self._old_answer)(session, entry)

    async def _answer(self, session, entry):
        errors = [
            f"Workflow execution error: Node Type: {about['node_type']}, Node ID: {about['node_id']}, "
            f"Message: {about['exception_message']}"
            for kind, about in entry["status"]["messages"]
            if kind == "execution_error"
        ]
        images = [
            self._named(image["filename"], await self._view(session, image))
            for node in entry["outputs"].values()
            for image in node.get("images", [])
            if image["type"] != "temp"
        ]
        if not images and errors:
            return {"error": "Job processing failed", "details": errors}
        if not images:
            return {"status": "success_no_images", "images": []}
        return {"images": images} | ({"errors": errors} if errors else {})

    async def _old_answer(self, session, entry):
        for node in entry["outputs"].values():
            for image in node.get("images", []):
                last = image
        named = self._named(last["filename"], await self._view(session, last))
        return {"status": "success", "message": named["data"]}

    async def _view(self, session, image):
        async with session.get(f"{self.comfyui.url}/view", params=image) as answer:
            return await answer.read()

    def _named(self, filename, data):
        if self.bucket is None:
            return {"filename": filename, "type": "base64", "data": base64.b64encode(data).decode()}
        key = f"{len(self.stored)}.png"
        self.stored[key] = data
        return {"filename": filename, "type": "s3_url", "data": f"{self.bucket}/{key}?X-Amz-Signature=abc"}


@pytest.fixture
def start():
    """`start(server)` starts a server on the library's loop and stops it in the end."""
    with contextlib.ExitStack() as stack:

        def begin(server):
            _loop.run_sync(server.start)
            stack.callback(_loop.run_sync, server.stop)
            return server

        yield begin


@pytest.fixture
def official(start, make_endpoint):
    """`official(version=5, **config)` gives a worker of worker-comfyui's shape and an endpoint that runs it."""

    def make(*, version=5, bucket=None, **config):
        worker = WorkerComfyui(start(ComfyUIStandIn()), version=version, bucket=bucket)

        async def handler(job):
            return await worker(job)

        return worker, make_endpoint(handler, **config)

    return make


# -- the same call everywhere ------------------------------------------------------------------------------------------

PLACES = {
    "native worker": {},
    "native worker, told": {"worker": "native"},
    "worker-comfyui 5": {},
    "worker-comfyui 5, told": {"worker": "worker-comfyui"},
    "this project's, in worker-comfyui's place": {"worker": "worker-comfyui"},
    "worker-comfyui 3": {},
    "worker-comfyui 3, told": {"worker": "worker-comfyui-4"},
    "ComfyUI server": {},
    "emulator": {},
}


@pytest.fixture(params=PLACES)
def place(request, start, make_endpoint, official):
    """An executor for each kind of place."""
    options = PLACES[request.param]
    match request.param.partition(",")[0]:
        case "native worker":
            yield make_endpoint(make_handler(comfyui_url=start(ComfyUIStandIn()).url)).executor(**options)
        case "worker-comfyui 5":
            yield official()[1].executor(**options)
        case "this project's":
            machine = Machine(link=ComfyUILink(start(ComfyUIStandIn()).url))
            yield make_endpoint(official_handler(machine)).executor(**options)
        case "worker-comfyui 3":
            yield official(version=3)[1].executor(**options)
        case "ComfyUI server":
            yield ComfyServerWorkflowExecutor(start(ComfyUIStandIn()).url)
        case "emulator":
            with LocalWorkflowExecutor() as executor:
                yield executor


def test_the_same_template_and_photos_give_the_same_everywhere(place):
    for _ in range(2):  # at first contact, and when the worker is known
        result = place.submit_workflow(TEMPLATE, PHOTOS, num_samples=3, seed=40)
        assert [(image.batch, image.seed) for image in result] == [(0, 40), (1, 41), (2, 42)]
        assert result.seeds == (40, 41, 42)
        assert [(image.node_id, image.origin.node_title, image.subfolder) for image in result] == [
            ("10", "Keep", "cats")
        ] * 3
        assert len({image.name for image in result}) == 3
        assert all(image.name.startswith("tom_0") for image in result)
        assert {image.item.size for image in result} == {(64, 64)}
        assert len({image.item.tobytes() for image in result}) == 3
        assert result.places == (place.place,)


def test_the_pictures_themselves_are_the_same_everywhere(place):
    with LocalWorkflowExecutor() as local:
        expected = local.submit_workflow(TEMPLATE, PHOTOS, num_samples=2, seed=7)
    made = place.submit_workflow(TEMPLATE, PHOTOS, num_samples=2, seed=7)
    assert [image.item.tobytes() for image in made] == [image.item.tobytes() for image in expected]


# -- which worker is it? -----------------------------------------------------------------------------------------------


def test_nothing_is_sent_only_to_find_out(official, make_endpoint, start):
    _, endpoint = official()
    endpoint.executor().submit_workflow(LATENT)
    assert len(endpoint.jobs()) == 1
    native = make_endpoint(make_handler(comfyui_url=start(ComfyUIStandIn()).url))
    native.executor().submit_workflow(LATENT, num_samples=4)
    assert len(native.jobs()) == 1


def test_what_the_first_answer_held_is_not_made_again(official):
    worker, endpoint = official()
    result = endpoint.executor().submit_workflow(LATENT, num_samples=4, seed=0)
    assert [image.seed for image in result] == [0, 1, 2, 3]
    assert [seeds_in(body) for body in worker.inputs] == [[0], [1, 2, 3]]
    assert len(result.job_ids) == 2
    assert any("turned out to run worker-comfyui" in warning for warning in result.warnings)


def seeds_in(body):
    return sorted(each["inputs"]["seed"] for each in body["workflow"].values() if "seed" in each["inputs"])


def test_the_endpoint_is_remembered_by_all_its_executors(official):
    worker, endpoint = official()
    endpoint.executor().submit_workflow(LATENT)
    result = endpoint.executor().submit_workflow(LATENT, num_samples=4, seed=0)
    assert len(result.job_ids) == 1
    assert seeds_in(worker.inputs[-1]) == [0, 1, 2, 3]
    assert result.warnings == ()


def test_another_worker_than_was_said_is_told_with_the_argument_and_what_arrived(official, make_endpoint, start):
    _, endpoint = official()
    with pytest.raises(JobError, match="worker='worker-comfyui'") as caught:
        endpoint.executor(worker="native").submit_workflow(LATENT, num_samples=2)
    assert len(caught.value.partial) == 1
    native = make_endpoint(make_handler(comfyui_url=start(ComfyUIStandIn()).url))
    with pytest.raises(JobError, match="worker='native'") as caught:
        native.executor(worker="worker-comfyui").submit_workflow(LATENT)
    assert len(caught.value.partial) == 1


def test_a_failure_of_another_worker_than_was_said_names_the_argument_too(official):
    _, endpoint = official()
    with pytest.raises(ProtocolError, match=r"(?s)worker='worker-comfyui'.*Invalid image file"):
        endpoint.executor(worker="native").submit_workflow(TEMPLATE, PHOTOS)


def test_a_template_that_needs_a_folder_fails_at_first_contact_with_the_reason(official):
    _, endpoint = official()
    with pytest.raises(TemplateError, match="input_images_dir"):
        endpoint.executor().submit_workflow(FROM_FOLDER, PHOTOS)
    with pytest.raises(TemplateError, match="input_images_dir"):
        endpoint.executor().submit_workflow(FROM_FOLDER, PHOTOS)
    assert len(endpoint.jobs()) == 1


@pytest.mark.parametrize("options", [{"worker": "comfyui"}, {"max_batches_per_job": 0}, {"max_batches_per_job": True}])
def test_arguments_that_make_no_sense_are_refused(make_endpoint, options):
    with pytest.raises(ConfigurationError):
        make_endpoint().executor(**options)


# -- what this worker cannot give --------------------------------------------------------------------------------------


def test_a_template_that_needs_a_folder_is_refused_before_anything_is_sent(official):
    _, endpoint = official()
    with pytest.raises(TemplateError, match="input_images_dir"):
        endpoint.executor(worker="worker-comfyui").submit_workflow(FROM_FOLDER, PHOTOS)
    assert endpoint.jobs() == []


def test_an_old_worker_is_not_asked_for_images_that_it_would_lose(official):
    _, endpoint = official(version=3)
    with pytest.raises(ConfigurationError, match="batch_size=1"):
        endpoint.executor(worker="worker-comfyui-4").submit_workflow(LATENT, num_samples=4, batch_size=2)
    assert endpoint.jobs() == []


def test_a_failing_node_is_named_as_the_user_knows_it_and_what_was_made_is_kept(official):
    worker, endpoint = official()
    graph = """{"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "input"}},
                "3": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 0, "steps": 1, "seed": 1}},
                "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "a"}}}"""
    worker.comfyui.fail_node("FixtureSleep", "out of memory")
    with pytest.raises(JobFailed, match=r"node 3 \(FixtureSleep\).*out of memory") as caught:
        endpoint.executor(worker="worker-comfyui").submit_workflow(WorkflowTemplate.from_string(graph), num_samples=2)
    assert caught.value.node_id == "3"
    assert {image.node_id for image in caught.value.partial} <= {"2"}


def test_a_refused_workflow_is_told_in_the_workers_words(official):
    _, endpoint = official()
    bad = '{"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a"}}}'
    with pytest.raises(JobFailed, match="validation failed"):
        endpoint.executor(worker="worker-comfyui").submit_workflow(WorkflowTemplate.from_string(bad))


# -- several jobs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"worker": "worker-comfyui"}, {}])
def test_work_whose_answer_could_be_lost_is_split_and_comes_home_in_order(official, options):
    worker, endpoint = official()
    executor = endpoint.executor(batch_size=2, **options)
    result = executor.submit_workflow(LATENT, num_samples=20, seed=100, size=8192)  # 2 x 2 MB in base64 a batch
    assert [image.seed for image in result] == [100 + n // 2 for n in range(20)]
    assert [image.batch for image in result] == [n // 2 for n in range(20)]
    assert len({image.name for image in result}) == 20
    assert len(result.job_ids) == len(set(result.job_ids)) == len(endpoint.jobs()) >= 5
    assert any("split into" in warning for warning in result.warnings)
    assert sorted(seed for body in worker.inputs for seed in seeds_in(body)) == list(range(100, 110))


def test_a_native_endpoint_splits_where_the_caller_says_so(make_endpoint, start):
    endpoint = make_endpoint(make_handler(comfyui_url=start(ComfyUIStandIn()).url))
    result = endpoint.executor(max_batches_per_job=2).submit_workflow(LATENT, num_samples=5, seed=1)
    assert [(image.batch, image.seed) for image in result] == [(n, n + 1) for n in range(5)]
    assert len({image.name for image in result}) == 5
    assert len(endpoint.jobs()) == 3
    assert result.timings.gpu_s is not None


def test_a_job_that_fails_among_several_does_not_take_the_others(make_endpoint, start):
    native = make_handler(comfyui_url=start(ComfyUIStandIn()).url)

    async def handler(job):
        if job["input"]["seeds"] == [2]:
            yield {"error": "bad luck"}
            return
        async for piece in native(job):
            yield piece

    endpoint = make_endpoint(handler)
    with pytest.raises(JobFailed, match="bad luck") as caught:
        endpoint.executor(max_batches_per_job=1).submit_workflow(LATENT, num_samples=4, seed=1)
    assert [image.seed for image in caught.value.partial] == [1, 3, 4]


def test_cancelling_cancels_every_job(make_endpoint):
    async def forever(_):
        await asyncio.sleep(3600)

    endpoint = make_endpoint(forever)

    events = endpoint.executor(max_batches_per_job=1).watch_workflow(LATENT, num_samples=3)
    queued = itertools.islice((event for event in events if isinstance(event, Queued)), 3)
    assert len({event.job_id for event in queued}) == 3
    events.close()
    assert set(endpoint.states()) == {"CANCELLED"}


def test_a_handle_is_one_jobs(official):
    _, endpoint = official()
    executor = endpoint.executor(worker="worker-comfyui")
    result = executor.start_workflow(LATENT, num_samples=3, seed=5).result()
    assert [image.seed for image in result] == [5, 6, 7]
    with pytest.raises(ConfigurationError, match="submit_workflow"):
        executor.start_workflow(LATENT, num_samples=16, size=8192)


def test_a_handle_of_a_first_contact_says_what_was_left_out(official):
    _, endpoint = official()
    with pytest.raises(OutputLost, match="worker='worker-comfyui'") as caught:
        endpoint.executor().start_workflow(LATENT, num_samples=3).result()
    assert len(caught.value.partial) == 1


def test_a_job_of_another_process_is_read_by_its_shape(official):
    _, endpoint = official()
    handle = endpoint.executor(worker="worker-comfyui").start_workflow(LATENT, num_samples=2)
    result = endpoint.executor().attach(handle.job_id).result()
    assert [image.batch for image in result] == [0, 1]
    assert all(image.name.startswith("a_0") for image in result)


# -- outputs in a bucket -----------------------------------------------------------------------------------------------


class Bucket:
    """A place that gives what was stored, and notes what requests brought along."""

    def __init__(self):
        self.worker = None
        self.headers = []
        self.gone = set()

    async def start(self):
        app = web.Application()
        app.router.add_get("/{key}", self._get)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self):
        await self._runner.cleanup()

    async def _get(self, request):
        self.headers.append(dict(request.headers))
        key = request.match_info["key"]
        return web.Response(status=404) if key in self.gone else web.Response(body=self.worker.stored[key])


@pytest.mark.parametrize("version", [5, 3])
def test_outputs_in_a_bucket_are_fetched_without_the_key(official, start, version, tmp_path):
    bucket = start(Bucket())
    bucket.worker, endpoint = official(version=version, bucket=bucket.url)
    result = endpoint.executor().submit_workflow(LATENT, num_samples=3, seed=1, output_dir=tmp_path)
    assert [image.seed for image in result] == [1, 2, 3]
    assert {image.item.size for image in result} == {(64, 64)}
    assert len({image.path for image in result}) == 3
    assert len(bucket.headers) == 3
    assert not any("Authorization" in headers for headers in bucket.headers)


def test_an_output_that_is_not_in_the_bucket_any_more_is_lost_and_the_others_are_not(official, start):
    bucket = start(Bucket())
    bucket.worker, endpoint = official(bucket=bucket.url)
    executor = endpoint.executor(worker="worker-comfyui")
    bucket.gone = {"1.png"}
    with pytest.raises(OutputLost, match="404") as caught:
        executor.submit_workflow(LATENT, num_samples=3, seed=1)
    assert [image.seed for image in caught.value.partial] == [1, 3]


def test_with_a_bucket_seen_no_answer_is_split_for_its_size(official, start):
    bucket = start(Bucket())
    bucket.worker, endpoint = official(bucket=bucket.url)
    executor = endpoint.executor(worker="worker-comfyui")
    executor.submit_workflow(LATENT)
    result = executor.submit_workflow(LATENT, num_samples=8, seed=1, size=8192)
    assert len(result.job_ids) == 1
    assert len(result) == 8
