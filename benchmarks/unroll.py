"""How long it takes to make one prompt of many batches: ``python -m benchmarks.unroll``. The aim is under 100 ms."""

from __future__ import annotations

import statistics
import time
from typing import Any

from runpod_comfy.workflow.unroll import unroll

NODES = 300
BATCHES = 64
RUNS = 20


def graph(nodes: int) -> dict[str, Any]:
    """Return a chain of samplers, all of it behind one seed: nothing can be shared."""
    inputs = {"steps": 20, "cfg": 7.0, "text": "a cat", "model": ["0", 0], "positive": ["0", 1]}
    first = {"class_type": "KSampler", "inputs": {"seed": 1, **inputs, "model": "a", "positive": "b"}}
    return {"0": first} | {
        str(number): {"class_type": "KSampler", "inputs": {**inputs, "latent_image": [str(number - 1), 0]}}
        for number in range(1, nodes)
    }


def main() -> None:
    """Print median and worst of several runs."""
    workflow, seeds, taken_ms = graph(NODES), list(range(BATCHES)), []
    for _ in range(RUNS):
        began = time.perf_counter()
        unrolled = unroll(workflow, seeds)
        taken_ms.append((time.perf_counter() - began) * 1000)
        made = len(unrolled.graph)
        del unrolled  # else the next run pays for freeing it
    print(f"{NODES} nodes x {BATCHES} batches = {made:,} nodes")
    print(f"median {statistics.median(taken_ms):.1f} ms, worst {max(taken_ms):.1f} ms of {RUNS} runs")


if __name__ == "__main__":
    main()
