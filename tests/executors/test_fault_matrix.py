"""Every fault that docs/reliability.md names, against sync and async callers.

Each call ends with all images, or with an error that says what is missing and carries the rest.
"""

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest

from runpod_comfy import JobError, RunpodComfyError, WorkflowTemplate, _loop
from runpod_comfy.events import OutputReady, Queued

_SPEC = importlib.util.spec_from_file_location("faults_table", Path(__file__).with_name("faults_table.py"))
_TABLE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_TABLE)
CASES, IMAGES = _TABLE.CASES, _TABLE.IMAGES

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"
TEMPLATE = WorkflowTemplate.from_string('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}')


@pytest.fixture
def endpoint_of(make_endpoint, painter):
    """`endpoint_of(case)` is an endpoint on which that fault waits."""

    def make(case):
        async def stall(_, batch):
            if batch == 0:
                await asyncio.sleep(3600)

        async def progress(job, _):
            endpoint.worker.progress_update(job, "half")

        async def fails(job):
            async for piece in painter(per_batch=1)({"input": {**job["input"], "batch_count": 1, "seeds": [1]}}):
                if '"done"' not in piece:
                    yield piece
            yield {"error": "out of memory"}

        async def raises(_):
            raise LookupError("no such model")

        async def returns(_):
            return {"text": "I am a language model"}

        handlers = {
            "paints": painter(per_batch=1),
            "stalls": painter(per_batch=1, hold=stall),
            "progress": painter(per_batch=1, hold=progress),
            "fails": fails,
            "raises": raises,
            "returns": returns,
            "none": None,
        }
        endpoint = make_endpoint(handlers[case.worker], aggregate=case.aggregate, **case.config)
        endpoint.platform.faults.add(*case.faults)
        return endpoint

    return make


async def do(endpoint, what):
    """What somebody else does, on the platform's loop."""
    platform = endpoint.platform
    match what:
        case "expire":
            platform.expire("test", platform.statuses("test")[0].job_id)
        case "purge":
            platform.purge_queue("test")
        case "cancel":
            platform.cancel("test", platform.statuses("test")[0].job_id)
        case "skip 700 s":
            platform.skip(700)
        case "skip 25 h":
            platform.skip(25 * 3600)


def run_sync(endpoint, case):
    arguments = {"num_samples": IMAGES, "seed": 5, **case.call}
    if case.by is None:
        return endpoint.executor().submit_workflow(TEMPLATE, **arguments)
    for event in (events := endpoint.executor().watch_workflow(TEMPLATE, **arguments)):
        if isinstance(event, Queued if case.worker == "none" else OutputReady):
            _loop.run_sync(lambda: do(endpoint, case.by))
            return list(events)[-1].result
    raise AssertionError


def run_async(endpoint, case):
    arguments = {"num_samples": IMAGES, "seed": 5, **case.call}

    async def main():
        executor = endpoint.executor()
        if case.by is None:
            return await executor.submit_workflow_async(TEMPLATE, **arguments)
        async for event in (events := executor.watch_workflow_async(TEMPLATE, **arguments)):
            if isinstance(event, Queued if case.worker == "none" else OutputReady):
                await asyncio.to_thread(_loop.run_sync, lambda: do(endpoint, case.by))
                return [event async for event in events][-1].result
        raise AssertionError

    return asyncio.run(main())


@pytest.mark.parametrize("face", [run_sync, run_async])
@pytest.mark.parametrize("name", CASES)
def test_each_fault_ends_with_all_images_or_with_an_error_that_carries_the_rest(endpoint_of, name, face):
    case = CASES[name]
    endpoint = endpoint_of(case)
    if case.error is None:
        result = face(endpoint, case)
        assert sorted(image.seed for image in result) == [5, 6, 7]
        assert len({image.sha256 for image in result}) == IMAGES
    else:
        with pytest.raises(case.error, match=case.match) as caught:
            face(endpoint, case)
        assert isinstance(caught.value, RunpodComfyError)
        if case.partial is not None:
            assert isinstance(caught.value, JobError)
            assert caught.value.job_id
            assert len(caught.value.partial) >= case.partial
    if case.by not in {"expire", "purge", "skip 25 h"}:  # these are forgotten
        assert len(endpoint.jobs()) == case.jobs
    assert "IN_QUEUE" not in endpoint.states()
    if case.faults and not name.startswith("health"):
        assert sum(endpoint.platform.faults.counts().values()) >= 1


def test_the_documents_name_every_fault_and_no_other():
    section = DOCS.read_text("utf-8").partition("## Every fault")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert sorted(named) == sorted(CASES)
    assert len(CASES) >= 40
