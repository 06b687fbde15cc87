"""A dataset from the command line: planned, shown, agreed to, made and summed up."""

from __future__ import annotations

import secrets
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy._version import __version__
from runpod_comfy.cli import unfinished
from runpod_comfy.cli.dataset_display import choose_dataset_display
from runpod_comfy.cli.dataset_estimate import estimate_lines
from runpod_comfy.cli.dataset_log import warnings_kept
from runpod_comfy.cli.failures import describe, failure
from runpod_comfy.cli.job import STAND_IN
from runpod_comfy.cli.prices import known_price
from runpod_comfy.cli.stopping import run_until_stopped
from runpod_comfy.cli.targets import make_executor
from runpod_comfy.cli.verbs import COMMAND_NAME
from runpod_comfy.cost import GpuTime, cost_text
from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.grids import cell_count, parse_axis, product_text
from runpod_comfy.dataset.naming import NamePattern, split_word_in
from runpod_comfy.dataset.plan import make_plan, make_tasks, render_task
from runpod_comfy.dataset.rows import Row, Table, read_rows
from runpod_comfy.dataset.runner import DatasetRunner, RunOptions, Tally, pending
from runpod_comfy.dataset.template_copy import copy_template, template_sha256
from runpod_comfy.errors import ConfigurationError, InputError, RunpodComfyError
from runpod_comfy.gallery.live import LiveGallery
from runpod_comfy.gallery.page import PAGE_NAME, Gallery
from runpod_comfy.profiles import read_profile
from runpod_comfy.workflow.template import WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.dataset.grids import Axis
    from runpod_comfy.dataset.manifest import TaskRecord
    from runpod_comfy.dataset.plan import Plan, Task

__all__ = ["DatasetCommand", "DatasetOptions"]

_SHOWN_BAD_ROWS = 3
_SHOWN_JOBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """What was asked for on the command line; see ``runpod-comfy batch --help``."""

    target: Target
    template: Path
    opened: WorkflowTemplate | None
    data: Path | None
    grid: tuple[str, ...]
    zipped: bool
    variables: dict[str, Any]
    num_samples: int
    batch_size: int
    seeds: str
    output_dir: Path
    jobs: int
    dry_run: bool
    yes: bool
    confirm_above: int
    max_images: int
    max_cost_usd: float | None
    max_gpu_s: float | None
    price_per_hour_usd: float | None
    skip_bad: bool
    retry_failed: bool
    timeout_s: float | None
    progress: str | None
    name: str | None
    allow_split_words: bool
    sidecar: str | None
    on_interrupt: str = "cancel"


class DatasetCommand:
    """One dataset, from its plan to its summary."""

    def __init__(self, asked: DatasetOptions, output: Output) -> None:
        self._asked = asked
        self._output = output
        self._tally = Tally()

    def carry_out(self) -> int:
        """Do it all and return the exit code; whatever happens, what arrived is on disk."""
        asked = self._asked
        try:
            template = asked.opened or WorkflowTemplate(asked.template)
            axes = [parse_axis(text) for text in asked.grid]
            names = NamePattern(asked.name) if asked.name else None
            table = self._table(axes)
            if names:
                names.check_fields({*table.columns, *template.variables, *template.optional_variables})
            if asked.dry_run and not (asked.output_dir / "run.json").exists():
                plan = self._plan(template, table, axes, run_seed=0)
                return self._show_and_end(plan, table, axes, plan.tasks, {})
            log = asked.output_dir / ".runpod-comfy" / "warnings.log"
            with OutputFolder(asked.output_dir, names=names) as folder, warnings_kept(log, self._output):
                return self._in(folder, template, table, axes)
        except (RunpodComfyError, OSError, KeyboardInterrupt) as exc:
            if self._tally.images:
                self._output.note(
                    f"  {self._tally.images:,} images are kept in {asked.output_dir}; the same command goes on."
                )
            return self._output.fail(describe(exc), self._data())

    def _in(self, folder: OutputFolder, template: WorkflowTemplate, table: Table, axes: list[Axis]) -> int:
        asked = self._asked
        run = folder.run or {}
        run_seed = run.get("seed", secrets.randbelow(2**32))
        if type(run_seed) is not int:
            raise ConfigurationError(f"{folder.root / 'run.json'}: its seed is no whole number. Put it back as it was.")
        plan = self._plan(template, table, axes, run_seed=run_seed)
        todo = pending(plan.tasks, folder, batch_size=asked.batch_size, retry_failed=asked.retry_failed)
        if asked.dry_run:
            return self._show_and_end(plan, table, axes, todo, folder.manifest.tasks)
        _refuse_other_run(run, asked, folder)
        if folder.manifest.dropped:
            self._output.note("  the manifest's last line was cut off by a crash; it is left out")
        self._show(plan, table, axes, todo, folder.manifest.tasks)
        if not todo:
            self._output.note("  nothing is left to do")
            self._output.note(f"  look at them: {asked.output_dir / PAGE_NAME}")
            return self._output.succeed(self._data())
        self._agree(sum(task.num_samples for task in todo))
        sha256 = template_sha256(template)
        if run.get("template_sha256", sha256) != sha256:
            self._output.warn(
                f"{asked.template} is not what {folder.root} was begun with; what is there stays as it is. Its copy in "
                "template/ is replaced."
            )
        first = min(plan.tasks, key=lambda task: task.index)
        copy = copy_template(
            template, render_task(first, template, batch_size=min(asked.batch_size, asked.num_samples)), folder.root
        )
        about = {"id": folder.new_run_id(), "template_file": copy, "template_sha256": sha256}
        # What later commands have noted down, such as a caption, stays.
        folder.write_run({**run, **self._run_record(run_seed), **about})
        return self._make(folder, template, plan, todo)

    def _table(self, axes: list[Axis]) -> Table:
        asked = self._asked
        if asked.data is None:
            if not axes:
                raise ConfigurationError(
                    "There is neither DATA nor a --grid. Give one of them, or use run for one job."
                )
            return Table(rows=(Row(id="grid", line=1),))
        table = read_rows(asked.data)
        for bad in table.bad[:_SHOWN_BAD_ROWS]:
            self._output.warn(f"{asked.data}, line {bad.line}: {bad.reason}")
        if len(table.bad) > _SHOWN_BAD_ROWS:
            self._output.warn(f"and {len(table.bad) - _SHOWN_BAD_ROWS} more rows")
        if table.bad and not asked.skip_bad:
            raise InputError(f"{len(table.bad)} row(s) of {asked.data} cannot be used. Mend them, or pass --skip-bad.")
        if not table.rows:
            raise InputError(f"{asked.data} has no row that can be used.")
        return table

    def _plan(self, template: WorkflowTemplate, table: Table, axes: list[Axis], *, run_seed: int) -> Plan:
        asked = self._asked
        count = len(table.rows) * cell_count(axes, zipped=asked.zipped) * asked.num_samples
        if count > asked.max_images:
            cells = product_text(axes, zipped=asked.zipped)
            raise ConfigurationError(
                f"That is {len(table.rows):,} rows x {cells} cells x {asked.num_samples} samples = {count:,} images. "
                f"Pass --max-images {count} if you mean it."
            )
        tasks = make_tasks(
            table,
            axes,
            template=template,
            zipped=asked.zipped,
            num_samples=asked.num_samples,
            seeds=asked.seeds,
            run_seed=run_seed,
            variables=asked.variables,
        )
        if asked.name and not asked.allow_split_words:
            _refuse_split_words(NamePattern(asked.name), tasks)
        return make_plan(tasks, table, template)

    def _show(
        self, plan: Plan, table: Table, axes: list[Axis], todo: Sequence[Task], tasks: Mapping[str, TaskRecord]
    ) -> None:
        asked, note = self._asked, self._output.note
        if not asked.target.asked_for:
            self._output.loud(STAND_IN)
        grid = f" x {product_text(axes, zipped=asked.zipped)} cells" if axes else ""
        samples = f" x {asked.num_samples} samples" if asked.num_samples > 1 else ""
        note(
            f"  {asked.data or 'grid'}: {len(table.rows):,} row{'s' * (len(table.rows) != 1)}{grid}{samples} = "
            f"{plan.image_count:,} images in {len(plan.tasks):,} jobs, on {asked.target}"
        )
        if plan.ignored_photos:
            self._output.warn(
                f"the rows name {plan.ignored_photos:,} photo(s), and {asked.template.name} reads none: they will have "
                "no effect. Use {{ input_images[0] }} or {{ input_images_dir }} in the template."
            )
        if plan.used:
            note(
                f"  columns    {', '.join(plan.used)}" + (f"; unused: {', '.join(plan.unused)}" if plan.unused else "")
            )
        note(f"  seeds      {self._about_seeds(axes)}")
        if plan.slowest:
            loads = f": {plan.model_loads} model loads" if plan.model_loads > 1 else ""
            instead = f" instead of {plan.unordered_loads}" if plan.unordered_loads > plan.model_loads else ""
            note(f"  order      by {', then '.join(plan.slowest[:3])}{loads}{instead}")
        done = plan.image_count - sum(task.num_samples for task in todo)
        note(f"  already    {done:,} images of whole rows are there" if done else "  already    nothing is there")
        if not todo or asked.target.kind == "local":
            return
        lines = estimate_lines(
            plan.image_count - done,
            tasks,
            root=asked.output_dir,
            target=asked.target,
            template_name=asked.template.name,
            price_per_hour_usd=asked.price_per_hour_usd or read_profile().price_per_hour_usd,
        )
        for line in lines:
            note(line)

    def _about_seeds(self, axes: list[Axis]) -> str:
        if any(axis.name == "seed" for axis in axes):
            return "the grid's"
        if self._asked.seeds != "per-row" or "seed" in (self._asked.variables or {}):
            return "the same for all"
        return "a row's own" + (", the same in its cells" if axes else "")

    def _show_and_end(
        self, plan: Plan, table: Table, axes: list[Axis], todo: Sequence[Task], tasks: Mapping[str, TaskRecord]
    ) -> int:
        self._show(plan, table, axes, todo, tasks)
        self._output.note("Nothing was sent.")
        count = sum(task.num_samples for task in todo)
        return self._output.succeed({"images": plan.image_count, "jobs": len(plan.tasks), "to_make": count})

    def _agree(self, count: int) -> None:
        """Ask before much is made; where nobody can be asked, the option that says yes is named."""
        if self._asked.yes or count <= self._asked.confirm_above or self._asked.target.kind == "local":
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(
                f"{count:,} images are more than --confirm-above {self._asked.confirm_above}: pass -y."
            )
        click.confirm(f"Start {count:,} images?", abort=True, err=True)

    def _make(self, folder: OutputFolder, template: WorkflowTemplate, plan: Plan, todo: list[Task]) -> int:
        asked = self._asked
        price = asked.price_per_hour_usd or read_profile().price_per_hour_usd
        if asked.max_cost_usd is not None and price is None:
            raise ConfigurationError("--max-cost needs a price: pass --price USD, what a worker costs an hour.")
        options = RunOptions(
            batch_size=asked.batch_size,
            jobs_at_once=asked.jobs,
            price_per_hour_usd=price,
            max_cost_usd=asked.max_cost_usd,
            max_gpu_s=asked.max_gpu_s,
            timeout_s=asked.timeout_s,
            template_sha256=template_sha256(template),
            sidecar=asked.sidecar,
        )
        display = choose_dataset_display(asked.progress, quiet=self._output.quiet, price_per_hour_usd=price)
        already = plan.image_count - sum(task.num_samples for task in todo)
        unfinished.under_way(asked.output_dir, COMMAND_NAME)
        executor = make_executor(asked.target, batch_size=asked.batch_size)
        runner = DatasetRunner(executor, template, folder, options=options, on_change=display.update)
        self._tally = runner.tally
        with display, self._output.through(display.write_line):
            run_until_stopped(
                lambda: self._run(runner, folder, todo, already),
                executor,
                on_stop=lambda: self._stopping(runner),
                on_leave=lambda: self._leaving(folder.manifest.jobs_under_way()),
            )
        return self._end(price)

    def _stopping(self, runner: DatasetRunner) -> bool:
        """Say what happens now; True where running jobs may end by themselves."""
        tally, finish = self._tally, self._asked.on_interrupt == "finish"
        words = f"{tally.running:,} jobs are being cancelled" + (", but those that run may finish" if finish else "")
        self._output.note(f"  Stopping: {words}, {tally.waiting:,} were not sent. Ctrl-C again leaves at once.")
        if finish:
            runner.finish_running()
        return finish

    def _leaving(self, job_ids: list[str]) -> None:
        """Say what becomes of jobs that were left to run."""
        self._output.warn(f"{len(job_ids):,} jobs may still run. RunPod keeps what they make for 30 minutes.")
        if self._asked.target.kind == "runpod" and 0 < len(job_ids) <= _SHOWN_JOBS:
            collect = shlex.join([COMMAND_NAME, "collect", *job_ids, "--endpoint", str(self._asked.target.name)])
            self._output.note(f"  {collect} --wait      # reads it into another folder")
        again = shlex.join([COMMAND_NAME, *sys.argv[1:]])
        self._output.next_step(f"{again}      # reads what they have made, and goes on")

    async def _run(self, runner: DatasetRunner, folder: OutputFolder, todo: list[Task], already: int) -> None:
        gallery = Gallery(root=folder.root, shown_as=str(folder.root), run=folder.run or {})
        async with LiveGallery(gallery, folder.manifest.tasks).kept():
            await runner.run(todo, already=already)

    def _end(self, price: float | None) -> int:
        tally, asked = self._tally, self._asked
        used = GpuTime(execution_s=tally.execution_s, images=tally.images)
        cost = f", cost {cost_text(used, known_price(asked.price_per_hour_usd))}" if price else ""
        self._output.note(
            f"  {tally.images:,} images in {asked.output_dir}, {tally.execution_s:.0f} s of execution{cost}"
        )
        self._output.note(f"  look at them: {asked.output_dir / PAGE_NAME}")
        for (code, node_type), count in tally.failures.most_common():
            key, message = tally.examples[code, node_type]
            self._output.warn(
                f"{count} x {code}{f' in {node_type}' if node_type else ''}, such as row {key}: {message}"
            )
        if tally.stopped_by:
            self._output.warn(f"stopped: {tally.stopped_by}; {tally.waiting:,} jobs were not begun.")
        again = shlex.join([COMMAND_NAME, *sys.argv[1:]])
        if tally.failures or tally.stopped_by:
            self._output.next_step(f"{again}      # goes on where this ended")
        else:
            unfinished.complete(asked.output_dir)
        self._output.data(str(asked.output_dir / "manifest.jsonl"))
        if tally.failures:
            text = f"{tally.tasks_failed:,} row(s) failed."
            return self._output.fail(failure("rows_failed", text), self._data(), told=True)
        return self._output.succeed(self._data())

    def _data(self) -> dict[str, Any]:
        tally = self._tally
        return {
            "folder": str(self._asked.output_dir),
            "gallery": str(self._asked.output_dir / PAGE_NAME),
            "images": tally.images,
            "rows_done": tally.tasks_done,
            "rows_failed": tally.tasks_failed,
            "execution_s": tally.execution_s,
            "stopped_by": tally.stopped_by,
        }

    def _run_record(self, run_seed: int) -> dict[str, Any]:
        asked = self._asked
        return {
            "schema": "run/1",
            "version": __version__,
            "template": str(asked.template),
            "data": str(asked.data) if asked.data else None,
            "grid": list(asked.grid),
            "num_samples": asked.num_samples,
            "batch_size": asked.batch_size,
            "seeds": asked.seeds,
            "seed": run_seed,
            "name": asked.name,
        }


def _refuse_other_run(run: dict[str, Any], asked: DatasetOptions, folder: OutputFolder) -> None:
    """Refuse to mix what cannot be told apart afterwards."""
    if run.get("picked_from"):
        raise ConfigurationError(f"{folder.root} was picked from another dataset. Name another --output-dir.")
    now = {
        "num_samples": asked.num_samples,
        "batch_size": asked.batch_size,
        "seeds": asked.seeds,
        "name": asked.name,
    }
    for name, value in now.items():
        if run.get(name, value) != value:
            raise ConfigurationError(
                f"{folder.root} was begun with {name}={run[name]!r}, and now it is {value!r}. Pass the same, or name "
                "another --output-dir."
            )


def _refuse_split_words(names: NamePattern, tasks: list[Task]) -> None:
    """Refuse names for which Hugging Face's loaders would leave images out without a word."""
    for task in tasks:
        values = {"id": task.row.id, **task.row.values, **task.variables, "seed": 0, "sample": 0, "index": task.index}
        name = names.name_for({**values, "row": task.index})
        if word := split_word_in(name):
            raise ConfigurationError(
                f"--name gives row {task.key} the name {name}: for the word {word!r} in it Hugging Face's loaders "
                "would leave out all images without such a word. Use another column, or pass --allow-split-words."
            )
