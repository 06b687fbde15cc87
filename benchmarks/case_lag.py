"""Lag and requests of one job at a time."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.endpoint import Endpoint, Scenario
from benchmarks.registry import Figure, case, run_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.registry import Options

MAX_LAG_MS, MAX_POLLING_LAG_MS, MIN_RATIO, MAX_REQUESTS = 15, 350, 100, 5
PEER_JOBS = 5


def lag(name: str, endpoint: Endpoint, jobs: int, **asked: Any) -> tuple[float, float, float]:
    """Return p50 and p95 of the lag in milliseconds, and the requests of a job."""
    run_client(name, endpoint, jobs=1, images=8, **asked)
    endpoint.seen()
    told = run_client(name, endpoint, jobs=jobs, images=8, **asked)
    seen = endpoint.seen()
    lags_ms = sorted((end - sent) * 1000 for end, sent in zip(told["ended_s"], seen["ended_s"], strict=True))
    return statistics.median(lags_ms), lags_ms[int(len(lags_ms) * 0.95)], sum(seen["requests"].values()) / jobs


@case("lag")
def measure(options: Options) -> Iterator[Figure]:
    """From the worker's last byte to the caller's images: jobs of 0.7 s with 8 images of 200 KB."""
    with Endpoint(Scenario()) as endpoint:
        jobs = 6 * options.runs
        ours, ours_p95, requests = lag("ours", endpoint, jobs)
        p50, p95, all_requests = {"ours": ours}, {"ours": ours_p95}, {"ours": requests}
        if options.peer_python:
            for label, client, asked in (
                ("comfy-executors", "peer", {}),
                ("runpod", "runpod_sdk", {}),
                ("runpod async", "runpod_sdk", {"async": True}),
            ):
                p50[label], p95[label], all_requests[label] = lag(
                    client, endpoint, PEER_JOBS, python=options.peer_python, **asked
                )
    peer = p50.get("comfy-executors")
    yield Figure(
        name="lag p50, long poll",
        unit="ms",
        values=p50,
        against="comfy-executors",
        bar=f"≤ {MAX_LAG_MS} ms and {MIN_RATIO} x less than the peer",
        held=ours <= MAX_LAG_MS and (peer is None or peer / ours >= MIN_RATIO),
    )
    yield Figure(name="lag p95, long poll", unit="ms", values=p95, against="comfy-executors")
    yield Figure(
        name="requests of a job",
        unit="",
        values=all_requests,
        bar=f"≤ {MAX_REQUESTS}",
        held=requests <= MAX_REQUESTS,
    )
    with Endpoint(Scenario(status_sync=False)) as endpoint:
        ours, ours_p95, requests = lag("ours", endpoint, jobs)
    yield Figure(
        name="lag p50, plain polling",
        unit="ms",
        values={"ours": ours, "ours p95": ours_p95, "requests": requests},
        bar=f"≤ {MAX_POLLING_LAG_MS} ms",
        held=ours <= MAX_POLLING_LAG_MS,
    )
