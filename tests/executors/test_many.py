"""Many jobs at once, and results that go straight to disk."""

import asyncio
import hashlib
import json
import threading

import pytest

from runpod_comfy import ConfigurationError, JobError, WorkflowTemplate, _loop
from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.emulator.changes import Changes
from runpod_comfy.emulator.faults import Delay, Fault, Status, Truncate
from runpod_comfy.emulator.lifecycle import Topic
from runpod_comfy.events import OutputReady
from runpod_comfy.results import Origin, OutputFile, WorkflowOutputImage

pytestmark = pytest.mark.one_python

TEMPLATE = WorkflowTemplate.from_string('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}')


def picture(name="a_00001_.png", subfolder=None, size=50_000):
    data = b"\x89PNG\r\n\x1a\n" + hashlib.shake_128(name.encode()).digest(size)
    return OutputReady(output=WorkflowOutputImage(name=name, data=data, subfolder=subfolder, origin=Origin(batch=0)))


# -- a thousand --------------------------------------------------------------------------------------------------------


class QuickWorkers:
    """Workers that hand the same lines to each job and are never what takes long."""

    def __init__(self, endpoint, count, job_s):
        writer = LineWriter()
        pieces = [*writer.event(picture()), *writer.done(gpu_s=0.0)]
        self.pieces = [json.dumps(piece).encode() for piece in pieces]
        self.endpoint, self.count, self.job_s = endpoint, count, job_s

    async def start(self):
        self.changes = Changes(self.endpoint.platform)
        self.tasks = [asyncio.create_task(self.work(f"worker-{n}")) for n in range(self.count)]

    async def work(self, name):
        platform = self.endpoint.platform
        platform.ping("test", name, lasting=True)
        while taken := await self.changes.wait(
            Topic("queue", "test"), lambda: platform.take("test", name) or None, timeout_s=None
        ):
            await asyncio.sleep(self.job_s)
            for piece in self.pieces:
                platform.add_piece("test", name, taken[0].job_id, piece)
            platform.report("test", name, taken[0].job_id, b'{"output": []}')

    async def stop(self):
        self.changes.close()
        await asyncio.gather(*self.tasks)


class Seen:
    """Every request and every refusal, by route and second; put in the place of the fault plan."""

    def __init__(self, platform, monkeypatch):
        self.at_s = {}
        plan = platform.faults.on_request

        def on_request(route, job_id):
            bucket = "status" if route == "status-sync" else route
            self.at_s.setdefault(bucket, []).append(platform.clock())
            return plan(route, job_id)

        monkeypatch.setattr(platform.faults, "on_request", on_request)

    def most_a_second(self, route):
        """Over ten seconds, as RunPod counts."""
        at_s = self.at_s.get(route, [])
        return max((sum(1 for each in at_s if start <= each < start + 10) for start in at_s), default=0) / 10


@pytest.mark.parametrize("long_poll", [True, False], ids=["long poll", "plain polling"])
def test_a_thousand_jobs_keep_runpods_limits_and_none_fails(make_endpoint, monkeypatch, long_poll):
    endpoint = make_endpoint(enforce_rate_limits=True, status_sync=long_poll)
    workers = QuickWorkers(endpoint, 100, 0.5)
    seen = Seen(endpoint.platform, monkeypatch)
    _loop.run_sync(workers.start)

    async def main():
        executor = endpoint.executor()
        return await asyncio.gather(*(executor.submit_workflow_async(TEMPLATE) for _ in range(1000)))

    results = asyncio.run(main())
    _loop.run_sync(workers.stop)
    assert [len(result) for result in results] == [1] * 1000
    assert seen.most_a_second("status") < 200
    assert seen.most_a_second("stream") < 200
    assert len(seen.at_s["run"]) == 1000


def test_no_more_jobs_are_under_way_than_the_executor_allows(make_endpoint, lines):
    inside, most = 0, 0

    async def hold(_):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.05)
        inside -= 1

    endpoint = make_endpoint(lines(picture(), hold=hold))
    most_waiting = 0

    async def main():
        nonlocal most_waiting
        executor = endpoint.executor(max_concurrent_jobs=3)
        futures = [executor.submit_workflow_async(TEMPLATE) for _ in range(12)]
        while not all(future.done() for future in futures):
            states = await asyncio.to_thread(endpoint.states)
            most_waiting = max(most_waiting, sum(state in {"IN_QUEUE", "IN_PROGRESS"} for state in states))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*futures)

    assert len(asyncio.run(main())) == 12
    assert most_waiting <= 3


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "8"])
def test_a_number_of_jobs_that_cannot_be_is_refused(make_endpoint, number):
    with pytest.raises(ConfigurationError, match="max_concurrent_jobs"):
        make_endpoint().executor(max_concurrent_jobs=number)


# -- what the endpoint does not have -----------------------------------------------------------------------------------


def test_an_endpoint_without_a_stream_gives_its_output_by_status(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture()), aggregate=True)
    missing = Fault("stream", Status(404), times=None)
    endpoint.platform.faults.add(missing)
    executor = endpoint.executor()
    assert len(executor.submit_workflow(TEMPLATE)) == 1
    asked = endpoint.platform.faults.fired(missing)
    assert len(executor.submit_workflow(TEMPLATE)) == 1
    assert endpoint.platform.faults.fired(missing) == asked  # remembered


def test_without_stream_and_long_poll_the_status_is_enough(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture()), aggregate=True, status_sync=False)
    endpoint.platform.faults.add(Fault("stream", Status(404), times=None))
    assert len(endpoint.executor().submit_workflow(TEMPLATE)) == 1


def test_a_stream_that_is_held_is_asked_again_at_once_and_so_brings_each_image_as_it_is_made(make_endpoint):
    steps = 8

    async def handler(_):
        writer = LineWriter()
        for number in range(steps):
            await asyncio.sleep(1.5 if number == 0 else 0.05)
            for piece in writer.event(picture(f"{number}.png")):
                yield piece
        for piece in writer.done(gpu_s=1.0):
            yield piece

    endpoint = make_endpoint(handler, stream_hold_s=30)
    reads = Fault("stream", Delay(0), times=None)
    endpoint.platform.faults.add(reads)
    images = list(endpoint.executor().stream_workflow(TEMPLATE))
    assert [image.name for image in images] == [f"{number}.png" for number in range(steps)]
    assert endpoint.platform.faults.fired(reads) > steps / 2


def test_a_burst_of_refusals_slows_all_down_and_none_fails(make_endpoint, lines):
    endpoint = make_endpoint(lines(picture()))
    endpoint.platform.faults.add(
        Fault("run", Status(429), times=3),
        Fault("status-sync", Status(429, retry_after_s=0.2), times=3),
        Fault("stream", Status(429, retry_after_s=0.2), times=3),
    )

    async def main():
        executor = endpoint.executor()
        return await asyncio.gather(*(executor.submit_workflow_async(TEMPLATE) for _ in range(10)))

    assert [len(result) for result in asyncio.run(main())] == [1] * 10


def test_a_stream_that_is_cut_off_gives_what_was_whole(make_endpoint, lines):
    endpoint = make_endpoint(lines(*(picture(f"{n}.png", size=300_000) for n in range(6))))
    endpoint.platform.faults.add(Fault("stream", Truncate()))
    with pytest.raises(JobError) as caught:
        endpoint.executor().submit_workflow(TEMPLATE, on_lost="raise")
    assert 1 <= len(caught.value.partial) < 6


# -- output_dir --------------------------------------------------------------------------------------------------------


def test_files_are_written_as_they_arrive_and_leave_memory(make_endpoint, lines, tmp_path):
    go_on = threading.Event()

    async def hold(_):
        await asyncio.to_thread(go_on.wait, 30)

    sent = [picture(), picture(), picture("b.png", subfolder="sub")]
    video = OutputReady(output=OutputFile(name="v.mp4", data=b"mp4", kind="gifs"))
    endpoint = make_endpoint(lines(*sent, video, hold=hold))
    out = tmp_path / "deep" / "out"
    stream = endpoint.executor().stream_workflow(TEMPLATE, output_dir=out)
    first = next(stream)
    assert first.path == out / "a_00001_.png"
    assert first.path.read_bytes() == sent[0].output.data
    assert "data" not in vars(first)
    go_on.set()
    images = [first, *stream]
    assert [image.path.relative_to(out).as_posix() for image in images] == [
        "a_00001_.png",
        "a_00001__1.png",
        "sub/b.png",
    ]
    assert [image.data for image in images] == [event.output.data for event in sent]
    assert (out / "v.mp4").read_bytes() == b"mp4"
    assert (images[0].size_bytes, images[0].sha256) == (sent[0].output.size_bytes, sent[0].output.sha256)
    assert images[0].save(tmp_path / "copy.png").read_bytes() == images[0].data


def test_a_handle_writes_too(make_endpoint, lines, tmp_path):
    endpoint = make_endpoint(lines(picture()))
    handle = endpoint.executor().start_workflow(TEMPLATE, output_dir=tmp_path)
    result = handle.result(timeout=20)
    assert [image.path for image in result] == [tmp_path / "a_00001_.png"]
    job_id = endpoint.executor().start_workflow(TEMPLATE).job_id
    result = endpoint.executor().attach(job_id, output_dir=tmp_path / "more").result(timeout=20)
    assert [image.path for image in result] == [tmp_path / "more" / "a_00001_.png"]


def test_a_name_that_leads_elsewhere_stays_in_memory_and_is_told(make_endpoint, lines, tmp_path):
    endpoint = make_endpoint(lines(picture("../evil.png")))
    result = endpoint.executor().submit_workflow(TEMPLATE, output_dir=tmp_path / "out")
    assert result[0].path is None
    assert result[0].data
    assert "evil" in result.warnings[0]
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("blocked", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_sent(make_endpoint, tmp_path, blocked):
    (tmp_path / "file").write_bytes(b"")
    endpoint = make_endpoint()
    with pytest.raises(ConfigurationError, match="output_dir"):
        endpoint.executor().submit_workflow(TEMPLATE, output_dir=tmp_path / blocked)
    assert endpoint.jobs() == []


def test_a_folder_that_goes_away_ends_the_job_and_keeps_what_came(make_endpoint, lines, tmp_path):
    out = tmp_path / "out"

    async def take_away(_):
        out.rmdir()
        out.write_bytes(b"")

    endpoint = make_endpoint(lines(picture(), hold=take_away))
    with pytest.raises(JobError, match="output_dir") as caught:
        endpoint.executor().submit_workflow(TEMPLATE, output_dir=out)
    assert [image.data for image in caught.value.partial] == [picture().output.data]
