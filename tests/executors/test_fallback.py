import asyncio
import contextlib
from collections import Counter

import pytest

from runpod_comfy import (
    ComfyServerWorkflowExecutor,
    ConfigurationError,
    FallbackExecutor,
    JobFailed,
    NotFound,
    RunpodComfyWorkflowExecutor,
    SubmissionUncertain,
    TransportError,
    WorkflowTemplate,
    _loop,
)
from runpod_comfy.emulator.api import EmulatorServer
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.emulator.faults import Fault, Reset, Status
from runpod_comfy.emulator.inprocess import InProcessWorker
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.platform import Platform
from runpod_comfy.events import BatchFinished, Finished, OutputReady, Queued
from runpod_comfy.worker.handler import make_handler

TEMPLATE = WorkflowTemplate.from_string(
    """{"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": 0}},
        "2": {"class_type": "FixtureSleep",
              "inputs": {"image": ["1", 0], "seconds": {{ seconds|default(0.02) }}, "steps": 2, "seed": 1}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}}}"""
)
NOBODY = "http://127.0.0.1:9"


class Endpoint:
    """An emulated endpoint with workers that each have a stand-in of their own."""

    def __init__(self, name, workers):
        self.name = name
        self.platform = Platform(EndpointConfig(endpoint_id=name))
        self.server = EmulatorServer(self.platform)
        self._wanted = workers
        self.workers = []
        self.stand_ins = []

    async def start(self):
        await self.server.start()
        for number in range(self._wanted):
            stand_in = ComfyUIStandIn()
            await stand_in.start()
            self.stand_ins.append(stand_in)
            handler = make_handler(comfyui_url=stand_in.url)
            worker = InProcessWorker(self.platform, self.name, handler, worker_id=f"{self.name}-{number}")
            await worker.start()
            self.workers.append(worker)

    async def stop(self):
        for each in (*self.workers, *self.stand_ins, self.server):
            await each.stop()

    def executor(self, **options):
        return RunpodComfyWorkflowExecutor(self.name, api_key="k", base_url=self.server.base_url, **options)

    def jobs(self):
        async def statuses():
            return list(self.platform.statuses(self.name))

        return _loop.run_sync(statuses)


@pytest.fixture
def start():
    """`start(server)` starts a server on the library's loop and stops it in the end."""
    with contextlib.ExitStack() as stack:

        def begin(server):
            _loop.run_sync(server.start)
            stack.callback(_loop.run_sync, server.stop)
            return server

        yield begin


def own_server(stand_in, **options):
    return ComfyServerWorkflowExecutor(stand_in.url, **{"give_up_s": 0.5, **options})


def submit_all(executor, count):
    async def main():
        jobs = [executor.submit_workflow_async(TEMPLATE, num_samples=2, seed=10 * n) for n in range(count)]
        return await asyncio.gather(*jobs)

    return asyncio.run(main())


# -- who gets the work -------------------------------------------------------------------------------------------------


def test_the_first_place_with_room_runs_it_and_the_result_says_which(start):
    server, endpoint = start(ComfyUIStandIn()), start(Endpoint("a", 1))
    executor = FallbackExecutor([own_server(server), endpoint.executor()])
    result = executor.submit_workflow(TEMPLATE, num_samples=2)
    assert result.places == (server.url,)
    assert endpoint.jobs() == []


@pytest.mark.parametrize("killed", ["nobody", "own server", "a worker"])
def test_a_hundred_jobs_keep_every_place_busy_and_none_is_lost(start, killed):
    server = start(ComfyUIStandIn())
    first, second = start(Endpoint("a", 2)), start(Endpoint("b", 1))
    executor = FallbackExecutor(
        [own_server(server), first.executor(max_concurrent_jobs=6), second.executor(max_concurrent_jobs=6)],
        batch_size=2,
    )
    victim = {"nobody": None, "own server": server.stop, "a worker": first.workers[0].stop}[killed]

    async def main():
        finished = 0

        async def one(number):
            nonlocal finished
            result = await executor.submit_workflow_async(TEMPLATE, num_samples=2, seed=10 * number)
            finished += 1
            if finished == 30 and victim is not None:
                await _loop.run_async(victim)
            return result

        return await asyncio.gather(*(one(number) for number in range(100)))

    results = asyncio.run(main())
    for number, result in enumerate(results):
        assert [(image.batch, image.seed) for image in result] == [(0, 10 * number)] * 2
    ran_at = Counter(result.places[-1] for result in results)
    assert set(ran_at) == {server.url, "runpod://a", "runpod://b"}
    assert min(ran_at.values()) >= 5
    moved = [result for result in results if len(result.places) > 1]
    assert bool(moved) == (killed == "own server")
    # Nobody was paid twice: each endpoint has the jobs that came back from it, and no other.
    for endpoint in (first, second):
        assert sorted(job.job_id for job in endpoint.jobs()) == sorted(
            result.job_id for result in results if result.places[-1] == f"runpod://{endpoint.name}"
        )


def test_limits_hold(start):
    server, endpoint = start(ComfyUIStandIn()), start(Endpoint("a", 1))
    executor = FallbackExecutor([own_server(server, max_concurrent_jobs=1), endpoint.executor(max_concurrent_jobs=2)])
    running, most = Counter(), Counter()

    async def one():
        place = None
        async for event in executor.watch_workflow_async(TEMPLATE):
            if isinstance(event, Queued):
                place = event.place
                running[place] += 1
                most[place] = max(most[place], running[place])
            if isinstance(event, Finished):
                running[place] -= 1

    async def main():
        await asyncio.gather(*(one() for _ in range(20)))

    asyncio.run(main())
    assert most[server.url] <= 1
    assert 1 <= most["runpod://a"] <= 2


# -- places that do not work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_place_that_refuses_is_passed_over_and_the_result_says_so(start, status):
    broken, working = start(Endpoint("a", 0)), start(Endpoint("b", 1))
    broken.platform.faults.add(Fault("run", Status(status), times=None))
    result = FallbackExecutor([broken.executor(), working.executor()]).submit_workflow(TEMPLATE)
    assert result.places == ("runpod://b",)
    assert any("runpod://a" in warning and str(status) in warning for warning in result.warnings)


def test_a_place_that_failed_is_left_out_while_it_rests(start):
    broken, working = start(Endpoint("a", 0)), start(Endpoint("b", 1))
    fault = Fault("run", Status(401), times=None)
    broken.platform.faults.add(fault)
    executor = FallbackExecutor([broken.executor(), working.executor()])
    results = submit_all(executor, 5) + submit_all(executor, 5)
    assert {result.places for result in results} == {("runpod://b",)}
    assert broken.platform.faults.fired(fault) <= 5


def test_a_place_that_works_again_is_used_again(start):
    endpoint, other = start(Endpoint("a", 1)), start(Endpoint("b", 1))
    endpoint.platform.faults.add(Fault("run", Status(401)))
    executor = FallbackExecutor([endpoint.executor(), other.executor()])
    assert executor.submit_workflow(TEMPLATE).places == ("runpod://b",)

    async def rested():
        for place in executor._places()._places:
            place.rests_until_s = 0.0

    _loop.run_sync(rested)
    assert executor.submit_workflow(TEMPLATE).places == ("runpod://a",)


def test_with_no_place_left_the_last_error_tells_of_all(start):
    broken = start(Endpoint("a", 0))
    broken.platform.faults.add(Fault("run", Status(404), times=None))
    executor = FallbackExecutor([ComfyServerWorkflowExecutor(NOBODY), broken.executor()])
    with pytest.raises(NotFound) as caught:
        executor.submit_workflow(TEMPLATE)
    [note] = caught.value.__notes__
    assert NOBODY in note
    assert "runpod://a" in note


def test_a_job_that_may_have_been_accepted_goes_nowhere_else(start):
    unsure, other = start(Endpoint("a", 0)), start(Endpoint("b", 1))
    unsure.platform.faults.add(Fault("run", Reset(processed=True)))
    with pytest.raises(SubmissionUncertain):
        FallbackExecutor([unsure.executor(), other.executor()]).submit_workflow(TEMPLATE)
    assert other.jobs() == []


def test_a_job_that_failed_is_not_done_again_elsewhere(start):
    failing, other = start(Endpoint("a", 1)), start(Endpoint("b", 1))
    failing.stand_ins[0].fail_node("FixtureSleep", "out of memory")
    with pytest.raises(JobFailed, match="out of memory"):
        FallbackExecutor([failing.executor(), other.executor()]).submit_workflow(TEMPLATE)
    assert other.jobs() == []


def test_a_node_that_fails_on_the_own_server_is_not_paid_for_elsewhere(start):
    server, other = start(ComfyUIStandIn()), start(Endpoint("b", 1))
    server.fail_node("FixtureSleep", "out of memory")
    with pytest.raises(JobFailed, match="out of memory"):
        FallbackExecutor([own_server(server), other.executor()]).submit_workflow(TEMPLATE)
    assert other.jobs() == []


# -- a server that goes away -------------------------------------------------------------------------------------------


def test_what_a_server_delivered_before_it_went_away_is_not_made_again(start, tmp_path):
    server, endpoint = start(ComfyUIStandIn()), start(Endpoint("a", 1))
    executor = FallbackExecutor([own_server(server), endpoint.executor()])
    events = []
    for event in executor.watch_workflow(
        TEMPLATE, num_samples=8, batch_size=2, seed=7, seconds=0.3, output_dir=tmp_path
    ):
        events.append(event)
        if isinstance(event, BatchFinished) and event.batch == 0:
            _loop.run_sync(server.stop)
    result = events[-1].result
    assert result.places == (server.url, "runpod://a")
    assert [(image.batch, image.seed) for image in result] == [(n, 7 + n) for n in range(4) for _ in range(2)]
    assert [(each.batch, each.batch_count) for each in events if isinstance(each, BatchFinished)] == [
        (n, 4) for n in range(4)
    ]
    assert result.seeds == (7, 8, 9, 10)
    assert len({image.path for image in result}) == 8
    assert any("goes to the next place" in warning for warning in result.warnings)


def test_an_error_after_a_move_keeps_what_the_first_place_made(start):
    server, endpoint = start(ComfyUIStandIn()), start(Endpoint("a", 1))
    endpoint.stand_ins[0].fail_node("FixtureSleep", "no memory")
    executor = FallbackExecutor([own_server(server), endpoint.executor()])
    events = executor.watch_workflow(TEMPLATE, num_samples=4, batch_size=2, seconds=0.3)
    for event in events:
        if isinstance(event, OutputReady):
            _loop.run_sync(server.stop)
            break
    with pytest.raises(JobFailed) as caught:
        list(events)
    assert len(caught.value.partial) >= 1


def test_cancelling_a_job_that_waits_for_a_place_leaves_nothing(start):
    server = start(ComfyUIStandIn(seconds_per_node=0.1))
    executor = FallbackExecutor([own_server(server, max_concurrent_jobs=1)])

    async def main():
        first = executor.submit_workflow_async(TEMPLATE)
        second = executor.submit_workflow_async(TEMPLATE)
        await asyncio.sleep(0.2)
        second.cancel()
        assert len(await first) == 2
        assert len(await executor.submit_workflow_async(TEMPLATE)) == 2

    asyncio.run(main())


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executors", [lambda _: [], lambda one: [one, one], lambda one: [FallbackExecutor([one])]])
def test_places_that_make_no_sense_are_refused(executors):
    with pytest.raises(ConfigurationError):
        FallbackExecutor(executors(ComfyServerWorkflowExecutor(NOBODY)))


def test_with_one_place_its_error_is_the_error():
    with pytest.raises(TransportError) as caught:
        FallbackExecutor([ComfyServerWorkflowExecutor(NOBODY)]).submit_workflow(TEMPLATE)
    assert not hasattr(caught.value, "__notes__")
