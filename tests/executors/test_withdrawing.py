"""Many jobs that nobody wants any more: none is left, and nobody else's is touched."""

import asyncio
from collections import Counter

import pytest

from runpod_comfy import JobCancelled, WorkflowTemplate, _loop
from runpod_comfy.emulator.fault_plan import FaultPlan
from runpod_comfy.emulator.faults import Answer, Fault, Status

TEMPLATE = WorkflowTemplate.from_string('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}')
JOBS = 80  # more than are cancelled one by one where they can be taken back together, and within one burst


class Counting(FaultPlan):
    """Counts every request by route, beside its faults."""

    def __init__(self, *faults):
        super().__init__(*faults)
        self.requests = Counter()

    def on_request(self, route, job_id):
        self.requests[route] += 1
        return super().on_request(route, job_id)


@pytest.fixture
def endpoint(make_endpoint):
    """An endpoint that never starts a job."""
    made = make_endpoint(enforce_rate_limits=True)
    made.platform.faults = Counting()
    return made


async def until(condition):
    while not condition():  # noqa: ASYNC110 - it comes true on another loop
        await asyncio.sleep(0.02)


def counts(endpoint):
    """How many jobs wait, and how many run."""
    jobs = endpoint.platform.health("test")["jobs"]
    return jobs["inQueue"], jobs["inProgress"]


async def queued(endpoint, executor, count):
    """Submit jobs; return their futures once all of them wait."""
    before, _ = counts(endpoint)
    futures = [executor.submit_workflow_async(TEMPLATE) for _ in range(count)]
    await until(lambda: counts(endpoint) == (before + count, 0))
    return futures


def submit_as_another_program(endpoint):
    async def submit():
        return endpoint.platform.submit("test", b'{"input": {}}').job_id

    return _loop.run_sync(submit)


def alive(endpoint):
    return [job.job_id for job in endpoint.jobs() if not job.state.is_final]


async def test_closing_takes_all_waiting_jobs_back_with_one_request(endpoint):
    executor = endpoint.executor()
    futures = await queued(endpoint, executor, JOBS)
    await executor.aclose()
    ended = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(each) for each in ended} == {JobCancelled}
    requests = endpoint.platform.faults.requests
    assert await asyncio.to_thread(alive, endpoint) == []
    assert (requests["purge-queue"], requests["cancel"]) == (1, 0)


async def test_another_programs_waiting_job_is_left_alone(endpoint):
    executor = endpoint.executor()
    futures = await queued(endpoint, executor, JOBS)
    other = await asyncio.to_thread(submit_as_another_program, endpoint)
    await executor.aclose()
    await asyncio.gather(*futures, return_exceptions=True)
    assert await asyncio.to_thread(alive, endpoint) == [other]
    assert endpoint.platform.faults.requests["purge-queue"] == 0


async def test_jobs_of_this_process_that_are_still_wanted_are_left_alone(endpoint):
    unwanted, wanted = endpoint.executor(), endpoint.executor()
    futures = await queued(endpoint, unwanted, JOBS)
    [kept] = await queued(endpoint, wanted, 1)
    await unwanted.aclose()
    await asyncio.gather(*futures, return_exceptions=True)
    assert len(await asyncio.to_thread(alive, endpoint)) == 1
    assert endpoint.platform.faults.requests["purge-queue"] == 0
    assert not kept.done()
    await wanted.aclose()
    with pytest.raises(JobCancelled):
        await kept


async def test_a_few_jobs_are_cancelled_one_by_one(endpoint):
    executor = endpoint.executor()
    futures = await queued(endpoint, executor, 5)
    await executor.aclose()
    await asyncio.gather(*futures, return_exceptions=True)
    assert await asyncio.to_thread(alive, endpoint) == []
    assert endpoint.platform.faults.requests == Counter(endpoint.platform.faults.requests) | {"cancel": 5}
    assert endpoint.platform.faults.requests["purge-queue"] == 0


@pytest.mark.parametrize(
    ("route", "action"),
    [("health", Status(400)), ("purge-queue", Answer({"removed": 0, "status": "completed"}))],
    ids=["no health", "nothing purged"],
)
async def test_where_the_queue_is_not_purged_all_are_cancelled_one_by_one(endpoint, route, action):
    executor = endpoint.executor()
    futures = await queued(endpoint, executor, JOBS)
    endpoint.platform.faults.add(Fault(route, action, times=None))
    await executor.aclose()
    await asyncio.gather(*futures, return_exceptions=True)
    assert await asyncio.to_thread(alive, endpoint) == []
    assert endpoint.platform.faults.requests["cancel"] >= JOBS


async def test_running_jobs_are_cancelled_first_and_the_queue_after_them(make_endpoint, lines):
    async def hold(_):
        await asyncio.sleep(60)

    endpoint = make_endpoint(lines(hold=hold), enforce_rate_limits=True)
    endpoint.platform.faults = Counting()
    executor = endpoint.executor()
    futures = [executor.submit_workflow_async(TEMPLATE) for _ in range(JOBS)]
    await until(lambda: counts(endpoint) == (JOBS - 1, 1))
    await executor.aclose()
    await asyncio.gather(*futures, return_exceptions=True)
    assert await asyncio.to_thread(alive, endpoint) == []
    requests = endpoint.platform.faults.requests
    assert requests["purge-queue"] == 1
    assert requests["cancel"] <= 3  # the one that runs, and what a worker took meanwhile
