import itertools

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from runpod_comfy.emulator.fault_plan import FaultPlan
from runpod_comfy.emulator.faults import DropPiece, Fault, LateProgress
from runpod_comfy.emulator.jobs import EndpointConfig, JobState
from runpod_comfy.emulator.lifecycle import CLOCK, Topic
from runpod_comfy.emulator.platform import Platform, Report
from runpod_comfy.errors import ApiError, ConfigurationError, NotFound

MIB = 1024 * 1024


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Bench:
    """One endpoint "e", one worker "w", and a clock that tests move."""

    def __init__(self, *faults, **config):
        self.clock = Clock()
        self.plan = FaultPlan(*faults)
        ids = itertools.count(1)
        self.platform = Platform(
            EndpointConfig(endpoint_id="e", **config),
            clock=self.clock,
            new_id=lambda: str(next(ids)),
            faults=self.plan,
        )

    def submit(self, *, sync=False, **request):
        return self.platform.submit("e", orjson.dumps({"input": {}} | request), sync=sync).job_id

    def take(self, worker="w"):
        [job] = self.platform.take("e", worker)
        return job

    def report(self, job_id, message, worker="w"):
        return self.platform.report("e", worker, job_id, orjson.dumps(message))

    def piece(self, job_id, output):
        return self.platform.add_piece("e", "w", job_id, orjson.dumps(output))

    def read(self, job_id):
        return [orjson.loads(piece) for piece in self.platform.read_stream("e", job_id).pieces]

    def status(self, job_id):
        return self.platform.status("e", job_id)

    def running(self, **request):
        job_id = self.submit(**request)
        assert self.take().job_id == job_id
        return job_id


def test_job_goes_from_queue_through_progress_to_completed_with_its_times():
    bench = Bench()
    job_id = bench.submit()
    assert orjson.loads(bench.status(job_id).to_json()) == {"id": "1-e1", "status": "IN_QUEUE"}
    bench.clock.now += 2.5
    bench.take()
    assert orjson.loads(bench.status(job_id).to_json()) == {
        "id": "1-e1",
        "status": "IN_PROGRESS",
        "delayTime": 2500,
        "workerId": "w",
    }
    bench.clock.now += 4
    assert bench.report(job_id, {"output": {"a": 1}}) is Report.ACCEPTED
    assert orjson.loads(bench.status(job_id).to_json()) == {
        "id": "1-e1",
        "status": "COMPLETED",
        "delayTime": 2500,
        "executionTime": 4000,
        "output": {"a": 1},
        "workerId": "w",
    }


def test_runsync_jobs_are_recognised_by_their_id():
    bench = Bench()
    assert bench.submit(sync=True) == "sync-1-e1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"input": "text"}',
        b'{"input": {}, "policy": 1}',
        b'{"input": {}, "policy": {"ttl": "10"}}',
        b'{"input": {}, "policy": {"ttl": 9999}}',
        b'{"input": {}, "policy": {"ttl": 604800001}}',
        b'{"input": {}, "policy": {"executionTimeout": 4999}}',
        b'{"input": {}, "policy": {"executionTimeout": true}}',
    ],
)
def test_bad_request_is_refused_with_400_and_makes_no_job(body):
    bench = Bench()
    with pytest.raises(ApiError) as caught:
        bench.platform.submit("e", body)
    assert caught.value.status_code == 400
    assert bench.platform.statuses("e") == []


@pytest.mark.parametrize(("sync", "limit", "words"), [(False, 10 * MIB, "10MiB"), (True, 20 * MIB, "20MiB")])
def test_body_over_the_limit_is_refused_in_the_words_of_runpod(sync, limit, words):
    bench = Bench()
    body = b'{"input": {"x": "' + b"a" * (limit - 20) + b'"}}'
    assert len(body) == limit
    bench.platform.submit("e", body, sync=sync)
    with pytest.raises(ApiError, match=f"exceeded max body size of {words}") as caught:
        bench.platform.submit("e", body + b" ", sync=sync)
    assert caught.value.status_code == 400


def test_worker_gets_input_and_s3_config_and_the_client_never_sees_them_again():
    bench = Bench()
    s3 = {"accessId": "id", "accessSecret": "hush", "bucketName": "b", "endpointUrl": "https://s3"}
    job_id = bench.submit(input={"prompt": "cat"}, s3Config=s3, policy={"lowPriority": True}, other=1)
    taken = orjson.loads(bench.take().body)
    assert taken == {"id": job_id, "input": {"prompt": "cat"}, "s3Config": s3}
    bench.report(job_id, {"output": 1})
    assert b"hush" not in bench.status(job_id).to_json()
    assert b"prompt" not in bench.status(job_id).to_json()


def test_jobs_are_taken_in_the_order_of_submission_up_to_the_limit():
    bench = Bench()
    jobs = [bench.submit() for _ in range(3)]
    assert [job.job_id for job in bench.platform.take("e", "w", limit=2)] == jobs[:2]
    assert [job.job_id for job in bench.platform.take("e", "w", limit=2)] == jobs[2:]
    assert bench.platform.take("e", "w") == []


def test_reads_of_the_stream_consume():
    bench = Bench()
    job_id = bench.running()
    bench.piece(job_id, "a\n")
    bench.piece(job_id, {"k": [1, "ü"]})
    assert bench.platform.read_stream("e", job_id).to_json() == (
        '{"status":"IN_PROGRESS","stream":[{"output":"a\\n"},{"output":{"k":[1,"ü"]}}]}'.encode()
    )
    assert bench.read(job_id) == []
    bench.piece(job_id, "b")
    bench.report(job_id, {"output": []})
    assert orjson.loads(bench.platform.read_stream("e", job_id).to_json()) == {
        "status": "COMPLETED",
        "stream": [{"output": "b"}],
    }
    assert bench.read(job_id) == []


@pytest.mark.parametrize("text", ["x" * 2500, 'quo"te' * 500, "漢字" * 700, "\x00\x1f" * 300])
def test_piece_over_the_limit_arrives_as_several_strings_that_join_to_it(text):
    bench = Bench(stream_piece_limit_bytes=1000)
    job_id = bench.running()
    bench.piece(job_id, text)
    pieces = bench.platform.read_stream("e", job_id).pieces
    assert len(pieces) > 1
    assert all(len(piece) <= 1000 for piece in pieces)
    assert "".join(orjson.loads(piece) for piece in pieces) == text


def test_large_object_arrives_as_strings_that_join_to_its_json():
    bench = Bench(stream_piece_limit_bytes=1000)
    job_id = bench.running()
    bench.piece(job_id, {"k": ["v" * 10] * 200})
    assert orjson.loads("".join(bench.read(job_id))) == {"k": ["v" * 10] * 200}


def test_dropped_piece_never_arrives_and_the_worker_believes_it_sent():
    fault = Fault("job-stream", DropPiece(1))
    bench = Bench(fault)
    first, second = bench.submit(), bench.submit()
    for job_id in (first, second):
        bench.take()
        assert [bench.piece(job_id, n) for n in range(3)] == [Report.ACCEPTED] * 3
    assert bench.read(first) == [0, 2]
    assert bench.read(second) == [0, 1, 2]
    assert bench.plan.fired(fault) == 1


def test_progress_is_the_output_while_the_job_runs_and_the_last_one_wins():
    bench = Bench()
    job_id = bench.running()
    for n in range(3):
        bench.report(job_id, {"status": "IN_PROGRESS", "output": {"percent": n}})
    assert bench.status(job_id).state is JobState.IN_PROGRESS
    assert bench.status(job_id).output == {"percent": 2}
    bench.report(job_id, {"output": "done"})
    bench.report(job_id, {"status": "IN_PROGRESS", "output": "late"})
    assert (bench.status(job_id).state, bench.status(job_id).output) == (JobState.COMPLETED, "done")


def test_planned_late_progress_hides_the_result_until_the_execution_timeout():
    bench = Bench(Fault("job-done", LateProgress()))
    job_id = bench.running()
    bench.report(job_id, {"status": "IN_PROGRESS", "output": "99 %"})
    bench.report(job_id, {"output": "done"})
    assert (bench.status(job_id).state, bench.status(job_id).output) == (JobState.IN_PROGRESS, "99 %")
    bench.clock.now += 600
    assert bench.status(job_id).state is JobState.TIMED_OUT


def test_result_that_is_too_large_ends_completed_without_output():
    bench = Bench(run_output_limit_bytes=1000)
    job_id = bench.running()
    assert bench.report(job_id, {"output": "x" * 1000}) is Report.REFUSED
    assert set(orjson.loads(bench.status(job_id).to_json())) == {
        "delayTime",
        "executionTime",
        "id",
        "status",
        "workerId",
    }
    assert bench.status(job_id).state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("message", "state", "output", "error"),
    [
        ({}, JobState.COMPLETED, None, None),
        ({"output": None}, JobState.COMPLETED, None, None),
        ({"error": "broke"}, JobState.FAILED, None, "broke"),
        ({"error": "broke", "output": {"details": [1]}}, JobState.FAILED, {"details": [1]}, "broke"),
        ({"error": {"not": "a string"}, "output": {"x": 1}}, JobState.COMPLETED, None, None),
        ({"output": [1], "stopPod": True}, JobState.COMPLETED, [1], None),
    ],
)
def test_result_decides_the_final_state(message, state, output, error):
    bench = Bench()
    job_id = bench.running()
    assert bench.report(job_id, message) is Report.ACCEPTED
    status = bench.status(job_id)
    assert (status.state, status.output, status.error) == (state, output, error)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"output": NaN}', b"output=1"])
def test_report_that_is_no_json_object_is_refused_and_changes_nothing(body):
    bench = Bench()
    job_id = bench.running()
    assert bench.platform.report("e", "w", job_id, body) is Report.REFUSED
    assert bench.status(job_id).state is JobState.IN_PROGRESS


def test_what_is_nested_too_deeply_to_be_sent_on_is_refused_and_wedges_no_job():
    bench = Bench()
    deep = b"[" * 300 + b"]" * 300
    with pytest.raises(ApiError, match="nested too deeply") as caught:
        bench.platform.submit("e", b'{"input": {"x": ' + deep + b"}}")
    assert caught.value.status_code == 400
    job_id = bench.running()
    assert bench.platform.report("e", "w", job_id, b'{"output": ' + deep + b"}") is Report.REFUSED
    assert bench.report(job_id, {"output": "next"}) is Report.ACCEPTED
    wide = b"[" + b",".join([b"[]"] * 400) + b"]"
    bench.platform.submit("e", b'{"input": {"x": ' + wide + b"}}")


def test_report_of_a_worker_that_does_not_hold_the_job_changes_nothing():
    bench = Bench()
    job_id = bench.running()
    assert bench.report(job_id, {"output": "stolen"}, worker="thief") is Report.ACCEPTED
    assert bench.status(job_id).state is JobState.IN_PROGRESS
    assert bench.report("unknown", {"output": 1}) is Report.UNKNOWN


def test_cancel_takes_a_queued_job_out_of_the_queue():
    bench = Bench()
    job_id = bench.submit()
    assert bench.platform.cancel("e", job_id).state is JobState.CANCELLED
    assert bench.platform.take("e", "w") == []
    assert orjson.loads(bench.status(job_id).to_json()) == {"id": job_id, "status": "CANCELLED"}


def test_cancel_tells_the_worker_once_and_its_later_report_changes_nothing():
    bench = Bench()
    job_id = bench.running()
    bench.platform.cancel("e", job_id)
    assert bench.platform.stop_signals("e", "w") == [job_id]
    assert bench.platform.stop_signals("e", "w") == []
    assert bench.report(job_id, {"output": "too late"}) is Report.ACCEPTED
    assert (bench.status(job_id).state, bench.status(job_id).output) == (JobState.CANCELLED, None)


def test_cancel_leaves_a_final_job_as_it_is():
    bench = Bench()
    job_id = bench.running()
    bench.report(job_id, {"output": 1})
    assert bench.platform.cancel("e", job_id).state is JobState.COMPLETED


def test_execution_timeout_ends_the_job_and_stops_the_worker():
    bench = Bench()
    job_id = bench.submit(policy={"executionTimeout": 5000})
    bench.clock.now += 100
    bench.take()
    bench.clock.now += 4.99
    assert bench.status(job_id).state is JobState.IN_PROGRESS
    bench.clock.now += 0.01
    assert bench.status(job_id).state is JobState.TIMED_OUT
    assert bench.platform.stop_signals("e", "w") == [job_id]


@pytest.mark.parametrize("running", [False, True])
def test_ttl_counts_from_submission_and_removes_the_job_whether_it_runs_or_not(running):
    bench = Bench()
    job_id = bench.submit(policy={"ttl": 10_000})
    bench.clock.now += 9.99
    if running:
        bench.take()
    bench.status(job_id)
    bench.clock.now += 0.01
    with pytest.raises(NotFound):
        bench.status(job_id)
    assert bench.platform.stop_signals("e", "w") == ([job_id] if running else [])
    assert bench.platform.health("e")["jobs"]["inQueue"] == 0


@pytest.mark.parametrize(("sync", "retention_s"), [(False, 1800), (True, 60)])
def test_result_is_kept_for_half_an_hour_and_after_runsync_for_a_minute(sync, retention_s):
    bench = Bench()
    job_id = bench.running(sync=sync)
    bench.clock.now += 20
    bench.report(job_id, {"output": 1})
    bench.clock.now += retention_s - 0.01
    assert bench.status(job_id).output == 1
    bench.clock.now += 0.01
    for lost in (bench.status, bench.read, lambda job_id: bench.platform.retry("e", job_id)):
        with pytest.raises(NotFound):
            lost(job_id)


def test_status_with_a_ttl_drops_a_result_early():
    bench = Bench()
    job_id = bench.running()
    bench.report(job_id, {"output": 1})
    bench.platform.status("e", job_id, ttl_s=6)
    bench.clock.now += 6
    with pytest.raises(NotFound):
        bench.status(job_id)


def test_retry_runs_a_failed_job_again_with_its_input_and_without_its_output():
    bench = Bench()
    job_id = bench.submit(input={"n": 7})
    bench.take()
    bench.piece(job_id, "half")
    bench.report(job_id, {"error": "broke"})
    assert bench.platform.retry("e", job_id).state is JobState.IN_QUEUE
    assert bench.read(job_id) == []
    assert bench.status(job_id).error is None
    assert orjson.loads(bench.take().body) == {"id": job_id, "input": {"n": 7}}
    bench.report(job_id, {"output": "ok"})
    assert (bench.status(job_id).output, bench.status(job_id).retries) == ("ok", 1)


def test_retry_refuses_jobs_that_did_not_fail():
    bench = Bench()
    job_id = bench.running()
    bench.report(job_id, {"output": 1})
    with pytest.raises(ApiError) as caught:
        bench.platform.retry("e", job_id)
    assert caught.value.status_code == 400


def test_purge_forgets_queued_jobs_and_lets_running_ones_go_on():
    bench = Bench()
    running, queued = bench.running(), bench.submit()
    assert bench.platform.purge_queue("e") == 1
    with pytest.raises(NotFound):
        bench.status(queued)
    bench.report(running, {"output": 1})
    assert bench.status(running).state is JobState.COMPLETED


def test_job_of_a_silent_worker_is_queued_again_and_given_up_after_the_last_retry():
    bench = Bench(max_retries=1)
    job_id = bench.running()
    bench.clock.now += 29
    bench.platform.ping("e", "w")
    bench.clock.now += 29
    assert bench.status(job_id).state is JobState.IN_PROGRESS
    bench.clock.now += 1
    assert (bench.status(job_id).state, bench.status(job_id).retries) == (JobState.IN_QUEUE, 1)
    bench.take("other")
    bench.clock.now += 30
    status = bench.status(job_id)
    assert status.state is JobState.FAILED
    assert "worker died" in status.error


def test_job_of_a_worker_that_leaves_goes_to_the_front_of_the_queue():
    bench = Bench()
    first = bench.running()
    bench.submit()
    bench.platform.leave("e", "w")
    assert bench.take("other").job_id == first


def test_lasting_worker_needs_no_signs_of_life():
    bench = Bench()
    bench.platform.ping("e", "w", lasting=True)
    job_id = bench.running()
    bench.clock.now += 500
    assert bench.status(job_id).state is JobState.IN_PROGRESS


def test_new_worker_gets_its_first_job_after_its_cold_start():
    bench = Bench(cold_start_s=12)
    bench.submit()
    assert bench.platform.take("e", "w") == []
    assert bench.platform.health("e")["workers"]["initializing"] == 1
    assert bench.platform.next_deadline_s() == bench.clock.now + 12
    bench.clock.now += 12
    assert len(bench.platform.take("e", "w")) == 1


def test_unhealthy_worker_gets_no_jobs():
    bench = Bench()
    bench.submit()
    bench.platform.ping("e", "w", healthy=False)
    assert bench.platform.take("e", "w") == []
    assert bench.platform.health("e")["workers"]["unhealthy"] == 1


def test_health_counts_jobs_and_workers():
    bench = Bench()
    done, failed = bench.running(), bench.running()
    bench.report(done, {"output": 1})
    bench.report(failed, {"error": "x"})
    bench.running()
    bench.submit()
    bench.platform.ping("e", "idle")
    assert bench.platform.health("e") == {
        "jobs": {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0},
        "workers": {"idle": 1, "initializing": 0, "ready": 2, "running": 1, "throttled": 0, "unhealthy": 0},
    }


def test_unknown_endpoints_and_jobs_are_not_found():
    bench = Bench()
    for call in (
        lambda: bench.platform.submit("other", b'{"input": {}}'),
        lambda: bench.platform.health("other"),
        lambda: bench.status("never"),
        lambda: bench.platform.cancel("e", "never"),
    ):
        with pytest.raises(NotFound):
            call()


def test_listeners_hear_what_changed_and_when_the_next_deadline_moves():
    bench = Bench()
    heard = []
    unsubscribe = bench.platform.subscribe(heard.append)
    job_id = bench.submit()
    assert heard == [CLOCK, Topic("queue", "e"), Topic("job", "e", job_id)]
    bench.take()
    heard.clear()
    bench.piece(job_id, "x")
    assert heard == [Topic("job", "e", job_id)]
    bench.platform.cancel("e", job_id)
    assert Topic("stop", "e", "w") in heard
    unsubscribe()
    heard.clear()
    bench.submit()
    assert heard == []


def test_fault_plan_refuses_what_could_never_happen():
    with pytest.raises(ConfigurationError, match="No route"):
        Fault("statsu", DropPiece(0))
    with pytest.raises(ConfigurationError, match="job-stream"):
        Fault("stream", DropPiece(0))


class PlatformRules(RuleBasedStateMachine):
    """Any order of calls and any passing of time keep the platform's promises."""

    jobs = Bundle("jobs")

    def __init__(self):
        super().__init__()
        self.bench = Bench(max_retries=2)
        self.finals = {}
        self.unread = {}

    @rule(target=jobs, sync=st.booleans())
    def submit(self, sync):
        return self.bench.submit(sync=sync)

    @rule(target=jobs, worker=st.sampled_from("abc"), limit=st.integers(1, 3))
    def take(self, worker, limit):
        return multiple(*(job.job_id for job in self.bench.platform.take("e", worker, limit=limit)))

    @rule(job_id=jobs, worker=st.sampled_from("abc"), message=st.sampled_from([{"output": 1}, {"error": "x"}]))
    def report(self, job_id, worker, message):
        self.bench.report(job_id, message, worker=worker)

    @rule(job_id=jobs, worker=st.sampled_from("abc"))
    def stream(self, job_id, worker):
        self.bench.platform.add_piece("e", worker, job_id, b'"x"')

    @rule(job_id=jobs, action=st.sampled_from(["cancel", "retry", "read_stream"]))
    def client(self, job_id, action):
        try:
            getattr(self.bench.platform, action)("e", job_id)
        except ApiError:
            return
        if action == "retry":
            self.finals.pop(job_id, None)

    @rule(worker=st.sampled_from("abc"))
    def leave(self, worker):
        self.bench.platform.leave("e", worker)

    @rule()
    def purge(self):
        self.bench.platform.purge_queue("e")

    @rule(seconds=st.sampled_from([0.5, 29, 31, 61, 601, 1801, 86_401]))
    def wait(self, seconds):
        self.bench.clock.now += seconds
        self.bench.platform.tick()
        deadline_s = self.bench.platform.next_deadline_s()
        assert deadline_s is None or deadline_s > self.bench.clock.now

    @invariant()
    def a_final_state_stays(self):
        now = {status.job_id: status.state for status in self.bench.platform.statuses("e")}
        for job_id, state in self.finals.items():
            assert now.get(job_id, state) is state
        self.finals = {job_id: state for job_id, state in now.items() if state.is_final}

    @invariant()
    def every_job_is_in_one_place(self):
        endpoint = self.bench.platform._life.endpoints["e"]
        held = [job_id for worker in endpoint.workers.values() for job_id in worker.jobs]
        for job_id, job in endpoint.jobs.items():
            assert (job_id in endpoint.queue) == (job.state is JobState.IN_QUEUE)
            assert held.count(job_id) == (job.state is JobState.IN_PROGRESS)
            assert (job.finished_s is not None) == job.state.is_final
        assert set(held) | set(endpoint.queue) <= set(endpoint.jobs)


TestPlatformRules = PlatformRules.TestCase
TestPlatformRules.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
