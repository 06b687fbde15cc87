"""``runpod-comfy health``: how many workers and jobs an endpoint has, and whether anything is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.options import endpoint_options, output_options
from runpod_comfy.cli.targets import make_executor
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.serverless.api import EndpointHealth

__all__ = ["command"]


@click.command(
    cls=Verb,
    name="health",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy health
  runpod-comfy health --endpoint 4m7x2k9q --json

It costs nothing and starts no worker.""",
)
@endpoint_options()
@output_options("health", quiet=False)
def command(*, target: Target, output: Output) -> int:
    """Show an endpoint's workers and jobs by state, and what they mean."""
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - not for `--help`

    executor = make_executor(target, batch_size=1)
    assert isinstance(executor, RunpodComfyWorkflowExecutor)  # noqa: S101 - what this kind of target makes
    health = executor.health()
    for kind, counts in (("workers", health.workers), ("jobs", health.jobs)):
        output.data(f"{kind:8}" + "  ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    output.note(verdict(health))
    output.next_step(f"{COMMAND_NAME} run TEMPLATE PHOTOS… --endpoint {executor.endpoint_id}")
    return output.succeed({"endpoint": executor.endpoint_id, "workers": health.workers, "jobs": health.jobs})


def verdict(health: EndpointHealth) -> str:
    """Say in one sentence what a job sent now would meet."""
    workers, waiting = health.workers, health.jobs.get("inQueue", 0)
    ready = workers.get("ready", 0) or workers.get("idle", 0) + workers.get("running", 0)
    if workers.get("idle", 0):
        return "A worker is idle: a job starts at once."
    if ready:
        return f"All workers are busy; {waiting} job(s) wait before yours."
    if workers.get("initializing", 0):
        return "A worker is starting: a job waits until it has loaded."
    if workers.get("unhealthy", 0):
        return "The workers are unhealthy: they fail as they start. Their logs in RunPod's console say why."
    if workers.get("throttled", 0):
        return "The workers are throttled: RunPod has no free GPU of these kinds. Allow more kinds, or wait."
    # Seen in the docs: after 7 idle days RunPod sets the endpoint's maximum to 0, and jobs wait for ever.
    return "There is no worker: a job starts one, unless the endpoint's maximum is 0 workers. Look there if it waits."
