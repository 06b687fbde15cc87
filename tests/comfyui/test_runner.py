import asyncio
import json
import random
from contextlib import aclosing

import pytest

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.folders import find_folders
from runpod_comfy.comfyui.follow import FollowPace
from runpod_comfy.comfyui.runner import run_batches
from runpod_comfy.errors import JobCancelled, JobFailed, RunpodComfyError, TransportError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.results import OutputFile, OutputText, WorkflowOutputImage
from runpod_comfy.submission import Submission

QUICK = FollowPace(silent_s=0.3, alone_s=0.1, queue_s=0.3, give_up_s=1.0, stop_s=0.5)


async def run(client, submission, **more):
    async with asyncio.timeout(60), aclosing(run_batches(client, submission, **more)) as running:
        return [event async for event in running]


async def run_to_failure(client, submission, **more):
    events = []
    with pytest.raises(RunpodComfyError) as caught:  # noqa: PT012 - the events before it matter
        async with asyncio.timeout(60), aclosing(run_batches(client, submission, **more)) as running:
            async for event in running:
                events.append(event)  # noqa: PERF401 - likewise
    return events, caught.value


def outputs(events):
    return [event.output for event in events if isinstance(event, OutputReady)]


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


def some_colour():
    """Two runs on one server must not meet in its cache."""
    return random.randrange(2**24)


async def queue_when(client, check):
    """Return the server's running and waiting prompts once they pass a check."""
    async with asyncio.timeout(20):
        while not check(*(queue := await client.queue())):  # noqa: ASYNC110 - ComfyUI tells nobody else of it
            await asyncio.sleep(0.02)
        return queue


async def queue_is_empty(client):
    return await queue_when(client, lambda running, waiting: not running and not waiting) == ([], [])


async def test_batches_come_in_order_with_their_seeds(client, nap):
    graph = nap(0.02, colour=some_colour(), images=2)
    events = await run(client, Submission(workflow=graph, batch_count=5, seeds=(11, 12, 13, 14, 15)))
    made = outputs(events)
    assert all(isinstance(each, WorkflowOutputImage) for each in made)
    assert [(each.batch, each.seed) for each in made] == [(n, 11 + n) for n in range(5) for _ in range(2)]
    assert [(each.node_id, each.origin.node_title, each.media_type) for each in made] == [
        ("3", "SaveImage", "image/png")
    ] * 10
    assert len({each.name for each in made}) == 10
    assert made[0].item.size == (32, 32)
    ends = [event for event in events if isinstance(event, BatchFinished)]
    assert [(end.batch, end.batch_count, end.seed) for end in ends] == [(n, 5, 11 + n) for n in range(5)]
    assert all(end.gpu_s > 0 for end in ends)
    kinds = [type(event) for event in events if not isinstance(event, Progress)]
    assert kinds == [OutputReady, OutputReady, BatchFinished] * 5


async def test_each_batch_gets_its_seed_in_the_graph(client, nap):
    graph = nap(0.01, colour=some_colour())
    made = outputs(await run(client, Submission(workflow=graph, batch_count=2, seeds=(101, 102))))
    assert [json.loads(each.item.text["prompt"])["2"]["inputs"]["seed"] for each in made] == [101, 102]


async def test_seeds_that_are_left_to_us_are_drawn_and_told(client, nap):
    submission = Submission(workflow=nap(0.01, colour=some_colour()), batch_count=3, randomize_seed=True)
    made = outputs(await run(client, submission, rng=random.Random(1)))
    assert len({each.seed for each in made}) == 3
    assert all(isinstance(each.seed, int) for each in made)


async def test_progress_names_batch_node_title_and_step(client, nap):
    events = await run(client, Submission(workflow=nap(0.6, colour=some_colour()), seeds=(1,)))
    steps = [event for event in events if isinstance(event, Progress) and event.maximum]
    assert steps
    assert {(step.batch, step.batch_count, step.node_id, step.node_title, step.maximum) for step in steps} == {
        (0, 1, "2", "Nap", 12)
    }


async def test_input_photos_reach_the_nodes_that_load_them(client, png):
    images = (
        InputImage("00.png", png("red"), "image/png", "rcc-t"),
        InputImage("01.png", png("blue"), "image/png", "rcc-t"),
    )
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "rcc-t/01.png"}},
        "2": {
            "class_type": "ImageScale",
            "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "width": 16, "height": 8, "crop": "disabled"},
        },
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "below/inverted"}},
        "5": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "/comfyui/input/rcc-t", "image_load_cap": 0,
                                                            "start_index": 0, "load_always": False}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "dir"}},
    }  # fmt: skip
    made = outputs(await run(client, Submission(workflow=graph, images=images)))
    assert [(each.node_id, each.item.size, each.item.convert("RGB").getpixel((4, 4))) for each in made] == [
        ("4", (16, 8), (255, 255, 0)),
        ("6", (32, 24), (255, 0, 0)),
        ("6", (32, 24), (0, 0, 255)),
    ]
    assert made[0].subfolder == "below"


async def test_texts_and_sounds_come_too_in_the_order_of_their_nodes(client):
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "a caption, ü"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        "3": {"class_type": "EmptyAudio", "inputs": {"duration": 0.2, "sample_rate": 8000, "channels": 1}},
        "4": {"class_type": "SaveAudio", "inputs": {"audio": ["3", 0], "filename_prefix": "audio/test"}},
    }
    text, sound = outputs(await run(client, Submission(workflow=graph)))
    assert isinstance(text, OutputText)
    assert (text.text, text.origin.node_id) == ("a caption, ü", "2")
    assert type(sound) is OutputFile
    assert (sound.kind, sound.subfolder, sound.node_id) == ("audio", "audio", "4")
    assert sound.media_type.startswith("audio/")
    assert sound.data[:4] in {b"fLaC", b"RIFF"}


async def test_previews_come_on_request_only(client, nap):
    graph = nap(0.01, colour=some_colour())
    graph["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    without = await run(client, Submission(workflow=graph, batch_count=2, seeds=(1, 2)))
    assert outputs(without) == []
    assert len(warnings(without)) == 1
    assert "preview" in warnings(without)[0]
    assert len(outputs(await run(client, Submission(workflow=graph, seeds=(1,), previews=True)))) == 1


async def test_failing_node_is_named_and_what_its_batch_had_made_is_delivered(client, nap):
    graph = nap(0.01, colour=some_colour())
    graph["4"] = {"class_type": "FixtureRaise", "inputs": {"image": ["1", 0], "message": "boom"}}
    graph["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "never"}}
    events, error = await run_to_failure(client, Submission(workflow=graph, batch_count=3, seeds=(1, 2, 3)))
    assert isinstance(error, JobFailed)
    assert (error.node_id, error.node_type) == ("4", "FixtureRaise")
    assert "Batch 1 of 3 failed in node 4 (FixtureRaise)" in str(error)
    assert "boom" in str(error)
    assert {each.node_id for each in outputs(events)} <= {"3"}  # which branch runs first is ComfyUI's choice
    assert await queue_is_empty(client)


async def test_batches_before_a_failing_one_are_delivered_whole(stand_in, stand_in_client, nap):
    events = []
    submission = Submission(workflow=nap(0.2), batch_count=5, seeds=(1, 2, 3, 4, 5))
    with pytest.raises(JobFailed, match=r"Batch \d of 5 failed in node 2 .*no more") as caught:  # noqa: PT012 - the events matter
        async with aclosing(run_batches(stand_in_client, submission)) as running:
            async for event in running:
                events.append(event)
                if isinstance(event, OutputReady):
                    stand_in.fail_node("FixtureSleep", "no more")
    delivered = [each.batch for each in outputs(events)]
    assert delivered == [event.batch for event in events if isinstance(event, BatchFinished)]
    assert delivered == list(range(len(delivered)))
    assert f"Batch {len(delivered) + 1} of 5" in str(caught.value)
    assert delivered
    assert await queue_is_empty(stand_in_client)


async def test_refused_workflow_is_a_failed_job_and_nothing_is_queued(client, nap):
    graph = nap()
    del graph["2"]["inputs"]["seconds"]
    events, error = await run_to_failure(client, Submission(workflow=graph, batch_count=3, seeds=(1, 2, 3)))
    assert (outputs(events), error.node_id, error.node_type) == ([], "2", "FixtureSleep")
    assert "ComfyUI refused the workflow" in str(error)
    assert await queue_is_empty(client)


async def test_part_that_comfyui_leaves_out_is_warned_about_once(client, nap):
    graph = nap(0.01, colour=some_colour())
    graph["8"] = {"class_type": "LoadImage", "inputs": {"image": "nope.png"}, "_meta": {"title": "Photo"}}
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}}
    events = await run(client, Submission(workflow=graph, batch_count=2, seeds=(1, 2)))
    assert [each.node_id for each in outputs(events)] == ["3", "3"]
    [warning] = warnings(events)
    assert "node 8 (LoadImage, “Photo”)" in warning


async def test_batch_from_the_cache_is_delivered_under_names_of_its_own(client, nap):
    submission = Submission(workflow=nap(0.01, colour=some_colour()), batch_count=3, randomize_seed=False)
    made = outputs(await run(client, submission))
    assert [each.batch for each in made] == [0, 1, 2]
    assert len({each.name for each in made}) == 3
    assert len({each.data for each in made}) == 1


async def test_cached_output_whose_file_is_gone_is_saved_again(stand_in, stand_in_client, nap):
    submission = Submission(workflow=nap(0.01), randomize_seed=False)
    [first] = outputs(await run(stand_in_client, submission))
    for file in (stand_in.folder / "output").iterdir():
        file.unlink()
    [again] = outputs(await run(stand_in_client, submission))
    assert again.item.tobytes() == first.item.tobytes()
    assert again.name.startswith("nap")


async def test_cached_output_without_a_prefix_of_its_own_is_saved_again_too(client):
    graph = {"1": {"class_type": "SaveAudio", "inputs": {"audio": ["2", 0], "filename_prefix": ["3", 0]}},
             "2": {"class_type": "EmptyAudio", "inputs": {"duration": 0.1, "sample_rate": 8000, "channels": 1}},
             "3": {"class_type": "PrimitiveString", "inputs": {"value": f"sound{some_colour()}"}}}  # fmt: skip
    folders = await find_folders(client, comfyui_dir=None)
    [first] = outputs(await run(client, Submission(workflow=graph)))
    (folders.output / first.name).unlink()
    [again] = outputs(await run(client, Submission(workflow=graph)))
    assert again.name.startswith(first.name.partition("_")[0])
    assert again.kind == "audio"


async def test_output_that_is_gone_though_it_was_saved_again_fails_the_job(stand_in, stand_in_client, nap):
    stand_in.lose_files()
    _, error = await run_to_failure(stand_in_client, Submission(workflow=nap(0.01), seeds=(1,)))
    assert error.node_id == "3"
    assert "nap_00001_.png" in str(error)


async def test_closed_run_leaves_no_prompt_behind_and_spares_those_of_others(client, nap):
    other = (await client.queue_prompt(nap(0.5, colour=some_colour()), prompt_id=f"other-{some_colour()}")).prompt_id
    submission = Submission(workflow=nap(8, colour=some_colour()), batch_count=3, seeds=(1, 2, 3))
    async with asyncio.timeout(30), aclosing(run_batches(client, submission)) as running:
        async for event in running:
            if isinstance(event, Progress):
                break
    assert await queue_is_empty(client)
    assert (await client.history(other))["status"]["status_str"] == "success"


async def test_run_that_waits_behind_another_is_cancelled_without_touching_it(client, nap):
    other = (await client.queue_prompt(nap(1.0, colour=some_colour()), prompt_id=f"other-{some_colour()}")).prompt_id
    submission = Submission(workflow=nap(8, colour=some_colour()), batch_count=3, seeds=(1, 2, 3))
    task = asyncio.create_task(run(client, submission))
    await queue_when(client, lambda _, waiting: len(waiting) == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.queue() == ([other], [])
    assert await queue_is_empty(client)
    assert (await client.history(other))["status"]["status_str"] == "success"


async def test_cancelling_twice_leaves_nothing_behind_either(client, nap):
    submission = Submission(workflow=nap(8, colour=some_colour()), batch_count=3, seeds=(1, 2, 3))
    task = asyncio.create_task(run(client, submission))
    await queue_when(client, lambda running, waiting: running and waiting)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await queue_is_empty(client)


async def test_interruption_by_somebody_is_a_cancelled_job(client, nap):
    submission = Submission(workflow=nap(8, colour=some_colour()), batch_count=2, seeds=(1, 2))

    async def interrupt():
        [prompt_id], _ = await queue_when(client, lambda running, _: running)
        await client.interrupt(prompt_id)

    interrupting = asyncio.create_task(interrupt())
    _, error = await run_to_failure(client, submission)
    await interrupting
    assert isinstance(error, JobCancelled)
    assert await queue_is_empty(client)


async def test_prompts_deleted_by_somebody_are_a_cancelled_job(client, nap):
    submission = Submission(workflow=nap(0.3, colour=some_colour()), batch_count=3, seeds=(1, 2, 3))

    async def delete():
        _, waiting = await queue_when(client, lambda _, waiting: len(waiting) == 2)
        await client.delete_pending(waiting)

    deleting = asyncio.create_task(delete())
    events, error = await run_to_failure(client, submission, pace=QUICK)
    await deleting
    assert isinstance(error, JobCancelled)
    assert [each.batch for each in outputs(events)] == [0]


async def test_two_runs_at_once_get_their_own_outputs(client, nap):
    colours = [some_colour(), some_colour()]
    submissions = [
        Submission(workflow=nap(0.05, colour=colour, prefix=f"run{n}"), batch_count=3, seeds=(1, 2, 3))
        for n, colour in enumerate(colours)
    ]
    both = await asyncio.gather(*(run(client, submission) for submission in submissions))
    for n, events in enumerate(both):
        made = outputs(events)
        assert [each.batch for each in made] == [0, 1, 2]
        assert all(each.name.startswith(f"run{n}_") for each in made)


async def test_run_ends_though_its_websocket_is_closed_midway(stand_in, stand_in_client, nap):
    events = []
    submission = Submission(workflow=nap(0.3), batch_count=3, seeds=(1, 2, 3))
    async with asyncio.timeout(30), aclosing(run_batches(stand_in_client, submission, pace=QUICK)) as running:
        async for event in running:
            events.append(event)
            if isinstance(event, (Progress, BatchFinished)):
                await stand_in.close_sockets()
    assert [each.batch for each in outputs(events)] == [0, 1, 2]


async def test_run_ends_though_its_websocket_says_nothing(stand_in, stand_in_client, nap):
    stand_in.silence()
    made = outputs(
        await run(stand_in_client, Submission(workflow=nap(0.1), batch_count=3, seeds=(1, 2, 3)), pace=QUICK)
    )
    assert [each.batch for each in made] == [0, 1, 2]


async def test_server_that_dies_midway_fails_the_job_after_what_was_made(stand_in, stand_in_client, nap):
    events = []
    submission = Submission(workflow=nap(0.3), batch_count=4, seeds=(1, 2, 3, 4))
    with pytest.raises(TransportError):  # noqa: PT012 - the events matter
        async with asyncio.timeout(30), aclosing(run_batches(stand_in_client, submission, pace=QUICK)) as running:
            async for event in running:
                events.append(event)
                if isinstance(event, BatchFinished):
                    await stand_in.stop()
    assert [each.batch for each in outputs(events)] == [0]


async def test_server_that_is_restarted_midway_is_a_failed_job(stand_in, stand_in_client, nap):
    submission = Submission(workflow=nap(1), batch_count=2, seeds=(1, 2))

    async def restart():
        await queue_when(stand_in_client, lambda running, _: running)
        await stand_in.stop()
        await stand_in.start()

    restarting = asyncio.create_task(restart())
    _, error = await run_to_failure(stand_in_client, submission, pace=QUICK)
    await restarting
    assert isinstance(error, JobFailed)
    assert "restarted" in str(error)


async def test_server_that_is_not_there_is_a_transport_error(session, unused_tcp_port, nap):
    client = ComfyUIClient(f"http://127.0.0.1:{unused_tcp_port}", session=session)
    _, error = await run_to_failure(client, Submission(workflow=nap(), seeds=(1,)))
    assert isinstance(error, TransportError)


async def test_run_leaves_no_task_behind(stand_in_client, nap):
    before = asyncio.all_tasks()
    await run(stand_in_client, Submission(workflow=nap(0.01), batch_count=3, seeds=(1, 2, 3)))
    await run_to_failure(stand_in_client, Submission(workflow={"1": {"class_type": "SaveImage", "inputs": {}}}))
    await asyncio.sleep(0.1)
    left = {task.get_coro().cr_code.co_filename for task in asyncio.all_tasks() - before}
    assert not [file for file in left if "runpod_comfy/comfyui" in file]


async def test_a_slow_consumer_gets_everything_in_order(stand_in_client, nap):
    made = []
    async with aclosing(run_batches(stand_in_client, Submission(workflow=nap(0.0, images=40), seeds=(1,)))) as running:
        async for event in running:
            await asyncio.sleep(0.005)
            made += outputs([event])
    assert [each.name for each in made] == [f"nap_{n:05}_.png" for n in range(1, 41)]
