"""What a dataset will cost before it is paid for: tasks, their seeds and their order. Pure.

A task is one row in one cell of the grid; it becomes one job. Its place in the data numbers its files for ever, and its
seed is drawn from the run's own number and the row's identity, so the same command again asks for the same pictures.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.dataset.grids import cells
from runpod_comfy.dataset.rows import PHOTO_COLUMNS
from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from runpod_comfy.dataset.grids import Axis
    from runpod_comfy.dataset.rows import Row, Table
    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["SEED_POLICIES", "Plan", "Task", "make_plan", "make_tasks", "render_task"]

SEED_POLICIES: Final = ("same", "per-row")
"""``same``: one set of seeds for all; ``per-row``: a row's cells share theirs, and rows differ."""

_SEEDS_BELOW: Final = 2**32
_LOADER_WEIGHT: Final = 100  # what loading a model costs, beside computing one node


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row in one cell of the grid.

    Attributes:
        index: Its place in the data, counted from 0; the row's cells follow each other.
        key: Its identity: the row's id, and the cell's values where there is a grid.
        row: The row.
        cell: The grid's values.
        variables: What the template gets: the row's values under the cell's.
        seed: The first batch's seed.
        num_samples: How many images it makes.
    """

    index: int
    key: str
    row: Row
    cell: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    num_samples: int = 1

    @property
    def photos(self) -> tuple[Path, ...]:
        """The row's photos."""
        return self.row.photos


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that will be done.

    Attributes:
        tasks: The tasks in the order in which they start.
        used: Columns that are variables of the template, and the one that names photos.
        unused: Columns that are not; they are kept with the images.
        ignored_photos: How many photos the rows name, where the template reads none.
        slowest: Variables whose change costs most, dearest first.
        model_loads: How often a model is loaded in this order, on one worker.
        unordered_loads: How often in the order of the data.
    """

    tasks: tuple[Task, ...]
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    ignored_photos: int = 0
    slowest: tuple[str, ...] = ()
    model_loads: int = 0
    unordered_loads: int = 0

    @property
    def image_count(self) -> int:
        """How many images all tasks make together."""
        return sum(task.num_samples for task in self.tasks)

    def batch_count(self, batch_size: int) -> int:
        """How many batches all tasks run together."""
        return sum(math.ceil(task.num_samples / batch_size) for task in self.tasks)


def make_tasks(
    table: Table,
    axes: Sequence[Axis] = (),
    *,
    template: WorkflowTemplate,
    zipped: bool = False,
    num_samples: int = 1,
    seeds: str = "per-row",
    run_seed: int = 0,
    variables: Mapping[str, Any] | None = None,
) -> list[Task]:
    """Return a task for each row and cell, in the order of the data.

    Args:
        table: The rows.
        axes: The grid.
        template: Its variables decide which columns are used.
        zipped: Take the axes' values together instead of all combinations.
        num_samples: Images for each task.
        seeds: ``same``, ``per-row``, or a number that all tasks start from. A ``seed`` among the variables wins, then
            a row's own column ``seed``, then the grid's.
        run_seed: Where drawn seeds come from; the same number gives the same seeds.
        variables: The same for all rows; a row's columns win.

    Raises:
        ConfigurationError: The policy is none, the grid varies what the template does not have, or something varies
            the size of batches.
        InputError: A ``seed`` is none.
    """
    strangers = [axis.name for axis in axes if axis.name != "seed" and not template.uses(axis.name)]
    if strangers:
        raise ConfigurationError(f"--grid varies {strangers[0]!r}, which is no variable of {template.name}.")
    _refuse_batch_size(axes, table, template)
    variables = variables or {}
    grid = list(cells(axes, zipped=zipped))
    tasks: list[Task] = []
    for row in table.rows:
        mine = {name: value for name, value in row.values.items() if template.uses(name)}
        seed = _seed(row, seeds, run_seed, given=variables.get("seed"))
        for cell in grid:
            given = {**variables, **mine, **cell}
            given.pop("seed", None)  # the task's: one that stood here would not be the one that is computed with
            tasks.append(
                Task(
                    index=len(tasks),
                    key=_key(row, cell),
                    row=row,
                    cell=cell,
                    variables=given,
                    seed=_whole_seed(cell["seed"], "--grid seed") if "seed" in cell else seed,
                    num_samples=num_samples,
                )
            )
    return tasks


def _refuse_batch_size(axes: Sequence[Axis], table: Table, template: WorkflowTemplate) -> None:
    """Refuse it before anything is sent: which images a batch holds is decided for all rows."""
    what = "The grid" if any(axis.name == "batch_size" for axis in axes) else None
    if what is None and template.uses("batch_size") and any("batch_size" in row.values for row in table.rows):
        what = "A column"
    if what is not None:
        raise ConfigurationError(f"{what} cannot vary batch_size: it is the same for all rows. Pass --batch-size N.")


def make_plan(tasks: Sequence[Task], table: Table, template: WorkflowTemplate) -> Plan:
    """Put tasks into the order in which ComfyUI's cache serves most, and say what is worth knowing.

    Raises:
        TemplateError: The template cannot be rendered for the first row.
    """
    photos = next((name for name in PHOTO_COLUMNS if name in table.columns), None)
    reads_photos = template.uses("input_images_dir") or template.uses("input_images")
    used = tuple(
        f"{name} (photos)" if name == photos else name
        for name in table.columns
        if template.uses(name) or (name == photos and reads_photos)
    )
    own = {"id", "seed", *((photos,) if reads_photos else ())}
    unused = tuple(name for name in table.columns if not template.uses(name) and name not in own)
    costs = _costs(tasks, template)
    slowest = tuple(sorted(costs, key=lambda name: -costs[name]))
    ranks = {name: _ranks(tasks, name) for name in slowest}
    ordered = sorted(tasks, key=lambda task: [ranks[name][_text(task.variables.get(name))] for name in slowest])
    loading = [name for name in slowest if costs[name] >= _LOADER_WEIGHT]
    return Plan(
        tasks=tuple(ordered),
        used=used,
        unused=unused,
        ignored_photos=0 if reads_photos else sum(len(row.photos) for row in table.rows),
        slowest=slowest,
        model_loads=_changes(ordered, loading),
        unordered_loads=_changes(tasks, loading),
    )


def _key(row: Row, cell: Mapping[str, Any]) -> str:
    return f"{row.id} {json.dumps(cell, sort_keys=True, default=str)}" if cell else row.id


def _seed(row: Row, policy: str, run_seed: int, *, given: Any = None) -> int:
    own = row.values.get("seed")
    if own is not None:
        return _whole_seed(own, f"line {row.line}: seed")
    if given is not None:
        return _whole_seed(given, "--var seed")
    if policy == "same":
        return run_seed % _SEEDS_BELOW
    if policy == "per-row":
        digest = hashlib.sha256(f"{run_seed} {row.id}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:4], "big")
    if policy.isdecimal():
        return _whole_seed(int(policy), "--seeds")
    raise ConfigurationError(f"--seeds is {policy!r}; it takes same, per-row, or a number.")


def _whole_seed(value: Any, what: str) -> int:
    # A seed above 2**53 is best written as text: spreadsheets round such numbers, unless an apostrophe stands before.
    text = value.removeprefix("'") if isinstance(value, str) else ""
    number = int(text) if text.isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**64:
        raise InputError(f"{what} is {value!r}; it takes a whole number from 0 to 2**64 - 1.")
    return number


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _ranks(tasks: Iterable[Task], name: str) -> dict[str, int]:
    """Number a variable's values as they first appear."""
    ranks: dict[str, int] = {}
    for task in tasks:
        ranks.setdefault(_text(task.variables.get(name)), len(ranks))
    return ranks


def _changes(tasks: Iterable[Task], names: Sequence[str]) -> int:
    """Count how often one of these variables is another than in the task before; the first task counts."""
    count, before = 0, None
    for task in tasks:
        now = [_text(task.variables.get(name)) for name in names]
        count += now != before
        before = now
    return count


def _costs(tasks: Sequence[Task], template: WorkflowTemplate) -> dict[str, int]:
    """Return what a change of each variable that varies makes ComfyUI compute again."""
    if not tasks:
        return {}
    first = tasks[0]
    base = render_task(first, template)
    costs: dict[str, int] = {}
    for name in dict.fromkeys(name for task in tasks for name in task.variables):
        value = _text(first.variables.get(name))
        other = next((task for task in tasks if _text(task.variables.get(name)) != value), None)
        if other is not None and name in other.variables:
            changed = render_task(first, template, {name: other.variables[name]})
            costs[name] = _cost(base, changed)
    return costs


def render_task(
    task: Task, template: WorkflowTemplate, changed: Mapping[str, Any] | None = None, *, batch_size: int = 1
) -> dict[str, Any]:
    """Return the graph of a task's first batch; where its photos will be on the worker is not known and made up.

    Args:
        task: The task.
        template: What it runs.
        changed: Variables in place of its own.
        batch_size: Images in a batch.

    Raises:
        TemplateError: The template cannot be rendered.
    """
    names = [f"rcc/{number:02d}.png" for number in range(len(task.photos))]
    given: dict[str, Any] = {"input_images_dir": "/comfyui/input/rcc", "input_images": names, "batch_size": batch_size}
    if template.uses("seed"):
        given["seed"] = task.seed
    return template.render({**given, **task.variables, **(changed or {})})


def _cost(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Weigh the nodes that differ between two graphs, and all that they feed."""
    dirty = {node_id for node_id in after if before.get(node_id) != after[node_id]}
    weight = sum(_LOADER_WEIGHT for node_id in dirty if "Load" in str(after[node_id].get("class_type")))
    fed = True
    while fed:
        fed = False
        for node_id, node in after.items():
            links = (as_link(value) for value in node["inputs"].values())
            if node_id not in dirty and any(link and link[0] in dirty for link in links):
                dirty.add(node_id)
                fed = True
    return weight + len(dirty)
