"""Images made again from the command line: their recipes found, run, and what comes compared with what was."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from runpod_comfy.cli.failures import describe, failure
from runpod_comfy.cli.job import STAND_IN, log_shown_by
from runpod_comfy.cli.progress import Tally, choose_display
from runpod_comfy.cli.stopping import run_until_stopped
from runpod_comfy.cli.targets import make_executor
from runpod_comfy.cli.variables import declared_variables, parse_assignments
from runpod_comfy.cli.verbs import COMMAND_NAME
from runpod_comfy.dataset.again import read_image_recipe, read_recipes
from runpod_comfy.dataset.reference import Reference
from runpod_comfy.errors import ConfigurationError, InputError, RunpodComfyError, TemplateError
from runpod_comfy.events import OutputReady, Queued, Warned
from runpod_comfy.media.compare import compare_pictures
from runpod_comfy.media.files import write_new
from runpod_comfy.results import OutputFile
from runpod_comfy.workflow.embedded import changed_inputs, read_embedded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.progress import Display
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.dataset.again import Original, Recipe, RemakeJob
    from runpod_comfy.events import Event
    from runpod_comfy.executors.base import WorkflowExecutor
    from runpod_comfy.media.compare import Comparison

__all__ = ["Remaking", "RerunOptions"]

_SHOWN_CHANGES = 3
_AT_ONCE = 8
_CONFIRM_ABOVE = 200  # images; as of `batch`


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOptions:
    """What was asked for on the command line; see ``runpod-comfy rerun --help``."""

    target: Target
    what: tuple[str, ...]
    assignments: tuple[str, ...]
    images: tuple[Path, ...] | None
    output_dir: Path
    keep_all: bool
    timeout_s: float | None
    progress: str | None
    yes: bool = False


@dataclass(slots=True)
class _Made:
    """What one job has made so far, and what of it was asked for."""

    wanted: dict[tuple[int, str | None, int], Original]
    unplaced: list[Original]
    seen: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    loose: list[OutputFile] = field(default_factory=list)

    @classmethod
    def of(cls, job: RemakeJob) -> _Made:
        placed = {
            (each.batch, each.node_id, each.position): each for each in job.originals if each.position is not None
        }
        return cls(placed, [each for each in job.originals if each.position is None])

    def take(self, output: OutputFile) -> Original | None:
        """Return which original an output is of, if any."""
        place = (output.batch or 0, output.node_id)
        position = self.seen[place]
        self.seen[place] += 1
        return self.wanted.pop((*place, position), None)


@dataclass(frozen=True, slots=True)
class _Work:
    """One job of a recipe."""

    recipe: Recipe
    job: RemakeJob
    is_changed: bool

    @property
    def image_count(self) -> int:
        """How many images it makes."""
        return self.job.batch_count * self.recipe.batch_size


class Remaking:
    """One use of the command."""

    def __init__(self, asked: RerunOptions, output: Output) -> None:
        self._asked = asked
        self._output = output
        self._job_ids: list[str] = []
        self._images: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._missing = 0

    def carry_out(self) -> int:
        """Do it all and return the exit code."""
        try:
            with log_shown_by(self._output):
                recipes = [self._changed(recipe) for recipe in _recipes(self._asked.what)]
                work = [_Work(recipe, job, bool(changed)) for recipe, changed in recipes for job in recipe.jobs]
                self._announce(recipes, image_count=sum(each.image_count for each in work))
                executor = make_executor(self._asked.target, batch_size=1, ledger=True)
                run_until_stopped(
                    lambda: self._run_all(executor, work), executor, on_stop=self._stopping, on_leave=self._leaving
                )
        except (RunpodComfyError, OSError, KeyboardInterrupt) as exc:
            return self._output.fail(describe(exc), self._data())
        if self._missing:
            text = f"{self._missing} image(s) were not made again."
            return self._output.fail(failure("output_lost", text), self._data(), told=True)
        return self._output.succeed(self._data())

    def _stopping(self) -> bool:
        self._output.note("  Stopping: what runs is being cancelled. Ctrl-C again leaves at once.")
        return False

    def _leaving(self) -> None:
        self._output.warn("What was submitted may still run, and is paid for. RunPod keeps it for 30 minutes.")
        self._output.next_step(f"{COMMAND_NAME} collect --all -o {self._asked.output_dir}")

    def _changed(self, recipe: Recipe) -> tuple[Recipe, dict[str, Any]]:
        """Return a recipe as it was asked for, and what is other than it was."""
        declared = declared_variables(recipe.template)
        given = parse_assignments(self._asked.assignments, declared)
        changed = {name: value for name, value in given.items() if recipe.variables.get(name, _NOTHING) != value}
        if "batch_size" in changed:
            raise ConfigurationError(
                "--var batch_size cannot be changed: the noise of an image depends on its place in the batch. Use run."
            )
        variables = {**recipe.variables, **changed}
        # Seeds of a dataset's batches are not in its variables; a workflow out of an image has its own as a default.
        if "seed" in changed and any(job.seed is not None for job in recipe.jobs):
            recipe = recipe.with_seed(_whole(variables.pop("seed")))
        photos = recipe.photos if self._asked.images is None else self._asked.images
        takes_photos = bool({"input_images", "input_images_dir"} & declared.keys())
        if photos is None and takes_photos:
            raise InputError(f"The input photos are not stored: {recipe.notes[0]}. Give them with --image, in order.")
        if self._asked.images is not None and self._asked.images != recipe.photos:
            changed["image"] = [str(path) for path in self._asked.images]
        return replace(recipe, variables=variables, photos=photos or ()), changed

    def _announce(self, recipes: Sequence[tuple[Recipe, dict[str, Any]]], *, image_count: int) -> None:
        """Say what is about to be made, and ask before it is much."""
        if not self._asked.target.asked_for:
            self._output.loud(STAND_IN)
        wanted = sum(len(job.originals) for recipe, _ in recipes for job in recipe.jobs)
        whole = f", of {image_count:,} in whole batches" if image_count > wanted else ""
        changes = recipes[0][1]
        how = f"with {', '.join(sorted(changes))} changed" if changes else "as they were"
        self._output.note(f"  {wanted:,} image(s) again {how}{whole}; on {self._asked.target}")
        for note in dict.fromkeys(note for recipe, _ in recipes for note in recipe.notes):
            self._notes.append(note)
            self._output.note(f"  {note}")
        if self._asked.yes or image_count <= _CONFIRM_ABOVE or self._asked.target.kind == "local":
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(f"{image_count:,} images are more than {_CONFIRM_ABOVE}: pass -y.")
        click.confirm(f"Start {image_count:,} images?", abort=True, err=True)

    async def _run_all(self, executor: WorkflowExecutor, work: Sequence[_Work]) -> None:
        """Run all jobs, several at once; where there are more than one, one that fails stops no other."""
        if len(work) == 1:
            display = choose_display(self._asked.progress, quiet=self._output.quiet)
            with display, self._output.through(display.write_line):
                await self._run(executor, work[0], display)
            return
        room = asyncio.Semaphore(_AT_ONCE)
        display = choose_display("none")

        async def run(each: _Work) -> None:
            async with room:
                try:
                    await self._run(executor, each, display)
                except RunpodComfyError as exc:
                    self._missing += len(each.job.originals)
                    self._output.warn(f"{each.job.originals[0].path}: {exc}")

        try:
            async with asyncio.TaskGroup() as group:
                for each in work:
                    group.create_task(run(each))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _run(self, executor: WorkflowExecutor, work: _Work, display: Display) -> None:
        recipe, job = work.recipe, work.job
        variables = dict(recipe.variables)
        if job.first_seed is not None and recipe.template.uses("seed"):
            variables["seed"] = job.first_seed
        tally = Tally(image_count=work.image_count, batch_count=job.batch_count)
        made = _Made.of(job)
        events = executor.watch_workflow_async(
            recipe.template,
            recipe.photos,
            work.image_count,
            batch_size=recipe.batch_size,
            seed=job.seed,
            randomize_seed=job.seed is not None,
            variables=variables,
            timeout=self._asked.timeout_s,
        )
        # Closing the events early, as an interrupt does, cancels the job.
        async with aclosing(cast("AsyncGenerator[Event]", events)) as following:
            async for event in following:
                self._take(event, made, is_changed=work.is_changed)
                tally.add(event)
                display.update(tally, event)
        self._match(made, is_changed=work.is_changed)
        for original in (*made.wanted.values(), *made.unplaced):
            self._missing += 1
            self._output.warn(f"{original.path} was not made again: its batch has fewer outputs now.")

    def _take(self, event: Event, made: _Made, *, is_changed: bool) -> None:
        match event:
            case Queued(job_id=job_id):
                self._job_ids.append(job_id)
            case OutputReady(output=OutputFile() as output):
                original = made.take(output)
                if original is not None:
                    self._keep(output, original, is_changed=is_changed)
                elif made.unplaced:
                    made.loose.append(output)
                elif self._asked.keep_all:
                    self._keep(output, None, is_changed=is_changed)
            case Warned(message=message):
                self._output.warn(message)

    def _match(self, made: _Made, *, is_changed: bool) -> None:
        """Find an original whose place in the batch is not known, by its pixels; with a change all are kept."""
        if not made.unplaced or not made.loose:
            return
        if is_changed or not all(each.path.is_file() for each in made.unplaced):
            for output in made.loose:
                self._keep(output, made.unplaced[0], is_changed=True)
            made.unplaced.clear()
            return
        for original in list(made.unplaced):
            before = original.path.read_bytes()
            if not (batch := [each for each in made.loose if (each.batch or 0) == original.batch]):
                continue
            best = min(batch, key=lambda output: compare_pictures(before, output.data).rank)
            self._keep(best, original, is_changed=False)
            made.loose.remove(best)
            made.unplaced.remove(original)
        for output in made.loose if self._asked.keep_all else ():
            self._keep(output, None, is_changed=False)

    def _keep(self, output: OutputFile, original: Original | None, *, is_changed: bool) -> None:
        """Save an output, and compare it with what it should be."""
        stem = original.path.stem if original else Path(output.name).stem
        path = write_new(self._asked.output_dir / f"{stem}{_suffix(output)}", output.data)
        comparison = None
        if original is not None and not is_changed:
            comparison = self._compared(original, output, path)
        self._images.append(
            {
                "path": str(path),
                "original": str(original.path) if original else None,
                "seed": output.seed,
                "sha256": output.sha256,
                "comparison": None if comparison is None else {**asdict(comparison), "text": str(comparison)},
            }
        )
        self._output.data(str(path))

    def _compared(self, original: Original, output: OutputFile, path: Path) -> Comparison | None:
        try:
            before = original.path.read_bytes()
        except OSError as exc:
            self._output.warn(f"{original.path} cannot be compared: {exc.strerror}.")
            return None
        comparison = compare_pictures(before, output.data)
        self._output.note(f"  {path.name}: {comparison}")
        if not comparison.same_pixels and (changes := _workflow_changes(original.path, path)):
            more = len(changes) - _SHOWN_CHANGES
            listed = "; ".join(changes[:_SHOWN_CHANGES]) + (f"; and {more} more" if more > 0 else "")
            self._output.warn(f"{original.path.name} was made by another workflow: {listed}")
        return comparison

    def _data(self) -> dict[str, Any]:
        return {
            "target": self._asked.target.kind,
            "job_ids": self._job_ids,
            "images": sorted(self._images, key=lambda image: (image["original"] or "~", image["path"])),
            "notes": self._notes,
        }


_NOTHING = object()


def _recipes(what: Sequence[str]) -> list[Recipe]:
    """Return a recipe for each row and each image, so that no batch of a row is made twice."""
    references: list[Reference] = []
    images: list[Recipe] = []
    for text in what:
        if (reference := Reference.parse(text)) is not None:
            references.append(reference)
        elif Path(text).is_file():
            images.append(read_image_recipe(Path(text)))
        else:
            raise ConfigurationError(
                f"There is no image {text}; a row of a dataset is written out#000123 or out#000123_2."
            )
    return [*read_recipes(references), *images]


def _workflow_changes(before: Path, now: Path) -> list[str]:
    try:
        return list(changed_inputs(read_embedded(before), read_embedded(now)))
    except TemplateError:
        return []  # one of them carries none


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"--var seed={value!r} is no whole number.")
    return value


def _suffix(output: OutputFile) -> str:
    suffix = Path(output.name).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() else ".bin"
