"""A worker under the real SDK: ``python sdk_worker.py function|generator SLOTS``; the handlers also run without it."""

import asyncio
import sys
import time
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
        case {"block_s": block_s}:
            time.sleep(block_s)
            return None
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

    kind, slots = sys.argv[1], int(sys.argv[2])
    handler = {"function": _function_that_may_wait, "generator": generator}[kind]
    runpod.serverless.start(
        {
            "handler": handler,
            "return_aggregate_stream": kind == "generator",
            "concurrency_modifier": lambda _: slots,
        }
    )
