"""What it takes to make an image of a dataset again: its graph, its seed and its place in its batch.

::

    recipe = read_recipe([Reference.parse("out#000123_2")])
    recipe.jobs[0].seed, recipe.jobs[0].originals[0].position

ComfyUI draws the noise of a whole batch from one seed, so the picture at place k depends on the seed and on k, and how
a GPU rounds depends on how large the batch is. Hence a batch is made again as a whole; its other images are not kept.
What the manifest does not hold cannot be restored, and is said (``Recipe.notes``).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.dataset.reference import manifest_lines
from runpod_comfy.errors import ConfigurationError, RunpodComfyError
from runpod_comfy.workflow.seeds import draw_seeds
from runpod_comfy.workflow.template import WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runpod_comfy.dataset.reference import Reference

__all__ = ["Original", "Recipe", "RemakeJob", "read_image_recipe", "read_recipe"]

_RNG: Final = random.SystemRandom()  # seeds that count up from a given one are not drawn
_SEEDS_BELOW: Final = 2**32
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


def read_recipe(references: Sequence[Reference]) -> Recipe:
    """Return how images of one row were made, by what the dataset's folder says.

    Raises:
        ConfigurationError: The folder is no dataset, or has no such image.
    """
    folder = references[0].folder
    run = _read_run(folder)
    images, failure = _images_of(folder / "manifest.jsonl", references[0].index)
    there = {each.line["sample"] for each in images}
    for reference in references:
        if not there or (reference.sample is not None and reference.sample not in there):
            raise ConfigurationError(_nothing_there(reference, images, failure))
    samples = {reference.sample for reference in references}
    wanted = [each for each in images if None in samples or each.line["sample"] in samples]
    batch_size = int(run.get("batch_size") or 1)
    template, notes = _template_of(folder, run)
    now = run.get("template_sha256")
    if any(each.line.get("template_sha256", now) != now for each in wanted):
        notes.append("the template was another one when this was made; the folder keeps only the last")
    photos, about_photos = _photos_of(folder, run, wanted[0].line)
    return Recipe(
        template=WorkflowTemplate(template),
        variables=dict(wanted[0].line.get("variables") or {}),
        photos=photos,
        batch_size=batch_size,
        jobs=tuple(_jobs(folder, wanted, _positions(images, batch_size))),
        notes=(*notes, *about_photos, _NEVER_STORED),
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


def _read_run(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / "run.json").read_text("utf-8"))
    except OSError as exc:
        raise ConfigurationError(
            f"{folder} is no dataset: its run.json cannot be read ({exc.strerror}). Name a folder that `batch` made."
        ) from exc
    except ValueError as exc:
        raise ConfigurationError(f"{folder / 'run.json'} is not JSON. Put it back as it was.") from exc
    if not isinstance(run, dict):
        raise ConfigurationError(f"{folder / 'run.json'} is no record of a run. Put it back as it was.")
    return run


def _images_of(manifest: Path, index: int) -> tuple[list[_Image], str | None]:
    """Return a row's images by sample, and what its last failure said; lines of other rows are passed over."""
    images: dict[int, _Image] = {}
    failure: str | None = None
    first_batch = 0
    seeds: dict[int, int | None] = {}
    for line in manifest_lines(manifest):
        if line.get("index") != index:
            continue
        match line.get("schema"):
            case "job/1":
                first_batch = line["first_batch"]
            case "image/1":
                seed = _seed(line)
                seeds[line["batch"]] = seed
                first_seed = seeds.get(first_batch, _counted_back(seed, line["batch"] - first_batch))
                images[line["sample"]] = _Image(line, seed, first_seed)
            case "failure/1":
                failure = str((line.get("error") or {}).get("message"))
    return [images[sample] for sample in sorted(images)], failure


def _seed(line: Mapping[str, Any]) -> int | None:
    # As text in the manifest: JavaScript rounds what is above 2**53.
    return None if line.get("seed") is None else int(line["seed"])


def _counted_back(seed: int | None, steps: int) -> int | None:
    """Return the seed from which another one was counted up, as ``draw_seeds`` counts."""
    return None if seed is None else (seed - steps) % (_SEEDS_BELOW if seed < _SEEDS_BELOW else _SEEDS_BELOW**2)


def _nothing_there(reference: Reference, images: list[_Image], failure: str | None) -> str:
    if images:
        there = ", ".join(str(each.line["sample"]) for each in images[:8])
        return f"{reference.folder} has no image {reference.index:06}_{reference.sample}; the row has {there}."
    if failure:
        return (
            f"Row {reference.index:06} of {reference.folder} has no image: it failed ({failure}) The command that made "
            "the folder tries it again."
        )
    return f"{reference.folder} has no row {reference.index:06}. Rows are numbered from 0, as in the files' names."


def _template_of(folder: Path, run: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Return the template's file, the folder's own copy first, and what to know about it."""
    named = Path(str(run.get("template") or ""))
    copy = folder / str(run.get("template_file") or f"template/{named.name}")
    places = [named, folder.parent / named.name]
    theirs = next((each for each in places if named.name and each.is_file()), None)
    if copy.is_file() and copy.resolve().is_relative_to(folder.resolve()):
        changed = theirs is not None and theirs.read_bytes() != copy.read_bytes()
        note = f"{theirs} has changed since; the copy of then, {copy}, is used" if changed else None
        return copy, [note] if note else []
    if theirs is None:
        raise ConfigurationError(
            f"The template {named} is gone and {folder} has no copy of it. Put it back, or give an image as ComfyUI "
            "saved it: it carries its workflow."
        )
    return theirs, [f"{folder} has no copy of the template: {theirs} is used as it is now"]


def _photos_of(
    folder: Path, run: Mapping[str, Any], line: Mapping[str, Any]
) -> tuple[tuple[Path, ...] | None, list[str]]:
    """Return an image's photos: those that its line names, else those of its row in the data that the run had."""
    if "photos" in line:
        return _found_photos([(Path(each), folder.parent / each) for each in line["photos"]])
    if not run.get("data"):
        return (), []
    named = Path(str(run["data"]))
    data = next((each for each in (named, folder.parent / named.name) if each.exists()), None)
    if data is None:
        return None, [f"{named}, which named the rows' photos, is gone"]
    from runpod_comfy.dataset.rows import read_rows  # noqa: PLC0415 - a grid has no rows

    try:
        row = next((each for each in read_rows(data).rows if each.id == line["row_id"]), None)
    except RunpodComfyError as exc:
        return None, [f"the rows' photos are not known: {exc}"]
    if row is None:
        return None, [f"{data} has no row {line['row_id']} any more, which named its photos"]
    return _found_photos([(each,) for each in row.photos])


def _found_photos(places: Iterable[Sequence[Path]]) -> tuple[tuple[Path, ...] | None, list[str]]:
    """Return each photo, at the first of the places where it may be."""
    photos: list[Path] = []
    for each in places:
        there = next((path for path in each if path.is_file()), None)
        if there is None:
            return None, [f"the photo {each[0]} is gone"]
        photos.append(there)
    return tuple(photos), ["the photos are read from where they were; no copy of them was kept"] if photos else []


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
