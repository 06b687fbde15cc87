"""The least that anybody can do: receive, decode with orjson and pybase64, write; nothing checked, nothing bounded."""

import asyncio
import json
from pathlib import Path

import aiohttp
import orjson
import pybase64
import uvloop
from measure import Usage, arguments, tell

BODY = json.dumps({"input": {"workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}}}).encode()


async def job(session, root, number, output_dir):
    """Run one job and write its images."""
    async with session.post(f"{root}/run", data=BODY) as answer:
        job_id = orjson.loads(await answer.read())["id"]
    async with session.get(f"{root}/status-sync/{job_id}?wait=90000") as answer:
        await answer.read()
    async with session.get(f"{root}/stream/{job_id}") as answer:
        found = orjson.loads(await answer.read())
    folder = Path(output_dir) / str(number)
    folder.mkdir(parents=True)
    count = 0
    for line in "".join(piece["output"] for piece in found["stream"]).splitlines():
        for image in orjson.loads(line)["images"]:
            (folder / image["name"]).write_bytes(pybase64.b64decode(image["image"], validate=True))
            count += 1
    return count


async def main():
    """Run all jobs at once."""
    asked = arguments()
    root = f"{asked['base_url']}/{asked['endpoint_id']}"
    async with aiohttp.ClientSession(
        headers={"Authorization": "Bearer key"}, connector=aiohttp.TCPConnector(limit=300)
    ) as session:
        async with session.get(f"{root}/health") as answer:
            await answer.read()
        usage = Usage()
        counts = await asyncio.gather(*(job(session, root, n, asked["output_dir"]) for n in range(asked["jobs"])))
    tell(images=sum(counts), **usage.figures())


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
