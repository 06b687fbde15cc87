"""How long the GPU idles between two jobs: `python -m benchmarks.worker_idle --comfyui URL [--official FOLDER]`.

Jobs of known length go to an endpoint all at once; what a job takes beyond that length is idle time. The official
worker, where it is asked for, runs from a checkout of github.com/runpod-workers/worker-comfyui, unchanged but for the
address of its ComfyUI.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.workers import ROOT, nap, worker_endpoint
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.emulator.comfyui import ComfyUIStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OUR_WORKER = (sys.executable, "-m", "runpod_comfy.worker")
_OFFICIAL = Path(__file__).with_name("official_worker.py")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_idle", description=__doc__)
    parser.add_argument(
        "--comfyui", metavar="URL", help="a ComfyUI with FixtureSleep; the stand-in where none is named"
    )
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="a checkout of worker-comfyui")
    parser.add_argument("--official-path", default="", metavar="FOLDER", help="where its websocket-client is installed")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.5], help="node work of a job")
    parser.add_argument("--slots", type=int, nargs="+", default=[3])
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--runs", type=int, default=1)
    asked = parser.parse_args()
    with comfyui(asked.comfyui) as url:
        for seconds in asked.seconds:
            show(
                "ComfyUI by hand", seconds, [asyncio.run(by_hand(url, seconds, asked.jobs)) for _ in range(asked.runs)]
            )
            for slots in asked.slots:
                measured = measure(
                    OUR_WORKER, seconds, jobs=asked.jobs, runs=asked.runs, COMFYUI_URL=url, WORKER_SLOTS=str(slots)
                )
                show(f"ours, {slots} slot(s)", seconds, measured)
            if asked.official:
                paths = (str(asked.official / "src"), str(asked.official), asked.official_path, str(ROOT / "src"))
                measured = measure(
                    (sys.executable, str(_OFFICIAL), url.partition("//")[2]), seconds, jobs=asked.jobs,
                    runs=asked.runs, PYTHONPATH=":".join(filter(None, paths)), RUNPOD_LOG_LEVEL="INFO",
                )  # fmt: skip
                show("official worker", seconds, measured)


async def by_hand(url: str, seconds: float, jobs: int) -> float:
    """Return the seconds a job where all prompts wait in ComfyUI's own queue: what no worker can do better."""
    async with aiohttp.ClientSession() as session:
        client = ComfyUIClient(url, session=session)
        begun_at = time.monotonic()
        prompts = [await client.queue_prompt(nap(seconds, seed=_seed())) for _ in range(jobs)]
        while await client.history(prompts[-1].prompt_id) is None:  # noqa: ASYNC110 - it is the server's
            await asyncio.sleep(0.005)
        return (time.monotonic() - begun_at) / jobs


def measure(command: Sequence[str], seconds: float, *, jobs: int, runs: int, **environ: str) -> list[float]:
    """Return the seconds a job of each run."""
    with worker_endpoint(command, **environ) as endpoint:
        # The worker has started, and ComfyUI has loaded what it loads once.
        endpoint.seconds_a_job([_job(0.01)])
        return [endpoint.seconds_a_job([_job(seconds) for _ in range(jobs)]) for _ in range(runs)]


def _job(seconds: float) -> dict[str, object]:
    return {"workflow": nap(seconds, seed=_seed())}


def _seed() -> int:
    return random.getrandbits(31)


def show(name: str, seconds: float, measured: list[float]) -> None:
    """Print one line."""
    found = ", ".join(f"{each:.3f}" for each in measured)
    idle = statistics.median(measured) / seconds - 1
    print(f"{name:<20} jobs of {seconds:g} s: {found} s a job; {idle:.1%} over the work itself", flush=True)


@contextlib.contextmanager
def comfyui(url: str | None) -> Iterator[str]:
    """Lend the address of a ComfyUI; the stand-in's, on a thread of its own, where none is named."""
    if url is not None:
        yield url
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stand_in = ComfyUIStandIn()
    asyncio.run_coroutine_threadsafe(stand_in.start(), loop).result()
    try:
        print(json.dumps({"comfyui": "the stand-in"}))
        yield stand_in.url
    finally:
        asyncio.run_coroutine_threadsafe(stand_in.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


if __name__ == "__main__":
    main()
