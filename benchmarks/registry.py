"""Cases and figures: what a case is, what it gives, and how a client is run for it."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import benchmarks
from benchmarks.endpoint import ENDPOINT_ID, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.endpoint import Endpoint

__all__ = ["CASES", "Case", "Figure", "Options", "alternate", "case", "load_cases", "run_client", "run_program"]

MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there is made by tempfile
PEER_PYTHON = "COMFY_EXECUTORS_PYTHON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thoroughly to measure.

    Attributes:
        runs: How often each contestant runs, in turn with the others; the median counts.
        peer_python: The interpreter of an environment with `comfy-executors`, or None: then there is no peer.
    """

    runs: int = 5
    peer_python: str | None = field(default_factory=lambda: os.environ.get(PEER_PYTHON))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        unit: In what.
        values: Each contestant's figure: `ours` and others.
        against: The contestant whose figure is divided by ours (or ours by it, with `ours_over`).
        ours_over: Whether the ratio is ours over theirs, as for costs.
        bar: What the figure has to hold, in words, or None.
        held: Whether it does; None where there is no bar or it could not be measured.
    """

    name: str
    unit: str
    values: dict[str, float]
    against: str | None = None
    ours_over: bool = False
    bar: str | None = None
    held: bool | None = None

    @property
    def ratio(self) -> float | None:
        """The ratio, or None where there is nothing to compare with."""
        theirs, ours = self.values.get(self.against or ""), self.values.get("ours")
        if theirs is None or not ours:
            return None
        return ours / theirs if self.ours_over else theirs / ours


@dataclass(frozen=True, slots=True)
class Case:
    """A case: its name, what it is about, and what measures it."""

    name: str
    about: str
    measure: Callable[[Options], Iterable[Figure]]


CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Callable[[Options], Iterable[Figure]]], Callable[[Options], Iterable[Figure]]]:
    """Register a function as a case; its docstring's first line says what it is about."""

    def register(measure: Callable[[Options], Iterable[Figure]]) -> Callable[[Options], Iterable[Figure]]:
        CASES[name] = Case(name, (measure.__doc__ or "").partition("\n")[0], measure)
        return measure

    return register


def load_cases() -> None:
    """Import every module of this package that is named `case_…`, so that its cases are registered."""
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name.startswith("case_"):
            importlib.import_module(f"benchmarks.{module.name}")


def run_client(name: str, endpoint: Endpoint, **asked: Any) -> dict[str, Any]:
    """Run a client of an endpoint and return what it tells; see `run_program`."""
    # In memory where possible: how a disk finds room where files were just deleted is not the question.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        if asked.get("output_dir"):
            asked["output_dir"] = folder
        return run_program(
            name, **{"base_url": endpoint.base_url, "endpoint_id": ENDPOINT_ID, "at_once": False, **asked}
        )


def run_program(name: str, *, python: str = sys.executable, **asked: Any) -> dict[str, Any]:
    """Run a program of `benchmarks/clients` in a process of its own and return what it tells."""
    environ = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "RUNPOD_AI_API_KEY": "key"}
    if python == sys.executable:
        environ["PYTHONPATH"] = str(ROOT / "src")
    else:
        environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, str(Path(__file__).parent / "clients" / f"{name}.py"), json.dumps(asked)],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def alternate(runs: int, contestants: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Run the contestants in turn and return the median of each of their figures."""
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, run in contestants.items():
            told[name].append(run())
    return {
        name: {
            key: statistics.median(each[key] for each in many)
            for key in many[0]
            if isinstance(many[0][key], int | float)
        }
        for name, many in told.items()
    }
