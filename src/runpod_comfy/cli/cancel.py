"""``runpod-comfy cancel``: jobs that nobody wants any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.completions import complete_job
from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.options import endpoint_options, output_options
from runpod_comfy.cli.targets import make_executor
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target

__all__ = ["command"]


@click.command(
    cls=Verb,
    name="cancel",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy cancel 3799d236-1058-4c97-8910-98d0244ba0fd-e1
  runpod-comfy cancel $(cat jobs.txt) --endpoint 4m7x2k9q

A job that has ended stays as it is.""",
)
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_job)
@endpoint_options()
@output_options("cancel", quiet=False)
def command(*, target: Target, output: Output, job_ids: tuple[str, ...]) -> int:
    """Cancel each JOB of an endpoint, waiting or running, and say what state it is in then."""
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - not for `--help`

    executor = make_executor(target, batch_size=1)
    assert isinstance(executor, RunpodComfyWorkflowExecutor)  # noqa: S101 - what this kind of target makes
    states: dict[str, str] = {}
    failed: RunpodComfyError | None = None
    for job_id in job_ids:
        handle = executor.attach(job_id)
        try:
            handle.cancel()
            states[job_id] = handle.state()
        except RunpodComfyError as exc:
            failed = exc
            output.warn(f"{job_id}: {exc}")
            continue
        output.data(f"{job_id}  {states[job_id]}")
    if failed is not None:
        return output.fail(describe(failed), {"states": states})
    return output.succeed({"states": states})
