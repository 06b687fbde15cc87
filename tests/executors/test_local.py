"""RunPod Serverless on this machine: what it starts, it ends."""

import asyncio
import time

import orjson
import pytest

from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.local import LOCAL_ENDPOINT_ID, LocalRunpod

SLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 0}},
    "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 20, "steps": 400, "seed": 1}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}},
}


@pytest.mark.parametrize("cancelled", [False, True])
async def test_stopping_waits_until_jobs_under_way_are_cleaned_up(cancelled):
    async with asyncio.timeout(30), ComfyUIStandIn() as comfyui:
        before = asyncio.all_tasks()
        local = LocalRunpod(comfyui_url=comfyui.url)
        async with local:
            body = orjson.dumps({"input": {"workflow": SLOW, "batch_count": 3}})
            job = local.platform.submit(LOCAL_ENDPOINT_ID, body)
            while not comfyui.running:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            if cancelled:
                local.platform.cancel(LOCAL_ENDPOINT_ID, job.job_id)
                await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        assert not left
        assert not comfyui.running
        assert list((comfyui.folder / "output").iterdir()) == []


def test_timeout_of_a_call_holds_on_the_worker_though_nobody_waits_and_runpods_own_limit_is_later(runpod_emulator):
    executor = RunpodComfyWorkflowExecutor()
    handle = executor.start_workflow(WorkflowTemplate.from_workflow(SLOW), timeout=0.5)
    deadline_s = time.monotonic() + 20
    while not (job := runpod_emulator.jobs()[0]).state.is_final:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert job.job_id == handle.job_id
    assert job.state == "FAILED"  # and not TIMED_OUT: RunPod takes no limit below 5 s
    assert "own limit of 0.5 s" in job.error
    assert not runpod_emulator.comfyui.running
