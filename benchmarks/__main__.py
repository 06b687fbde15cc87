"""`python -m benchmarks [CASE …]`: run cases, print a table, write JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.registry import CASES, Options, load_cases

if TYPE_CHECKING:
    from benchmarks.registry import Figure


def main() -> int:
    """Run what the command line asks for; 1 where a figure does not hold its bar."""
    load_cases()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)}; all where none is named")
    parser.add_argument("--runs", type=int, default=Options().runs, help="runs of each contestant, in turn")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the figures are written")
    asked = parser.parse_args()
    if unknown := [name for name in asked.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}")
    options = Options(runs=asked.runs)
    if options.peer_python is None:
        print("COMFY_EXECUTORS_PYTHON names no interpreter: peers are left out.", file=sys.stderr)
    found: dict[str, list[Figure]] = {}
    for name in asked.cases or CASES:
        print(f"\n{name}: {CASES[name].about}", flush=True)
        started_s = time.monotonic()
        found[name] = []
        for figure in CASES[name].measure(options):
            found[name].append(figure)
            print(line(figure), flush=True)
        print(f"  ({time.monotonic() - started_s:.0f} s)", flush=True)
    asked.json.write_text(json.dumps(as_json(found), indent=1) + "\n", "utf-8")
    failed = [figure.name for many in found.values() for figure in many if figure.held is False]
    print(f"\n{asked.json} written." + (f" Not held: {'; '.join(failed)}." if failed else ""))
    return bool(failed)


def line(figure: Figure) -> str:
    """Return a figure as a line of the table."""
    values = "  ".join(f"{name} {value:,.4g}" for name, value in figure.values.items())
    ratio = f"  ratio {figure.ratio:,.3g}" if figure.ratio is not None else ""
    verdict = {True: "  held: ", False: "  NOT HELD: ", None: "  "}[figure.held] + figure.bar if figure.bar else ""
    return f"  {figure.name:<46} {values} {figure.unit}{ratio}{verdict}"


def as_json(found: dict[str, list[Figure]]) -> dict[str, object]:
    """Return everything as plain values."""
    return {
        "machine": {"python": platform.python_version(), "system": platform.platform()},
        "cases": {
            name: [
                {
                    "name": each.name,
                    "unit": each.unit,
                    "values": each.values,
                    "ratio": each.ratio,
                    "bar": each.bar,
                    "held": each.held,
                }
                for each in figures
            ]
            for name, figures in found.items()
        },
    }


sys.exit(main())
