import asyncio
import base64
import inspect
import io
import json
import random

import aiohttp
import pytest
from PIL import Image

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.folders import find_folders
from runpod_comfy.dialects.native import NativeReader
from runpod_comfy.dialects.native_request import encode_request, parse_request
from runpod_comfy.emulator.inprocess import InProcessWorker
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.platform import Platform
from runpod_comfy.errors import ConfigurationError, TransportError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.submission import Submission
from runpod_comfy.worker.handler import make_handler


async def answer(url, body):
    async with asyncio.timeout(60):
        return [piece async for piece in make_handler(comfyui_url=url)({"id": "job-1", "input": body})]


def read(pieces):
    reader = NativeReader()
    events = [event for piece in pieces if isinstance(piece, str) for event in reader.feed(piece)]
    return reader, events


def lines_of(pieces):
    return [json.loads(line) for line in "".join(each for each in pieces if isinstance(each, str)).splitlines()]


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(data, "PNG")
    return data.getvalue()


async def when(url, check):
    """Wait until ComfyUI's running and waiting prompts pass a check."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        client = ComfyUIClient(url, session=session)
        while not check(*await client.queue()):  # noqa: ASYNC110 - ComfyUI tells nobody else of it
            await asyncio.sleep(0.02)
    return True


def is_empty(running, waiting):
    return not running and not waiting


def test_the_sdk_takes_the_handler_for_a_generator():
    assert inspect.isasyncgenfunction(make_handler(comfyui_url="http://127.0.0.1:1"))


async def test_every_output_comes_home_whole_and_in_order(comfyui_url, nap):
    submission = Submission(
        workflow=nap(colour=random.randrange(2**24), images=2), batch_count=3, seeds=(7, 8, 9), submission_id="s-1"
    )
    pieces = await answer(comfyui_url, encode_request(submission))
    reader, events = read(pieces)
    assert (reader.complete, reader.error, reader.describe_loss()) == (True, None, None)
    made = [event.output for event in events if isinstance(event, OutputReady)]
    assert [(each.batch, each.seed, each.node_id) for each in made] == [(n, 7 + n, "3") for n in range(3) for _ in "ab"]
    assert all(each.item.size == (32, 32) for each in made)
    ends = [event for event in events if isinstance(event, BatchFinished)]
    assert [(end.batch, end.batch_count, end.seed) for end in ends] == [(0, 3, 7), (1, 3, 8), (2, 3, 9)]
    assert reader.gpu_s == pytest.approx(sum(end.gpu_s for end in ends), abs=0.01)
    assert any(isinstance(event, Progress) for event in events)
    assert all(len(piece) < 1_000_000 for piece in pieces)


async def test_request_of_an_existing_client_gets_lines_that_it_can_read(comfyui_url):
    body = {
        "workflow": {
            "1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "/workspace/ComfyUI/input/photos-x",
                                                                "image_load_cap": 0, "start_index": 0,
                                                                "load_always": True}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/out"}},
        },
        "batch_count": 2,
        "randomize_seed": True,
        "images": [
            {"name": f"{n}.png", "image": base64.b64encode(png(colour)).decode(), "subfolder": "photos-x"}
            for n, colour in enumerate(("red", "blue"))
        ],
    }  # fmt: skip
    lines = lines_of(await answer(comfyui_url, body))
    images = [image for line in lines for image in line["images"]]
    opened = [Image.open(io.BytesIO(base64.b64decode(image["image"]))).convert("RGB") for image in images]
    assert [each.getpixel((5, 5)) for each in opened] == [(255, 0, 0), (0, 0, 255)] * 2
    assert all(image["name"].startswith("out_") and image["subfolder"] == "sub" for image in images)
    assert len({image["name"] for image in images}) == 4


async def test_photos_of_a_request_reach_the_workflow(comfyui_url):
    images = (InputImage("00.png", png("lime"), "image/png", "rcc-handler"),)
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "rcc-handler/00.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }
    reader, events = read(await answer(comfyui_url, encode_request(Submission(workflow=workflow, images=images))))
    [output] = [event.output for event in events if isinstance(event, OutputReady)]
    assert reader.complete
    assert output.item.convert("RGB").getpixel((0, 0)) == (0, 255, 0)


async def test_failing_node_ends_the_job_with_a_line_and_then_the_same_text_for_runpod(comfyui_url, nap):
    workflow = nap(colour=random.randrange(2**24))
    workflow["4"] = {"class_type": "FixtureRaise", "inputs": {"image": ["2", 0], "message": "boom"}}
    workflow["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}}
    pieces = await answer(comfyui_url, {"workflow": workflow})
    reader, _ = read(pieces)
    assert pieces[-1] == {"error": reader.error.message}
    assert "boom" in reader.error.message
    assert (reader.error.node_id, reader.error.node_type) == ("4", "FixtureRaise")
    assert reader.done
    assert not reader.complete


SAVE = {"1": {"class_type": "SaveImage", "inputs": {}}}


@pytest.mark.parametrize(
    "body",
    [
        None,
        "text",
        [],
        {},
        {"workflow": None},
        {"workflow": []},
        {"workflow": "no json"},
        {"workflow": {"nodes": [], "links": []}},
        {"workflow": {"1": None}},
        *({"workflow": SAVE, "batch_count": count} for count in (0, -1, 10**9, "3", True, 1.5, None)),
        *(
            {"workflow": SAVE, "images": [{"name": name, "image": ""}]}
            for name in ("../x", "/etc/x", "a\0b", "..\\x", "C:\\x", "", "a/../../x")
        ),
        *({"workflow": SAVE, "images": [{"name": "x", "image": "", "subfolder": name}]} for name in ("../x", "/etc")),
        {"workflow": SAVE, "images": "x"},
        {"workflow": SAVE, "timeout_s": 0},
        {"workflow": SAVE, "timeout_s": "60"},
        {"workflow": SAVE, "extra_pnginfo": [1]},
        {"workflow": SAVE, "comfy_org_api_key": 7},
        {"workflow": {"x" * 20_000_000: 1}},
        {"workflow": SAVE, "images": [{"name": "x", "image": "%%%"}]},
    ],
    ids=lambda body: repr(body)[:60],
)
async def test_bad_request_is_a_named_error_and_nothing_is_asked_of_comfyui(body):
    pieces = await answer("http://127.0.0.1:1", body)
    [line] = lines_of(pieces)
    assert line["images"] == []
    assert line["error"]
    assert pieces[-1] == {"error": line["error"]}


async def test_keys_that_are_not_known_are_ignored(stand_in, nap):
    reader, _ = read(await answer(stand_in.url, {"workflow": nap(), "something": {"new": 1}, "seeds": None}))
    assert reader.complete


async def test_comfyui_that_is_not_there_is_a_named_error(nap):
    pieces = await answer("http://127.0.0.1:1", {"workflow": nap()})
    assert "ComfyUI at http://127.0.0.1:1 did not answer" in pieces[-1]["error"]


async def test_failure_of_our_own_is_told_by_class_and_message_without_traceback():
    # No request can be known to break the worker; a job that is no dict of strings does.
    class Broken(dict):
        def get(self, key, default=None):
            if key == "input":
                raise ZeroDivisionError("broken on purpose")
            return super().get(key, default)

    pieces = [piece async for piece in make_handler(comfyui_url="http://127.0.0.1:1")(Broken())]
    reader, _ = read(pieces)
    assert "ZeroDivisionError: broken on purpose" in reader.error.message
    assert "Traceback" not in json.dumps(pieces)
    assert pieces[-1] == {"error": reader.error.message}


async def test_job_cancelled_while_it_computes_leaves_no_prompt_behind(comfyui_url, nap):
    body = {"workflow": nap(8, colour=random.randrange(2**24)), "batch_count": 3, "seeds": [1, 2, 3]}
    task = asyncio.create_task(answer(comfyui_url, body))
    assert await when(comfyui_url, lambda running, waiting: running and len(waiting) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await when(comfyui_url, is_empty)


async def test_job_cancelled_while_a_piece_is_sent_leaves_no_prompt_behind(comfyui_url, nap):
    # The SDK's task holds the generator at a yield, and the generator is never closed.
    generators = []
    sending = asyncio.Event()

    async def drive():
        body = {"workflow": nap(8, colour=random.randrange(2**24)), "batch_count": 3, "seeds": [1, 2, 3]}
        generators.append(make_handler(comfyui_url=comfyui_url)({"id": "job-2", "input": body}))
        await anext(generators[0])
        sending.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(drive())
    async with asyncio.timeout(20):
        await sending.wait()
    assert await when(comfyui_url, lambda running, waiting: running and len(waiting) == 2)
    task.cancel()
    assert await when(comfyui_url, is_empty)
    await generators[0].aclose()


async def test_job_that_ends_leaves_no_connection_and_no_task(stand_in, nap):
    before = asyncio.all_tasks()
    await answer(stand_in.url, {"workflow": nap()})
    await answer(stand_in.url, {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}})
    await asyncio.sleep(0.1)
    left = {task.get_coro().cr_code.co_filename for task in asyncio.all_tasks() - before}
    assert not [file for file in left if "runpod_comfy/comfyui" in file or "runpod_comfy/worker" in file]


async def test_many_jobs_leave_no_file_no_socket_no_task_and_no_history(stand_in, nap):
    handler, before = make_handler(comfyui_url=stand_in.url), asyncio.all_tasks()
    for number in range(20):
        workflow = nap(0.0, colour=number)
        workflow["4"] = {"class_type": "LoadImage", "inputs": {"image": "input.png"}}
        workflow["5"] = {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}
        images = (InputImage("input.png", png((number, 0, 0)), "image/png"),)
        body = encode_request(Submission(workflow=workflow, images=images, batch_count=2, seeds=(1, 2)))
        reader, _ = read([piece async for piece in handler({"id": f"job-{number}", "input": body})])
        assert reader.complete
    await asyncio.sleep(0.1)
    assert stand_in.socket_count == 0
    assert stand_in.remembered == []
    assert [path for path in stand_in.folder.rglob("*") if path.is_file() or path.name.startswith("rcc-")] == []
    left = {task.get_coro().cr_code.co_filename for task in asyncio.all_tasks() - before}
    assert not [file for file in left if "runpod_comfy/comfyui" in file or "runpod_comfy/worker" in file]


async def test_what_goes_with_the_graph_and_the_deadline_survive_the_wire(nap):
    extra_data = {"extra_pnginfo": {"workflow": {"nodes": []}}, "api_key_comfy_org": "secret"}
    submission = Submission(workflow=nap(), extra_data=extra_data, timeout_s=90.5, seeds=(1,), submission_id="s")
    assert parse_request(encode_request(submission)) == submission
    assert "secret" not in repr(submission)


async def test_jobs_at_once_share_a_worker_without_mixing(stand_in, nap):
    handler = make_handler(comfyui_url=stand_in.url)

    async def one(number):
        body = {"workflow": nap(colour=number), "batch_count": 2, "seeds": [number * 10, number * 10 + 1]}
        return read([piece async for piece in handler({"id": f"job-{number}", "input": body})])

    for number, (reader, events) in enumerate(await asyncio.gather(*(one(number) for number in range(4)))):
        made = [event.output for event in events if isinstance(event, OutputReady)]
        assert reader.complete
        assert [each.seed for each in made] == [number * 10, number * 10 + 1]
        assert [each.item.getpixel((0, 0)) for each in made] == [(0, 0, number)] * 2


async def test_emulated_endpoint_streams_the_lines_and_shows_failures(stand_in, nap):
    platform = Platform(EndpointConfig(endpoint_id="e"))
    good, bad = {"workflow": nap()}, {"workflow": {}}
    async with InProcessWorker(platform, "e", make_handler(comfyui_url=stand_in.url)), asyncio.timeout(30):
        jobs = [platform.submit("e", json.dumps({"input": each}).encode()) for each in (good, bad)]
        while not all(platform.status("e", job.job_id).state.is_final for job in jobs):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)
    first, second = (platform.status("e", job.job_id) for job in jobs)
    assert first.state.name == "COMPLETED"
    assert second.state.name == "FAILED"
    assert "has no nodes" in str(second.error)


@pytest.fixture
async def folders(comfyui_url):
    async with aiohttp.ClientSession() as session:
        return await find_folders(ComfyUIClient(comfyui_url, session=session), comfyui_dir=None)


def files_of(folders):
    roots = (folders.input, folders.output, folders.temp)
    return {path for root in roots for path in root.rglob("*") if path.is_file() or path.name.startswith("rcc-")}


async def test_job_leaves_no_file_behind(comfyui_url, folders, nap):
    before = files_of(folders)
    workflow = nap(colour=random.randrange(2**24))
    workflow["4"] = {"class_type": "LoadImage", "inputs": {"image": "input.png"}}
    workflow["5"] = {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}
    images = (InputImage("input.png", png("red"), "image/png"), InputImage("a.png", png("blue"), "image/png", "rcc-1"))
    body = encode_request(Submission(workflow=workflow, images=images, batch_count=2, seeds=(1, 2)))
    reader, events = read(await answer(comfyui_url, body))
    assert reader.complete
    assert len([event for event in events if isinstance(event, OutputReady)]) == 2
    assert files_of(folders) == before


async def test_jobs_at_once_with_photos_of_one_name_each_compute_with_their_own(comfyui_url):
    handler = make_handler(comfyui_url=comfyui_url)
    colours = [(n, 2 * n, 3 * n) for n in random.sample(range(80), 5)]

    async def one(colour):
        workflow = {
            "1": {"class_type": "LoadImage", "inputs": {"image": "input.png"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
        }
        body = encode_request(
            Submission(workflow=workflow, images=(InputImage("input.png", png(colour), "image/png"),))
        )
        _, events = read([piece async for piece in handler({"id": "job", "input": body})])
        [output] = [event.output for event in events if isinstance(event, OutputReady)]
        return output.item.convert("RGB").getpixel((0, 0))

    async with asyncio.timeout(60):
        assert await asyncio.gather(*(one(colour) for colour in colours)) == colours


async def test_next_jobs_prompts_wait_in_comfyui_while_the_present_one_computes(comfyui_url, nap):
    handler = make_handler(comfyui_url=comfyui_url)

    async def one(seconds):
        body = {"workflow": nap(seconds, colour=random.randrange(2**24)), "batch_count": 1, "seeds": [1]}
        return read([piece async for piece in handler({"id": "job", "input": body})])[0]

    first, second = asyncio.create_task(one(1.0)), asyncio.create_task(one(0.1))
    assert await when(comfyui_url, lambda running, waiting: running and len(waiting) == 1)
    readers = await asyncio.gather(first, second)
    assert all(reader.complete for reader in readers)
    # What a job waits for another is not its own time.
    assert min(reader.gpu_s for reader in readers) < 0.9


async def test_cancelled_job_that_waits_behind_another_leaves_that_one_alone(comfyui_url, nap):
    handler = make_handler(comfyui_url=comfyui_url)

    async def one(seconds, batches):
        body = {"workflow": nap(seconds, colour=random.randrange(2**24)), "batch_count": batches}
        return read([piece async for piece in handler({"id": "job", "input": body})])[0]

    first = asyncio.create_task(one(1.5, 1))
    await when(comfyui_url, lambda running, waiting: running and not waiting)
    second = asyncio.create_task(one(8, 2))
    await when(comfyui_url, lambda running, waiting: running and len(waiting) == 2)
    second.cancel()
    await asyncio.wait([second])
    await when(comfyui_url, lambda _, waiting: not waiting)
    assert (await first).complete
    assert await when(comfyui_url, is_empty)


async def test_deadline_of_the_request_ends_the_job_and_takes_its_prompts_back(comfyui_url, folders, nap):
    before = files_of(folders)
    workflow = nap(0.6, colour=random.randrange(2**24))
    pieces = await answer(comfyui_url, {"workflow": workflow, "batch_count": 20, "timeout_s": 1.5})
    reader, events = read(pieces)
    assert "timeout_s" in reader.error.message
    assert pieces[-1] == {"error": reader.error.message}
    made = [event.output.batch for event in events if isinstance(event, OutputReady)]
    assert made == list(range(len(made)))
    assert len(made) in {1, 2}
    assert await when(comfyui_url, is_empty)
    assert files_of(folders) == before


async def test_previews_come_with_progress_where_the_request_asks_for_them(stand_in, nap):
    stand_in.show_previews(png("lime"))
    _, events = read(await answer(stand_in.url, {"workflow": nap(0.7), "previews": True}))
    assert png("lime") in [event.preview for event in events if isinstance(event, Progress)]
    assert isinstance(events[-1], BatchFinished)


class Store:
    def __init__(self, *, refuses=()):
        self.kept = {}
        self.refuses = refuses

    def put(self, name, data, *, media_type):
        if name in self.refuses:
            raise TransportError("The bucket does not answer.")
        self.kept[name] = (data, media_type)
        return f"https://bucket.example/{name}?signature"


async def run_with(stand_in, workflow, **more):
    handler = make_handler(comfyui_url=stand_in.url, **more)
    async with asyncio.timeout(60):
        return [piece async for piece in handler({"id": "job-1", "input": {"workflow": workflow}})]


async def test_outputs_go_to_the_store_and_their_urls_into_the_lines(stand_in, nap):
    store, jobs = Store(), []
    workflow = nap(images=2)
    workflow["3"]["inputs"]["filename_prefix"] = "below/pic"
    pieces = await run_with(stand_in, workflow, open_store=lambda job: jobs.append(job["id"]) or store)
    files = [each for line in lines_of(pieces) for each in line.get("files", [])]
    assert [(each["name"], each["subfolder"], each["url"]) for each in files] == [
        (f"pic_0000{n}_.png", "below", f"https://bucket.example/below/pic_0000{n}_.png?signature") for n in (1, 2)
    ]
    assert [(each["size_bytes"], each["media_type"]) for each in files] == [
        (len(data), media_type) for data, media_type in store.kept.values()
    ]
    assert all(line["images"] == [] for line in lines_of(pieces))
    assert jobs == ["job-1"]
    assert "done" in lines_of(pieces)[-1]


async def test_output_that_the_store_refuses_comes_in_the_lines(stand_in, nap):
    reader, events = read(await run_with(stand_in, nap(), open_store=lambda _: Store(refuses=("nap_00001_.png",))))
    assert reader.complete
    assert [event.output.name for event in events if isinstance(event, OutputReady)] == ["nap_00001_.png"]
    assert "The bucket does not answer." in next(event.message for event in events if isinstance(event, Warned))


async def test_store_that_cannot_be_opened_fails_the_job_before_anything_is_computed(stand_in, nap):
    def open_store(_):
        raise ConfigurationError("The bucket has no key.")

    pieces = await run_with(stand_in, nap(), open_store=open_store)
    assert pieces[-1] == {"error": "The bucket has no key."}
    assert stand_in.remembered == []


async def test_answer_that_runpod_could_not_keep_is_a_named_error_that_fits(stand_in, nap):
    workflow = nap(images=4)
    workflow["1"]["inputs"] |= {"width": 200, "height": 200}
    pieces = await run_with(stand_in, workflow, max_answer_bytes=3_000)
    assert "RunPod keeps" in pieces[-1]["error"]
    assert sum(len(json.dumps(piece)) for piece in pieces[:-2]) <= 3_000


class Keeper:
    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.hopeless = None
        self.asked = 0

    async def ready(self):
        self.asked += 1
        if self.hopeless:
            raise TransportError(self.hopeless)

    def death(self):
        return self.ended


async def test_death_of_comfyui_is_told_after_the_batches_that_had_finished_and_the_worker_goes_on(stand_in, nap):
    keeper, refreshed = Keeper(), []
    handler = make_handler(comfyui_url=stand_in.url, keeper=keeper, refresh=lambda: refreshed.append(1))
    pieces = []
    async with asyncio.timeout(30):
        body = {"workflow": nap(0.4), "batch_count": 4, "seeds": [1, 2, 3, 4]}
        async for piece in handler({"id": "job", "input": body}):
            pieces.append(piece)
            if '"batch_done"' in str(piece) and not keeper.ended.done():
                await stand_in.stop()
                keeper.ended.set_result("ComfyUI has died: out of memory.")
    reader, events = read(pieces)
    assert pieces[-1] == {"error": "ComfyUI has died: out of memory."}
    assert [event.output.batch for event in events if isinstance(event, OutputReady)] == [0]
    await stand_in.start()
    keeper.ended = asyncio.get_running_loop().create_future()
    reader, _ = read([piece async for piece in handler({"id": "job", "input": {"workflow": nap()}})])
    assert reader.complete
    assert (keeper.asked, refreshed) == (2, [])


async def test_comfyui_that_will_not_come_back_is_an_error_and_a_fresh_worker_is_asked_for(stand_in, nap):
    keeper, refreshed = Keeper(), []
    keeper.hopeless = "ComfyUI died twice."
    pieces = await run_with(stand_in, nap(), keeper=keeper, refresh=lambda: refreshed.append(1))
    assert pieces[-1] == {"error": "ComfyUI died twice."}
    assert refreshed == [1]


async def test_comfyui_that_nobody_watches_and_that_does_not_answer_calls_for_a_fresh_worker(nap):
    refreshed = []
    handler = make_handler(comfyui_url="http://127.0.0.1:1", refresh=lambda: refreshed.append(1))
    pieces = [piece async for piece in handler({"id": "job", "input": {"workflow": nap()}})]
    assert "did not answer" in pieces[-1]["error"]
    assert refreshed == [1]


async def test_bad_request_calls_for_no_fresh_worker(stand_in):
    refreshed = []
    await run_with(stand_in, {"1": {"class_type": "SaveImage", "inputs": {}}}, refresh=lambda: refreshed.append(1))
    assert refreshed == []
