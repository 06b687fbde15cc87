"""Many jobs at once: wall time, processor time, memory, and the caller's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.endpoint import Endpoint, Scenario
from benchmarks.registry import Figure, alternate, case, run_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.registry import Options

MAX_WALL_RATIO, MAX_CPU_RATIO, MAX_ABOVE_IDLE_MB, MAX_BLOCKED_MS = 1.25, 1.5, 250, 20
MAX_PER_SECOND = 200


@case("many")
def many(options: Options) -> Iterator[Figure]:
    """500 jobs of 8 images of 200 KB at once, against a bare loop that receives, decodes and writes the same bytes."""
    scenario = Scenario(job_s=0.5, workers=200)
    jobs = 500
    delivered_mb = jobs * scenario.job_bytes / 1e6
    with Endpoint(scenario) as endpoint:
        asked: dict[str, Any] = {"jobs": jobs, "images": scenario.images, "at_once": True}
        told = alternate(
            options.runs,
            {
                "ours": lambda: run_client("ours", endpoint, output_dir=True, **asked),
                "bare loop": lambda: run_client("bare", endpoint, output_dir=True, **asked),
            },
        )
        kept = run_client("ours", endpoint, **asked)
    assert {each["images"] for each in told.values()} == {jobs * scenario.images}
    wall = {name: each["wall_s"] for name, each in told.items()}
    yield Figure(
        name="500 jobs, wall",
        unit="s",
        values=wall,
        against="bare loop",
        ours_over=True,
        bar=f"≤ {MAX_WALL_RATIO} x the bare loop",
        held=wall["ours"] <= MAX_WALL_RATIO * wall["bare loop"],
    )
    cpu = {name: each["cpu_s"] / delivered_mb * 1000 for name, each in told.items()}
    yield Figure(
        name="processor time for each MB delivered",
        unit="ms",
        values=cpu,
        against="bare loop",
        ours_over=True,
        bar=f"≤ {MAX_CPU_RATIO} x the bare loop",
        held=cpu["ours"] <= MAX_CPU_RATIO * cpu["bare loop"],
    )
    memory = {name: each["above_idle_mb"] for name, each in told.items()}
    yield Figure(
        name="peak memory above idle, with output_dir",
        unit="MB",
        values=memory,
        bar=f"≤ {MAX_ABOVE_IDLE_MB} MB",
        held=memory["ours"] <= MAX_ABOVE_IDLE_MB,
    )
    yield Figure(name=f"the same, all {delivered_mb:,.0f} MB kept", unit="MB", values={"ours": kept["above_idle_mb"]})


@case("peer32")
def peer32(options: Options) -> Iterator[Figure]:
    """32 jobs of 0.7 s with 8 images of 200 KB at once, against the peers."""
    scenario = Scenario(workers=32)
    asked: dict[str, Any] = {"jobs": 32, "images": scenario.images, "at_once": True}
    with Endpoint(scenario) as endpoint:
        contestants = {"ours": lambda: run_client("ours", endpoint, **asked)}
        if options.peer_python:
            asked_of_peer = {**asked, "python": options.peer_python}
            contestants["comfy-executors"] = lambda: run_client("peer", endpoint, **asked_of_peer)
            contestants["runpod async"] = lambda: run_client("runpod_sdk", endpoint, **asked_of_peer, **{"async": True})
        told = alternate(options.runs, contestants)
    for name, key, unit in (
        ("wall", "wall_s", "s"),
        ("processor time", "cpu_s", "s"),
        ("peak memory", "peak_mb", "MB"),
    ):
        values = {contestant: each[key] for contestant, each in told.items()}
        yield Figure(name=f"32 jobs, {name}", unit=unit, values=values, against="comfy-executors")


@case("loop")
def loop(options: Options) -> Iterator[Figure]:
    """The longest time for which the caller's own event loop does not run while 100 MB arrive."""
    for about, scenario in (
        ("500 images of 200 KB in 4 jobs", Scenario(images=125, job_s=0.2)),
        ("8 images of 12.5 MB in one job", Scenario(images=8, image_bytes=12_500_000, job_s=0.2)),
    ):
        jobs = round(100e6 / scenario.job_bytes)
        asked: dict[str, Any] = {"jobs": jobs, "images": scenario.images, "at_once": True, "tick": True}
        with Endpoint(scenario) as endpoint:
            told = alternate(options.runs, {"ours": lambda: run_client("ours", endpoint, **asked)})  # noqa: B023 - called here
        blocked_ms = told["ours"]["blocked_ms"]
        yield Figure(
            name=about,
            unit="ms",
            values={"ours": blocked_ms},
            bar=f"≤ {MAX_BLOCKED_MS} ms",
            held=blocked_ms <= MAX_BLOCKED_MS,
        )


@case("thousand")
def thousand(options: Options) -> Iterator[Figure]:
    """1,000 jobs in flight against the published rate limits: requests a second, and the time they take."""
    del options
    scenario = Scenario(images=1, image_bytes=50_000, job_s=1.0, workers=100, rate_limits=True)
    jobs = 1000
    with Endpoint(scenario) as endpoint:
        told = run_client("ours", endpoint, jobs=jobs, images=1, at_once=True)
        seen = endpoint.seen()
    assert told["images"] == jobs
    for route in ("status", "stream"):
        busiest = seen["per_second"][route]
        yield Figure(
            name=f"{route} requests in the busiest second",
            unit="",
            values={"ours": busiest},
            bar=f"< {MAX_PER_SECOND}",
            held=busiest < MAX_PER_SECOND,
        )
    yield Figure(name="wall (10 s is what 100 workers need)", unit="s", values={"ours": told["wall_s"]})
    yield Figure(name="requests a job", unit="", values={"ours": sum(seen["requests"].values()) / jobs})
