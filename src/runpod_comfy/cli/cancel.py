"""``runpod-comfy cancel``: jobs that nobody wants any more."""

from __future__ import annotations

import click

from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.output import Output
from runpod_comfy.cli.targets import choose_target, make_executor
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError

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
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")
@click.option("--endpoint", envvar="RUNPOD_ENDPOINT_ID", show_envvar=True, metavar="ID", help="The jobs' endpoint.")
@click.option("--profile", metavar="NAME", help="The endpoint of this profile of `init`.")
@click.option("--base-url", metavar="URL", help="Another address of RunPod's API (or set RUNPOD_ENDPOINT_BASE_URL).")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object to stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    job_ids: tuple[str, ...],
    endpoint: str | None,
    profile: str | None,
    base_url: str | None,
    as_json: bool,
) -> int:
    """Cancel each JOB of an endpoint, waiting or running, and say what state it is in then."""
    output = Output(command="cancel", as_json=as_json)
    target = choose_target(ctx, endpoint=endpoint, comfyui=None, local=False, base_url=base_url, profile=profile)
    if target.kind != "runpod":
        raise click.UsageError("No endpoint is named: pass --endpoint ID, or store one with init.", ctx)
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
