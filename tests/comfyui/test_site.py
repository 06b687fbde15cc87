"""Runs on a ComfyUI that is the worker's own: files are read in its folders, and nothing is left behind."""

import asyncio
import json
import random
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.folders import find_folders
from runpod_comfy.comfyui.follow import FollowPace
from runpod_comfy.comfyui.runner import Site, all_stopped, run_batches
from runpod_comfy.comfyui.shelf import InputShelf
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.errors import JobFailed, ProtocolError, RunpodComfyError, TransportError
from runpod_comfy.events import OutputReady, Progress, Warned
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.results import OutputText
from runpod_comfy.submission import Submission

QUICK = FollowPace(silent_s=0.3, alone_s=0.1, queue_s=0.3, give_up_s=1.0, stop_s=0.5)


async def run(client, submission, **more):
    async with asyncio.timeout(60), aclosing(run_batches(client, submission, **more)) as running:
        return [event async for event in running]


async def run_to_failure(client, submission, *, on_event=lambda _: None, **more):
    events = []
    with pytest.raises(RunpodComfyError) as caught:  # noqa: PT012 - the events before it matter
        async with asyncio.timeout(60), aclosing(run_batches(client, submission, **more)) as running:
            async for event in running:
                events.append(event)
                on_event(event)
    return events, caught.value


def outputs(events):
    return [event.output for event in events if isinstance(event, OutputReady)]


def some_colour():
    return random.randrange(2**24)


async def queue_has_one_running(client):
    async with asyncio.timeout(20):
        while len((await client.queue())[0]) != 1:  # noqa: ASYNC110 - ComfyUI tells nobody else of it
            await asyncio.sleep(0.02)


@pytest.fixture
async def folders(client):
    return await find_folders(client, comfyui_dir=None)


@pytest.fixture
def site(folders):
    return Site(shelf=InputShelf(folders), folders=folders)


def files_of(folders):
    """Return all files below the folders, and the job folders."""
    roots = (folders.input, folders.output, folders.temp)
    return {path for root in roots for path in root.rglob("*")}


@pytest.fixture
def everything():
    """Make a graph with a picture, a preview, a text, a sound, and a picture whose prefix is linked."""

    def make(colour):
        empty = {"width": 32, "height": 32, "batch_size": 2, "color": colour}
        return {
            "1": {"class_type": "EmptyImage", "inputs": empty},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/pic"}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
            "4": {"class_type": "PrimitiveString", "inputs": {"value": f"deep/{colour}/linked{colour}"}},
            "5": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ["4", 0]}},
            "6": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
            "7": {"class_type": "EmptyAudio", "inputs": {"duration": 0.2, "sample_rate": 8000, "channels": 1}},
            "8": {"class_type": "SaveAudio", "inputs": {"audio": ["7", 0], "filename_prefix": "audio/x"}},
        }

    return make


async def test_run_reads_every_output_and_leaves_no_file_and_no_history(client, site, folders, everything):
    before = files_of(folders)
    colour = some_colour()
    submission = Submission(workflow=everything(colour), batch_count=2, randomize_seed=False, previews=True)
    made = outputs(await run(client, submission, site=site))
    own = f"deep/{colour}"
    names = [(each.batch, each.node_id, each.subfolder) for each in made if not isinstance(each, OutputText)]
    assert names == [
        (batch, node_id, subfolder)
        for batch in (0, 1)
        for node_id, subfolder in (("2", "sub"), ("2", "sub"), ("3", None), ("3", None), ("5", own), ("5", own),
                                   ("8", "audio"))
    ]  # fmt: skip
    assert made[0].name == "pic_00001_.png"
    assert [each.text for each in made if isinstance(each, OutputText)] == [f"deep/{colour}/linked{colour}"] * 2
    assert files_of(folders) == before


async def test_files_carry_the_workflow_and_the_prompt_with_the_users_own_prefix(client, site, nap):
    graph = nap(0.01, colour=some_colour(), prefix="mine/nap")
    workflow = {"nodes": [], "version": 0.4}
    submission = Submission(workflow=graph, seeds=(5,), extra_data={"extra_pnginfo": {"workflow": workflow}})
    [picture] = outputs(await run(client, submission, site=site))
    told = {name: json.loads(text) for name, text in picture.item.text.items()}
    assert told["workflow"] == workflow
    assert told["prompt"]["3"]["inputs"]["filename_prefix"] == "mine/nap"
    assert told["prompt"]["2"]["inputs"]["seed"] == 5
    assert (picture.name, picture.subfolder) == ("nap_00001_.png", "mine")


async def test_files_carry_a_workflow_for_the_editor_where_the_caller_gives_none(client, site, nap):
    graph = nap(0.01, colour=some_colour(), prefix="mine/nap")
    for picture in outputs(await run(client, Submission(workflow=graph, batch_count=2, seeds=(5, 6)), site=site)):
        workflow = json.loads(picture.item.text["workflow"])
        assert [node["type"] for node in workflow["nodes"]] == ["EmptyImage", "FixtureSleep", "SaveImage"]
        nap_node, save = workflow["nodes"][1:]
        assert nap_node["title"] == "Nap"
        assert nap_node["widgets_values"] == [0.01, 5, picture.seed, "fixed"]
        assert save["widgets_values"] == ["mine/nap"]


async def test_batch_from_the_cache_is_read_before_its_file_is_removed(client, site, folders, nap):
    before = files_of(folders)
    submission = Submission(workflow=nap(0.01, colour=some_colour()), batch_count=4, randomize_seed=False)
    made = outputs(await run(client, submission, site=site))
    assert len({each.name for each in made}) == 4
    assert len({each.data for each in made}) == 1
    assert files_of(folders) == before


async def test_job_that_repeats_another_gets_its_outputs_though_the_first_ones_are_gone(client, site, everything):
    submission = Submission(workflow=everything(some_colour()), randomize_seed=False)
    first = outputs(await run(client, submission, site=site))
    again = outputs(await run(client, submission, site=site))
    assert len(again) == len(first)
    assert [each.item.tobytes() for each in again[:4] if each.kind == "images"] == [
        each.item.tobytes() for each in first[:4] if each.kind == "images"
    ]


async def test_repeated_photos_are_served_from_the_node_cache_though_the_files_were_removed(client, site, nap, png):
    images = (InputImage("00.png", png(size=(40 + some_colour() % 200, 30)), "image/png", "rcc-cached"),)
    graph = nap(0.4)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "rcc-cached/00.png"}}
    submission = Submission(workflow=graph, images=images, randomize_seed=False)
    first, second = await run(client, submission, site=site), await run(client, submission, site=site)
    assert [event for event in first if isinstance(event, Progress) and event.node_id == "2"]
    assert not [event for event in second if isinstance(event, Progress) and event.node_id == "2"]
    assert len(outputs(second)) == 1
    assert not (site.folders.input / "rcc-cached").exists()


@pytest.mark.parametrize("fault", ["closed", "failed"])
async def test_run_that_does_not_end_well_leaves_nothing_either(client, site, nap, png, fault):
    folders = site.folders
    before = files_of(folders)
    graph = nap(0.3 if fault == "closed" else 0.01, colour=some_colour(), prefix="a/b")
    graph["8"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    if fault == "failed":
        graph["9"] = {"class_type": "FixtureRaise", "inputs": {"image": ["2", 0], "message": "boom"}}
        graph["10"] = {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "never"}}
    images = (InputImage("00.png", png(), "image/png", "rcc-x"),)
    submission = Submission(workflow=graph, images=images, batch_count=3, seeds=(1, 2, 3))
    if fault == "failed":
        with pytest.raises(JobFailed):
            await run(client, submission, site=site)
    else:
        async with asyncio.timeout(30), aclosing(run_batches(client, submission, site=site)) as running:
            async for event in running:
                if isinstance(event, OutputReady):
                    break
    assert await client.queue() == ([], [])
    assert files_of(folders) == before


@pytest.mark.parametrize("prefix", ["own/nap", ["4", 0]])
async def test_what_a_node_that_cannot_be_interrupted_makes_is_removed_when_it_has_ended(
    stand_in, stand_in_client, nap, png, prefix
):
    folders = await find_folders(stand_in_client, comfyui_dir=None)
    stays = []

    @asynccontextmanager
    async def stay():
        stays.append("begun")
        yield
        stays.append("ended")

    site = Site(shelf=InputShelf(folders), folders=folders, stay=stay)
    stand_in.ignore_interrupts()
    graph = nap(0.8)
    graph["3"]["inputs"]["filename_prefix"] = prefix
    graph["4"] = {"class_type": "PrimitiveString", "inputs": {"value": "linked"}}
    images = (InputImage("00.png", png(), "image/png", "rcc-x"),)
    submission = Submission(workflow=graph, images=images, batch_count=2, seeds=(1, 2))
    task = asyncio.create_task(run(stand_in_client, submission, site=site, pace=replace(QUICK, stop_s=0.2)))
    await queue_has_one_running(stand_in_client)
    task.cancel()
    await asyncio.wait([task])
    assert len((await stand_in_client.queue())[0]) == 1
    await all_stopped()
    assert await stand_in_client.queue() == ([], [])
    assert files_of(folders) == set()
    assert stand_in.remembered == []
    assert stays == ["begun", "ended"]


async def test_run_that_is_cancelled_while_its_prompt_is_on_its_way_leaves_nothing_either(
    stand_in, stand_in_client, nap
):
    folders = await find_folders(stand_in_client, comfyui_dir=None)
    site = Site(shelf=InputShelf(folders), folders=folders)
    stand_in.answer_prompts_late(0.3)
    task = asyncio.create_task(run(stand_in_client, Submission(workflow=nap(0.05), seeds=(1,)), site=site))
    async with asyncio.timeout(20):
        while not stand_in.running:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await all_stopped()
    assert await stand_in_client.queue() == ([], [])
    assert stand_in.remembered == []
    assert files_of(folders) == set()


async def test_run_forgets_its_prompts_in_the_history(stand_in, stand_in_client, nap):
    site = Site(shelf=InputShelf())
    await run(stand_in_client, Submission(workflow=nap(0.01), batch_count=3, seeds=(1, 2, 3)), site=site)
    assert stand_in.remembered == []
    await run(stand_in_client, Submission(workflow=nap(0.01), seeds=(1,)))
    assert len(stand_in.remembered) == 1


async def test_on_a_server_elsewhere_files_come_over_http_under_the_users_own_names_and_stay(session, nap):
    async with ComfyUIStandIn(show_folder=False) as comfyui:
        client = ComfyUIClient(comfyui.url, session=session)
        site = Site(shelf=InputShelf())
        [picture] = outputs(await run(client, Submission(workflow=nap(0.01, prefix="x/nap"), seeds=(1,)), site=site))
        assert (picture.name, picture.subfolder) == ("nap_00001_.png", "x")
        assert json.loads(picture.item.text["prompt"])["3"]["inputs"]["filename_prefix"] == "x/nap"
        assert (comfyui.folder / "output" / "x" / "nap_00001_.png").read_bytes() == picture.data


@pytest.mark.parametrize("near", [True, False])
async def test_output_over_the_limit_is_named_at_the_end_and_all_others_are_delivered(stand_in_client, nap, near):
    graph = nap(0.01, prefix="large")
    graph["1"]["inputs"] |= {"width": 2000, "height": 2000}
    graph["4"] = {"class_type": "SaveAudio", "inputs": {"audio": ["5", 0], "filename_prefix": "small"}}
    graph["5"] = {"class_type": "EmptyAudio", "inputs": {"duration": 0.1}}
    folders = await find_folders(stand_in_client, comfyui_dir=None) if near else None
    site = Site(shelf=InputShelf(folders), folders=folders, largest_bytes=10_000)
    submission = Submission(workflow=graph, batch_count=2, seeds=(1, 2))
    events, error = await run_to_failure(stand_in_client, submission, site=site)
    assert str(error).count("large_0000") == 2
    assert [(each.batch, each.node_id) for each in outputs(events)] == [(0, "4"), (1, "4")]


async def test_server_that_takes_prompts_and_computes_none_is_an_error(stand_in, stand_in_client, nap):
    stand_in.stall()
    with pytest.raises(TransportError, match="computes no more"):
        await run(stand_in_client, Submission(workflow=nap(), seeds=(1,)), pace=QUICK)


@pytest.mark.parametrize("reported", [{"score": [float("nan")]}, {"note": ["\ud83d"]}, {"text": ["half \ud83d"]}])
async def test_node_that_reports_what_is_no_json_loses_nothing(stand_in, stand_in_client, nap, reported):
    stand_in.report_too("SaveImage", reported)
    made = outputs(await run(stand_in_client, Submission(workflow=nap(0.01), seeds=(1,)), pace=QUICK))
    assert [type(each).__name__ for each in made][:1] == ["WorkflowOutputImage"]
    assert [each.text for each in made[1:]] == [text.replace("\ud83d", "?") for text in reported.get("text", [])]


async def test_answers_that_cannot_be_read_fail_the_run_long_before_a_server_counts_as_gone(
    stand_in, stand_in_client, nap
):
    async def garble():
        await queue_has_one_running(stand_in_client)
        stand_in.garble_history()

    garbling = asyncio.create_task(garble())
    submission = Submission(workflow=nap(0.3), seeds=(1,))
    _, error = await run_to_failure(stand_in_client, submission, pace=replace(QUICK, give_up_s=100.0))
    await garbling
    assert isinstance(error, ProtocolError)


async def test_thread_that_a_node_has_ended_is_an_error_for_its_prompt_and_for_those_behind(
    stand_in, stand_in_client, nap
):
    stand_in.die_computing()
    submission = Submission(workflow=nap(), seeds=(1,))
    both = [asyncio.create_task(run_to_failure(stand_in_client, submission, pace=QUICK)) for _ in range(2)]
    for _, error in await asyncio.gather(*both):
        assert isinstance(error, TransportError)
        assert "its thread that computes has ended" in str(error)


async def test_prompt_without_a_sign_of_life_fails_at_the_limit_and_without_one_waits(stand_in, stand_in_client, nap):
    stand_in.die_computing(known=False)
    submission = Submission(workflow=nap(), seeds=(1,))
    patient = asyncio.create_task(run(stand_in_client, submission, pace=QUICK))
    await queue_has_one_running(stand_in_client)
    await asyncio.sleep(0.7)
    assert not patient.done()
    patient.cancel()
    await asyncio.wait([patient])
    await stand_in.stop()
    await stand_in.start()
    stand_in.die_computing(known=False)
    _, error = await run_to_failure(stand_in_client, submission, pace=replace(QUICK, stall_s=0.5))
    assert "no sign of life" in str(error)
    assert "WORKER_STALL_S" in str(error)


async def test_prompt_that_tells_its_steps_lives_though_it_takes_longer_than_the_limit(stand_in_client, nap):
    pace = replace(QUICK, stall_s=0.3)
    made = outputs(await run(stand_in_client, Submission(workflow=nap(0.9), seeds=(1,)), pace=pace))
    assert len(made) == 1


async def test_prompt_that_waits_behind_another_for_longer_than_the_limit_is_no_hanging_one(
    stand_in_client, session, stand_in, nap
):
    other = ComfyUIClient(stand_in.url, session=session)
    await other.queue_prompt(nap(0.9))
    submission = Submission(workflow=nap(0.01, colour=1), seeds=(1,))
    assert len(outputs(await run(stand_in_client, submission, pace=replace(QUICK, stall_s=0.3)))) == 1


async def test_death_of_the_process_fails_the_run_with_its_reason_after_what_was_made(stand_in_client, nap):
    death = asyncio.get_running_loop().create_future()
    submission = Submission(workflow=nap(0.3), batch_count=3, seeds=(1, 2, 3))

    def die(event):
        if isinstance(event, OutputReady):
            death.set_result("ComfyUI was killed by the system.")

    events, error = await run_to_failure(stand_in_client, submission, death=death, on_event=die)
    assert str(error) == "ComfyUI was killed by the system."
    assert [each.batch for each in outputs(events)] == [0]


async def test_missing_node_class_is_named_with_the_nearest_that_is_installed(session):
    async with ComfyUIStandIn(strict_nodes=True) as comfyui:
        client = ComfyUIClient(comfyui.url, session=session)
        graph = {"1": {"class_type": "SaveImagee", "inputs": {}}}
        with pytest.raises(JobFailed, match=r"SaveImagee does not exist.*'SaveImage'") as caught:
            await run(client, Submission(workflow=graph))
        assert (caught.value.node_id, caught.value.node_type) == ("1", "SaveImagee")


async def test_lack_of_memory_is_named_with_what_helps(stand_in, stand_in_client, nap):
    stand_in.fail_node("FixtureSleep", "Allocation on device", exception_type="torch.OutOfMemoryError")
    with pytest.raises(JobFailed, match=r"OutOfMemoryError: Allocation on device.*smaller batch_size"):
        await run(stand_in_client, Submission(workflow=nap(), seeds=(1,)))


@pytest.mark.parametrize("class_type", ["SaveVideo", "VHS_VideoCombine", "SaveGLB", "SaveLatent", "SaveAudio"])
async def test_outputs_of_every_kind_are_the_bytes_that_comfyui_wrote(stand_in, stand_in_client, nap, class_type):
    graph = nap(0.0)
    graph["3"] = {"class_type": class_type, "inputs": {"images": ["2", 0], "audio": ["2", 0], "filename_prefix": "v/x"}}
    [output] = outputs(await run(stand_in_client, Submission(workflow=graph, seeds=(1,))))
    assert (stand_in.folder / "output" / "v" / output.name).read_bytes() == output.data
    assert output.kind == {"SaveVideo": "images", "VHS_VideoCombine": "gifs", "SaveGLB": "3d", "SaveLatent": "latents",
                           "SaveAudio": "audio"}[class_type]  # fmt: skip
    assert output.subfolder == "v"


async def test_picture_text_sound_and_video_of_one_workflow_are_all_delivered_as_they_were_written(client, site, nap):
    graph = nap(0.01, colour=some_colour(), images=4)
    graph |= {
        "4": {"class_type": "PrimitiveString", "inputs": {"value": "a caption"}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
        "6": {"class_type": "EmptyAudio", "inputs": {"duration": 0.5, "sample_rate": 44100, "channels": 2}},
        "7": {"class_type": "SaveAudio", "inputs": {"audio": ["6", 0], "filename_prefix": "audio/sound"}},
        "8": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "audio": ["6", 0], "fps": 4.0}},
        "9": {"class_type": "SaveVideo", "inputs": {"video": ["8", 0], "filename_prefix": "video/clip",
                                                    "format": "mp4", "codec": "h264"}},
    }  # fmt: skip
    made = []

    def compare(event):
        if isinstance(event, OutputReady):
            output = event.output
            made.append((output.origin.node_id, getattr(output, "kind", "text"), getattr(output, "media_type", None)))
            if not isinstance(output, OutputText):
                written = [path.read_bytes() for path in site.folders.output.rglob(output.name)]
                assert output.data in written

    async with (
        asyncio.timeout(60),
        aclosing(run_batches(client, Submission(workflow=graph, seeds=(1,)), site=site)) as running,
    ):
        async for event in running:
            compare(event)
    assert [each[:2] for each in made] == [("3", "images")] * 4 + [("5", "text"), ("7", "audio"), ("9", "images")]
    assert made[-1][2] == "video/mp4"


async def test_first_picture_leaves_while_the_second_batch_computes(client, site, nap):
    submission = Submission(workflow=nap(0.6, colour=some_colour()), batch_count=4, seeds=(1, 2, 3, 4))
    async with asyncio.timeout(30), aclosing(run_batches(client, submission, site=site)) as running:
        async for event in running:
            if isinstance(event, OutputReady):
                computing, waiting = await client.queue()
                assert (len(computing), len(waiting)) == (1, 2)
                break


async def test_previews_of_the_sampler_come_with_progress_on_request(stand_in, stand_in_client, nap, png):
    stand_in.show_previews(png())
    for previews in (False, True):
        submission = Submission(workflow=nap(0.8, colour=some_colour()), seeds=(1,), previews=previews)
        events = await run(stand_in_client, submission)
        shown = [event for event in events if isinstance(event, Progress) and event.preview]
        assert bool(shown) is previews
        assert all((event.preview, event.node_id, event.batch) == (png(), "2", 0) for event in shown)
        assert not [event for event in events if isinstance(event, Warned)]
