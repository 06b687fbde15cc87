"""``runpod-comfy doctor``: what keeps jobs from running, each with the command that mends it, and one verdict."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.completions import complete_template
from runpod_comfy.cli.options import output_options, raw_target_options, timeout_option
from runpod_comfy.cli.output import printable, symbol
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runpod_comfy.cli.checkup.finding import Finding
    from runpod_comfy.cli.output import Output

__all__ = ["command", "report_lines"]

_TIMEOUT_S = 900.0
_COLOURS = {"fault": "red", "ok": "green", "skipped": "bright_black"}


@click.command(
    cls=Verb,
    name="doctor",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy doctor
  runpod-comfy doctor --endpoint 4m7x2k9q --template workflow.json.jinja
  runpod-comfy doctor --comfyui http://127.0.0.1:8188 --json
  runpod-comfy doctor --end-to-end --bundle report.zip

\b
Exit codes: 0 everything is ready, 1 something is to fix. It costs nothing: a worker is asked what it has only where one
is up already. --end-to-end makes one picture of 64 x 64, which starts a worker where none is up.
The bundle holds no key, no prompt and no picture; look into it before you pass it on.""",
)
@raw_target_options()
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    metavar="TEMPLATE",
    shell_complete=complete_template,
    help="Check too whether the nodes and models of this one are there.",
)
@click.option("--end-to-end", is_flag=True, help="Make one small picture; costs a worker's start where none is up.")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Write a report (zip) to pass on.")
@timeout_option("How long --end-to-end waits, a worker's start included.", default=_TIMEOUT_S)
@output_options("doctor", quiet=False)
@click.pass_context
def command(ctx: click.Context, /, *, output: Output, bundle: Path | None, **asked: Any) -> int:
    """Look for what keeps jobs from running: on this machine, on the way, and at the place to run."""
    from runpod_comfy.cli.checkup.examination import Asked, examine  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.cli.checkup.finding import verdict  # noqa: PLC0415 - likewise
    from runpod_comfy.cli.failures import failure  # noqa: PLC0415 - likewise

    findings = list(examine(ctx, Asked(**asked), os.environ))
    for line in report_lines(findings, coloured=sys.stdout.isatty() and not os.environ.get("NO_COLOR")):
        output.data(line)
    told = verdict(findings)
    ready = not any(each.state == "fault" for each in findings)
    data = {"ready": ready, "verdict": told, "findings": [asdict(each) for each in findings]}
    if bundle is not None:
        from runpod_comfy.cli.checkup.bundle import write_bundle  # noqa: PLC0415 - few ask for one

        write_bundle(bundle, data, os.environ)
        output.note(f"  report: {bundle}")
    output.data(told)
    if ready:
        return output.succeed(data)
    return output.fail(failure("not_ready", told), data, told=True)


def report_lines(findings: list[Finding], *, coloured: bool = False) -> Iterator[str]:
    """Return the report: what is right in one line, then what was not looked at, then each fault and what mends it."""
    right = [each.check for each in findings if each.state == "ok"]
    width = max((len(each.check) for each in findings if each.state != "ok"), default=0) + 2
    if right:
        yield f"  {_mark('ok', coloured)} {len(right)} checks: {', '.join(right)}"
    for state in ("skipped", "fault"):
        for each in findings:
            if each.state == state:
                text = printable(" ".join(each.text.split()))
                yield f"  {_mark(state, coloured)} {each.check:{width}}{text}"
                if each.fix:
                    yield printable(f"    {'':{width}}{each.fix}")


def _mark(state: str, coloured: bool) -> str:  # noqa: FBT001 - private
    mark = {"ok": symbol("✓", "+"), "skipped": symbol("\N{EN DASH}", "-"), "fault": symbol("✗", "x")}[state]
    return click.style(mark, fg=_COLOURS[state]) if coloured else mark
