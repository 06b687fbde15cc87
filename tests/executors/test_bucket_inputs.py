"""Photos that no request has room for go through a bucket, to a worker that fetches them."""

import os

import pytest
from PIL import Image

from runpod_comfy import PayloadTooLarge, WorkflowTemplate, _loop
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.worker.handler import native_handler
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine

TEMPLATE = WorkflowTemplate.from_string(
    """{
  "1": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
  "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "big"}}
}"""
)


@pytest.fixture
def photo():
    """Noise, so that its PNG is as large as its pixels: 20.3 MB."""
    return Image.frombytes("RGB", (2600, 2600), os.urandom(2600 * 2600 * 3))


@pytest.fixture
def with_bucket(monkeypatch, storage):
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", f"{storage}/photos")
    monkeypatch.setenv("BUCKET_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "s3cr3t")


@pytest.fixture
def endpoint(make_endpoint):
    """An endpoint with the worker and the stand-in; what its jobs asked for is in `inputs`."""
    stand_in = ComfyUIStandIn()
    _loop.run_sync(stand_in.start)
    run, inputs = native_handler(Machine(link=ComfyUILink(stand_in.url), input_urls="any")), []

    async def handler(job):
        inputs.append(job["input"])
        async for piece in run(job):
            yield piece

    made = make_endpoint(handler)
    made.inputs = inputs
    yield made
    _loop.run_sync(stand_in.stop)


@pytest.mark.usefixtures("with_bucket")
def test_a_photo_over_every_limit_reaches_the_workflow_through_the_bucket(endpoint, photo):
    executor = endpoint.executor(worker="native")
    [image] = executor.submit_workflow(TEMPLATE, [photo])
    assert image.item.convert("RGB").tobytes() == photo.tobytes()
    [asked] = endpoint.inputs
    [sent] = asked["images"]
    assert set(sent) == {"name", "url", "subfolder"}
    assert "s3cr3t" not in sent["url"]


@pytest.mark.usefixtures("with_bucket")
def test_the_same_photo_is_put_there_once(endpoint, photo):
    executor = endpoint.executor(worker="native")
    for _ in range(2):
        executor.submit_workflow(TEMPLATE, [photo])
    first, again = (asked["images"][0]["url"] for asked in endpoint.inputs)
    assert first == again


def test_without_a_bucket_the_error_names_one(endpoint, photo):
    with pytest.raises(PayloadTooLarge, match="BUCKET_ENDPOINT_URL"):
        endpoint.executor(worker="native").submit_workflow(TEMPLATE, [photo])


@pytest.mark.usefixtures("with_bucket")
def test_a_worker_that_may_not_fetch_gets_no_addresses(endpoint, photo):
    with pytest.raises(PayloadTooLarge, match="worker="):
        endpoint.executor(worker="worker-comfyui").submit_workflow(TEMPLATE, [photo])
    assert endpoint.inputs == []
