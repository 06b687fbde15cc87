import asyncio
import contextlib
import dataclasses

import orjson
import pytest

from runpod_comfy.emulator import EndpointConfig, InProcessWorker, JobState, Platform
from runpod_comfy.emulator.changes import Changes
from runpod_comfy.emulator.lifecycle import Topic

WAIT_S = 30


class Runner:
    def __init__(self, platform, worker, changes):
        self.platform = platform
        self.worker = worker
        self.changes = changes

    def submit(self, **values):
        return self.platform.submit("e", orjson.dumps({"input": values})).job_id

    async def final(self, job_id):
        def ready():
            status = self.platform.status("e", job_id)
            return status if status.state.is_final else None

        return await self.changes.wait(Topic("job", "e", job_id), ready, timeout_s=WAIT_S)

    async def taken(self, job_id):
        def ready():
            return self.platform.status("e", job_id).worker_id

        return await self.changes.wait(Topic("job", "e", job_id), ready, timeout_s=WAIT_S)

    async def pieces(self, job_id, count):
        pieces = []

        def ready():
            pieces.extend(orjson.loads(piece) for piece in self.platform.read_stream("e", job_id).pieces)
            return pieces if len(pieces) >= count else None

        return await self.changes.wait(Topic("job", "e", job_id), ready, timeout_s=WAIT_S)

    async def run(self, **values):
        return await self.final(self.submit(**values))


@contextlib.asynccontextmanager
async def worker(handler, *, concurrency=1, aggregate=False, **config):
    platform = Platform(EndpointConfig(endpoint_id="e", **config))
    changes = Changes(platform)
    async with InProcessWorker(platform, "e", handler, concurrency=concurrency, aggregate=aggregate) as running:
        yield Runner(platform, running, changes)
    changes.close()


def sync_handler(job):
    return {"id": job["id"], **job["input"]}


async def async_handler(job):
    await asyncio.sleep(0)
    return {"id": job["id"], **job["input"]}


@pytest.mark.parametrize("handler", [sync_handler, async_handler])
async def test_what_a_function_returns_is_the_output(handler):
    async with worker(handler) as runner:
        status = await runner.run(n=1)
        assert (status.state, status.output) == (JobState.COMPLETED, {"id": status.job_id, "n": 1})
        assert status.worker_id == "in-process"


def sync_generator(job):
    yield "a"
    yield {"n": job["input"]["n"]}


async def async_generator(job):
    yield "a"
    await asyncio.sleep(0)
    yield {"n": job["input"]["n"]}


@pytest.mark.parametrize("handler", [sync_generator, async_generator])
@pytest.mark.parametrize("aggregate", [False, True])
async def test_what_a_generator_yields_is_streamed_and_repeated_only_when_aggregated(handler, aggregate):
    async with worker(handler, aggregate=aggregate) as runner:
        status = await runner.run(n=1)
        assert status.state is JobState.COMPLETED
        assert status.output == (["a", {"n": 1}] if aggregate else [])
        assert await runner.pieces(status.job_id, 2) == ["a", {"n": 1}]


async def test_pieces_are_there_while_the_handler_still_runs():
    go_on = asyncio.Event()

    async def handler(job):
        yield "first"
        await go_on.wait()
        yield job["id"]

    async with worker(handler) as runner:
        job_id = runner.submit()
        assert await runner.pieces(job_id, 1) == ["first"]
        assert runner.platform.status("e", job_id).state is JobState.IN_PROGRESS
        go_on.set()
        assert await runner.pieces(job_id, 1) == [job_id]


async def test_returned_error_fails_the_job_and_keeps_the_rest_as_output():
    async with worker(lambda _: {"error": "broke", "details": [1], "refresh_worker": True}) as runner:
        status = await runner.run()
        assert (status.state, status.error, status.output) == (JobState.FAILED, "broke", {"details": [1]})


@pytest.mark.parametrize(
    ("returned", "output_json"),
    [({}, None), (None, b"null"), (False, b"false"), ([], b"[]"), ({1: (2,)}, b'{"1":[2]}')],
)
async def test_empty_returns_complete_the_job(returned, output_json):
    async with worker(lambda _: returned) as runner:
        status = await runner.run()
        assert (status.state, status.output_json) == (JobState.COMPLETED, output_json)


async def test_exception_fails_the_job_with_json_as_the_error():
    def handler(_):
        raise ValueError("no such model")

    async with worker(handler) as runner:
        status = await runner.run()
        error = orjson.loads(status.error)
        assert status.state is JobState.FAILED
        assert (error["error_type"], error["error_message"]) == ("<class 'ValueError'>", "no such model")
        assert "Traceback" in error["error_traceback"]
        assert set(error) == {
            "error_type",
            "error_message",
            "error_traceback",
            "hostname",
            "worker_id",
            "runpod_version",
        }


async def test_exception_in_a_generator_fails_the_job_with_plain_text_and_keeps_what_was_streamed():
    async def handler(_):
        yield "a"
        raise ValueError("no such model")

    async with worker(handler) as runner:
        status = await runner.run()
        assert status.state is JobState.FAILED
        assert status.error.startswith("handler: no such model \ntraceback: Traceback")
        assert await runner.pieces(status.job_id, 1) == ["a"]


async def test_yielded_error_fails_the_job_is_not_streamed_and_ends_it():
    async def handler(_):
        yield "a"
        yield {"error": "broke", "details": 1}
        yield "never"

    async with worker(handler, aggregate=True) as runner:
        status = await runner.run()
        assert (status.state, status.error, status.output) == (JobState.FAILED, "broke", None)
        assert await runner.pieces(status.job_id, 1) == ["a"]
        assert runner.platform.read_stream("e", status.job_id).pieces == ()


@dataclasses.dataclass
class NoJson:
    x: int = 1


async def test_result_that_is_no_json_is_never_reported():
    async with worker(lambda _: NoJson(), default_execution_timeout_s=0.1) as runner:
        status = await runner.run()
        assert status.state is JobState.TIMED_OUT


async def test_piece_that_is_no_json_is_lost_and_the_job_goes_on():
    async def handler(_):
        yield NoJson()
        yield "b"

    async with worker(handler) as runner:
        status = await runner.run()
        assert status.state is JobState.COMPLETED
        assert await runner.pieces(status.job_id, 1) == ["b"]


async def test_lone_surrogates_break_the_loop_of_that_job_only():
    async with worker(lambda job: job["input"].get("text", "\ud800"), default_execution_timeout_s=0.1) as runner:
        assert (await runner.run()).state is JobState.TIMED_OUT
        assert (await runner.run(text="ü")).output == "ü"


async def test_result_over_the_limit_ends_completed_without_output():
    async with worker(lambda _: "x" * 2000, run_output_limit_bytes=1000) as runner:
        status = await runner.run()
        assert (status.state, status.output_json) == (JobState.COMPLETED, None)


async def test_jobs_run_one_after_another_or_together_as_concurrency_says():
    for concurrency in (1, 3):
        most = running = 0

        async def handler(_):
            nonlocal most, running
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        async with worker(handler, concurrency=concurrency) as runner:
            jobs = [runner.submit() for _ in range(6)]
            assert {(await runner.final(job_id)).state for job_id in jobs} == {JobState.COMPLETED}
        assert most == concurrency


async def test_cancel_ends_a_coroutine_that_waits_and_frees_its_slot():
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(job):
        if job["input"]:
            return "next"
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with worker(handler) as runner:
        job_id = runner.submit()
        await started.wait()
        runner.platform.cancel("e", job_id)
        async with asyncio.timeout(WAIT_S):
            await cancelled.wait()
        assert (await runner.run(n=1)).output == "next"
        assert runner.platform.status("e", job_id).state is JobState.CANCELLED


async def test_job_that_swallows_its_cancellation_stays_cancelled():
    started, swallowed = asyncio.Event(), asyncio.Event()

    async def handler(_):
        with contextlib.suppress(asyncio.CancelledError):
            started.set()
            await asyncio.Event().wait()
        swallowed.set()
        return "swallowed"

    async with worker(handler) as runner:
        job_id = runner.submit()
        await started.wait()
        runner.platform.cancel("e", job_id)
        async with asyncio.timeout(WAIT_S):
            await swallowed.wait()
        await asyncio.sleep(0)
        status = runner.platform.status("e", job_id)
        assert (status.state, status.output) == (JobState.CANCELLED, None)


async def test_generator_that_stands_at_a_yield_hears_nothing_of_a_cancel_until_the_worker_stops():
    heard = []
    told = asyncio.Event()

    async def handler(job):
        asyncio.current_task().add_done_callback(lambda _: told.set())
        try:
            yield "a"
            # The worker's turn: the cancel below arrives while this generator stands at its second yield.
            runner.platform.cancel("e", job["id"])
            yield "b"
            heard.append("resumed")
        finally:
            heard.append("closed")

    async with worker(handler) as runner:
        runner.submit()
        async with asyncio.timeout(WAIT_S):
            await told.wait()
        await asyncio.sleep(0.05)
        assert heard == []
    assert heard == ["closed"]


async def test_progress_update_is_the_output_while_the_job_runs():
    go_on = asyncio.Event()

    async def handler(job):
        runner.worker.progress_update(job, {"percent": 50})
        await go_on.wait()
        return "done"

    async with worker(handler) as runner:
        job_id = runner.submit()

        def progress():
            return runner.platform.status("e", job_id).output

        assert await runner.changes.wait(Topic("job", "e", job_id), progress, timeout_s=WAIT_S) == {"percent": 50}
        go_on.set()
        assert (await runner.final(job_id)).output == "done"


async def test_jobs_of_a_worker_that_stops_are_queued_again():
    async def wait(_):
        await asyncio.Event().wait()

    async with worker(wait) as runner:
        job_id = runner.submit()
        assert await runner.taken(job_id) == "in-process"
        await runner.worker.stop()
        await runner.worker.stop()
        assert runner.platform.status("e", job_id).state is JobState.IN_QUEUE
        async with InProcessWorker(runner.platform, "e", sync_handler, worker_id="second"):
            status = await runner.final(job_id)
        assert (status.worker_id, status.retries) == ("second", 1)


async def test_job_that_timed_out_can_run_again_while_its_first_run_still_ends():
    may_end = asyncio.Event()

    async def handler(_):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await may_end.wait()
            raise

    async with worker(handler, concurrency=2, default_execution_timeout_s=0.05) as runner:
        job_id = runner.submit()
        for _ in range(2):
            assert (await runner.final(job_id)).state is JobState.TIMED_OUT
            runner.platform.retry("e", job_id)
            may_end.set()
        assert (await runner.final(job_id)).retries == 2


async def test_worker_can_start_again():
    async with worker(sync_handler) as runner:
        for n in range(2):
            assert (await runner.run(n=n)).output["n"] == n
            await runner.worker.stop()
            await runner.worker.start()
        assert (await runner.run(n=2)).output["n"] == 2
