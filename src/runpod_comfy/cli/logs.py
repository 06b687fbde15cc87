"""``runpod-comfy logs``: a worker's log, cut to the time in which it had a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.completions import complete_job
from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.options import endpoint_options, output_options
from runpod_comfy.cli.output import printable
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import NotFound, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.serverless.rest import LogLine
    from runpod_comfy.settings import EndpointSettings

__all__ = ["Window", "command"]

_CONSOLE = "https://console.runpod.io/serverless/user/endpoint/{endpoint}?tab=logs"
_MARGIN_S = 5.0  # the worker's clock and ours need not agree
_LATEST_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time, in seconds since 1970; an end of None is still to come."""

    begun_s: float
    ended_s: float | None = None

    def holds(self, at: str) -> bool:
        """Whether a time, in RFC 3339, is in it; one that cannot be read is."""
        try:
            at_s = datetime.fromisoformat(at).timestamp()
        except ValueError:
            return True
        return self.begun_s - _MARGIN_S <= at_s and (self.ended_s is None or at_s <= self.ended_s + _MARGIN_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    window: Window
    worker_id: str | None = None
    job_id: str | None = None


@click.command(
    cls=Verb,
    name="logs",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy logs 3799d236-1058-4c97-8910-98d0244ba0fd-e1
  runpod-comfy logs 3799d236-1058-4c97-8910-98d0244ba0fd-e1 --json
  runpod-comfy logs --endpoint 4m7x2k9q

\b
The lines come from RunPod's REST API v2, which is unconfirmed on hosted RunPod; where it does not answer, the page of
RunPod's console that has them is named. A worker that has stopped may be unknown there.""",
)
@click.argument("job", required=False, metavar="[JOB]", shell_complete=complete_job)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@endpoint_options()
@output_options("logs", quiet=False)
def command(*, job: str | None, follow: bool, target: Target, output: Output) -> int:
    """Show what the worker wrote while it had JOB; without one, what all workers wrote in the last ten minutes."""
    from runpod_comfy import _loop  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.settings import EndpointSettings  # noqa: PLC0415 - likewise

    settings = EndpointSettings.resolve(endpoint=target.name, base_url=target.base_url)
    console = _CONSOLE.format(endpoint=settings.endpoint_id)
    wanted = _wanted(job)
    lines: list[dict[str, Any]] = []
    try:
        for worker_id, line in _loop.iterate_sync(lambda: _read(settings, wanted, follow=follow)):
            lines.append({"worker_id": worker_id, **asdict(line)})
            output.data(printable(f"{line.at}  {worker_id}  {line.text}"))
    except RunpodComfyError as exc:
        if not lines:
            output.note(f"  The log can be read at {console}")
            return output.fail(describe(exc), {"console": console, "lines": []})
        output.warn(str(exc))
    if not lines:
        output.note(f"  No line is there of that time. The whole log is at {console}")
    return output.succeed({"job_id": wanted.job_id, "console": console, "lines": lines})


def _wanted(job: str | None) -> _Wanted:
    """Return what to look for: of a job, its worker and its time, as the ledger has them."""
    from runpod_comfy.cli.jobs import open_own_ledger  # noqa: PLC0415 - `--help` needs none of it

    now_s = datetime.now(UTC).timestamp()
    if job is None:
        return _Wanted(window=Window(begun_s=now_s - _LATEST_S))
    ledger = open_own_ledger()
    try:
        row = ledger.find(job)
        times = ledger.times().get(row.entry.submission_id) if row is not None else None
    finally:
        ledger.close()
    if row is None:
        return _Wanted(window=Window(begun_s=now_s - _LATEST_S), job_id=job)
    ended_s = times.ended_s if times else None
    begun_s = row.created_s + (times.delay_s or 0.0 if times else 0.0)
    return _Wanted(
        window=Window(begun_s=begun_s, ended_s=ended_s),
        worker_id=times.worker_id if times else None,
        job_id=row.job_id,
    )


async def _read(settings: EndpointSettings, wanted: _Wanted, *, follow: bool) -> AsyncGenerator[tuple[str, LogLine]]:
    from runpod_comfy.cli.prices import open_rest  # noqa: PLC0415 - `--help` needs none of it

    rest = await open_rest(settings)
    if rest is None:
        raise NotFound(
            "This endpoint is not on RunPod's own address, so RunPod has no log of it. (RUNPOD_REST_BASE_URL names "
            "another address of its REST API.)",
            endpoint_id=settings.endpoint_id,
        )
    if wanted.worker_id:
        workers = [wanted.worker_id]
    else:
        workers = [each.worker_id for each in await rest.workers(settings.endpoint_id)]
    since = datetime.fromtimestamp(wanted.window.begun_s - _MARGIN_S, UTC).isoformat(timespec="seconds")
    for worker_id in workers[-1:] if follow else workers:
        async for line in rest.logs(settings.endpoint_id, worker_id, since=since, follow=follow):
            if wanted.window.holds(line.at):
                yield worker_id, line
