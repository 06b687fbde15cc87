"""A worker process under the real SDK, on an emulated endpoint: what the worker's benchmarks have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.emulator import EmulatorServer, EmulatorThread, EndpointConfig, Platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runpod_comfy.emulator import JobStatus

__all__ = ["ROOT", "WorkerEndpoint", "nap", "trivial", "worker_endpoint"]

ROOT = Path(__file__).resolve().parent.parent
_ENDPOINT_ID = "bench"
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class WorkerEndpoint:
    """An emulated endpoint with one worker on it.

    Attributes:
        emulator: The endpoint.
        pid: The worker's process.
    """

    emulator: EmulatorThread
    pid: int

    def submit(self, values: dict[str, Any]) -> str:
        """Submit a job and return its id."""
        body = orjson.dumps({"input": values})
        return self.emulator.call(self.emulator.server.platform.submit, _ENDPOINT_ID, body).job_id

    def status(self, job_id: str) -> JobStatus:
        """Return what the job has come to."""
        return self.emulator.call(self.emulator.server.platform.status, _ENDPOINT_ID, job_id)

    def pieces(self, job_id: str) -> list[Any]:
        """Return the pieces that the worker has streamed since the last call."""
        read = self.emulator.call(self.emulator.server.platform.read_stream, _ENDPOINT_ID, job_id)
        return [orjson.loads(piece) for piece in read.pieces]

    def finish(self, job_ids: Sequence[str], *, within_s: float = 300) -> None:
        """Wait until all of them have completed."""
        deadline = time.monotonic() + within_s
        for job_id in job_ids:
            while not (status := self.status(job_id)).state.is_final:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{job_id} is {status.state.name} after {within_s:.0f} s")
                time.sleep(_LOOK_EVERY_S)
            if status.state.name != "COMPLETED":
                raise RuntimeError(f"{job_id} is {status.state.name}: {status.error}")

    def seconds_a_job(self, jobs: Sequence[dict[str, Any]]) -> float:
        """Submit all jobs at once and return the seconds until the last has completed, divided by their number."""
        begun_at = time.monotonic()
        self.finish([self.submit(job) for job in jobs])
        return (time.monotonic() - begun_at) / len(jobs)


@contextlib.contextmanager
def worker_endpoint(command: Sequence[str], **environ: str) -> Iterator[WorkerEndpoint]:
    """Start an endpoint and a worker for it, a program that ends in the SDK's ``start``."""
    server = EmulatorServer(Platform(EndpointConfig(endpoint_id=_ENDPOINT_ID)), worker_hold_s=5)
    with EmulatorThread(server) as emulator, tempfile.TemporaryDirectory(prefix="bench-") as home:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **server.worker_env(_ENDPOINT_ID, "worker"), "HOME": home}
        log = Path(home, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command), env={**env, **environ}, stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield WorkerEndpoint(emulator, process.pid)
        except BaseException:
            sys.stderr.write(log.read_text("utf-8", "replace")[-3000:])
            raise
        finally:
            # The group holds the worker and the process that pings for it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def nap(seconds: float, *, seed: int, side: int = 64, steps: int = 10) -> dict[str, Any]:
    """Return a workflow that computes for so long: EmptyImage → FixtureSleep → SaveImage.

    FixtureSleep is the stand-in's, and on a real server a node that sleeps so long and passes its image on.
    """
    empty = {"width": side, "height": side, "batch_size": 1, "color": 0}
    sleep = {"image": ["1", 0], "seconds": seconds, "steps": steps, "seed": seed}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "FixtureSleep", "inputs": sleep},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "bench"}},
    }


def trivial(*, seed: int, side: int = 64) -> dict[str, Any]:
    """Return the smallest workflow that makes a picture anew for each seed."""
    return nap(0.0, seed=seed, side=side, steps=1)
