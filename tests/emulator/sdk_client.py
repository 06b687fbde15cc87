"""Use the real SDK's clients and print what they give as JSON: ``RUNPOD_ENDPOINT_BASE_URL=… python sdk_client.py``."""

import asyncio
import json

import aiohttp
import requests
import runpod


def main():
    """Do one of everything."""
    runpod.api_key = "good"
    answers = {}
    function, generator, idle = (runpod.Endpoint(name) for name in ("function", "generator", "idle"))

    answers["run_sync gives the output"] = function.run_sync({"input": {"name": "sync"}})
    job = function.run({"name": "async"})
    answers["run and output give the output"] = job.output(timeout=20)
    answers["the state of a finished job is COMPLETED"] = job.status()
    answers["stream gives every piece in order"] = list(generator.run({"count": 3}).stream())

    job = idle.run({"name": "nobody"})
    answers["a job without a worker stays in the queue"] = job.status()
    answers["health"] = idle.health()
    answers["cancel answers"] = job.cancel()
    answers["cancelled state"] = job.status()
    idle.run({"name": "nobody"})
    answers["purge removes what is queued"] = idle.purge_queue()

    answers["the asyncio client gives the output"] = asyncio.run(with_asyncio())
    try:
        runpod.Endpoint("function", api_key="bad").run({"name": "x"})
    except RuntimeError as error:
        answers["a wrong key is unauthorised"] = type(error).__name__
    answers["a body over the limit is a 400"] = refused(function, {"name": "x" * 11 * 1024 * 1024})
    answers["an unknown endpoint is a 404"] = refused(runpod.Endpoint("unknown"), {"name": "x"})
    print(json.dumps(answers))  # noqa: T201 the script's result


async def with_asyncio():
    """Run one job with the asyncio client."""
    async with aiohttp.ClientSession() as session:
        job = await runpod.AsyncioEndpoint("function", session).run({"name": "asyncio"})
        return await job.output(timeout=20)


def refused(endpoint, values):
    """Return the status of a submission that is refused."""
    try:
        endpoint.run(values)
    except requests.HTTPError as error:
        return error.response.status_code
    return None


if __name__ == "__main__":
    main()
