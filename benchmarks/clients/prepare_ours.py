"""Preparing a job's inputs with this project: paths or PIL images in, the body of the request out."""

import asyncio
import statistics
import time

from measure import TEMPLATE, arguments, tell
from PIL import Image

from runpod_comfy.executors.sending import pack
from runpod_comfy.media.inputs import encode_images, encoders
from runpod_comfy.submission import build_submission
from runpod_comfy.workflow.template import WorkflowTemplate

ASKED = arguments()
TEMPLATE_OF_JOB = WorkflowTemplate.from_string(TEMPLATE)


async def prepare(images):
    """Do what a call does before it sends anything."""
    named = await encode_images(images)
    return pack(build_submission(TEMPLATE_OF_JOB, images=named), timeout_s=None).body


def timed(make, *, cached):
    """Return the median of the milliseconds."""
    took_ms = []
    for _ in range(ASKED["times"]):
        if not cached:
            encoders.cache_clear()
        images = make()
        started_s = time.perf_counter()
        asyncio.run(prepare(images))
        took_ms.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(took_ms)


def loaded():
    """Return pictures whose files are forgotten, so that their pixels must be encoded."""
    return [Image.open(path).convert("RGB") for path in ASKED["paths"]]


asyncio.run(prepare(ASKED["paths"]))
tell(
    files_ms=timed(lambda: ASKED["paths"], cached=False),
    opened_ms=timed(lambda: [Image.open(path) for path in ASKED["paths"]], cached=False),
    pixels_ms=timed(loaded, cached=False),
    pixels_again_ms=timed(loaded, cached=True),
)
