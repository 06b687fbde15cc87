import asyncio

from runpod_comfy.comfyui.messages import Executing, NodeProgress
from runpod_comfy.comfyui.progress import ProgressThrottle
from runpod_comfy.workflow.graph import Graph

GRAPH = Graph({"5": {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "Sampler"}}})


def throttle():
    told = []
    return ProgressThrottle(GRAPH, batch_count=2, emit=told.append), told


def step(value):
    return NodeProgress(prompt_id="p", node_id="5", value=value, maximum=100)


async def test_of_what_comes_too_fast_the_first_and_the_latest_are_told():
    progress, told = throttle()
    progress.expect("p", 1)
    for value in range(100):
        progress.message(step(value))
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    assert len(told) == 2
    assert (told[-1].value, told[-1].maximum, told[-1].node_title, told[-1].batch) == (99, 100, "Sampler", 1)


async def test_prompts_of_others_are_not_told():
    progress, told = throttle()
    progress.message(Executing(prompt_id="another", node_id="5"))
    progress.message(Executing(prompt_id=None, node_id="5"))
    await asyncio.sleep(0.05)
    assert told == []


async def test_nothing_is_told_of_a_prompt_that_has_ended():
    progress, told = throttle()
    progress.expect("p", 0)
    progress.message(step(1))
    progress.forget("p")
    progress.message(step(2))
    await asyncio.sleep(0.05)
    assert told == []


async def test_nothing_is_told_after_the_end():
    progress, told = throttle()
    progress.expect("p", 0)
    progress.message(step(1))
    progress.close()
    await asyncio.sleep(0.05)
    assert told == []
