"""What many jobs leave behind: `python -m benchmarks.worker_many --comfyui URL [--comfyui-pid PID]`.

Jobs go one after another through the worker under the real SDK, each with a photo of its own. Files in ComfyUI's
folders, the worker's open files and sockets, its threads and its memory are counted after a fifth of the jobs and after
all of them; every job that is looked at has ended, so nothing should be there but the worker itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import random
import time
from typing import TYPE_CHECKING

import aiohttp
import psutil
from PIL import Image

from benchmarks.worker_idle import OUR_WORKER, comfyui
from benchmarks.workers import trivial, worker_endpoint
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.folders import find_folders

if TYPE_CHECKING:
    from typing import Any

    from runpod_comfy.comfyui.folders import Folders

_QUIET_S = 3.0  # the SDK's own sleeps, and connections that are kept for a moment


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_many", description=__doc__)
    parser.add_argument("--comfyui", metavar="URL", help="the stand-in where none is named")
    parser.add_argument("--comfyui-pid", type=int, help="count its memory too")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=20, help="how many jobs wait in the queue")
    asked = parser.parse_args()
    with comfyui(asked.comfyui) as url, worker_endpoint(OUR_WORKER, COMFYUI_URL=url, WORKER_SLOTS="4") as endpoint:
        folders = asyncio.run(_folders(url))
        files_before = count_files(folders)
        endpoint.finish([endpoint.submit(job())])
        done, begun_at = 0, time.monotonic()
        while done < asked.jobs:
            many = min(asked.at_once, asked.jobs - done)
            endpoint.finish([endpoint.submit(job()) for _ in range(many)])
            done += many
            if done in {asked.jobs // 5, asked.jobs}:
                time.sleep(_QUIET_S)
                worker = psutil.Process(endpoint.pid)
                rest = (
                    f", ComfyUI {psutil.Process(asked.comfyui_pid).memory_info().rss / 2**20:.1f} MiB"
                    if asked.comfyui_pid
                    else ""
                )
                print(
                    f"after {done} jobs ({time.monotonic() - begun_at:.0f} s): files "
                    f"{count_files(folders) - files_before}, worker {worker.memory_info().rss / 2**20:.1f} MiB"
                    f"{rest}, {worker.num_fds()} descriptors, {len(worker.net_connections())} sockets, "
                    f"{worker.num_threads()} threads",
                    flush=True,
                )


def job() -> dict[str, Any]:
    """Return a job that saves its own photo and a picture, once for each of two seeds."""
    photo = io.BytesIO()
    colour = tuple(random.randrange(256) for _ in "rgb")  # noqa: S311 - no two alike is all that is wanted
    Image.new("RGB", (64, 64), colour).save(photo, "PNG")
    graph = trivial(seed=0)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "input.png"}}
    encoded = base64.b64encode(photo.getvalue()).decode()
    return {"workflow": graph, "batch_count": 2, "images": [{"name": "input.png", "image": encoded}]}


def count_files(folders: Folders) -> int:
    """Return how many files and folders are in ComfyUI's input, output and temp."""
    return sum(1 for root in (folders.input, folders.output, folders.temp) for _ in root.rglob("*"))


async def _folders(url: str) -> Folders:
    async with aiohttp.ClientSession() as session:
        folders = await find_folders(ComfyUIClient(url, session=session), comfyui_dir=None)
    if folders is None:
        raise RuntimeError("ComfyUI's folders cannot be reached from here.")
    return folders


if __name__ == "__main__":
    main()
