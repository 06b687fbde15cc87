"""A worker under the real SDK: ``python sdk_worker.py function|generator``. Its handlers also run without the SDK."""

import asyncio
import sys
from pathlib import Path


async def function(job):
    """Do what the input says, as a coroutine."""
    await asyncio.sleep(0)
    return _act(job)


async def generator(job):
    """Do what the input says, piece by piece."""
    if marker := job["input"].get("wait_and_mark"):
        yield "started"
        try:
            await asyncio.Event().wait()
        finally:
            Path(marker).write_text("stopped")  # noqa: ASYNC240 one small file
    for output in job["input"]["yield"]:
        if output == "raise":
            _act({"input": {"raise": "broke"}})
        yield {1, 2} if output == "no json" else output


def _act(job):
    match job["input"]:
        case {"return": value}:
            return value
        case {"large": size}:
            return "x" * size
        case {"raise": text}:
            raise ValueError(text)
        case {"job": key}:
            return job.get(key)
        case {"progress": progress}:
            sys.modules["runpod"].serverless.progress_update(job, progress)
            return asyncio.get_running_loop().create_future()


async def _function_that_may_wait(job):
    result = await function(job)
    return await result if isinstance(result, asyncio.Future) else result


if __name__ == "__main__":
    import runpod

    kind = sys.argv[1]
    handler = {"function": _function_that_may_wait, "generator": generator}[kind]
    # With four slots the SDK's loop sleeps less, and takes in batches.
    slots = {"concurrency_modifier": lambda _: 4} if kind == "generator" else {}
    runpod.serverless.start({"handler": handler, "return_aggregate_stream": kind == "generator"} | slots)
