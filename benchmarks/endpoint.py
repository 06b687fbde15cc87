"""An emulated endpoint in a process of its own, with a worker that makes no pictures and so is never what is measured.

The worker hands the same lines to every job, encoded once. Each request is counted by route, and the moment at which a
job's last byte left the worker is kept: on Linux and macOS `time.monotonic` is one clock for all processes.

Run as a program, it takes its scenario as JSON, prints the base URL as a line, and answers each line on stdin with
what it has seen since the line before.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.emulator import EmulatorServer, EndpointConfig, FaultPlan, Platform
from runpod_comfy.emulator.changes import Changes
from runpod_comfy.emulator.lifecycle import Topic
from runpod_comfy.events import OutputReady
from runpod_comfy.results import Origin, WorkflowOutputImage

if TYPE_CHECKING:
    from runpod_comfy.emulator.faults import RequestAction

ENDPOINT_ID = "bench"
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What the endpoint's jobs are like.

    Attributes:
        images: Outputs of a job.
        image_bytes: The size of each.
        job_s: How long a worker computes before its images are there.
        workers: How many jobs run at once.
        status_sync: Whether there is a long poll.
        rate_limits: Whether the published limits are enforced.
    """

    images: int = 8
    image_bytes: int = 200_000
    job_s: float = 0.7
    workers: int = 4
    status_sync: bool = True
    rate_limits: bool = False

    @property
    def job_bytes(self) -> int:
        """What one job delivers."""
        return self.images * self.image_bytes


class Endpoint:
    """The running process, seen from the benchmark."""

    def __init__(self, scenario: Scenario) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.endpoint", json.dumps(asdict(scenario))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.base_url = self._line().strip()

    def seen(self) -> dict[str, Any]:
        """Return, and forget, what happened: `ended_s` of each job in order, `requests` by route, `per_second`."""
        seen: dict[str, Any] = json.loads(self._asked("seen"))
        return seen

    def alive(self) -> int:
        """Return how many jobs are queued or run."""
        return int(self._asked("alive"))

    def submit(self) -> None:
        """Submit a job, as another program would."""
        self._asked("submit")

    def _asked(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def noise(index: int, size_bytes: int) -> bytes:
    """Return a PNG of about that size, which no compression makes smaller."""
    side = math.isqrt(size_bytes // 3)
    data = io.BytesIO()
    pixels = hashlib.shake_128(bytes([index % 256])).digest(side * side * 3)
    Image.frombytes("RGB", (side, side), pixels).save(data, "PNG", compress_level=0)
    return data.getvalue()


def pieces_of_a_job(scenario: Scenario) -> list[bytes]:
    """Return the lines of the native dialect for one job, as JSON strings ready to be streamed."""
    writer = LineWriter()
    pieces: list[str] = []
    for index in range(scenario.images):
        image = WorkflowOutputImage(
            name=f"bench_{index:05}_.png",
            data=noise(index, scenario.image_bytes),
            media_type="image/png",
            origin=Origin(batch=index, seed=index),
        )
        pieces += writer.event(OutputReady(output=image))
    pieces += writer.done(gpu_s=scenario.job_s)
    return [json.dumps(piece).encode() for piece in pieces]


async def serve(scenario: Scenario) -> None:
    """Serve until the parent goes away."""
    requests: list[tuple[float, str]] = []
    ended_s: list[float] = []

    class Counting(FaultPlan):
        """Meets every request, and does nothing but count it."""

        def on_request(self, route: str, job_id: str | None) -> RequestAction | None:
            del job_id
            requests.append((time.monotonic(), route))
            return None

    config = EndpointConfig(
        endpoint_id=ENDPOINT_ID, status_sync=scenario.status_sync, enforce_rate_limits=scenario.rate_limits
    )
    platform = Platform(config, faults=Counting())
    pieces = pieces_of_a_job(scenario)
    async with EmulatorServer(platform) as server:
        changes = Changes(platform)
        workers = [
            asyncio.create_task(
                _work(platform, changes, f"worker-{n}", pieces=pieces, job_s=scenario.job_s, ended_s=ended_s)
            )
            for n in range(scenario.workers)
        ]
        print(server.base_url, flush=True)
        while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if word == "submit":
                platform.submit(ENDPOINT_ID, b'{"input": {}}')
            if word != "seen":
                print(sum(not job.state.is_final for job in platform.statuses(ENDPOINT_ID)), flush=True)
                continue
            per_second = {
                route: max(Counter(int(at_s) for at_s, each in requests if each in routes).values(), default=0)
                for route, routes in (("status", ("status", "status-sync")), ("stream", ("stream",)), ("run", ("run",)))
            }
            seen = {"ended_s": ended_s, "requests": Counter(route for _, route in requests), "per_second": per_second}
            print(json.dumps(seen), flush=True)
            requests.clear()
            ended_s.clear()
        for worker in workers:
            worker.cancel()


async def _work(
    platform: Platform, changes: Changes, name: str, *, pieces: list[bytes], job_s: float, ended_s: list[float]
) -> None:
    platform.ping(ENDPOINT_ID, name, lasting=True)
    topic = Topic("queue", ENDPOINT_ID)
    while True:
        taken = await changes.wait(topic, lambda: platform.take(ENDPOINT_ID, name) or None, timeout_s=None)
        if taken is None:
            return
        await asyncio.sleep(job_s)
        for piece in pieces:
            platform.add_piece(ENDPOINT_ID, name, taken[0].job_id, piece)
        platform.report(ENDPOINT_ID, name, taken[0].job_id, b'{"output": []}')
        ended_s.append(time.monotonic())


if __name__ == "__main__":
    asyncio.run(serve(Scenario(**json.loads(sys.argv[1]))))
