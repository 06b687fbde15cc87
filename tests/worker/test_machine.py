import asyncio
import base64
import io
import json
import logging
import random
import urllib.request

import aiohttp
import pytest
from aiohttp import web
from PIL import Image

from runpod_comfy.bucket import BucketSettings
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.runner import all_stopped
from runpod_comfy.dialects.native import NativeReader
from runpod_comfy.events import OutputReady
from runpod_comfy.results import OutputElsewhere
from runpod_comfy.submission import Submission
from runpod_comfy.worker.handler import native_handler
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine
from runpod_comfy.worker.store import store_opener

LOADING = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}


async def read(url, body, *, job=None, **machine):
    reader, events = NativeReader(), []
    handler = native_handler(Machine(link=ComfyUILink(url), **machine))
    async with asyncio.timeout(60):
        async for piece in handler({"id": "job-1", "input": body, **(job or {})}):
            if isinstance(piece, str):
                events += reader.feed(piece)
    return reader, events


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
async def site():
    async def photo(_):
        return web.Response(body=png("teal"))

    app = web.Application()
    app.router.add_get("/photo.png", photo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/photo.png"
    await runner.cleanup()


async def test_photo_that_comes_as_a_url_reaches_the_workflow(comfyui_url, site):
    body = {"workflow": LOADING, "images": [{"name": "photo.png", "url": site}]}
    reader, events = await read(comfyui_url, body, input_urls="any")
    [output] = [event.output for event in events if isinstance(event, OutputReady)]
    assert reader.complete
    assert output.item.convert("RGB").getpixel((0, 0)) == (0, 128, 128)


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data/", "https://localhost/x", "https://[::ffff:10.0.0.1]/", "x"]
)
async def test_hostile_url_is_an_error_that_names_the_input_and_the_next_job_works(stand_in, nap, url):
    handler = native_handler(Machine(link=ComfyUILink(stand_in.url)))

    async def answer(body):
        return [piece async for piece in handler({"id": "job", "input": body})]

    async with asyncio.timeout(60):
        bad = await answer({"workflow": LOADING, "images": [{"name": "photo.png", "url": url}]})
        good = await answer({"workflow": nap()})
    assert "photo.png" in bad[-1]["error"]
    assert '"done"' in good[-1]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_body_of_the_official_worker_is_answered_in_native_lines(comfyui_url, prefix):
    image = {"name": "photo.png", "image": prefix + base64.b64encode(png("lime")).decode()}
    reader, events = await read(comfyui_url, {"workflow": LOADING, "images": [image]})
    [output] = [event.output for event in events if isinstance(event, OutputReady)]
    assert reader.complete
    assert output.item.convert("RGB").getpixel((0, 0)) == (0, 255, 0)


@pytest.mark.parametrize(
    ("body_key", "worker_key", "expected"),
    [("mine", "worker's", "mine"), (None, "worker's", "worker's"), (None, None, None)],
)
async def test_key_for_paid_nodes_reaches_comfyui_from_the_request_or_the_worker(
    stand_in, nap, body_key, worker_key, expected
):
    body = {"workflow": nap(0.5, colour=random.randrange(2**24)), "comfy_org_api_key": body_key}
    task = asyncio.create_task(read(stand_in.url, body, comfy_org_api_key=worker_key))
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        running = []
        while not running:
            async with session.get(f"{stand_in.url}/queue") as queue:
                running = (await queue.json())["queue_running"]
    reader, _ = await task
    assert running[0][3].get("api_key_comfy_org") == expected
    assert reader.complete


async def test_outputs_of_a_request_with_storage_of_its_own_are_told_by_url(comfyui_url, storage, nap):
    s3_config = {"endpointUrl": storage, "accessId": "id", "accessSecret": "s", "bucketName": "photos"}
    reader, events = await read(
        comfyui_url,
        {"workflow": nap(colour=random.randrange(2**24))},
        job={"s3Config": s3_config},
        open_store=store_opener(None, public_only=False),
    )
    [stored] = [event for event in events if isinstance(event, OutputElsewhere)]
    with await asyncio.to_thread(urllib.request.urlopen, stored.url) as answer:
        assert stored.with_data(answer.read()).item.size == (32, 32)
    assert "/photos/job-1/" in stored.url
    assert reader.complete


async def test_incomplete_credentials_are_an_error_before_anything_runs(nap):
    reader, _ = await read(
        "http://127.0.0.1:1",
        {"workflow": nap()},
        job={"s3Config": {"endpointUrl": "https://s3.example"}},
        open_store=store_opener(
            BucketSettings(endpoint_url="http://h", name="b", access_key_id="i", secret_access_key="s")
        ),
    )
    assert "accessId and accessSecret is missing" in reader.error.message


async def test_worker_describes_itself_in_one_answer_without_work_for_the_gpu(comfyui_url):
    facts = {"worker": {"slots": 3}, "failed_custom_nodes": []}
    reader, events = await read(comfyui_url, {"describe": {"object_info": True}}, facts=lambda: facts)
    assert (reader.complete, reader.gpu_s, events) == (True, 0.0, [])
    assert reader.description["worker"]["slots"] == 3
    assert "SaveImage" in reader.description["node_classes"]
    assert reader.description["object_info_gzip"]
    async with aiohttp.ClientSession() as session:
        assert await ComfyUIClient(comfyui_url, session=session).queue() == ([], [])


async def test_description_of_a_worker_without_comfyui_is_an_error():
    reader, _ = await read("http://127.0.0.1:1", {"describe": True})
    assert "did not answer" in reader.error.message
    assert json.loads(json.dumps(reader.error.message))


async def test_job_that_is_cancelled_twice_still_leaves_nothing_in_comfyuis_queue(stand_in, nap):
    machine = Machine(link=ComfyUILink(stand_in.url))

    async def drop(_):
        pass

    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        client = ComfyUIClient(stand_in.url, session=session)
        submission = Submission(workflow=nap(8), batch_count=3, seeds=(1, 2, 3))
        for pause_s in (0, 0.001, 0.01, 0.05):
            job = asyncio.create_task(machine.run(submission, drop))
            while len((await client.queue())[1]) < 2:  # noqa: ASYNC110 - ComfyUI tells nobody else of it
                await asyncio.sleep(0.01)
            job.cancel()
            await asyncio.sleep(pause_s)
            job.cancel()
            await asyncio.wait([job])
            await all_stopped()
            assert await client.queue() == ([], [])


async def test_warm_up_runs_a_workflow_and_leaves_nothing_behind(stand_in, tmp_path, nap, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "good.json").write_text(json.dumps(nap()))
    await Machine(link=ComfyUILink(stand_in.url)).warm_up(tmp_path / "good.json")
    assert "warmed up with" in caplog.text
    assert not [path for path in (stand_in.folder / "output").rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"1": {"class_type": "FixtureRaise", "inputs": {}}}'])
async def test_warm_up_that_fails_keeps_no_worker_from_starting(stand_in, tmp_path, caplog, content):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    await Machine(link=ComfyUILink(stand_in.url)).warm_up(path)
    assert "bad.json failed, and jobs are taken all the same" in caplog.text
