"""What happens before anything is sent: inputs prepared, the package imported, the command started."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.registry import Figure, case, run_program
from runpod_comfy.cli import COMPLETE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.registry import Options

MIN_RATIO = 50
SIDE = 1024


def photos(folder: Path, count: int) -> list[str]:
    """Write JPEG files that are as hard to encode as photos: broad shapes, and the grain of a sensor."""
    rng = random.Random(1)  # noqa: S311 - the same photos each time
    paths = []
    for index in range(count):
        shapes = Image.frombytes("RGB", (16, 16), rng.randbytes(768)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        grain = Image.frombytes("RGB", (SIDE, SIDE), rng.randbytes(SIDE * SIDE * 3))
        path = folder / f"{index}.jpg"
        Image.blend(shapes, grain, 0.015).save(path, quality=92)
        paths.append(str(path))
    return paths


@case("prepare")
def prepare(options: Options) -> Iterator[Figure]:
    """Preparing a request with 8 photos of 1024², until its body is there."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        paths = photos(Path(folder), 8)
        ours = run_program("prepare_ours", paths=paths, times=4 * options.runs)
        peer = (
            run_program("prepare_peer", python=options.peer_python, paths=paths, times=max(2, options.runs // 2))
            if options.peer_python
            else {}
        )
    theirs = {"comfy-executors": peer["files_ms"]} if peer else {}
    ratio = peer["files_ms"] / ours["files_ms"] if peer else None
    yield Figure(
        name="from files",
        unit="ms",
        values={"ours": ours["files_ms"], **theirs},
        against="comfy-executors",
        bar=f"{MIN_RATIO} x quicker than the peer",
        held=None if ratio is None else ratio >= MIN_RATIO,
    )
    for name, key in (
        ("from PIL images as opened", "opened_ms"),
        ("from pixels", "pixels_ms"),
        ("from the same pixels in the next job", "pixels_again_ms"),
    ):
        yield Figure(name=name, unit="ms", values={"ours": ours[key], **theirs}, against="comfy-executors")


@case("start")
def start(options: Options) -> Iterator[Figure]:
    """Importing the package, and the command's help."""

    def took_ms(python: str, *words: str, **env: str) -> float:
        found = []
        for _ in range(2 * options.runs):
            started_s = time.perf_counter()
            subprocess.run(
                [python, *words],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **env},
            )
            found.append((time.perf_counter() - started_s) * 1000)
        return statistics.median(found)

    nothing = {"bare Python": took_ms(sys.executable, "-c", "")}
    values = {"ours": took_ms(sys.executable, "-c", "import runpod_comfy"), **nothing}
    if options.peer_python:
        values["runpod"] = took_ms(options.peer_python, "-c", "import runpod")
    yield Figure(name="import", unit="ms", values=values, against="runpod")
    first_call = "from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate"
    yield Figure(name="import of the executor", unit="ms", values={"ours": took_ms(sys.executable, "-c", first_call)})
    command = ("-m", "runpod_comfy.cli")
    template = "examples/portrait/workflow.json.jinja"
    for words, bar_ms in (
        ((), 150),
        (("--help",), 150),
        *((((verb, "--help"), 150)) for verb in ("run", "batch", "doctor", "cost", "template", "jobs")),
        (("run", template, "--help"), 180),
        (("batch", template, "--help"), 180),
    ):
        took = took_ms(sys.executable, *command, *words)
        yield _within(f"runpod-comfy {' '.join(words)}".strip(), took, bar_ms, nothing)
    for name, typed in (
        ("a verb", "runpod-comfy do"),
        ("a variable", f"runpod-comfy run {template} --s"),
        ("a job", "runpod-comfy collect "),
    ):
        asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), COMPLETE_VARIABLE: "bash_complete"}
        took = took_ms(sys.executable, *command, **asked)
        yield _within(f"completion of {name}", took, 120, nothing)


def _within(name: str, took_ms: float, bar_ms: float, nothing: dict[str, float]) -> Figure:
    return Figure(
        name=name,
        unit="ms",
        values={"ours": took_ms, **nothing},
        bar=f"at most {bar_ms:g} ms",
        held=took_ms <= bar_ms,
    )
