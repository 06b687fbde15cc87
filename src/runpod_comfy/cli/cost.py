"""``runpod-comfy cost``: what jobs cost at least, and what RunPod billed."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.completions import complete_job
from runpod_comfy.cli.options import output_options, raw_target_options
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import ConfigurationError, InputError, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runpod_comfy.cli.output import Output
    from runpod_comfy.cost import Price
    from runpod_comfy.serverless.rest import EndpointFacts
    from runpod_comfy.settings import EndpointSettings

__all__ = ["command"]

_UNITS_S = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    """What one job used."""

    job_id: str
    endpoint_id: str | None
    state: str
    images: int
    execution_s: float
    waited_s: float | None
    begun_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What RunPod's management API told, as far as it did."""

    facts: EndpointFacts | None = None
    price: Price | None = None
    billed: tuple[dict[str, float], str, str] | None = None
    trouble: str | None = None


class _Since(click.ParamType[float]):
    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return how many seconds back."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+)([hdw])", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no time such as 12h, 7d or 4w.", param, ctx)
        return int(found[1]) * _UNITS_S[found[2]]


@click.command(
    cls=Verb,
    name="cost",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy cost
  runpod-comfy cost --since 12h --price 1.10
  runpod-comfy cost dataset --price 1.10 --json

\b
RunPod bills a worker from its start to its full stop; a job shows its execution alone. So each figure is a lower
bound, with what is known of the other parts. Without --price the profile's price counts (price_per_hour_usd and
price_as_of in its file), else the one in RunPod's catalogue (REST API v2, unconfirmed). What RunPod says it billed is
shown beside it, where its API answers (unconfirmed too); it holds the jobs of others as well.""",
)
@click.argument("jobs", nargs=-1, metavar="[JOB|FOLDER]...", shell_complete=complete_job)
@click.option("--since", "since_s", type=_Since(), default="30d", show_default=True, help="How far back: 12h, 7d, 4w.")
@click.option(
    "--price", type=click.FloatRange(0, min_open=True), metavar="USD", help="What a worker costs an hour, in dollars."
)
@click.option("-n", "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Show so many jobs.")
@raw_target_options()
@output_options("cost", quiet=False, instead="in place of a table")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    jobs: tuple[str, ...],
    since_s: float,
    price: float | None,
    limit: int,
    output: Output,
    **place: Any,
) -> int:
    """Say what JOBs, a dataset's FOLDER, or all jobs of late cost at least: in all, for each image, in parts."""
    from runpod_comfy.cli.prices import known_price  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.cli.table import table_lines  # noqa: PLC0415 - likewise
    from runpod_comfy.cost import GpuTime, cost_text, usd  # noqa: PLC0415 - likewise

    settings = _settings(ctx, place)
    typed = (
        place["endpoint"] if ctx.get_parameter_source("endpoint") is click.core.ParameterSource.COMMANDLINE else None
    )
    used = _used(jobs, since_s, endpoint_id=typed)
    told = _ask(settings, used, price is None) if settings is not None and used else _Told()
    counts = known_price(price) or told.price
    together = GpuTime(
        execution_s=sum(each.execution_s for each in used),
        waited_s=sum(each.waited_s or 0.0 for each in used)
        if any(each.waited_s is not None for each in used)
        else None,
        idle_s=told.facts.idle_timeout_s if told.facts else None,
        images=sum(each.images for each in used),
    )
    shown = used[-limit:] if limit else []
    header = ("JOB", "STATE", "IMAGES", "EXECUTION", "WAITED", "AT LEAST")
    rows = [
        (
            each.job_id,
            each.state,
            str(each.images),
            f"{each.execution_s:,.1f} s",
            "" if each.waited_s is None else f"{each.waited_s:,.1f} s",
            usd(counts.of(each.execution_s)) if counts else "",
        )
        for each in shown
    ]
    for line in table_lines(header, rows) if rows else ():
        output.data(line)
    if len(used) > len(shown):
        output.data(f"and {len(used) - len(shown):,} earlier ones")
    output.data(f"{len(used):,} jobs, {together.images:,} images: {cost_text(together, counts)}")
    if told.billed is not None:
        output.data(_billed_line(*told.billed))
    if told.trouble:
        output.note(f"  not told by RunPod: {told.trouble}")
    if counts is None and used:
        output.note("  no price is known: pass --price USD, or set price_per_hour_usd and price_as_of in the profile")
    return output.succeed(
        {
            "jobs": [asdict(each) for each in used],
            "images": together.images,
            "execution_s": together.execution_s,
            "waited_s": together.waited_s,
            "idle_timeout_s": together.idle_s,
            "price": asdict(counts) if counts else None,
            "at_least_usd": counts.of(together.execution_s) if counts else None,
            "billed_usd": told.billed[0] if told.billed else None,
        }
    )


def _settings(ctx: click.Context, place: dict[str, Any]) -> EndpointSettings | None:
    """Return the endpoint to ask about, or None where none is named, or the key is missing: the ledger tells enough."""
    from runpod_comfy.cli.targets import choose_target  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.settings import EndpointSettings  # noqa: PLC0415 - likewise

    target = choose_target(ctx, **place)
    if target.kind != "runpod":
        return None
    try:
        return EndpointSettings.resolve(endpoint=target.name, base_url=target.base_url)
    except ConfigurationError:
        return None


def _used(jobs: Sequence[str], since_s: float, *, endpoint_id: str | None) -> list[_Used]:
    folders = [Path(each) for each in jobs if (Path(each) / "manifest.jsonl").is_file()]
    ids = [each for each in jobs if Path(each) not in folders]
    found = [each for folder in folders for each in _of_folder(folder)]
    if ids or not jobs:
        found += _of_ledger(ids, time.time() - since_s, endpoint_id)
    return found


def _of_ledger(ids: Sequence[str], from_s: float, endpoint_id: str | None) -> Iterator[_Used]:
    from runpod_comfy.cli.jobs import open_own_ledger  # noqa: PLC0415 - `--help` needs none of it

    ledger = open_own_ledger()
    try:
        times = ledger.times()
        if ids:
            rows = [row for each in ids if (row := ledger.find(each)) is not None]
            if unknown := [each for each in ids if ledger.find(each) is None]:
                raise InputError(
                    f"The ledger has no job {unknown[0]}, and no dataset is there. runpod-comfy jobs lists."
                )
        else:
            rows = [row for row in ledger.submissions(endpoint_id=endpoint_id) if row.created_s >= from_s]
    finally:
        ledger.close()
    for row in rows:
        told = times.get(row.entry.submission_id)
        execution_s = (told.execution_s if told else None) or row.gpu_s
        if execution_s is None and not ids:
            continue  # it never ran, or nobody saw its end
        yield _Used(
            job_id=row.job_id or row.entry.submission_id,
            endpoint_id=row.entry.endpoint_id,
            state=row.state,
            images=row.outputs,
            execution_s=execution_s or 0.0,
            waited_s=told.delay_s if told else None,
            begun_s=row.created_s,
        )


def _of_folder(folder: Path) -> Iterator[_Used]:
    """Read the jobs of a dataset from its manifest: what ended with everything, and how long that took."""
    images: dict[str, int] = {}
    ended: list[dict[str, Any]] = []
    with (folder / "manifest.jsonl").open(encoding="utf-8") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # the last one, which a crash has cut
            if line.get("schema") == "image/1" and line.get("job_id"):
                images[line["job_id"]] = images.get(line["job_id"], 0) + 1
            elif line.get("execution_s") is not None or line.get("gpu_s") is not None:
                ended.append(line)
    for line in ended:
        job_id = str(line.get("job_id"))
        yield _Used(
            job_id=job_id,
            endpoint_id=line.get("endpoint"),
            state="COMPLETED",
            images=images.get(job_id, 0),
            execution_s=float(line.get("execution_s") or line.get("gpu_s") or 0.0),
            waited_s=line.get("queue_s"),
            begun_s=float(line.get("at") or 0.0),
        )


def _ask(settings: EndpointSettings, used: Sequence[_Used], wants_price: bool) -> _Told:  # noqa: FBT001 - private
    """Ask RunPod's management API for what it may tell; whatever goes wrong is said and no more."""
    from runpod_comfy import _loop  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.cli.prices import catalogue_price, open_rest, today  # noqa: PLC0415 - likewise

    mine = [each for each in used if each.endpoint_id == settings.endpoint_id]
    if not mine:
        return _Told()
    start = datetime.fromtimestamp(min(each.begun_s for each in mine), UTC).isoformat(timespec="seconds")

    async def ask() -> _Told:
        rest = await open_rest(settings)
        if rest is None:
            return _Told()
        facts, price, trouble = None, None, None
        try:
            facts = await rest.endpoint(settings.endpoint_id)
            if wants_price:
                price = catalogue_price(facts, await rest.gpu_prices(), as_of=today())
            end = datetime.now(UTC).isoformat(timespec="seconds")
            return _Told(facts=facts, price=price, billed=await rest.billed(settings.endpoint_id, start=start, end=end))
        except RunpodComfyError as exc:
            trouble = str(exc)
        return _Told(facts=facts, price=price, trouble=trouble)

    return _loop.run_sync(ask)


def _billed_line(parts: dict[str, float], start: str, end: str) -> str:
    from runpod_comfy.cost import usd  # noqa: PLC0415 - `--help` needs none of it

    named = ", ".join(f"{name} {usd(amount)}" for name, amount in parts.items() if name != "total" and amount)
    total = parts.get("total", sum(parts.values()))
    return f"billed by RunPod for the endpoint, all of its jobs, {start[:10]} to {end[:10]}: {usd(total)} ({named})"
