import asyncio
import base64
import inspect
import io
import json
import random
import urllib.request

import aiohttp
import pytest
from PIL import Image

from runpod_comfy.bucket import BucketSettings
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.emulator.inprocess import InProcessWorker
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.platform import Platform
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine
from runpod_comfy.worker.official import official_handler
from runpod_comfy.worker.store import store_opener


async def answer(url, body, *, job=None, **machine):
    handler = official_handler(Machine(link=ComfyUILink(url), **machine))
    async with asyncio.timeout(60):
        result = await handler({"id": "job-1", "input": body, **(job or {})})
    assert json.loads(json.dumps(result)) == result
    return result


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def opened(image):
    return Image.open(io.BytesIO(base64.b64decode(image["data"])))


def loading(name="photo.png"):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }


def failing(workflow):
    return workflow | {
        "4": {"class_type": "FixtureRaise", "inputs": {"image": ["2", 0], "message": "boom"}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
    }


def test_the_sdk_takes_the_handler_for_one_that_answers_once():
    handler = official_handler(Machine(link=ComfyUILink("http://127.0.0.1:1")))
    assert inspect.iscoroutinefunction(handler)
    assert not inspect.isasyncgenfunction(handler)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_photo_goes_in_and_its_picture_comes_out_in_the_official_shape(comfyui_url, prefix):
    body = {"workflow": loading(), "images": [{"name": "photo.png", "image": prefix + png("lime")}]}
    result = await answer(comfyui_url, body)
    [image] = result["images"]
    assert result.keys() == {"images"}
    assert image.keys() == {"filename", "type", "data"}
    assert image["type"] == "base64"
    assert image["filename"].startswith("out_")
    assert opened(image).convert("RGB").getpixel((3, 3)) == (0, 255, 0)


async def test_input_errors_are_answers_and_not_exceptions(comfyui_url):
    assert await answer(comfyui_url, None) == {"error": "Please provide input"}
    assert await answer(comfyui_url, {"workflow": 7}) != {}
    assert (await answer(comfyui_url, {"workflow": {}}))["error"].startswith("workflow: has no nodes")


@pytest.mark.parametrize(
    "image", [{"name": "a", "image": "%%%"}, {"name": "../a", "image": "AAAA"}, {"name": 7, "image": 7}]
)
async def test_image_that_cannot_be_used_is_an_official_upload_failure(stand_in, nap, image):
    result = await answer(stand_in.url, {"workflow": nap(), "images": [image]})
    assert result["error"] == "Failed to upload one or more input images"
    assert len(result["details"]) == 1


async def test_failed_node_delivers_what_the_others_made(comfyui_url, nap):
    result = await answer(comfyui_url, {"workflow": failing(nap(colour=random.randrange(2**24)))})
    assert [image["type"] for image in result["images"]] == ["base64"]
    assert "Node Type: FixtureRaise, Node ID: 4, Message: " in result["errors"][0]
    assert "boom" in result["errors"][0]


async def test_failed_node_with_nothing_made_is_a_failed_job(comfyui_url, nap):
    workflow = failing(nap(colour=random.randrange(2**24)))
    del workflow["3"]
    result = await answer(comfyui_url, {"workflow": workflow})
    assert result["error"] == "Job processing failed"
    assert "boom" in result["details"][0]


async def test_refused_workflow_and_missing_comfyui_are_errors_in_one_sentence(comfyui_url, nap, unused_tcp_port):
    result = await answer(comfyui_url, {"workflow": {"1": {"class_type": "Absent", "inputs": {}}}})
    assert result.keys() == {"error"}
    assert result["error"].startswith("ComfyUI refused the workflow")
    result = await answer(f"http://127.0.0.1:{unused_tcp_port}", {"workflow": nap()})
    assert "did not answer" in result["error"]


async def test_text_comes_home_beside_the_pictures(comfyui_url, nap):
    workflow = nap() | {
        "6": {"class_type": "PrimitiveString", "inputs": {"value": "hello"}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["6", 0]}},
    }
    result = await answer(comfyui_url, {"workflow": workflow})
    assert result["texts"] == ["hello"]
    assert len(result["images"]) == 1


async def test_sound_that_the_official_worker_drops_comes_home_under_a_key_of_its_own(stand_in):
    workflow = {
        "1": {"class_type": "EmptyLatentAudio", "inputs": {"seconds": 1.0}},
        "2": {"class_type": "VAEDecodeAudio", "inputs": {"samples": ["1", 0]}},
        "3": {"class_type": "SaveAudio", "inputs": {"audio": ["2", 0], "filename_prefix": "sound"}},
    }
    result = await answer(stand_in.url, {"workflow": workflow})
    assert (result["status"], result["images"]) == ("success_no_images", [])
    assert [file["filename"].partition("_")[0] for file in result["files"]] == ["sound"]


async def test_outputs_go_to_the_bucket_where_there_is_one(stand_in, storage, nap):
    own = BucketSettings(endpoint_url=storage, name="photos", access_key_id="id", secret_access_key="s")
    result = await answer(stand_in.url, {"workflow": nap()}, open_store=store_opener(own))
    [image] = result["images"]
    assert image["type"] == "s3_url"
    with await asyncio.to_thread(urllib.request.urlopen, image["data"]) as stored:
        assert stored.read().startswith(b"\x89PNG")


async def test_incomplete_credentials_of_a_request_are_an_error_and_nothing_runs(stand_in, nap):
    job = {"s3Config": {"endpointUrl": "https://s3.example", "accessId": "id"}}
    result = await answer(stand_in.url, {"workflow": nap()}, job=job, open_store=store_opener(None))
    assert "accessSecret is missing" in result["error"]


async def test_bucket_that_does_not_take_an_output_leaves_it_in_the_answer(stand_in, unused_tcp_port, nap):
    gone = BucketSettings(
        endpoint_url=f"http://127.0.0.1:{unused_tcp_port}", name="b", access_key_id="id", secret_access_key="s"
    )
    result = await answer(stand_in.url, {"workflow": nap()}, open_store=store_opener(gone))
    assert [image["type"] for image in result["images"]] == ["base64"]


async def test_cancelled_job_leaves_nothing_in_comfyuis_queue(comfyui_url, nap):
    body = {"workflow": nap(8, colour=random.randrange(2**24))}
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        client = ComfyUIClient(comfyui_url, session=session)
        task = asyncio.create_task(answer(comfyui_url, body))
        while not (await client.queue())[0]:  # noqa: ASYNC110 - ComfyUI tells nobody else of it
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while await client.queue() != ([], []):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.02)


async def test_worker_describes_itself_in_this_protocol_too(stand_in):
    result = await answer(stand_in.url, {"describe": True}, facts=lambda: {"worker": {"answers": "worker-comfyui"}})
    assert result["describe"]["worker"]["answers"] == "worker-comfyui"


async def test_failure_of_our_own_is_told_by_its_class_alone():
    def broken():
        raise ZeroDivisionError("secret")

    async with asyncio.timeout(10):
        result = await answer("http://127.0.0.1:1", {"describe": True}, facts=broken)
    assert result["error"].startswith("An unexpected error occurred: ZeroDivisionError")
    assert "secret" not in result["error"]


async def test_runpod_shows_good_jobs_and_bad_ones_for_what_they_are(stand_in, nap):
    platform = Platform(EndpointConfig(endpoint_id="e"))
    handler = official_handler(Machine(link=ComfyUILink(stand_in.url)))
    async with InProcessWorker(platform, "e", handler), asyncio.timeout(30):
        bodies = [{"workflow": nap()}, {"workflow": {}}]
        jobs = [platform.submit("e", json.dumps({"input": each}).encode()) for each in bodies]
        while not all(platform.status("e", job.job_id).state.is_final for job in jobs):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)
    good, bad = (platform.status("e", job.job_id) for job in jobs)
    assert (good.state.name, good.output["images"][0]["type"]) == ("COMPLETED", "base64")
    assert bad.state.name == "FAILED"
