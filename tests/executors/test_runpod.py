import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from PIL import Image

from runpod_comfy import (
    AuthenticationError,
    ConfigurationError,
    InputError,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    NotFound,
    OutputLost,
    PayloadTooLarge,
    ProtocolError,
    RunpodComfyWorkflowExecutor,
    SubmissionUncertain,
    TransportError,
    WaitTimeout,
    WorkflowTemplate,
    _loop,
)
from runpod_comfy.emulator.faults import Delay, DropPiece, Fault, Html, Reset, Status, Truncate
from runpod_comfy.events import BatchFinished, Finished, OutputReady, Queued, Started, Warned
from runpod_comfy.results import Origin, OutputFile, OutputText, WorkflowOutputImage

TEMPLATE = WorkflowTemplate.from_string(
    '{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "n": {{ batch_size }}, "t": "{{ prompt|default("") }}"}}}'
)


def png(color, size=(8, 8)):
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, "png")
    return data.getvalue()


def picture(index, *, data=None):
    return OutputReady(
        output=WorkflowOutputImage(
            name=f"a_{index:05}_.png",
            data=data or png((index, 0, 0)),
            media_type="image/png",
            origin=Origin(batch=index, seed=index, node_id="9", node_title="Save"),
        )
    )


def noise(index, size=1_500_000):
    """A picture that takes several pieces."""
    return picture(index, data=b"\x89PNG\r\n\x1a\n" + hashlib.shake_128(bytes([index])).digest(size))


async def forever(_):
    await asyncio.sleep(3600)


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_everything_a_worker_sends_comes_back(make_endpoint, lines):
    video = OutputReady(output=OutputFile(name="v.mp4", data=b"mp4", kind="gifs", media_type="video/mp4"))
    text = OutputReady(output=OutputText(text="a caption", origin=Origin(batch=1)))
    done = BatchFinished(batch=0, batch_count=1, seed=7, gpu_s=0.5)
    endpoint = make_endpoint(lines(picture(0), video, text, picture(1), done, Warned(message="careful")))
    result = endpoint.executor().submit_workflow(TEMPLATE, num_samples=2)
    assert [image.name for image in result] == ["a_00000_.png", "a_00001_.png"]
    assert result[1].item.getpixel((0, 0)) == (1, 0, 0)
    assert [image.seed for image in result] == [0, 1]
    assert (result.files[0].data, result.texts[0].text) == (b"mp4", "a caption")
    assert result.job_id == endpoint.jobs()[0].job_id
    assert result.seeds == (7,)
    assert "careful" in result.warnings
    assert result.timings.gpu_s == 1.0
    assert result.timings.execution_s is not None
    assert result.timings.total_s > 0


def test_the_worker_gets_what_the_wire_format_says(make_endpoint, lines):
    requests = []

    async def keep(job):
        requests.append(job["input"])

    endpoint = make_endpoint(lines(picture(0), hold=keep))
    endpoint.executor(batch_size=4).submit_workflow(TEMPLATE, [png("red")], num_samples=9, seed=5, prompt='a "b"')
    [request] = requests
    assert request["batch_count"] == 3
    assert request["seeds"] == [5, 6, 7]
    assert request["randomize_seed"] is True
    assert request["workflow"]["3"]["inputs"]["t"] == 'a "b"'
    assert request["workflow"]["3"]["inputs"]["n"] == 4
    [image] = request["images"]
    assert image["name"] == "00.png"
    assert image["subfolder"]


def test_saved_files_are_the_workers_bytes_and_never_overwrite(make_endpoint, lines, tmp_path):
    endpoint = make_endpoint(lines(picture(0), picture(0, data=png("blue"))))
    result = endpoint.executor().submit_workflow(TEMPLATE, num_samples=2)
    paths = result.save(tmp_path / "out")
    assert [path.read_bytes() for path in paths] == [image.data for image in result]
    assert len(set(paths)) == 2


def test_images_stream_while_the_job_runs(make_endpoint, lines):
    go_on = threading.Event()

    async def hold(_):
        await asyncio.to_thread(go_on.wait, 30)

    endpoint = make_endpoint(lines(picture(0), hold=hold))
    stream = endpoint.executor().stream_workflow(TEMPLATE)
    assert next(stream).name == "a_00000_.png"
    assert endpoint.states() == ["IN_PROGRESS"]
    go_on.set()
    assert list(stream) == []
    assert endpoint.states() == ["COMPLETED"]


async def test_images_stream_to_async_callers(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), picture(1)))
    names = [image.name async for image in endpoint.executor().stream_workflow_async(TEMPLATE, num_samples=2)]
    assert names == ["a_00000_.png", "a_00001_.png"]


def test_events_tell_the_story_in_order(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    events = list(endpoint.executor().watch_workflow(TEMPLATE))
    assert [type(event) for event in events] == [Queued, Started, OutputReady, Finished]


def test_many_jobs_at_once(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))

    async def main():
        executor = endpoint.executor()
        futures = [executor.submit_workflow_async(TEMPLATE) for _ in range(40)]
        assert all(isinstance(future, asyncio.Future) for future in futures)
        return await asyncio.gather(*futures)

    results = asyncio.run(main())
    assert len({result.job_id for result in results}) == 40
    assert all(len(result) == 1 for result in results)


def test_a_large_output_arrives_in_pieces_and_whole(make_endpoint, lines):
    event = noise(1, 5_000_000)
    result = make_endpoint(lines(event)).executor().submit_workflow(TEMPLATE)
    assert result[0].data == event.output.data


# -- nothing half, nothing lost without a word -------------------------------------------------------------------------


@pytest.mark.parametrize("piece", range(6))
def test_with_one_piece_dropped_nothing_half_is_returned(make_endpoint, lines, piece):
    events = [noise(0), noise(1), noise(2)]
    endpoint = make_endpoint(lines(*events))
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(piece)))
    with pytest.raises(OutputLost) as caught:
        endpoint.executor().submit_workflow(TEMPLATE, on_lost="raise")
    sent = {event.output.name: event.output.data for event in events}
    arrived = {image.name: image.data for image in caught.value.partial}
    assert arrived.items() < sent.items()
    assert caught.value.job_id == endpoint.jobs()[0].job_id


def test_a_dropped_piece_is_filled_from_the_aggregate(make_endpoint, lines):
    events = [noise(0), noise(1), noise(2)]
    endpoint = make_endpoint(lines(*events), aggregate=True)
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(2)))
    result = endpoint.executor().submit_workflow(TEMPLATE)
    assert {image.data for image in result} == {event.output.data for event in events}


def test_with_the_last_line_here_a_lost_report_of_the_end_does_not_matter(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    endpoint.platform.faults.add(
        Fault("status", Status(503), times=None), Fault("status-sync", Status(503), times=None)
    )
    assert len(endpoint.executor().submit_workflow(TEMPLATE)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status-sync", Status(500)),
        Fault("status-sync", Html(502)),
        Fault("status-sync", Reset()),
        Fault("status-sync", Truncate()),
        Fault("stream", Status(429, retry_after_s=0.1)),
        Fault("stream", Reset()),
        Fault("stream", Html(502), times=2),
        Fault("run", Status(429, retry_after_s=0.1), times=2),
    ],
    ids=lambda fault: f"{fault.route}-{type(fault.action).__name__}",
)
def test_a_passing_fault_changes_nothing(make_endpoint, lines, fault):
    endpoint = make_endpoint(lines(picture(0)))
    endpoint.platform.faults.add(fault)
    assert len(endpoint.executor().submit_workflow(TEMPLATE)) == 1
    assert endpoint.platform.faults.fired(fault) == fault.times
    assert len(endpoint.jobs()) == 1


def test_an_endpoint_without_the_long_poll_works(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)), status_sync=False)
    assert len(endpoint.executor().submit_workflow(TEMPLATE)) == 1


@pytest.mark.parametrize("action", [Reset(processed=True), Status(502, processed=True), Truncate()])
def test_a_submission_without_an_answer_is_never_sent_again(make_endpoint, lines, action):
    endpoint = make_endpoint(lines(picture(0)))
    endpoint.platform.faults.add(Fault("run", action))
    with pytest.raises(SubmissionUncertain, match="may or may not") as caught:
        endpoint.executor().submit_workflow(TEMPLATE)
    assert caught.value.submission_id
    assert len(endpoint.jobs()) == 1


# -- how jobs end otherwise --------------------------------------------------------------------------------------------


def test_a_failure_names_the_node_and_keeps_what_had_arrived(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), error="out of memory"))
    with pytest.raises(JobFailed, match="out of memory") as caught:
        endpoint.executor().submit_workflow(TEMPLATE)
    assert (caught.value.node_id, caught.value.node_type) == ("3", "KSampler")
    assert [image.name for image in caught.value.partial] == ["a_00000_.png"]
    assert endpoint.states() == ["FAILED"]


def test_an_exception_in_a_handler_is_told_in_its_own_words(make_endpoint):
    async def handler(_):
        raise LookupError("no such model")

    with pytest.raises(JobFailed, match="no such model") as caught:
        make_endpoint(handler).executor().submit_workflow(TEMPLATE)
    assert "Traceback" not in str(caught.value)


def test_a_job_cancelled_by_somebody_else_says_so(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    events = endpoint.executor().watch_workflow(TEMPLATE)
    assert any(isinstance(event, OutputReady) for event in events)
    endpoint.executor().attach(endpoint.jobs()[0].job_id).cancel()
    with pytest.raises(JobCancelled) as caught:
        list(events)
    assert len(caught.value.partial) == 1


def test_a_job_over_runpods_time_says_which_limit(make_endpoint, lines):
    endpoint = make_endpoint(
        lines(picture(0), hold=forever), min_execution_timeout_s=0.1, default_execution_timeout_s=0.3
    )
    with pytest.raises(JobTimedOut, match="executionTimeout") as caught:
        endpoint.executor().submit_workflow(TEMPLATE)
    assert len(caught.value.partial) == 1


@pytest.mark.parametrize(
    "output",
    [
        {"text": "I am a language model"},
        {"images": ["https://cdn.example/a.png"]},
        "just a string",
        "<!doctype html><p>Bad gateway",
        [{"choices": [{"tokens": ["hello"]}]}],
        ["a", "b\n"],
        42,
    ],
    ids=["text model", "other images", "string", "page", "vLLM", "list of strings", "number"],
)
def test_an_endpoint_of_another_kind_is_recognised(make_endpoint, output):
    async def handler(_):
        return output

    with pytest.raises(ProtocolError, match=r"another kind|for something else"):
        make_endpoint(handler).executor().submit_workflow(TEMPLATE)


def test_another_kind_of_stream_is_recognised_and_its_job_cancelled(make_endpoint):
    async def handler(_):
        yield {"token": "hello"}
        await asyncio.sleep(3600)

    endpoint = make_endpoint(handler)
    with pytest.raises(ProtocolError, match="token"):
        endpoint.executor().submit_workflow(TEMPLATE)
    assert endpoint.states() == ["CANCELLED"]


def test_completed_without_output_is_no_success(make_endpoint):
    async def handler(_):
        return {"images": ["x" * 2_000_000]}

    with pytest.raises(OutputLost, match="limit"):
        make_endpoint(handler, run_output_limit_bytes=1_000_000).executor().submit_workflow(TEMPLATE)


# -- who gives up cancels ----------------------------------------------------------------------------------------------


def test_a_timeout_cancels_the_job_and_keeps_what_had_arrived(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    with pytest.raises(WaitTimeout) as caught:
        endpoint.executor().submit_workflow(TEMPLATE, timeout=1.5)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.job_id == endpoint.jobs()[0].job_id
    assert len(caught.value.partial) == 1
    assert endpoint.states() == ["CANCELLED"]


def test_breaking_out_of_a_stream_cancels_the_job(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    for _ in endpoint.executor().stream_workflow(TEMPLATE):
        break
    wait_until(lambda: endpoint.states() == ["CANCELLED"])


async def test_cancelling_the_future_cancels_the_job(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    future = endpoint.executor().submit_workflow_async(TEMPLATE)
    await asyncio.to_thread(wait_until, lambda: endpoint.states() == ["IN_PROGRESS"])
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert endpoint.states() == ["CANCELLED"]


async def test_cancelling_while_the_submission_is_under_way_cancels_the_job_too(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    fault = Fault("run", Delay(1.0))
    endpoint.platform.faults.add(fault)
    future = endpoint.executor().submit_workflow_async(TEMPLATE)
    await asyncio.to_thread(wait_until, lambda: endpoint.platform.faults.fired(fault))
    future.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await future
    assert endpoint.states() == ["CANCELLED"]


SCRIPT = """
import asyncio, sys
from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate
executor = RunpodComfyWorkflowExecutor("test", api_key="a-key", base_url=sys.argv[1])
template = WorkflowTemplate.from_string('{"1": {"class_type": "SaveImage", "inputs": {"seed": 1}}}')
"""


def finish(process):
    """Wait for the end; give what it said on stderr, and its exit code."""
    err = process.communicate(timeout=30)[1]
    # In dev mode asyncio tells of every step over 0.1 s, which a busy machine may take.
    told = [line for line in err.splitlines(keepends=True) if not line.startswith("Executing ")]
    return "".join(told), process.returncode


def run_script(endpoint, script):
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT + textwrap.dedent(script), endpoint.server.base_url],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("call", ["submit_workflow(template)", "stream_workflow(template)", "watch_workflow(template)"])
def test_ctrl_c_cancels_the_job_and_then_raises(make_endpoint, lines, call):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    process = run_script(
        endpoint,
        f"""
        try:
            list(executor.{call})
        except KeyboardInterrupt:
            sys.exit(130)
        """,
    )
    wait_until(lambda: endpoint.states() == ["IN_PROGRESS"])
    process.send_signal(signal.SIGINT)
    assert finish(process) == ("", 130)
    assert endpoint.states() == ["CANCELLED"]


def test_jobs_still_running_when_a_gather_fails_or_a_script_ends_are_cancelled(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    process = run_script(
        endpoint,
        """
        async def fail():
            await asyncio.sleep(1.5)
            raise ValueError
        async def main():
            await asyncio.gather(fail(), *(executor.submit_workflow_async(template) for _ in range(3)))
        try:
            asyncio.run(main())
        except ValueError:
            pass
        stream = executor.stream_workflow(template)
        next(stream)
        """,
    )
    assert finish(process) == ("", 0)
    assert endpoint.states() == ["CANCELLED"] * 4


def test_a_call_that_ends_before_its_job_was_accepted_sends_nothing_more(make_endpoint, lines, caplog):
    endpoint = make_endpoint(lines(picture(0)))
    refusals = Fault("run", Status(429, retry_after_s=1), times=1000)
    endpoint.platform.faults.add(refusals)
    with pytest.raises(WaitTimeout, match="nothing was running yet"):
        endpoint.executor().submit_workflow(TEMPLATE, timeout=0.5)
    assert endpoint.platform.faults.fired(refusals) == 1
    assert not caplog.records
    assert endpoint.jobs() == []


def test_ctrl_c_while_a_job_is_not_accepted_yet_ends_without_a_word(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    refusals = Fault("run", Status(429, retry_after_s=1), times=1000)
    endpoint.platform.faults.add(refusals)
    process = run_script(
        endpoint,
        """
        try:
            executor.submit_workflow(template)
        except KeyboardInterrupt:
            sys.exit(130)
        """,
    )
    wait_until(lambda: endpoint.platform.faults.fired(refusals) == 1)
    process.send_signal(signal.SIGINT)
    assert finish(process) == ("", 130)
    assert endpoint.platform.faults.fired(refusals) <= 2
    assert endpoint.jobs() == []


@pytest.mark.parametrize("count", [16, 60])
def test_ctrl_c_while_many_jobs_are_gathered_cancels_every_one(make_endpoint, lines, count):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    process = run_script(
        endpoint,
        f"""
        async def main():
            await asyncio.gather(*(executor.submit_workflow_async(template) for _ in range({count})))
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
        """,
    )
    wait_until(lambda: len(endpoint.jobs()) == count and "IN_PROGRESS" in endpoint.states())
    process.send_signal(signal.SIGINT)
    assert finish(process) == ("", 130)
    assert endpoint.states() == ["CANCELLED"] * count


def test_closing_an_executor_ends_what_it_has_under_way(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0), hold=forever))
    executor = endpoint.executor()
    outcome = []

    def wait_for_it():
        try:
            executor.submit_workflow(TEMPLATE)
        except JobCancelled as exc:
            outcome.append(exc)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    wait_until(lambda: endpoint.states() == ["IN_PROGRESS"])
    executor.close()
    waiting.join(20)
    [error] = outcome
    assert "closed" in str(error)
    assert error.job_id == endpoint.jobs()[0].job_id
    assert endpoint.states() == ["CANCELLED"]


async def test_leaving_an_async_block_ends_what_a_failed_gather_left_behind(make_endpoint, lines):
    endpoint = await asyncio.to_thread(make_endpoint, lines(picture(0), hold=forever))
    jobs = []

    async def work():
        async with endpoint.executor() as executor:
            jobs.append(executor.submit_workflow_async(TEMPLATE))
            await asyncio.to_thread(wait_until, lambda: endpoint.states() == ["IN_PROGRESS"])
            await asyncio.gather(jobs[0], executor.submit_workflow_async(TEMPLATE, "missing.png"))

    with pytest.raises(InputError):
        await work()
    assert await asyncio.to_thread(endpoint.states) == ["CANCELLED"]
    with pytest.raises(JobCancelled):
        await jobs[0]


# -- handles -----------------------------------------------------------------------------------------------------------


def test_a_handle_gives_state_events_and_result(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    handle = endpoint.executor().start_workflow(TEMPLATE, seed=5)
    result = handle.result(timeout=20)
    assert handle.state() == "COMPLETED"
    assert result.job_id == handle.job_id
    assert [type(event) for event in handle.events()] == [Queued, Started, OutputReady, Finished]
    assert handle.result() == result
    assert handle.seeds == (5,)


def test_a_handles_timeout_leaves_the_job_running(make_endpoint, lines):
    go_on = threading.Event()

    async def hold(_):
        await asyncio.to_thread(go_on.wait, 30)

    endpoint = make_endpoint(lines(picture(0), hold=hold))
    handle = endpoint.executor().start_workflow(TEMPLATE)
    with pytest.raises(WaitTimeout, match="runs on") as caught:
        handle.result(timeout=0.6)
    assert caught.value.job_id == handle.job_id
    assert endpoint.states() == ["IN_PROGRESS"]
    go_on.set()
    assert len(handle.result(timeout=20)) == 1


def test_attach_finds_a_job_that_nobody_reads(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    job_id = endpoint.executor().start_workflow(TEMPLATE).job_id
    result = endpoint.executor().attach(job_id).result(timeout=20)
    assert (result.job_id, len(result)) == (job_id, 1)


async def test_handles_serve_async_callers(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    handle = await endpoint.executor().start_workflow_async(TEMPLATE)
    assert len(await handle.result_async(timeout=20)) == 1
    assert [type(event) async for event in handle.events_async()][-1] is Finished
    assert await handle.state_async() == "COMPLETED"


def test_a_handle_cancels_its_job(make_endpoint, lines):
    endpoint = make_endpoint(lines(hold=forever))
    handle = endpoint.executor().start_workflow(TEMPLATE)
    handle.cancel()
    with pytest.raises(JobCancelled):
        handle.result(timeout=20)


# -- before anything is sent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_samples": 0},
        {"num_samples": -3},
        {"num_samples": 2.5},
        {"num_samples": True},
        {"batch_size": 0},
        {"batch_size": "8"},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 3, "randomize_seed": False},
        {"timeout": 0},
        {"input_max_pixels": 0},
        {"variables": {"prompt": "a"}, "prompt": "b"},
        {"variables": {"batch_size": 3}},
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_sent(make_endpoint, arguments):
    endpoint = make_endpoint()
    with pytest.raises(ConfigurationError):
        endpoint.executor().submit_workflow(TEMPLATE, **arguments)
    assert endpoint.jobs() == []


def test_a_body_over_runpods_limit_is_refused_with_sizes_and_remedies(make_endpoint):
    endpoint = make_endpoint()
    photo = Image.frombytes("RGB", (2400, 2400), os.urandom(17_280_000))
    with pytest.raises(PayloadTooLarge, match=r"20 MB.*00\.png 17\.\d MB.*input_max_pixels") as caught:
        endpoint.executor().submit_workflow(TEMPLATE, [photo])
    assert caught.value.size_bytes > caught.value.limit_bytes == 20_000_000
    assert endpoint.jobs() == []


def test_a_body_over_the_limit_of_run_goes_to_runsync_and_its_result_is_collected_before_it_is_gone(
    make_endpoint, lines
):
    sizes = []

    async def look(job):
        sizes.extend(len(image["image"]) for image in job["input"]["images"])
        await asyncio.sleep(1.5)  # longer than /runsync waits

    endpoint = make_endpoint(lines(picture(0), hold=look), sync_retention_s=2)
    photo = png("red", (2, 2)) + bytes(9_000_000)
    result = endpoint.executor().submit_workflow(TEMPLATE, [photo])
    assert len(result) == 1
    assert result.job_id.startswith("sync-")
    assert sizes[0] > 10 * 2**20


def test_an_unknown_endpoint_and_a_wrong_key_are_named(make_endpoint):
    endpoint = make_endpoint(api_keys=frozenset({"right"}))
    with pytest.raises(AuthenticationError, match="key"):
        endpoint.executor().submit_workflow(TEMPLATE)
    with pytest.raises(NotFound, match="no endpoint 'nope'"):
        endpoint.executor(endpoint="nope").submit_workflow(TEMPLATE)


def test_an_address_where_nobody_listens_is_named():
    executor = RunpodComfyWorkflowExecutor("test", api_key="a-key", base_url="http://127.0.0.1:9/v2")
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:9"):
        executor.health()


def test_the_key_is_in_no_message(make_endpoint):
    endpoint = make_endpoint(api_keys=frozenset({"right"}))
    executor = endpoint.executor(api_key="sk-very-secret")
    with pytest.raises(AuthenticationError) as caught:
        executor.submit_workflow(TEMPLATE)
    assert "very-secret" not in repr(executor) + repr(caught.value) + str(caught.value) + json.dumps(vars(caught.value))


def test_submitting_async_outside_a_loop_raises_before_anything_is_sent(make_endpoint, lines):
    endpoint = make_endpoint(lines())
    with pytest.raises(RuntimeError):
        endpoint.executor().submit_workflow_async(TEMPLATE)
    assert endpoint.jobs() == []


def test_warnings_come_before_the_job_is_paid_for(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    template = WorkflowTemplate.from_string('{"1": {"class_type": "SaveImage", "inputs": {}}}')
    events = list(endpoint.executor(batch_size=2).watch_workflow(template, [png("red")], num_samples=4))
    texts = [event.message for event in events if isinstance(event, Warned)]
    assert [type(event) for event in events[:4]] == [Warned, Warned, Warned, Queued]
    assert ["no seed" in texts[0], "input image" in texts[1], "batch_size" in texts[2]] == [True, True, True]


def test_health_tells_jobs_and_workers(make_endpoint):
    health = make_endpoint().executor().health()
    assert health.jobs["inQueue"] == 0
    assert set(health.workers) >= {"idle", "running", "throttled"}


def test_an_executor_serves_sync_and_async_with_blocks(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture(0)))
    with endpoint.executor() as executor:
        assert len(executor.submit_workflow(TEMPLATE)) == 1

    async def main():
        async with endpoint.executor() as executor:
            return await executor.submit_workflow_async(TEMPLATE)

    assert len(asyncio.run(main())) == 1


def test_the_background_loop_is_left_clean():
    async def tasks():
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return [task for task in others if task.get_name() != "ledger beat"]  # which a ledger has until the exit

    wait_until(lambda: _loop.run_sync(tasks) == [])
