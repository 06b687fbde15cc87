"""``runpod-comfy collect``: what jobs made while nobody watched, fetched before RunPod forgets it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.completions import complete_endpoint, complete_job
from runpod_comfy.cli.failures import MissingKey, failure
from runpod_comfy.cli.jobs import open_own_ledger, row_data
from runpod_comfy.cli.options import Choice, output_options
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb
from runpod_comfy.errors import ConfigurationError, JobInUse, NotFound, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runpod_comfy.cli.output import Output
    from runpod_comfy.executors.request import OnLost
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor
    from runpod_comfy.ledger import Submitted

__all__ = ["command"]

_AT_ONCE = 50


@click.command(
    cls=Verb,
    name="collect",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy collect --all
  runpod-comfy collect 0c5a…-e1 --wait -o out
  runpod-comfy collect 0c5a…-e1 --take-over

RunPod keeps a job's result for 30 minutes (60 seconds after a request of over 10 MB). What an earlier reader has saved
counts as here; batches that it took away and lost are made again, with the same seeds. A job that another process
reads is left alone.""",
)
@click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_job)
@click.option("--all", "every", is_flag=True, help="All jobs of the ledger that are under way and that nobody reads.")
@click.option("--wait", is_flag=True, help="Wait for jobs that still run, in place of passing them over.")
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Folder for what is made, in place of the one of the run.",
)
@click.option("--take-over", is_flag=True, help="Also read jobs that a living process reads; that one is told to stop.")
@click.option(
    "--on-lost",
    type=Choice(["rerun", "raise"]),
    default="rerun",
    show_default=True,
    help="Where batches were lost: make them again with the same seeds, or only say so.",
)
@click.option(
    "--endpoint",
    envvar="RUNPOD_ENDPOINT_ID",
    metavar="ID",
    help="The endpoint of jobs not in the ledger.",
    shell_complete=complete_endpoint,
)
@click.option("--base-url", metavar="URL", help="Another address of RunPod's API (or set RUNPOD_ENDPOINT_BASE_URL).")
@output_options("collect", instead="in place of paths")
def command(*, jobs: tuple[str, ...], every: bool, output: Output, **options: Any) -> int:
    """Fetch what JOBs made, by RunPod's job id or our submission id; paths of saved files go to stdout."""
    if bool(jobs) == every:
        raise click.UsageError("Name jobs, or pass --all. (runpod-comfy jobs lists them.)")
    return _Collection(output, **options).carry_out(jobs, every=every)


@dataclass(slots=True)
class _Wanted:
    """A job to collect; ``row`` is None for one that the ledger does not know."""

    job_id: str
    endpoint_id: str
    row: Submitted | None = None


@dataclass(slots=True, kw_only=True)
class _Tally:
    saved: list[str] = field(default_factory=list)
    done: int = 0
    running: list[str] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class _Collection:
    """One use of the command."""

    def __init__(
        self,
        output: Output,
        *,
        wait: bool,
        output_dir: Path | None,
        take_over: bool,
        on_lost: OnLost,
        endpoint: str | None,
        base_url: str | None,
    ) -> None:
        self._output = output
        self._wait = wait
        self._output_dir = output_dir
        self._take_over = take_over
        self._on_lost = on_lost
        self._endpoint = endpoint
        self._base_url = base_url
        self._tally = _Tally()
        self._executors: dict[str, RunpodComfyWorkflowExecutor] = {}

    def carry_out(self, jobs: tuple[str, ...], *, every: bool) -> int:
        """Collect and report; returns the exit code."""
        import asyncio  # noqa: PLC0415 - 20 ms that `--help` and completion need not wait for

        from runpod_comfy.ledger import State, collectable  # noqa: PLC0415 - `--help` needs no database

        ledger = open_own_ledger()
        try:
            ledger.recover()
            if every:
                wanted = [_Wanted(row.job_id or "", row.entry.endpoint_id, row) for row in collectable(ledger)]
            else:
                wanted = [self._wanted(job, ledger.find(job)) for job in jobs]
            asyncio.run(self._collect(wanted))
            uncertain = ledger.submissions([State.UNCERTAIN])
        finally:
            ledger.close()
        return self._report(uncertain)

    def _wanted(self, job: str, row: Submitted | None) -> _Wanted:
        if row is None:
            if not self._endpoint:
                raise ConfigurationError(
                    f"The ledger has no job {job}. For one from elsewhere, name its --endpoint ID."
                )
            return _Wanted(job, self._endpoint)
        if row.job_id is None:
            raise ConfigurationError(
                f"Submission {job} is {row.state}: {row.note or 'it has no job id'} There is nothing to collect."
            )
        return _Wanted(row.job_id, row.entry.endpoint_id, row)

    async def _collect(self, wanted: Iterable[_Wanted]) -> None:
        import asyncio  # noqa: PLC0415 - as above

        room = asyncio.Semaphore(_AT_ONCE)

        async def one(each: _Wanted) -> None:
            async with room:
                await self._collect_one(each)

        await asyncio.gather(*(one(each) for each in wanted))
        for executor in self._executors.values():
            await executor.aclose()

    async def _collect_one(self, each: _Wanted) -> None:
        try:
            executor = self._executor(each)
            folder = self._output_dir or (None if each.row and each.row.entry.output_dir else Path("out"))
            handle = executor.attach(each.job_id, output_dir=folder, take_over=self._take_over, on_lost=self._on_lost)
            if not self._wait and await _still_runs(handle):
                self._tally.running.append(each.job_id)
                return
            result = await handle.result_async()
        except JobInUse as exc:
            self._tally.in_use.append(each.job_id)
            self._output.note(f"  {exc}")
        except MissingKey:
            raise
        except RunpodComfyError as exc:
            self._tally.failed[each.job_id] = str(exc)
            self._output.warn(f"{exc}")
            self._list(getattr(exc, "partial", None))
        else:
            self._tally.done += 1
            self._list(result)

    def _list(self, result: Any) -> None:
        for file in result.outputs if result is not None else ():
            if file.path is not None:
                self._tally.saved.append(os.fspath(file.path))
                self._output.data(os.fspath(file.path))

    def _executor(self, each: _Wanted) -> RunpodComfyWorkflowExecutor:
        from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - see `jobs`
        from runpod_comfy.settings import EndpointSettings, shown_url  # noqa: PLC0415 - likewise

        settings = EndpointSettings.resolve(endpoint=each.endpoint_id, base_url=self._base_url, api_key="any")
        # The key goes to the address that is configured, never to one that merely stands in a file.
        if each.row is not None and each.row.entry.base_url != shown_url(settings.base_url):
            raise ConfigurationError(
                f"Job {each.job_id} was sent to {each.row.entry.base_url}, and {shown_url(settings.base_url)} is "
                f"configured. To send your key there, pass --base-url {each.row.entry.base_url}."
            )
        if each.endpoint_id not in self._executors:
            try:
                executor = RunpodComfyWorkflowExecutor(each.endpoint_id, base_url=self._base_url, ledger=True)
            except ConfigurationError as exc:
                raise MissingKey(str(exc)) from exc
            self._executors[each.endpoint_id] = executor
        return self._executors[each.endpoint_id]

    def _report(self, uncertain: list[Submitted]) -> int:
        tally, output = self._tally, self._output
        output.note(f"  {len(tally.saved)} file(s) of {tally.done} job(s) collected")
        if tally.running:
            output.note(f"  {len(tally.running)} still run (--wait waits for them)")
            output.next_step(f"{COMMAND_NAME} collect {tally.running[0]} --wait")
        if tally.in_use:
            output.note(f"  {len(tally.in_use)} are being read by another process and were left alone")
        for row in uncertain:
            output.warn(
                f"submission {row.submission_id} ({row.entry.template_name}) was sent and never answered: it may run, "
                "or may not. Look at the endpoint's requests in RunPod's console; it is never sent again by itself."
            )
        data = {
            "files": tally.saved,
            "done": tally.done,
            "running": tally.running,
            "in_use": tally.in_use,
            "failed": tally.failed,
            "uncertain": [row_data(row) for row in uncertain],
        }
        if tally.failed:
            return output.fail(failure("job_error", f"{len(tally.failed)} job(s) failed."), data, told=True)
        return output.succeed(data)


async def _still_runs(handle: Any) -> bool:
    from runpod_comfy.serverless.api import FINAL_STATES  # noqa: PLC0415 - see `jobs`

    try:
        return await handle.state_async() not in FINAL_STATES
    except NotFound:
        return False  # expired, or everything of it is here: following it says which
