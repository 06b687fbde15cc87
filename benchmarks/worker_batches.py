"""What a job costs beside ComfyUI's own work: `python -m benchmarks.worker_batches --comfyui URL`.

One job of 16 batches of a trivial workflow against the same 16 prompts queued by hand, in turn. The job goes through
the worker's handler, and every piece that it yields is read at once.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.worker_idle import comfyui
from benchmarks.workers import trivial
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.worker.handler import make_handler

if TYPE_CHECKING:
    from runpod_comfy.worker.handler import Handler


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_batches", description=__doc__)
    parser.add_argument("--comfyui", metavar="URL", help="the stand-in where none is named")
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--side", type=int, nargs="+", default=[64, 512, 1024], help="of the pictures, in pixels")
    parser.add_argument("--runs", type=int, default=9)
    asked = parser.parse_args()
    with comfyui(asked.comfyui) as url:
        for side in asked.side:
            asyncio.run(compare(url, side, batches=asked.batches, runs=asked.runs))


async def compare(url: str, side: int, *, batches: int, runs: int) -> None:
    """Run both in turn and print the medians."""
    handler = make_handler(comfyui_url=url)
    await by_job(handler, side, batches=2)
    by_hand_s, job_s, first_s = [], [], []
    for _ in range(runs):
        by_hand_s.append(await by_hand(url, side, batches))
        first, whole = await by_job(handler, side, batches=batches)
        job_s.append(whole)
        first_s.append(first)
    hand, ours, first = (statistics.median(each) for each in (by_hand_s, job_s, first_s))
    print(
        f"{side:>5} x {side}: by hand {hand * 1000:.0f} ms for {batches} batches, as a job {ours * 1000:.0f} ms: "
        f"{hand / ours:.0%} of the rate; first picture after {first * 1000:.0f} ms",
        flush=True,
    )


async def by_hand(url: str, side: int, batches: int) -> float:
    """Return the seconds from opening the socket to the last prompt's end."""
    async with aiohttp.ClientSession() as session:
        client = ComfyUIClient(url, session=session)
        begun_at = time.monotonic()
        async with session.ws_connect(f"{url}/ws", params={"clientId": client.client_id}) as socket:
            graphs = [trivial(seed=_seed(), side=side) for _ in range(batches)]
            ids = [(await client.queue_prompt(graph)).prompt_id for graph in graphs]
            async for message in socket:
                said = message.json() if message.type is aiohttp.WSMsgType.TEXT else {"type": ""}
                if said["type"] == "execution_success" and said["data"]["prompt_id"] == ids[-1]:
                    break
        return time.monotonic() - begun_at


async def by_job(handler: Handler, side: int, *, batches: int) -> tuple[float, float]:
    """Return the seconds to the first piece with a picture, and to the end of the job."""
    first = 0.0
    begun_at = time.monotonic()
    body = {"workflow": trivial(seed=_seed(), side=side), "batch_count": batches}
    async for piece in handler({"id": "bench", "input": body}):
        if not isinstance(piece, str):
            raise RuntimeError(piece["error"])  # noqa: TRY004 - it is no type that is wrong
        if not first and '"sha256"' in piece:
            first = time.monotonic() - begun_at
    return first, time.monotonic() - begun_at


def _seed() -> int:
    return random.getrandbits(31)


if __name__ == "__main__":
    main()
