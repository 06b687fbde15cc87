"""A job that somebody has read before: what was saved comes again, and nothing is ordered or read twice."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from runpod_comfy import ConfigurationError, JobInUse, OutputLost, _loop
from runpod_comfy.emulator.faults import DropPiece, Fault, Reset
from runpod_comfy.events import OutputReady
from runpod_comfy.executors.accepting import Accepted
from runpod_comfy.executors.outcome import JobTerms
from runpod_comfy.executors.recording import Record
from runpod_comfy.executors.rerun import Following
from runpod_comfy.ledger import Ledger, State
from runpod_comfy.serverless.connect import connect
from runpod_comfy.settings import EndpointSettings

SOURCE = '{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "text": "{{ prompt|default("") }}"}}}'


@pytest.fixture
def place(tmp_path):
    """A template, the folder for its outputs, and the ledger's file."""
    template = tmp_path / "t.json.jinja"
    template.write_text(SOURCE)
    return SimpleNamespace(template=template, out=tmp_path / "out", book=tmp_path / "jobs.sqlite")


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows(book):
    return Ledger(book).submissions()


def told(result):
    return sorted((image.batch, image.seed, image.node_id, image.sha256, image.path) for image in result)


def test_of_a_job_that_was_saved_before_all_comes_again_with_its_files(make_endpoint, painter, place):
    executor = make_endpoint(painter()).executor(ledger=place.book)
    first = executor.submit_workflow(place.template, num_samples=2, seed=5, output_dir=place.out)
    again = executor.attach(first.job_id).result(timeout=20)
    assert told(again) == told(first)
    assert again[0].item.size == first[0].item.size
    assert len(list(place.out.iterdir())) == 4
    assert rows(place.book)[0].held_by is None


def test_what_was_made_again_comes_with_the_first_job(make_endpoint, painter, place):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(4)))
    executor = endpoint.executor(ledger=place.book)
    first = executor.submit_workflow(place.template, num_samples=3, seed=5, output_dir=place.out)
    assert told(executor.attach(first.job_id).result(timeout=20)) == told(first)
    assert len(endpoint.jobs()) == 2


def test_a_file_that_has_moved_is_named(make_endpoint, painter, place):
    executor = make_endpoint(painter()).executor(ledger=place.book)
    first = executor.submit_workflow(place.template, num_samples=1, output_dir=place.out)
    first[0].path.rename(place.out / "elsewhere.png")
    again = executor.attach(first.job_id).result(timeout=20)
    assert len(again) == 1
    assert os.fspath(first[0].path) in again.warnings[0]


def test_a_job_that_brought_everything_is_not_paid_for_again(make_endpoint, painter, place):
    endpoint = make_endpoint(painter())
    executor = endpoint.executor(ledger=place.book)
    first = executor.submit_workflow(place.template, num_samples=1)  # to memory
    with pytest.raises(OutputLost):
        executor.attach(first.job_id).result(timeout=20)
    assert len(endpoint.jobs()) == 1


def test_a_submission_without_a_job_is_named_and_nothing_is_asked(make_endpoint, painter, place):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("run", Reset(processed=True)))
    executor = endpoint.executor(ledger=place.book)
    with pytest.raises(Exception, match="may"):
        executor.submit_workflow(place.template)
    with pytest.raises(ConfigurationError, match="UNCERTAIN"):
        executor.attach(rows(place.book)[0].submission_id).result(timeout=20)


class Rerun:
    """Holds the worker at a rerun of one batch until it may go on."""

    def __init__(self):
        self.go_on = threading.Event()

    async def __call__(self, job, _):
        if job["input"]["batch_count"] == 1:
            await asyncio.to_thread(self.go_on.wait, 30)


def test_lost_batches_that_are_being_made_again_are_not_ordered_twice(make_endpoint, painter, place):
    hold = Rerun()
    endpoint = make_endpoint(painter(hold=hold))
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    executor = endpoint.executor(ledger=place.book)
    handle = executor.start_workflow(place.template, num_samples=3, seed=5, output_dir=place.out)
    reading = handle.events()
    wait_until(lambda: next(reading) and len(endpoint.jobs()) == 2)
    with pytest.raises(JobInUse):
        executor.attach(handle.job_id).result(timeout=20)
    taken = executor.attach(handle.job_id, take_over=True).events()
    next(taken)
    hold.go_on.set()
    assert sum(isinstance(event, OutputReady) for event in taken) == 6
    assert len(endpoint.jobs()) == 2
    assert len(list(place.out.iterdir())) == 6


def test_a_loss_is_made_good_after_the_first_result_has_expired(make_endpoint, painter, place):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    executor = endpoint.executor(ledger=place.book)
    with pytest.raises(OutputLost):
        executor.submit_workflow(place.template, num_samples=3, seed=5, output_dir=place.out, on_lost="raise")

    job_id = endpoint.jobs()[0].job_id

    async def expire():
        endpoint.platform.expire("test", job_id)

    _loop.run_sync(expire)
    again = executor.attach(job_id).result(timeout=30)
    assert len(again) == len(list(place.out.iterdir())) == 6
    assert len({image.sha256 for image in again}) == 6


def test_a_job_that_another_reader_has_taken_over_is_not_cancelled(make_endpoint, lines, place):
    async def forever(_):
        await asyncio.sleep(3600)

    endpoint = make_endpoint(lines(hold=forever))
    events = endpoint.executor(ledger=place.book).watch_workflow(place.template)
    next(events)
    other = Ledger(place.book)
    [row] = rows(place.book)
    other.acquire(row.submission_id, take_over=True)
    events.close()
    assert endpoint.states() in (["IN_QUEUE"], ["IN_PROGRESS"])
    assert rows(place.book)[0].state in {State.IN_QUEUE, State.IN_PROGRESS}


def test_one_process_too_reads_a_job_once(make_endpoint, painter, place):
    go_on = threading.Event()

    async def hold(*_):
        await asyncio.to_thread(go_on.wait, 30)

    endpoint = make_endpoint(painter(hold=hold))
    executor = endpoint.executor(ledger=place.book)
    first = executor.start_workflow(place.template, num_samples=3, seed=5, output_dir=place.out)
    reading = first.events()
    assert any(isinstance(event, OutputReady) for event in reading)
    second = executor.attach(first.job_id, take_over=True).events()
    assert any(isinstance(event, OutputReady) for event in second)
    go_on.set()
    list(second)
    with pytest.raises(JobInUse):
        list(reading)
    assert len(list(place.out.iterdir())) == 6


def test_files_are_written_down_with_their_whole_paths(make_endpoint, painter, place, monkeypatch):
    monkeypatch.chdir(place.book.parent)
    executor = make_endpoint(painter()).executor(ledger=place.book)
    executor.submit_workflow(place.template, output_dir="out")
    ledger = Ledger(place.book)
    saved = ledger.outputs(ledger.submissions()[0].submission_id)
    assert {Path(each.path).parent for each in saved} == {place.out}


def test_interrupted_before_anything_was_sent_a_submission_is_refused_and_not_uncertain(make_endpoint, painter, place):
    endpoint = make_endpoint(painter())
    executor = endpoint.executor(ledger=place.book)
    executor.submit_workflow(place.template)  # its ledger is open now

    async def interrupted():
        with contextlib.closing(sqlite3.connect(place.book, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            submitting = executor.submit_workflow_async(place.template)
            await asyncio.sleep(0.3)
            submitting.cancel()
            await asyncio.sleep(0.1)
            other.execute("COMMIT")
            with contextlib.suppress(asyncio.CancelledError):
                await submitting

    asyncio.run(interrupted())
    wait_until(lambda: [row.state for row in rows(place.book)] == [State.DONE, State.REFUSED])
    assert len(endpoint.jobs()) == 1


class Slow(Ledger):
    """A ledger that is asked for reruns in vain, until it may answer."""

    def __init__(self, path):
        super().__init__(path)
        self.asked, self.go_on = threading.Event(), threading.Event()

    def reruns_of(self, submission_id):
        self.asked.set()
        self.go_on.wait(20)
        return super().reruns_of(submission_id)


def test_interrupted_while_a_rerun_was_just_accepted_it_is_cancelled(make_endpoint, painter, place):
    endpoint = make_endpoint(painter(hold=Rerun()))
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    executor = endpoint.executor()
    ledger = Slow(place.book)
    prepared = executor.start_workflow(place.template, num_samples=2, seed=5)
    more = executor.start_workflow(place.template, seed=5)

    async def events():
        settings = EndpointSettings.resolve(endpoint="test", api_key="a-key", base_url=endpoint.server.base_url)

        async def again(_):
            return Accepted(
                job_id=more.job_id, submission_id="again", record=Record(ledger, "again"), root_id="first", numbers=(0,)
            )

        following = Following(link=await connect(settings), again=again)
        terms = JobTerms(batch_count=2)
        async for event in following.events(Accepted(job_id=prepared.job_id, submission_id="first", terms=terms)):
            yield event

    async def interrupted():
        async def read():
            async for _ in _loop.iterate_async(events):
                pass

        reading = asyncio.ensure_future(read())
        await asyncio.to_thread(ledger.asked.wait, 20)
        reading.cancel()
        await asyncio.sleep(0.1)
        ledger.go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await reading

    asyncio.run(interrupted())
    assert endpoint.states()[1] == "CANCELLED"


LEAVES_EARLY = """
import sys
from runpod_comfy import RunpodComfyWorkflowExecutor
base_url, ledger, template, out = sys.argv[1:]
executor = RunpodComfyWorkflowExecutor("test", api_key="a-key", base_url=base_url, ledger=ledger)
for event in executor.start_workflow(template, num_samples=2, output_dir=out).events():
    if type(event).__name__ == "OutputReady":
        break
"""


def test_a_program_that_leaves_a_handle_behind_ends_quietly_and_lets_go_of_the_job(make_endpoint, painter, place):
    go_on = threading.Event()

    async def hold(*_):
        await asyncio.to_thread(go_on.wait, 30)

    endpoint = make_endpoint(painter(hold=hold))
    arguments = [endpoint.server.base_url, place.book, place.template, place.out]
    program = subprocess.run(  # noqa: PLW1510 - its code is asserted
        [sys.executable, "-c", LEAVES_EARLY, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert (program.returncode, program.stderr) == (0, "")
    [row] = rows(place.book)
    assert (row.state, row.held_by) == (State.IN_PROGRESS, None)
    go_on.set()
    assert len(endpoint.executor(ledger=place.book).attach(row.job_id).result(timeout=20)) == 4
