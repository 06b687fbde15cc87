"""An endpoint asked what it has, and the check that this makes possible."""

import asyncio
import gzip
import os

import orjson
import pytest

from runpod_comfy import (
    ComfyServerWorkflowExecutor,
    ConfigurationError,
    JobCancelled,
    JobFailed,
    LocalWorkflowExecutor,
    ProtocolError,
    WaitTimeout,
    WorkflowGraphError,
    __version__,
    _loop,
)
from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.preflight import object_info_cache
from runpod_comfy.media.wire import to_base64
from runpod_comfy.worker.handler import make_handler
from runpod_comfy.worker.link import ComfyUILink
from runpod_comfy.worker.machine import Machine
from runpod_comfy.worker.official import official_handler
from runpod_comfy.workflow.template import WorkflowTemplate

SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
GOOD = WorkflowTemplate.from_workflow({"1": EMPTY, "2": SAVE}, name="good.json")
BAD = WorkflowTemplate.from_workflow({"1": {"class_type": "NoSuchNode", "inputs": {}}, "2": SAVE}, name="bad.json")


@pytest.fixture
def comfyui():
    """A ComfyUI that runs the nodes it lists and no others."""
    server = ComfyUIStandIn(strict_nodes=True)
    _loop.run_sync(server.start)
    yield server
    _loop.run_sync(server.stop)


def worker_of(executor):
    async def worker():
        return (await executor._connect()).habits.worker

    return _loop.run_sync(worker)


def test_a_worker_tells_what_it_has(make_endpoint, comfyui):
    models = comfyui.folder / "models" / "loras"
    models.mkdir(parents=True)
    (models / "a.safetensors").touch()
    executor = make_endpoint(make_handler(comfyui_url=comfyui.url)).executor()
    about = executor.describe()
    assert (about.place, about.worker_version, about.comfyui_version) == ("runpod://test", __version__, "0.3.64")
    assert about.models == {"loras": ("a.safetensors",)}
    assert sorted(about.object_info.data) == list(about.node_classes)
    assert worker_of(executor) == "native"


def test_after_it_a_node_type_that_the_endpoint_lacks_is_refused_before_anything_is_sent(make_endpoint, comfyui):
    endpoint = make_endpoint(make_handler(comfyui_url=comfyui.url))
    executor = endpoint.executor()
    executor.describe()
    with pytest.raises(WorkflowGraphError, match=r"bad\.json:1: the node type NoSuchNode is not installed") as caught:
        executor.submit_workflow(BAD)
    assert "runpod-comfy describe" in str(caught.value)
    assert len(endpoint.jobs()) == 1
    assert len(executor.submit_workflow(GOOD)) == 1


def test_endpoints_of_one_name_at_other_addresses_are_not_taken_for_each_other(make_endpoint, comfyui):
    described, other = (make_endpoint(make_handler(comfyui_url=comfyui.url)) for _ in range(2))
    described.executor().describe()
    with pytest.raises(WorkflowGraphError):
        described.executor().submit_workflow(BAD)
    with pytest.raises(JobFailed, match="NoSuchNode"):
        other.executor().submit_workflow(BAD)


async def test_closing_the_executor_ends_a_description_that_is_under_way(make_endpoint):
    endpoint = make_endpoint(None)
    executor = endpoint.executor()
    asking = executor.describe_async()
    while not endpoint.jobs():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    await executor.aclose()
    async with asyncio.timeout(5):
        with pytest.raises(JobCancelled, match="was closed"):
            await asking
    assert [job.state for job in endpoint.jobs()] == ["CANCELLED"]


def test_nothing_is_asked_by_itself(make_endpoint, comfyui):
    endpoint = make_endpoint(make_handler(comfyui_url=comfyui.url))
    with pytest.raises(JobFailed, match="NoSuchNode"):
        endpoint.executor().submit_workflow(BAD)
    assert len(endpoint.jobs()) == 1
    assert object_info_cache().load("test") is None


def test_without_object_info_nothing_is_kept(make_endpoint, comfyui):
    about = make_endpoint(make_handler(comfyui_url=comfyui.url)).executor().describe(object_info=False)
    assert "SaveImage" in about.node_classes
    assert about.object_info is None
    assert object_info_cache().load("test") is None


def test_a_stand_in_is_described_and_not_kept():
    with LocalWorkflowExecutor() as executor:
        about = executor.describe()
        assert (about.place, about.is_stand_in) == ("local", True)
        assert object_info_cache().load("local") is None


def test_what_a_local_endpoint_told_is_kept_for_its_comfyui(comfyui):
    with LocalWorkflowExecutor(comfyui_url=comfyui.url) as executor:
        executor.describe()
        with pytest.raises(WorkflowGraphError, match="NoSuchNode is not installed"):
            executor.submit_workflow(BAD)
    assert object_info_cache().load("local") is None


def test_our_worker_in_the_place_of_the_official_one_tells_too(make_endpoint, comfyui):
    executor = make_endpoint(official_handler(Machine(link=ComfyUILink(comfyui.url)))).executor()
    assert "SaveImage" in executor.describe().node_classes
    assert worker_of(executor) == "worker-comfyui"


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "Missing 'workflow' parameter"},
        {"status": "success_no_images", "images": []},
        {"choices": [{"text": "I am a language model."}]},
        "<html>",
        None,
    ],
    ids=["official worker", "no images", "language model", "page", "nothing"],
)
def test_another_worker_is_named_as_one_and_its_version_is_not_guessed(make_endpoint, answer):
    async def handler(_job):
        await asyncio.sleep(0)
        return answer

    executor = make_endpoint(handler).executor()
    with pytest.raises(ProtocolError, match="runpod://test does not describe itself") as caught:
        executor.describe()
    assert caught.value.endpoint_id == "test"
    assert caught.value.job_id
    assert worker_of(executor) in {None, "worker-comfyui"}
    assert (worker_of(executor) is None) == (answer != {"status": "success_no_images", "images": []})


def test_a_worker_of_the_wire_format_that_does_not_know_the_question_is_named_too(make_endpoint):
    async def handler(_job):
        yield '{"images": [], "error": "no workflow given"}\n'
        yield {"error": "no workflow given"}

    with pytest.raises(ProtocolError, match=r"does not describe itself.*no workflow given"):
        make_endpoint(handler).executor().describe()


def test_a_worker_whose_comfyui_is_gone_says_so(make_endpoint, unused_tcp_port):
    executor = make_endpoint(make_handler(comfyui_url=f"http://127.0.0.1:{unused_tcp_port}")).executor()
    with pytest.raises(JobFailed, match="did not answer"):
        executor.describe()


def test_an_endpoint_without_workers_is_given_up_and_its_job_cancelled(make_endpoint):
    endpoint = make_endpoint()
    with pytest.raises(WaitTimeout, match=r"has not described itself within 0\.3 s") as caught:
        endpoint.executor().describe(timeout=0.3)
    assert caught.value.job_id
    assert endpoint.states() == ["CANCELLED"]


async def test_cancelling_the_future_cancels_the_job(make_endpoint):
    endpoint = make_endpoint()
    future = endpoint.executor().describe_async()
    while not await asyncio.to_thread(endpoint.jobs):  # noqa: ASYNC110 - the platform tells nobody
        await asyncio.sleep(0.02)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert await asyncio.to_thread(endpoint.states) == ["CANCELLED"]


def test_a_time_that_is_none_is_refused_before_anything_is_sent(make_endpoint):
    endpoint = make_endpoint()
    with pytest.raises(ConfigurationError, match="timeout is 0"):
        endpoint.executor().describe(timeout=0)
    assert endpoint.jobs() == []


def test_megabytes_of_node_types_arrive_whole(make_endpoint):
    info = {f"Node{n}": {"input": {"required": {}}, "description": os.urandom(500).hex()} for n in range(5000)}
    told = {"node_classes": list(info), "object_info_gzip": to_base64(gzip.compress(orjson.dumps(info)))}
    pieces = list(LineWriter().description(told))
    assert len(pieces) > 3

    async def handler(_job):
        writer = LineWriter()
        for piece in (*writer.description(told), *writer.done(gpu_s=0.0)):
            yield piece

    assert make_endpoint(handler).executor().describe().object_info.data == info


def test_a_server_tells_the_same_and_is_kept(comfyui):
    with ComfyServerWorkflowExecutor(comfyui.url) as executor:
        about = executor.describe()
        assert (about.place, about.worker_version, about.failed_custom_nodes) == (comfyui.url, None, None)
        assert "SaveImage" in about.object_info
        assert object_info_cache().load(executor.url).version == about.comfyui_version


def test_a_folder_that_cannot_be_written_loses_no_answer(make_endpoint, comfyui, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RUNPOD_COMFY_CACHE", str(tmp_path / "file"))
    about = make_endpoint(make_handler(comfyui_url=comfyui.url)).executor().describe()
    assert about.object_info is not None
    assert "cannot be kept for later runs" in caplog.text
