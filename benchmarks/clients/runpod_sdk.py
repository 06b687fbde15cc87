"""RunPod's own SDK, sync or async, with the little code that a user writes around it."""

import asyncio
import base64
import json
import os
import time

from measure import Usage, arguments, tell

ASKED = arguments()
os.environ["RUNPOD_ENDPOINT_BASE_URL"] = ASKED["base_url"]

import aiohttp  # noqa: E402 - after the environment is set
import runpod  # noqa: E402 - it reads the environment when it is imported
from runpod import AsyncioEndpoint  # noqa: E402 - likewise

runpod.api_key = "key"
INPUT = {"input": {"workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}, "batch_count": 1}}


def images_in(pieces):
    """Decode what a job streamed."""
    lines = [json.loads(line) for line in "".join(pieces).splitlines() if line]
    return [base64.b64decode(image["image"]) for line in lines for image in line["images"]]


def sync_jobs():
    """Run one job after the other."""
    endpoint = runpod.Endpoint(ASKED["endpoint_id"])
    ended_s, count = [], 0
    for _ in range(ASKED["jobs"]):
        count += len(images_in(endpoint.run(INPUT).stream()))
        ended_s.append(time.monotonic())
    tell(ended_s=ended_s, images=count)


async def async_jobs():
    """Run jobs one after the other, or all at once."""
    ended_s = []
    usage = Usage()
    async with aiohttp.ClientSession() as session:
        endpoint = AsyncioEndpoint(ASKED["endpoint_id"], session)

        async def one():
            job = await endpoint.run(INPUT["input"])
            found = images_in([piece async for piece in job.stream()])
            ended_s.append(time.monotonic())
            return len(found)

        if ASKED["at_once"]:
            counts = await asyncio.gather(*(one() for _ in range(ASKED["jobs"])))
        else:
            counts = [await one() for _ in range(ASKED["jobs"])]
    tell(ended_s=ended_s, images=sum(counts), **usage.figures())


if ASKED.get("async"):
    asyncio.run(async_jobs())
else:
    sync_jobs()
