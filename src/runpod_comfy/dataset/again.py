"""What it takes to make an image of a dataset again: its graph, its seed and its place in its batch.

::

    [recipe] = read_recipes([Reference.parse("out#000123_2")])
    recipe.jobs[0].seed, recipe.jobs[0].originals[0].position

ComfyUI draws the noise of a whole batch from one seed, so the picture at place k depends on the seed and on k, and how
a GPU rounds depends on how large the batch is. Hence a batch is made again as a whole; its other images are not kept.
What the manifest does not hold cannot be restored, and is said (``Recipe.notes``).
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.dataset.origins import Origins
from runpod_comfy.dataset.reference import manifest_lines
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.workflow.seeds import draw_seeds
from runpod_comfy.workflow.template import WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runpod_comfy.dataset.reference import Reference

__all__ = ["Original", "Recipe", "RemakeJob", "read_image_recipe", "read_recipes"]

_RNG: Final = random.SystemRandom()  # seeds that count up from a given one are not drawn
_SEEDS_BELOW: Final = 2**32
_SHOWN: Final = 8
_NEVER_STORED: Final = (
    "not stored: the GPU, the versions of ComfyUI, of its custom nodes and of the models' files; with others the same "
    "seed gives a slightly different picture, or a very different one"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A file that is made again.

    Attributes:
        path: The file as it was made.
        batch: Its batch, counted from the job's first one.
        node_id: The node that reported it.
        position: Its place among that node's outputs of the batch; None where that is not known.
    """

    path: Path
    batch: int = 0
    node_id: str | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemakeJob:
    """Batches whose seeds count up, which one job makes again.

    Attributes:
        seed: The first batch's seed; None leaves the workflow's own.
        first_seed: What the template was given as ``seed``, likewise.
        batch_count: How many batches.
        originals: What they made.
    """

    seed: int | None = None
    first_seed: int | None = None
    batch_count: int = 1
    originals: tuple[Original, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a row was made.

    Attributes:
        template: The template.
        variables: Its variables.
        photos: The input images; None where nothing tells which they were.
        batch_size: Images in a batch.
        jobs: What has to run.
        notes: What cannot be restored or may have changed, as sentences.
    """

    template: WorkflowTemplate
    variables: Mapping[str, Any] = field(default_factory=dict)
    photos: tuple[Path, ...] | None = ()
    batch_size: int = 1
    jobs: tuple[RemakeJob, ...] = ()
    notes: tuple[str, ...] = ()

    def with_seed(self, seed: int) -> Recipe:
        """Return the recipe with another seed for the first batch; the next ones count up from it."""
        jobs, done = [], 0
        for job in self.jobs:
            first = draw_seeds(done + 1, seed=seed, rng=_RNG)[-1]
            jobs.append(replace(job, seed=first, first_seed=first))
            done += job.batch_count
        return replace(self, jobs=tuple(jobs))


def read_recipes(references: Iterable[Reference]) -> list[Recipe]:
    """Return how images were made, by what their datasets' folders say: a recipe for each row, in the order asked for.

    Raises:
        ConfigurationError: A folder is no dataset, or has no such image.
    """
    by_folder: dict[Path, list[Reference]] = {}
    for reference in references:
        by_folder.setdefault(reference.folder, []).append(reference)
    return [recipe for folder, asked in by_folder.items() for recipe in _recipes(Origins(folder), asked)]


def _recipes(origins: Origins, references: Sequence[Reference]) -> Iterator[Recipe]:
    asked: dict[int, set[int | None]] = {}
    for reference in references:
        if reference.index is not None:
            asked.setdefault(reference.index, set()).add(reference.sample)
    whole = any(reference.index is None for reference in references)
    rows = _rows(origins.folder / "manifest.jsonl", None if whole else asked.keys())
    if whole:
        asked |= {index: {None} for index, row in sorted(rows.items()) if row.images}
    if not asked:
        raise ConfigurationError(f"{origins.folder} has no images yet.")
    for index, samples in asked.items():
        row = rows.get(index, _Row())
        if not row.images or samples - row.images.keys() - {None}:
            raise ConfigurationError(_nothing_there(origins.folder, index, samples, row))
        yield _recipe(origins, row, samples)


def _recipe(origins: Origins, row: _Row, samples: set[int | None]) -> Recipe:
    images = [row.images[sample] for sample in sorted(row.images)]
    wanted = [each for each in images if None in samples or each.line["sample"] in samples]
    template = origins.template
    notes = list(origins.template_notes)
    now = origins.run.get("template_sha256")
    if any(each.line.get("template_sha256", now) != now for each in wanted):
        notes.append("the template was another one when this was made; the folder keeps only the last")
    photos, about_photos = origins.photos(wanted[0].line)
    return Recipe(
        template=template,
        variables=dict(wanted[0].line.get("variables") or {}),
        photos=photos,
        batch_size=origins.batch_size,
        jobs=tuple(_jobs(origins.folder, wanted, _positions(images, origins.batch_size))),
        notes=(*about_photos, *notes, _NEVER_STORED),
    )


def read_image_recipe(path: Path) -> Recipe:
    """Return how an image was made, by the workflow that ComfyUI wrote into it; what people vary are its variables.

    Raises:
        TemplateError: It carries no workflow, or cannot be read.
        WorkflowGraphError: It carries only the editor's, which cannot be converted.
    """
    template = WorkflowTemplate.from_workflow(path)
    notes = [_NEVER_STORED]
    batch_size = template.declarations["batch_size"].default if "batch_size" in template.declarations else 1
    if batch_size > 1:
        place = f"which of the {batch_size} images of its batch it is, is not in the file"
        notes.insert(0, f"{place}: the most alike is taken, and all where something is changed")
    if loads := [name for name in ("input_images", "input_images_dir") if name in template.declarations]:
        about = template.declarations[loads[0]].node
        notes.insert(
            0, f"the photos that {about} loads are not in the file: give them with --image where the endpoint has none"
        )
    return Recipe(
        template=template,
        batch_size=batch_size,
        jobs=(RemakeJob(originals=(Original(path=path),)),),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Image:
    """An image's line, its seed, and the seed that its job began with."""

    line: Mapping[str, Any]
    seed: int | None
    first_seed: int | None


@dataclass(slots=True)
class _Row:
    """What the manifest says of a row.

    Attributes:
        images: Its images by sample.
        failure: What its last failure said.
        first_batch: The batch with which its last job began.
        seeds: Its batches' seeds.
    """

    images: dict[int, _Image] = field(default_factory=dict)
    failure: str | None = None
    first_batch: int = 0
    seeds: dict[int, int | None] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """Note a line."""
        match line.get("schema"):
            case "job/1":
                self.first_batch = line["first_batch"]
            case "image/1":
                batch, seed = line["batch"], _seed(line)
                self.seeds[batch] = seed
                first_seed = self.seeds.get(self.first_batch, _counted_back(seed, batch - self.first_batch))
                self.images[line["sample"]] = _Image(line, seed, first_seed)
            case "failure/1":
                self.failure = str((line.get("error") or {}).get("message"))


def _rows(manifest: Path, indexes: Collection[int] | None) -> dict[int, _Row]:
    """Return some rows by number, or all; lines of others are passed over."""
    rows: dict[int, _Row] = {}
    try:
        for line in manifest_lines(manifest):
            if indexes is None or line["index"] in indexes:
                rows.setdefault(line["index"], _Row()).add(line)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ConfigurationError(f"{manifest} has a line that is none of a manifest. Put it back as it was.") from exc
    return rows


def _seed(line: Mapping[str, Any]) -> int | None:
    # As text in the manifest: JavaScript rounds what is above 2**53.
    return None if line.get("seed") is None else int(line["seed"])


def _counted_back(seed: int | None, steps: int) -> int | None:
    """Return the seed from which another one was counted up, as ``draw_seeds`` counts."""
    return None if seed is None else (seed - steps) % (_SEEDS_BELOW if seed < _SEEDS_BELOW else _SEEDS_BELOW**2)


def _nothing_there(folder: Path, index: int, samples: set[int | None], row: _Row) -> str:
    if row.images:
        missing = next(sample for sample in samples if sample is not None and sample not in row.images)
        there = ", ".join(map(str, sorted(row.images)[:_SHOWN]))
        return f"{folder} has no image {index:06}_{missing}; the row has {there}."
    if row.failure:
        return (
            f"Row {index:06} of {folder} has no image: it failed ({row.failure}) The command that made the folder "
            "tries it again."
        )
    return f"{folder} has no row {index:06}. Rows are numbered from 0, as in the files' names."


def _jobs(folder: Path, wanted: list[_Image], positions: Mapping[int, int | None]) -> Iterator[RemakeJob]:
    """Join batches whose seeds count up into one job."""
    batches: dict[int, list[_Image]] = {}
    for each in wanted:
        batches.setdefault(each.line["batch"], []).append(each)
    job: RemakeJob | None = None
    last = -1
    for batch in sorted(batches):
        seed, first_seed = batches[batch][0].seed, batches[batch][0].first_seed
        if job is not None and batch == last + 1 and _counts_up(job, seed, first_seed):
            job = replace(job, batch_count=job.batch_count + 1)
        else:
            if job is not None:
                yield job
            job = RemakeJob(seed=seed, first_seed=first_seed)
        last = batch
        made = (
            Original(
                path=folder / each.line["file"],
                batch=job.batch_count - 1,
                node_id=(each.line.get("node") or {}).get("id"),
                position=positions[each.line["sample"]],
            )
            for each in batches[batch]
        )
        job = replace(job, originals=(*job.originals, *made))
    if job is not None:
        yield job


def _counts_up(job: RemakeJob, seed: int | None, first_seed: int | None) -> bool:
    if job.seed is None or seed is None or job.first_seed != first_seed:
        return False
    return draw_seeds(job.batch_count + 1, seed=job.seed, rng=_RNG)[-1] == seed


def _positions(images: Iterable[_Image], batch_size: int) -> dict[int, int | None]:
    """Return which output of its node in its batch each image is, by sample; None where nothing tells."""
    batches: dict[int, list[int]] = {}
    seen: Counter[tuple[int, str]] = Counter()
    found: dict[int, int | None] = {}
    for each in images:
        batch, sample = each.line["batch"], each.line["sample"]
        node = (batch, str((each.line.get("node") or {}).get("id")))
        found[sample] = seen[node]
        seen[node] += 1
        batches.setdefault(batch, []).append(sample)
    for batch, samples in batches.items():
        if len(samples) < batch_size:  # chosen images in a folder of their own: their numbers tell, as a rule
            for sample in samples:
                place = sample - batch * batch_size
                found[sample] = place if 0 <= place < batch_size else None
    return found
