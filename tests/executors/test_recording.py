"""The ledger around a job: written before it is sent and at each change, and what a killed reader leaves is found."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from runpod_comfy import (
    ConfigurationError,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobInUse,
    OutputLost,
    SubmissionUncertain,
    _loop,
)
from runpod_comfy.emulator.faults import DropPiece, Expire, Fault, Reset, Status
from runpod_comfy.events import OutputReady
from runpod_comfy.ledger import Ledger, State

SOURCE = '{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "text": "{{ prompt|default("") }}"}}}'


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path):
    """A template, the folder for its outputs, and the ledger's file."""
    template = tmp_path / "t.json.jinja"
    template.write_text(SOURCE)
    return SimpleNamespace(template=template, out=tmp_path / "out", book=tmp_path / "jobs.sqlite")


def rows(book):
    return Ledger(book).submissions()


def files(out):
    return sorted(path.name for path in out.iterdir()) if out.exists() else []


def test_a_job_is_written_down_before_it_is_sent_and_at_each_change(make_endpoint, painter, place):
    states = []

    async def look(*_):
        states.append(Ledger(place.book).submissions()[0].state)

    endpoint = make_endpoint(painter(hold=look))
    executor = endpoint.executor(ledger=place.book, batch_size=2)
    result = executor.submit_workflow(place.template, num_samples=4, seed=5, output_dir=place.out, prompt="a fox")
    [row] = rows(place.book)
    assert states[0] in {State.SENDING, State.IN_QUEUE, State.IN_PROGRESS}
    assert (row.state, row.job_id, row.outputs, row.held_by) == (State.DONE, result.job_id, 4, None)
    assert row.entry.seeds == (5, 6)
    assert row.entry.recipe.variables == {"prompt": "a fox"}
    assert row.entry.recipe.template == os.fspath(place.template)
    assert row.gpu_s == 1.0
    saved = Ledger(place.book).outputs(row.submission_id)
    assert sorted(each.path for each in saved) == sorted(os.fspath(image.path) for image in result)
    assert all(each.part is None for each in saved)


def test_without_a_folder_the_job_is_written_down_and_its_images_are_not(make_endpoint, painter, place):
    result = make_endpoint(painter()).executor(ledger=place.book).submit_workflow(place.template, num_samples=2)
    [row] = rows(place.book)
    assert (row.state, row.outputs, len(result)) == (State.DONE, 0, 4)


@pytest.mark.parametrize(
    "case",
    [
        ([Fault("run", Reset(processed=True))], State.UNCERTAIN, SubmissionUncertain),
        ([Fault("run", Status(400))], State.REFUSED, Exception),
        ([Fault("status-sync", Expire()), Fault("stream", Expire())], State.EXPIRED, JobExpired),
        ([Fault("job-stream", DropPiece(1), times=None)], State.INCOMPLETE, OutputLost),
    ],
    ids=["uncertain", "refused", "expired", "lost each time"],
)
def test_how_a_job_ends_is_written_down(make_endpoint, painter, case, place):
    faults, state, error = case
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(*faults)
    with pytest.raises(error):
        endpoint.executor(ledger=place.book).submit_workflow(place.template, num_samples=2)
    first = rows(place.book)[0]
    assert first.state is state
    assert first.note
    assert first.held_by is None


def test_a_failed_job_and_a_cancelled_one_are_written_down(make_endpoint, lines, place):
    endpoint = make_endpoint(lines(error="out of memory"))
    with pytest.raises(JobFailed):
        endpoint.executor(ledger=place.book).submit_workflow(place.template)

    async def forever(_):
        await asyncio.sleep(3600)

    endpoint = make_endpoint(lines(hold=forever))
    handle = endpoint.executor(ledger=place.book).start_workflow(place.template)
    handle.cancel()
    with pytest.raises(JobCancelled):
        handle.result(timeout=20)
    for _ in endpoint.executor(ledger=place.book).watch_workflow(place.template):
        break
    wait_until(lambda: [row.state for row in rows(place.book)] == [State.FAILED, State.CANCELLED, State.CANCELLED])


def test_a_rerun_is_listed_and_names_the_first(make_endpoint, painter, place):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(4)))
    endpoint.executor(ledger=place.book).submit_workflow(place.template, num_samples=3, seed=5, output_dir=place.out)
    first, again = rows(place.book)
    assert (first.state, again.state) == (State.DONE, State.DONE)
    assert again.submission_id in first.note
    assert (again.entry.parent_id, again.entry.batches, again.entry.seeds) == (first.submission_id, (1,), (6,))
    assert len(files(place.out)) == 6


def test_a_ledger_that_cannot_be_used_is_an_error_before_anything_is_sent(make_endpoint, tmp_path, place):
    endpoint = make_endpoint()
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        endpoint.executor(ledger=tmp_path).submit_workflow(place.template)
    assert endpoint.jobs() == []


def test_a_ledger_that_breaks_later_costs_no_image(make_endpoint, painter, caplog, place):
    async def break_it(*_):
        with contextlib.closing(sqlite3.connect(place.book)) as db, db:
            db.execute("DROP TABLE IF EXISTS lines")

    endpoint = make_endpoint(painter(hold=break_it))
    result = endpoint.executor(ledger=place.book).submit_workflow(place.template, num_samples=3, output_dir=place.out)
    assert len(result) == len(files(place.out)) == 6
    assert "not everything is written down" in caplog.text


# -- one reader --------------------------------------------------------------------------------------------------------


def test_a_job_that_is_being_read_is_left_alone(make_endpoint, painter, place):
    go_on = threading.Event()

    async def hold(*_):
        await asyncio.to_thread(go_on.wait, 30)

    endpoint = make_endpoint(painter(hold=hold))
    executor = endpoint.executor(ledger=place.book)
    events = executor.watch_workflow(place.template, num_samples=2)
    assert any(isinstance(event, OutputReady) for event in events)
    job_id = endpoint.jobs()[0].job_id
    with pytest.raises(JobInUse, match="take_over"):
        executor.attach(job_id).result(timeout=20)
    go_on.set()
    assert sum(isinstance(event, OutputReady) for event in events) == 3


def test_a_handle_that_nobody_reads_leaves_the_job_to_others(make_endpoint, painter, place):
    executor = make_endpoint(painter()).executor(ledger=place.book)
    started = executor.start_workflow(place.template, num_samples=2, output_dir=place.out)
    assert len(executor.attach(started.job_id).result(timeout=20)) == 4
    assert len(files(place.out)) == 4
    # Its stream is drained, and everything of it is here.
    assert started.result(timeout=20).job_id == started.job_id


READER = """
import sys
from runpod_comfy import RunpodComfyWorkflowExecutor
base_url, ledger, template, out, command = sys.argv[1:]
executor = RunpodComfyWorkflowExecutor("test", api_key="a-key", base_url=base_url, ledger=ledger)
if command == "run":
    events = executor.watch_workflow(template, num_samples=3, seed=5, output_dir=out)
else:
    events = executor.attach(command, take_over=True).events()
for event in events:
    print(type(event).__name__, flush=True)
"""


@pytest.fixture
def reader(place):
    """Start a process that reads a job."""
    started = []

    def start(endpoint, command="run"):
        arguments = [endpoint.server.base_url, place.book, place.template, place.out, command]
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(READER), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(process, name):
    while (line := process.stdout.readline().strip()) != name:
        assert line, process.stderr.read()


def test_who_is_taken_over_is_told_and_nothing_comes_twice(make_endpoint, painter, reader, place):
    go_on = threading.Event()

    async def hold(*_):
        await asyncio.to_thread(go_on.wait, 30)

    endpoint = make_endpoint(painter(hold=hold))
    first = reader(endpoint)
    read_until(first, "OutputReady")
    job_id = endpoint.jobs()[0].job_id
    executor = endpoint.executor(ledger=place.book)
    with pytest.raises(JobInUse, match=rf"process {first.pid} on"):
        executor.attach(job_id).result(timeout=20)
    handle = executor.attach(job_id, take_over=True)
    events = handle.events()
    next(events)
    go_on.set()
    list(events)
    assert len(endpoint.jobs()) <= 2
    _, errors = first.communicate(timeout=30)
    assert first.returncode in {0, 1}
    assert first.returncode == 0 or "no longer reads" in errors
    assert _contents(place.out) == len(set(_digests(place.out))) == 6


def _digests(out):
    return [path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")]


def _contents(out):
    return len(_digests(out))


@pytest.mark.parametrize("moment", ["Queued", "Started", "OutputReady", "BatchFinished"])
def test_after_a_kill_each_image_is_on_disk_once(make_endpoint, painter, reader, moment, place):
    endpoint = make_endpoint(painter())
    killed = reader(endpoint)
    read_until(killed, moment)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    job_id = endpoint.jobs()[0].job_id
    wait_until(lambda: endpoint.states()[0] == "COMPLETED")
    list(endpoint.executor(ledger=place.book).attach(job_id).events())
    assert _contents(place.out) == len(set(_digests(place.out))) == 6
    assert [row.state for row in rows(place.book)] == [State.DONE] * len(rows(place.book))
    assert len(endpoint.jobs()) <= 2


def test_what_expired_meanwhile_is_named(make_endpoint, painter, reader, place):
    endpoint = make_endpoint(painter())
    killed = reader(endpoint)
    read_until(killed, "Queued")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    job_id = endpoint.jobs()[0].job_id

    async def expire():
        endpoint.platform.expire("test", job_id)

    _loop.run_sync(expire)
    with pytest.raises(JobExpired, match="30 minutes"):
        endpoint.executor(ledger=place.book).attach(job_id).result(timeout=30)
    assert rows(place.book)[0].state is State.EXPIRED


def test_a_changed_template_is_not_run_again_in_place_of_the_first(make_endpoint, painter, reader, place):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    killed = reader(endpoint)
    read_until(killed, "Queued")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    place.template.write_text(SOURCE.replace('"seed": 1', '"seed": 1, "steps": 2'))
    with pytest.raises(OutputLost, match="have changed since"):
        endpoint.executor(ledger=place.book).attach(endpoint.jobs()[0].job_id).result(timeout=30)
    assert len(endpoint.jobs()) == 1


# -- what is not in it -------------------------------------------------------------------------------------------------


def test_no_key_no_image_and_no_secret_variable_is_in_the_file(make_endpoint, painter, tmp_path, place):
    path = tmp_path / "t.jinja"
    path.write_text(
        '{"3": {"class_type": "K", "inputs": {"seed": 1, "t": "{{ hf_token }}", "p": "{{ prompt }}",'
        ' "i": "{{ input_images[0] }}"}}}'
    )
    photo = os.urandom(2000)
    data = io.BytesIO()
    Image.frombytes("RGB", (20, 30), photo[:1800]).save(data, "png")
    endpoint = make_endpoint(painter())
    endpoint.executor(ledger=place.book, api_key="rk-very-secret-key").submit_workflow(
        path,
        [data.getvalue()],
        output_dir=place.out,
        variables={"hf_token": "a-hugging-secret", "prompt": "say rk-very-secret-key"},
    )
    Ledger(place.book).close()
    everything = b"".join(file.read_bytes() for file in place.book.parent.glob("jobs.sqlite*"))
    for secret in (b"very-secret", b"hugging", data.getvalue()[60:120], b"class_type"):
        assert secret not in everything
    recipe = rows(place.book)[0].entry.recipe
    assert (recipe.withheld, recipe.images) == (("hf_token", "prompt"), None)
    assert json.loads(json.dumps(recipe.variables)) == {}
