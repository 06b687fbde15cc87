import asyncio
import contextlib
import io
import itertools
import threading
import urllib.request

import aiohttp
import pytest

from runpod_comfy.emulator import EmulatorServer, EmulatorThread, EndpointConfig, Fault, FaultPlan, Platform
from runpod_comfy.emulator.faults import Delay, Html, Reset, Status, Truncate
from runpod_comfy.emulator.inprocess import InProcessWorker
from runpod_comfy.errors import NotFound

LONG_S = 30


class Client:
    def __init__(self, server, session):
        self.server = server
        self.platform = server.platform
        self.session = session

    async def ask(self, method, path, **options):
        async with self.session.request(method, f"{self.server.base_url}/e/{path}", **options) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def until_worker_is_there(self):
        while not self.platform.health("e")["workers"]["ready"]:  # noqa: ASYNC110 a new worker is no event
            await asyncio.sleep(0.01)

    async def submit(self):
        _, job = await self.ask("POST", "run", json={"input": {}})
        return job["id"]

    async def running(self):
        job_id = await self.submit()
        assert (await self.ask("GET", "job-take/w?gpu=x"))[1]["id"] == job_id
        return job_id


@contextlib.asynccontextmanager
async def emulator(*faults, server=None, key="any", **config):
    ids = itertools.count(1)
    platform = Platform(
        EndpointConfig(endpoint_id="e", **config), new_id=lambda: str(next(ids)), faults=FaultPlan(*faults)
    )
    async with (
        EmulatorServer(platform, **{"worker_hold_s": 0.05} | (server or {})) as running,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"} if key else {}) as session,
    ):
        yield Client(running, session)


async def test_job_travels_from_client_to_worker_and_back():
    async with emulator() as client:
        status, job = await client.ask("POST", "run", json={"input": {"n": 1}})
        assert (status, job) == (200, {"id": "1-e1", "status": "IN_QUEUE"})
        status, taken = await client.ask("GET", "job-take/w?gpu=x&job_in_progress=0")
        assert (status, taken) == (200, {"id": "1-e1", "input": {"n": 1}})
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for data in ('{"output": "a"}', '{"output": "ü"}'):
            status, _ = await client.ask("POST", "job-stream/w/1-e1?gpu=x&isStream=false", data=data, headers=form)
            assert status == 200
        status, read = await client.ask("GET", "stream/1-e1")
        assert (status, read) == (200, {"status": "IN_PROGRESS", "stream": [{"output": "a"}, {"output": "ü"}]})
        await client.ask("POST", "job-done/w/1-e1?gpu=x&isStream=true", data='{"output": []}', headers=form)
        for method in ("GET", "POST"):
            status, done = await client.ask(method, "status/1-e1")
            assert (status, done["status"], done["output"]) == (200, "COMPLETED", [])
        assert await client.ask("GET", "stream/1-e1") == (200, {"status": "COMPLETED", "stream": []})


async def test_worker_without_jobs_gets_204_and_one_that_waits_gets_the_job_at_once():
    async with emulator(server={"worker_hold_s": LONG_S}) as client:
        waiting = asyncio.create_task(client.ask("GET", "job-take/w?gpu=x"))
        await client.until_worker_is_there()
        job_id = await client.submit()
        async with asyncio.timeout(LONG_S / 2):
            assert (await waiting)[1]["id"] == job_id
    async with emulator() as client:
        assert await client.ask("GET", "job-take/w?gpu=x") == (204, None)
        assert await client.ask("GET", "job-stop/w?gpu=x") == (204, None)


async def test_batch_take_hands_out_up_to_the_batch_size():
    async with emulator() as client:
        jobs = [await client.submit() for _ in range(3)]
        _, taken = await client.ask("GET", "job-take-batch/w?gpu=x&batch_size=2&job_in_progress=0")
        assert [job["id"] for job in taken] == jobs[:2]


async def test_status_sync_answers_at_once_when_the_job_ends():
    async with emulator() as client:
        job_id = await client.running()
        waiting = asyncio.create_task(client.ask("GET", f"status-sync/{job_id}?wait=90000"))
        await client.ask("GET", f"status/{job_id}")
        assert not waiting.done()
        await client.ask("POST", f"job-done/w/{job_id}?gpu=x", data='{"output": 1}')
        async with asyncio.timeout(LONG_S):
            status, job = await waiting
        assert (status, job["status"], job["output"]) == (200, "COMPLETED", 1)


async def test_status_sync_answers_with_the_state_when_the_wait_is_over():
    async with emulator() as client:
        job_id = await client.submit()
        assert await client.ask("POST", f"status-sync/{job_id}?wait=1") == (200, {"id": job_id, "status": "IN_QUEUE"})


async def test_status_sync_can_be_missing():
    async with emulator(status_sync=False) as client:
        job_id = await client.submit()
        assert (await client.ask("GET", f"status-sync/{job_id}"))[0] == 404
        assert (await client.ask("GET", f"status/{job_id}"))[0] == 200


async def test_runsync_waits_for_the_result():
    async def double(job):
        return job["input"]["n"] * 2

    async with emulator() as client, InProcessWorker(client.platform, "e", double):
        _, job = await client.ask("POST", "runsync?wait=60000", json={"input": {"n": 21}})
        assert (job["id"], job["status"], job["output"]) == ("sync-1-e1", "COMPLETED", 42)


async def test_stream_with_a_hold_answers_when_a_piece_arrives():
    async with emulator(server={"stream_hold_s": LONG_S}) as client:
        job_id = await client.running()
        waiting = asyncio.create_task(client.ask("GET", f"stream/{job_id}"))
        await client.ask("POST", f"job-stream/w/{job_id}?gpu=x", data='{"output": "x"}')
        async with asyncio.timeout(LONG_S / 2):
            assert (await waiting)[1] == {"status": "IN_PROGRESS", "stream": [{"output": "x"}]}


async def test_client_that_hangs_up_during_a_held_read_takes_no_piece_with_it():
    async with emulator(server={"stream_hold_s": LONG_S}) as client:
        job_id = await client.running()
        with pytest.raises(TimeoutError):
            await client.ask("GET", f"stream/{job_id}", timeout=aiohttp.ClientTimeout(total=0.1))
        await client.ask("POST", f"job-stream/w/{job_id}?gpu=x", data='{"output": "x"}')
        assert (await client.ask("GET", f"stream/{job_id}"))[1]["stream"] == [{"output": "x"}]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"error": "x"}', b'{"output": NaN}', b"output=1"])
async def test_piece_that_is_no_json_with_an_output_is_refused(data):
    async with emulator() as client:
        job_id = await client.running()
        assert (await client.ask("POST", f"job-stream/w/{job_id}?gpu=x", data=data))[0] == 400
        assert (await client.ask("GET", f"stream/{job_id}"))[1]["stream"] == []


async def test_cancel_reaches_the_worker_through_its_stop_channel():
    async with emulator(server={"worker_hold_s": LONG_S}) as client:
        job_id = await client.running()
        waiting = asyncio.create_task(client.ask("GET", "job-stop/w?gpu=x"))
        assert await client.ask("POST", f"cancel/{job_id}") == (200, {"id": job_id, "status": "CANCELLED"})
        async with asyncio.timeout(LONG_S / 2):
            assert await waiting == (200, {"jobsToStop": [job_id]})


async def test_time_passes_by_itself():
    async with emulator(default_execution_timeout_s=0.1) as client:
        job_id = await client.running()
        async with asyncio.timeout(LONG_S):
            _, job = await client.ask("GET", f"status-sync/{job_id}?wait=60000")
        assert job["status"] == "TIMED_OUT"


async def test_silent_worker_loses_its_job_to_the_next():
    async with emulator(worker_timeout_s=0.1, server={"worker_hold_s": LONG_S}) as client:
        job_id = await client.running()
        async with asyncio.timeout(LONG_S / 2):
            assert (await client.ask("GET", "job-take/other?gpu=x"))[1]["id"] == job_id
        assert (await client.ask("GET", f"status/{job_id}"))[1]["retries"] == 1


async def test_cold_worker_that_waits_gets_its_job_when_it_is_ready():
    async with emulator(cold_start_s=0.1, server={"worker_hold_s": LONG_S}) as client:
        job_id = await client.submit()
        async with asyncio.timeout(LONG_S / 2):
            assert (await client.ask("GET", "job-take/w?gpu=x"))[1]["id"] == job_id


async def test_result_over_the_limit_answers_400_and_ends_completed_without_output():
    async with emulator() as client:
        job_id = await client.running()
        data = io.BytesIO(b'{"output": "' + b"x" * 10 * 1024 * 1024 + b'"}')
        assert (await client.ask("POST", f"job-done/w/{job_id}?gpu=x", data=data))[0] == 400
        _, job = await client.ask("GET", f"status/{job_id}")
        assert job["status"] == "COMPLETED"
        assert "output" not in job


@pytest.mark.parametrize(("route", "limit_mib"), [("run", 10), ("runsync", 20)])
async def test_body_over_the_limit_answers_400_and_says_so(route, limit_mib):
    async with emulator() as client:
        body = io.BytesIO(b'{"input": {"x": "' + b"a" * limit_mib * 1024 * 1024 + b'"}}')
        status, answer = await client.ask("POST", route, data=body)
        assert status == 400
        assert f"exceeded max body size of {limit_mib}MiB" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "status/never", 404),
        ("POST", "cancel/never", 404),
        ("GET", "stream/never", 404),
        ("GET", "nothing", 404),
        ("GET", "run", 405),
        ("HEAD", "stream/1-e1", 405),
        ("GET", "status/1-e1?ttl=soon", 400),
        ("POST", "run", 400),
        ("POST", "retry/1-e1", 400),
    ],
)
async def test_wrong_requests_are_refused(method, path, expected):
    async with emulator() as client:
        await client.submit()
        assert (await client.ask(method, path))[0] == expected


async def test_unknown_endpoint_is_404():
    async with emulator() as client, client.session.get(f"{client.server.base_url}/other/health") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(("key", "expected"), [("good", 200), ("bad", 401), ("", 401)])
async def test_only_the_endpoints_keys_open_it(key, expected):
    async with emulator(key=key, api_keys=frozenset({"good", "better"})) as client:
        assert (await client.ask("GET", "health"))[0] == expected


async def test_bare_key_is_refused():
    async with emulator(key=None) as client:
        assert (await client.ask("GET", "health", headers={"Authorization": "good"}))[0] == 401


async def test_health_purge_and_requests():
    async with emulator() as client:
        await client.running()
        await client.submit()
        status, health = await client.ask("GET", "health")
        assert (status, health["jobs"]["inProgress"], health["jobs"]["inQueue"]) == (200, 1, 1)
        assert await client.ask("POST", "purge-queue") == (200, {"removed": 1, "status": "completed"})
        assert (await client.ask("GET", "requests"))[1] == {"requests": [{"id": "1-e1", "status": "IN_PROGRESS"}]}


async def test_published_rate_limits_answer_429_when_they_are_enforced():
    async with emulator(enforce_rate_limits=True) as client:
        codes = [(await client.ask("POST", "purge-queue"))[0] for _ in range(3)]
        assert codes == [200, 200, 429]
        assert (await client.ask("GET", "health"))[0] == 200
    async with emulator() as client:
        assert [(await client.ask("POST", "purge-queue"))[0] for _ in range(3)] == [200] * 3


async def test_parked_long_polls_count_towards_the_rate_limit():
    async with emulator(enforce_rate_limits=True) as client:
        job_id = await client.submit()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=client.session.headers) as session:
            client.session = session
            polls = [asyncio.create_task(client.ask("GET", f"status-sync/{job_id}")) for _ in range(401)]
            done, parked = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            assert [poll.result()[0] for poll in done] == [429]
            assert len(parked) == 400
            client.platform.cancel("e", job_id)
            assert {poll.result()[0] for poll in (await asyncio.wait(parked))[0]} == {200}


async def test_planned_status_answers_its_code_as_often_as_planned():
    plan = (Fault("status", Status(503), times=2, after=1), Fault("health", Status(429, retry_after_s=2)))
    async with emulator(*plan) as client:
        job_id = await client.submit()
        assert [(await client.ask("GET", f"status/{job_id}"))[0] for _ in range(4)] == [200, 503, 503, 200]
        async with client.session.get(f"{client.server.base_url}/e/health") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "2")


async def test_planned_fault_can_aim_at_one_job():
    async with emulator(Fault("status", Status(500), times=None, job="2-e1")) as client:
        for expected in (200, 500):
            assert (await client.ask("GET", f"status/{await client.submit()}"))[0] == expected


async def test_planned_html_is_the_page_of_a_proxy():
    async with emulator(Fault("run", Html(524))) as client:
        async with client.session.post(f"{client.server.base_url}/e/run", json={"input": {}}) as answer:
            assert (answer.status, answer.content_type) == (524, "text/html")
        assert client.platform.statuses("e") == []


@pytest.mark.parametrize("processed", [False, True])
async def test_planned_reset_breaks_the_connection_before_or_after_the_request_takes_effect(processed):
    async with emulator(Fault("run", Reset(processed=processed))) as client:
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.submit()
        assert len(client.platform.statuses("e")) == processed
        await client.submit()


async def test_planned_truncation_loses_what_the_read_consumed():
    async with emulator(Fault("stream", Truncate())) as client:
        job_id = await client.running()
        await client.ask("POST", f"job-stream/w/{job_id}?gpu=x", data='{"output": "x"}')
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.ask("GET", f"stream/{job_id}")
        assert (await client.ask("GET", f"stream/{job_id}"))[1]["stream"] == []


async def test_planned_delay_answers_late():
    async with emulator(Fault("status", Delay(LONG_S))) as client:
        job_id = await client.submit()
        with pytest.raises(TimeoutError):
            await client.ask("GET", f"status/{job_id}", timeout=aiohttp.ClientTimeout(total=0.1))
        assert (await client.ask("GET", f"status/{job_id}"))[0] == 200


async def test_stopping_the_server_ends_its_long_polls():
    async with emulator(server={"worker_hold_s": LONG_S}) as client:
        job_id = await client.submit()
        polls = [
            asyncio.create_task(client.ask("GET", f"status-sync/{job_id}")),
            asyncio.create_task(client.ask("GET", "job-stop/w?gpu=x")),
        ]
        await client.until_worker_is_there()
        async with asyncio.timeout(LONG_S / 2):
            await client.server.stop()
            assert [status for status, _ in await asyncio.gather(*polls)] == [200, 204]


def test_worker_environment_names_only_known_endpoints():
    server = EmulatorServer()
    assert server.worker_env()["RUNPOD_POD_ID"] == "worker-1"
    with pytest.raises(NotFound):
        server.worker_env("other")


def test_emulator_in_a_thread_serves_code_without_an_event_loop():
    def greet(job):
        return {"hello": job["input"]["name"]}

    with EmulatorThread() as emulator:
        worker = InProcessWorker(emulator.server.platform, "emulator", greet)
        emulator.run(worker.start())
        request = urllib.request.Request(  # noqa: S310 the emulator's own address
            f"{emulator.server.base_url}/emulator/runsync",
            data=b'{"input": {"name": "you"}}',
            headers={"Authorization": "Bearer any"},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 likewise
            assert b'"output":{"hello":"you"}' in answer.read()
        health = emulator.call(emulator.server.platform.health, "emulator")
        assert health["jobs"]["completed"] == 1
        emulator.run(worker.stop())
    assert "runpod-emulator" not in [thread.name for thread in threading.enumerate()]


def test_emulator_in_a_thread_says_why_it_could_not_start():
    with (
        EmulatorThread() as first,
        pytest.raises(OSError, match="in use"),
        EmulatorThread(EmulatorServer(port=int(first.server.url.rpartition(":")[2]))),
    ):
        pass
