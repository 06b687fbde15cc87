"""What each planned fault does, seen from a client over HTTP and from a worker in the same process."""

import random

import aiohttp
import pytest

from runpod_comfy.emulator import EmulatorServer, EndpointConfig, Fault, FaultPlan, InProcessWorker, Platform
from runpod_comfy.emulator.changes import Changes
from runpod_comfy.emulator.fault_plan import storm
from runpod_comfy.emulator.faults import (
    ROUTES,
    Answer,
    ClockJump,
    DropPiece,
    DropReport,
    DuplicatePiece,
    Expire,
    LateProgress,
    Redirect,
    RepeatPieces,
    ReplaceReport,
    Status,
    WorkerDies,
)
from runpod_comfy.emulator.lifecycle import Topic
from runpod_comfy.errors import ConfigurationError, NotFound

KEY = {"Authorization": "Bearer a-key"}
JOB = b'{"input": {}}'


def platform(*faults, **config):
    return Platform(EndpointConfig(endpoint_id="e", **config), faults=FaultPlan(*faults))


async def get(server, path, **options):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.base_url}/e/{path}", headers=KEY, **options) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


def streamed(one, *pieces):
    """Give these pieces to a job as a worker's, and return its id."""
    job = one.submit("e", JOB)
    one.ping("e", "w", lasting=True)
    one.take("e", "w")
    for piece in pieces:
        one.add_piece("e", "w", job.job_id, piece)
    return job.job_id


async def test_an_answer_of_ones_own_replaces_the_endpoints():
    async with EmulatorServer(platform(Fault("health", Answer({"workers": {"throttled": 3}})))) as server:
        _, _, first = await get(server, "health")
    assert b"throttled" in first


async def test_a_redirect_names_another_place():
    async with EmulatorServer(platform(Fault("health", Redirect("http://elsewhere.example/"), times=None))) as server:
        status, headers, _ = await get(server, "health", allow_redirects=False)
    assert (status, headers["Location"]) == (307, "http://elsewhere.example/")


async def test_an_expired_job_is_unknown_from_then_on():
    one = platform()
    job = one.submit("e", JOB)
    one.faults.add(Fault("status", Expire(), job=job.job_id))
    async with EmulatorServer(one) as server:
        assert (await get(server, f"status/{job.job_id}"))[0] == 404
    with pytest.raises(NotFound):
        one.status("e", job.job_id)


async def test_a_jump_of_the_clock_lets_what_is_due_happen():
    one = platform(Fault("health", ClockJump(24 * 3600 + 1)))
    job = one.submit("e", JOB)
    async with EmulatorServer(one) as server:
        await get(server, "health")
        assert (await get(server, f"status/{job.job_id}"))[0] == 404


def test_pieces_are_dropped_and_doubled():
    one = platform(Fault("job-stream", DropPiece(0)), Fault("job-stream", DuplicatePiece(2)))
    job_id = streamed(one, b"0", b"1", b"2")
    assert one.read_stream("e", job_id).pieces == (b"1", b"2", b"2")


def test_a_read_that_is_repeated_gives_its_pieces_again():
    one = platform(Fault("stream", RepeatPieces()))
    job_id = streamed(one, b"0")
    assert [one.read_stream("e", job_id).pieces for _ in range(3)] == [(b"0",), (b"0",), ()]


def test_a_job_whose_worker_dies_is_queued_again():
    one = platform(Fault("job-stream", WorkerDies(1)))
    job_id = streamed(one, b"0", b"1", b"2")
    status = one.status("e", job_id)
    assert (status.state, status.retries) == ("IN_QUEUE", 1)
    assert one.read_stream("e", job_id).pieces == (b"0",)
    assert one.stop_signals("e", "w") == [job_id]


async def test_a_worker_in_this_process_does_the_job_of_a_dead_one_again():
    runs = []

    async def handler(job):
        runs.append(job["id"])
        for index in range(3):
            yield index

    one = platform(Fault("job-stream", WorkerDies(1)))
    async with InProcessWorker(one, "e", handler):
        job = one.submit("e", JOB)
        changes = Changes(one)
        await changes.wait(
            Topic("job", "e", job.job_id),
            lambda: one.status("e", job.job_id).state.is_final or None,
            timeout_s=20,
        )
        changes.close()
    assert runs == [job.job_id, job.job_id]
    assert one.read_stream("e", job.job_id).pieces == (b"0", b"0", b"1", b"2")


def test_a_worker_that_dies_too_often_fails_the_job():
    one = platform(Fault("job-stream", WorkerDies(), times=None), max_retries=0)
    assert one.status("e", streamed(one, b"0")).state == "FAILED"


@pytest.mark.parametrize(
    ("action", "state", "output"),
    [
        (DropReport(), "IN_PROGRESS", None),
        (ReplaceReport({}), "COMPLETED", None),
        (ReplaceReport({"output": {"status": "success_no_images"}}), "COMPLETED", {"status": "success_no_images"}),
        (ReplaceReport({"error": "no"}), "FAILED", None),
        (LateProgress(), "COMPLETED", "the result"),  # without a progress update there is none that could be late
    ],
)
def test_results_are_lost_and_replaced(action, state, output):
    one = platform(Fault("job-done", action))
    job_id = streamed(one)
    one.report("e", "w", job_id, b'{"output": "the result"}')
    assert (one.status("e", job_id).state, one.status("e", job_id).output) == (state, output)


def test_a_fault_by_chance_happens_about_so_often():
    fault = Fault("status", Status(500), times=None, chance=0.25)
    plan = FaultPlan(fault, rng=random.Random(1))
    happened = sum(plan.on_request("status", "j") is not None for _ in range(1000))
    assert 200 < happened < 300
    assert plan.fired(fault) == happened
    assert plan.counts() == {"status Status": happened}


def test_a_storm_reaches_every_route_with_the_same_chance():
    faults = storm(0.05)
    for route in ROUTES:
        assert sum(fault.chance for fault in faults if fault.route == route) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("route", "action"),
    [
        ("nope", Status(500)),
        ("status", DropPiece(0)),
        ("run", Expire()),
        ("job-done", RepeatPieces()),
        ("stream", ReplaceReport({})),
    ],
)
def test_a_fault_that_cannot_happen_is_refused(route, action):
    with pytest.raises(ConfigurationError):
        Fault(route, action)
