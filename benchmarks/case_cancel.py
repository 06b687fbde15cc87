"""Ctrl-C on a batch whose jobs wait in RunPod's queue: how long until none of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.endpoint import ENDPOINT_ID, ROOT, Endpoint, Scenario
from benchmarks.registry import Figure, case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.registry import Options

JOBS = 500
MAX_CANCEL_S = 10.0
_TEMPLATE = (
    '{"1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": {{ color }}}}, '
    '"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}}}'
)


@case("cancel")
def cancel(options: Options) -> Iterator[Figure]:
    """500 jobs in RunPod's queue, cancelled by Ctrl-C, with RunPod's published rate limits enforced."""
    del options  # it takes seconds, so it runs once
    for name, alone in (("alone on the endpoint", True), ("beside another program's waiting job", False)):
        took_s, left = interrupted_batch(JOBS, alone=alone)
        yield Figure(
            name=f"{JOBS} queued jobs cancelled by Ctrl-C, {name}",
            unit="s",
            values={"ours": took_s},
            bar=f"≤ {MAX_CANCEL_S:g} s" if alone else "none left but the other program's",
            held=left == (0 if alone else 1) and (not alone or took_s <= MAX_CANCEL_S),
        )


def interrupted_batch(jobs: int, *, alone: bool) -> tuple[float, int]:
    """Interrupt a batch once all its jobs are queued or run; return how long it took to end, and how many are left."""
    with (
        Endpoint(Scenario(job_s=600, workers=2, rate_limits=True)) as endpoint,
        tempfile.TemporaryDirectory() as folder,
    ):
        Path(folder, "t.jinja").write_text(_TEMPLATE)
        grid = f"color=1..{jobs}"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "runpod_comfy.cli", "batch", "t.jinja", "--grid", grid, "--jobs", str(jobs)),
                *("-o", "out", "-y", "--endpoint", ENDPOINT_ID, "--base-url", endpoint.base_url),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "RUNPOD_API_KEY": "key", "NO_PROXY": "127.0.0.1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while endpoint.alive() < jobs:
            assert process.poll() is None, process.stderr
            time.sleep(0.2)
        if not alone:
            endpoint.submit()
        time.sleep(2)  # all of them are watched by now
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=200)
        took_s = time.monotonic() - began_s
        print(err[-600:], file=sys.stderr)
        return took_s, endpoint.alive()
