"""The best existing client of this wire format, on the `runpod` SDK."""

import asyncio
import os
import time

from measure import TEMPLATE, Usage, arguments, tell

ASKED = arguments()
os.environ["RUNPOD_ENDPOINT_BASE_URL"] = ASKED["base_url"]

import runpod  # noqa: E402 - it reads the environment when it is imported

runpod.api_key = "key"
from comfy_executors import RunPodWorkflowExecutor, WorkflowTemplate  # noqa: E402 - likewise


def main():
    """Do what is asked."""
    executor = RunPodWorkflowExecutor(ASKED["endpoint_id"])
    template = WorkflowTemplate(TEMPLATE)
    if not ASKED["at_once"]:
        ended_s, count = [], 0
        for _ in range(ASKED["jobs"]):
            count += len(list(executor.submit_workflow(template, num_samples=ASKED["images"])))
            ended_s.append(time.monotonic())
        tell(ended_s=ended_s, images=count)
        return

    async def many():
        calls = [executor.submit_workflow_async(template, num_samples=ASKED["images"]) for _ in range(ASKED["jobs"])]
        return await asyncio.gather(*calls)

    usage = Usage()
    results = asyncio.run(many())
    tell(images=sum(map(len, results)), **usage.figures())


main()
