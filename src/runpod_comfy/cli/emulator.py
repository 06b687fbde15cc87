"""``runpod-comfy emulator``: RunPod Serverless on this machine, for as long as it is left running."""

from __future__ import annotations

import asyncio
import errno
import shlex
import time
from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.output import Output
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import NotFound

if TYPE_CHECKING:
    from runpod_comfy.emulator.jobs import JobStatus
    from runpod_comfy.emulator.lifecycle import Topic
    from runpod_comfy.emulator.platform import Platform
    from runpod_comfy.executors.local import LocalRunpod

__all__ = ["command"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command(
    cls=Verb,
    name="emulator",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy emulator
  runpod-comfy emulator --port 0 --comfyui http://127.0.0.1:8188
  runpod-comfy emulator --no-worker

Ctrl-C ends it. Its jobs live in memory and end with it.""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 takes a free one."
)
@click.option("--comfyui", metavar="URL", help="Let the worker drive this ComfyUI server instead of the stand-in.")
@click.option("--no-worker", is_flag=True, help="Leave jobs in the queue, for a worker of yours.")
@click.option("-q", "--quiet", is_flag=True, help="No line per job.")
def command(*, host: str, port: int, comfyui: str | None, no_worker: bool, quiet: bool) -> int:
    """Run RunPod Serverless on this machine: one endpoint, a worker on it, and a stand-in ComfyUI.

    What a client needs to know goes to stdout as shell commands, a line per job to stderr.
    """
    from runpod_comfy.executors.local import LocalRunpod  # noqa: PLC0415 - `--help` has no use for a server

    output = Output(command="emulator", quiet=quiet)
    local = LocalRunpod(comfyui_url=comfyui, host=host, port=port, workers=0 if no_worker else 1)
    try:
        asyncio.run(_serve(local, output, is_open=host not in _LOOPBACK, has_worker=not no_worker))
    except KeyboardInterrupt:
        output.note("Stopped.")
    except OSError as exc:
        if exc.errno not in {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}:
            raise
        raise click.UsageError(f"Cannot listen on {host}:{port}: {exc.strerror}. --port 0 takes a free port.") from exc
    return 0


async def _serve(local: LocalRunpod, output: Output, *, is_open: bool, has_worker: bool) -> None:
    """Serve until the task is cancelled."""
    async with local:
        settings = local.settings
        output.data(f"export RUNPOD_ENDPOINT_BASE_URL={shlex.quote(settings.base_url)}")
        output.data(f"export RUNPOD_ENDPOINT_ID={settings.endpoint_id}")
        output.data(f"export RUNPOD_API_KEY={settings.api_key}")
        output.note(f"RunPod's emulator listens on {local.server.url}: endpoint {settings.endpoint_id}, any key.")
        if not has_worker:
            _explain_worker(local, output)
        if is_open:
            output.warn("other machines can reach it, and it asks nobody who they are.")
        output.next_step("paste the three lines above into another terminal, and use any client of RunPod there")
        _JobLog(local.platform, settings.endpoint_id, output)
        await asyncio.Event().wait()


def _explain_worker(local: LocalRunpod, output: Output) -> None:
    """Say how a worker in another process takes the jobs."""
    environment = local.server.worker_env(local.settings.endpoint_id)
    if local.comfyui is not None:
        environment["COMFYUI_URL"] = local.comfyui.url
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    output.note(f"A worker: {assignments} python -m runpod_comfy.worker")


class _JobLog:
    """Writes one line for each job that has ended."""

    def __init__(self, platform: Platform, endpoint_id: str, output: Output) -> None:
        self._platform = platform
        self._endpoint_id = endpoint_id
        self._output = output
        self._told: set[str] = set()
        self._loop = asyncio.get_running_loop()
        platform.subscribe(self._on_change)

    def _on_change(self, topic: Topic) -> None:
        if topic.kind == "job" and topic.key not in self._told:
            # A listener may not ask the platform anything before the change is over.
            self._loop.call_soon(self._look, topic.key)

    def _look(self, job_id: str) -> None:
        try:
            status = self._platform.status(self._endpoint_id, job_id)
        except NotFound:  # purged
            return
        if status.state.is_final and job_id not in self._told:
            self._told.add(job_id)
            self._output.note(_job_line(status))


def _job_line(status: JobStatus) -> str:
    parts = [time.strftime("%H:%M:%S"), status.job_id, status.state.value]
    if status.delay_ms is not None:
        parts.append(f"queued {status.delay_ms / 1000:.1f} s")
    if status.execution_ms is not None:
        parts.append(f"ran {status.execution_ms / 1000:.1f} s")
    if status.error:
        parts.append(status.error.splitlines()[0][:200])
    return "  ".join(parts)
