"""This project's client."""

import asyncio
import time

from measure import TEMPLATE, Usage, arguments, tell

from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate


async def many(executor, template, asked):
    """Run jobs at once, and see how long this loop is ever kept from running."""
    worst_s = 0.0

    async def tick():
        nonlocal worst_s
        before_s = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now_s = time.perf_counter()
            worst_s = max(worst_s, now_s - before_s - 0.001)
            before_s = now_s

    ticking = asyncio.create_task(tick() if asked.get("tick") else asyncio.sleep(0))
    count, kept = 0, []

    async def one(number):
        nonlocal count
        folder = f"{asked['output_dir']}/{number}" if asked.get("output_dir") else None
        options = {"output_dir": folder} if folder else {}
        result = await executor.submit_workflow_async(template, num_samples=asked["images"], **options)
        kept.append(result)
        count += len(result)

    await asyncio.gather(*(one(number) for number in range(asked["jobs"])))
    ticking.cancel()
    return count, worst_s


def main():
    """Do what is asked."""
    asked = arguments()
    executor = RunpodComfyWorkflowExecutor(asked["endpoint_id"], api_key="key", base_url=asked["base_url"])
    template = WorkflowTemplate.from_string(TEMPLATE)
    if asked["at_once"]:
        executor.health()  # the connection and the background loop are there
        usage = Usage()
        count, worst_s = asyncio.run(many(executor, template, asked))
        tell(images=count, blocked_ms=worst_s * 1000, **usage.figures())
    else:
        ended_s, count = [], 0
        for _ in range(asked["jobs"]):
            count += len(executor.submit_workflow(template, num_samples=asked["images"]))
            ended_s.append(time.monotonic())
        tell(ended_s=ended_s, images=count)


main()
