"""Preparing a job's inputs with `comfy-executors`, which takes PIL images and encodes each as PNG."""

import json
import statistics
import time

import runpod
from measure import TEMPLATE, arguments, tell
from PIL import Image

runpod.api_key = "key"
from comfy_executors import RunPodWorkflowExecutor, WorkflowTemplate  # noqa: E402 - it needs the key

ASKED = arguments()
EXECUTOR = RunPodWorkflowExecutor("bench")
took_ms = []
for _ in range(ASKED["times"]):
    started_s = time.perf_counter()
    images = [Image.open(path) for path in ASKED["paths"]]
    payload = EXECUTOR._prepare_workflow_payload(WorkflowTemplate(TEMPLATE), images, num_samples=1)  # noqa: SLF001 - what its submit_workflow calls
    json.dumps(payload)
    took_ms.append((time.perf_counter() - started_s) * 1000)
tell(files_ms=statistics.median(took_ms))
