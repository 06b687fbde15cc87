"""``runpod-comfy jobs``: what was submitted, and what became of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.options import output_options
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.ledger import Ledger, Submitted

__all__ = ["command", "open_own_ledger", "row_data"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@click.command(
    cls=Verb,
    name="jobs",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy jobs
  runpod-comfy jobs --open
  runpod-comfy jobs --state UNCERTAIN --json

\b
States: SENDING, IN_QUEUE and IN_PROGRESS are under way. UNCERTAIN was sent and never answered: it may run, and is
never sent again by itself. INCOMPLETE ended well and lost a part on its way. REFUSED never ran. The others are
RunPod's. The ledger is the file that RUNPOD_COMFY_LEDGER names, else one in your state folder; no image and no key is
in it.""",
)
@click.option("--open", "only_open", is_flag=True, help="Only those that are under way or uncertain.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only those in this state; may be repeated.")
@click.option("--endpoint", metavar="ID", help="Only those of this RunPod endpoint.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many, the newest."
)
@output_options("jobs", quiet=False, instead="in place of a table")
def command(*, only_open: bool, states: tuple[str, ...], endpoint: str | None, limit: int, output: Output) -> int:
    """List the jobs that this machine has submitted, newest last."""
    from runpod_comfy.cli.table import table_lines  # noqa: PLC0415 - `--help` has no use for it
    from runpod_comfy.ledger import UNDER_WAY, State  # noqa: PLC0415 - likewise

    try:
        wanted = {State(state.upper()) for state in states}
    except ValueError as exc:
        raise click.BadParameter(f"{exc}; there are: {', '.join(State)}.", param_hint="--state") from exc
    if only_open:
        wanted |= {*UNDER_WAY, State.SENDING, State.UNCERTAIN}
    ledger = open_own_ledger()
    try:
        ledger.recover()
        rows = ledger.submissions(wanted or None, endpoint_id=endpoint, limit=limit)
    finally:
        ledger.close()
    if rows:
        lines = table_lines(("JOB", "AGE", "STATE", "SAVED", "TEMPLATE", "NOTE"), [_cells(row) for row in rows])
        for line in lines:
            output.data(line)
    else:
        output.note("No jobs.")
    waiting = [row for row in rows if row.state in UNDER_WAY and row.held_by is None]
    if waiting:
        output.next_step(f"{COMMAND_NAME} collect --all      # {len(waiting)} that nobody reads")
    return output.succeed({"jobs": [row_data(row) for row in rows]})


def open_own_ledger() -> Ledger:
    """Return the command's ledger.

    Raises:
        ConfigurationError: The file cannot be used.
    """
    from runpod_comfy.ledger import Ledger  # noqa: PLC0415 - few verbs need a database
    from runpod_comfy.settings import ledger_path  # noqa: PLC0415 - likewise

    path = ledger_path(ledger=True)
    assert path is not None  # noqa: S101 - True names a file
    return Ledger(path)


def row_data(row: Submitted) -> dict[str, Any]:
    """Return a submission as JSON data."""
    entry = asdict(row.entry)
    recipe = entry.pop("recipe")
    return {
        **entry,
        "job_id": row.job_id,
        "state": row.state,
        "note": row.note,
        "outputs": row.outputs,
        "held_by": row.held_by,
        "created_s": row.created_s,
        "changed_s": row.changed_s,
        "template": recipe["template"],
        "variables": recipe["variables"],
    }


def _cells(row: Submitted) -> tuple[str, ...]:
    note = row.note
    if row.entry.batches is not None:
        note = (
            f"batch {', '.join(str(batch + 1) for batch in row.entry.batches)} of {row.entry.parent_id} again. {note}"
        )
    if row.held_by:
        note = f"read by {row.held_by}. {note}"
    return (
        row.job_id or row.submission_id,
        _age(time.time() - row.created_s),
        row.state,
        str(row.outputs),
        row.entry.template_name,
        note,
    )


def _age(age_s: float) -> str:
    for size_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if age_s >= size_s:
            return f"{age_s / size_s:.0f} {unit}"
    return f"{max(age_s, 0):.0f} s"
