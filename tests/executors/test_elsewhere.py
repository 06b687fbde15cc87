import hashlib
import io
from dataclasses import replace

import pytest
from aiohttp import web
from PIL import Image

from runpod_comfy import OutputLost, WorkflowTemplate, _loop
from runpod_comfy.bucket import Bucket, BucketSettings
from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.executors.elsewhere import MAX_FETCHED_BYTES, fetch_output
from runpod_comfy.results import Origin, OutputElsewhere, OutputFile, WorkflowOutputImage

TEMPLATE = WorkflowTemplate.from_string('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}')


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "PNG")
    return data.getvalue()


def picture(index):
    return WorkflowOutputImage(
        name=f"a_{index:05}_.png",
        data=png((index, 0, 0)),
        subfolder="sub",
        media_type="image/png",
        origin=Origin(batch=index, seed=index, node_id="9"),
    )


VIDEO = OutputFile(name="a.mp4", data=b"\0\0\0\x18ftypisom" * 90, kind="videos", media_type="video/mp4")


@pytest.fixture
def bucket(storage):
    return Bucket(BucketSettings(endpoint_url=storage, name="photos", access_key_id="id", secret_access_key="s"))


@pytest.fixture
def site():
    """A storage that misbehaves: each answer is given to it in turn."""
    answers, asked = [], []

    async def answer(request):
        asked.append(dict(request.headers))
        status, body = answers.pop(0)
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"} if status == 302 else None)

    async def start():
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = _loop.run_sync(start)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/a.png?signature=hidden", answers, asked
    _loop.run_sync(runner.cleanup)


def elsewhere(url, data=b"data", **more):
    about = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return OutputElsewhere(url=url, name="a.png", **{**about, **more})


def fetch(stored):
    return _loop.run_sync(lambda: fetch_output(stored))


@pytest.fixture
def stored_lines(bucket):
    """A handler that puts its outputs into the bucket and yields lines that name them; one may be told wrong."""

    def make(*outputs, wrong=()):
        async def handler(job):
            writer = LineWriter()
            for output in outputs:
                url = bucket.put(f"{job['id']}/{output.name}", output.data, media_type=output.media_type)
                told = replace(output, data=b"other") if output in wrong else output
                for piece in writer.stored(told, url=url):
                    yield piece
            for piece in writer.done(gpu_s=1.0):
                yield piece

        return handler

    return make


def test_outputs_in_a_bucket_come_as_if_they_had_been_in_the_answer(make_endpoint, stored_lines):
    outputs = [picture(0), VIDEO, picture(1)]
    endpoint = make_endpoint(stored_lines(*outputs))
    result = endpoint.executor().submit_workflow(TEMPLATE)
    assert list(result) == [picture(0), picture(1)]
    assert result.files == [VIDEO]
    assert result[1].item.getpixel((0, 0)) == (1, 0, 0)


def test_handle_of_a_job_brings_them_too(make_endpoint, stored_lines):
    handle = make_endpoint(stored_lines(picture(0))).executor().start_workflow(TEMPLATE)
    assert list(handle.result(timeout=30)) == [picture(0)]


def test_outputs_in_a_bucket_land_in_the_folder_that_the_caller_names(make_endpoint, stored_lines, tmp_path):
    executor = make_endpoint(stored_lines(picture(0), VIDEO)).executor()
    result = executor.submit_workflow(TEMPLATE, output_dir=tmp_path)
    assert (tmp_path / "sub" / "a_00000_.png").read_bytes() == picture(0).data
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO.data
    assert result[0].item.getpixel((0, 0)) == (0, 0, 0)


def test_output_that_is_not_what_the_worker_stored_is_lost_and_the_others_are_delivered(make_endpoint, stored_lines):
    endpoint = make_endpoint(stored_lines(picture(0), VIDEO, picture(1), wrong=[VIDEO]))
    with pytest.raises(OutputLost, match=r"a\.mp4 at 127\.0\.0\.1 is not what the worker put there") as failure:
        endpoint.executor().submit_workflow(TEMPLATE)
    assert list(failure.value.partial) == [picture(0), picture(1)]
    assert failure.value.partial.files == []
    assert failure.value.job_id


def test_storage_that_stumbles_is_asked_again_and_learns_nothing_of_ours(site):
    url, answers, asked = site
    answers += [(503, b""), (200, b"data")]
    assert fetch(elsewhere(url)).data == b"data"
    assert all("Authorization" not in headers and "Cookie" not in headers for headers in asked)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, b""), "answered 403. Has its URL expired"),
        ((404, b""), "answered 404"),
        ((302, b""), "answered 302"),
        ((200, b"datum"), "not what the worker put there"),
        ((200, b"dat"), "not what the worker put there"),
        ((200, b"atad"), "not what the worker put there"),
    ],
)
def test_anything_else_is_a_lost_output_at_once(site, answer, said):
    url, answers, asked = site
    answers.append(answer)
    with pytest.raises(OutputLost, match=said) as failure:
        fetch(elsewhere(url))
    assert len(asked) == 1
    assert "hidden" not in str(failure.value)


def test_output_without_size_and_hash_is_taken_as_it_comes(site):
    url, answers, _ = site
    answers.append((200, png("red")))
    output = fetch(OutputElsewhere(url=url, name="a.png"))
    assert isinstance(output, WorkflowOutputImage)
    assert (output.media_type, output.data) == ("image/png", png("red"))


def test_output_that_is_announced_too_large_is_not_even_asked_for(site):
    url, _, asked = site
    with pytest.raises(OutputLost, match="more than are fetched"):
        fetch(elsewhere(url, size_bytes=MAX_FETCHED_BYTES + 1))
    assert asked == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "simulated_uploaded/a.png", "https://[", ""])
def test_url_that_is_none_is_a_lost_output(url):
    with pytest.raises(OutputLost, match="the worker's URL of it is none"):
        fetch(elsewhere(url))


def test_url_is_not_shown(site):
    assert "hidden" not in repr(elsewhere(site[0]))
