"""What the manifest says, as the page wants it: columns by task, images by number. Pure.

A dataset of ten thousand rows has few distinct values and many images, so a variable is a list of its distinct values
and, for each task, a number in that list. The page filters values first and images then, and stays small.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["gallery_data"]

_EXACT_BELOW = 2**53  # JavaScript rounds whole numbers from here on
_OWN_NAMES = frozenset({"sample", "seed", "row", "file", "node", "stars", "is"})
_ROWS_A_FOLDER = 1000


def gallery_data(
    tasks: Iterable[tuple[str, TaskRecord]], *, images_wanted: int | None, files: Container[str] | None = None
) -> dict[str, Any]:
    """Return tasks as the page takes them.

    ========  =================================================================================================
    columns   ``{name, values, codes}``: for each task the place of its value in ``values``, or -1
    tasks     ``[key, index, row id, job id, seconds waited, seconds computed]``
    images    ``[task's place, sample, seed as text, file or 0 where its name is the usual one, width, height,
              bytes, node's title]``
    failures  ``[task's place, code, message, node's id, node's class, tries, line of the data, job id]``
    ========  =================================================================================================

    Args:
        tasks: The tasks by key.
        images_wanted: How many images a task makes; one that failed and has fewer is shown as failed. None: any failure
            without an image.
        files: Paths below the folder that exist; images without a file are left out. None: all exist.
    """
    columns: dict[str, _Column] = {}
    rows, images, failures = [], [], []
    for number, (key, record) in enumerate(tasks):
        lines = [line for _, line in sorted(record.images.items())]
        failure = record.failures[-1] if record.failures else None
        rows.append(_task(key, record, lines[0] if lines else failure))
        for name, value in _values(key, lines[0] if lines else failure).items():
            columns.setdefault(name, _Column()).put(number, value)
        images += [_image(number, record.index, line) for line in lines if files is None or line["file"] in files]
        if failure is not None and len(lines) < (1 if images_wanted is None else images_wanted):
            failures.append(_failure(number, failure))
    return {
        "columns": [{"name": name, **column.data(len(rows))} for name, column in columns.items()],
        "tasks": rows,
        "images": images,
        "failures": failures,
    }


class _Column:
    """A variable's distinct values in the order of their appearance, and each task's."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._values: list[Any] = []
        self._codes: dict[int, int] = {}

    def put(self, task: int, value: Any) -> None:
        # 1, 1.0 and True are equal to Python, and "1" is another value.
        key = f"{type(value).__name__} {value!r}"
        if key not in self._numbers:
            self._numbers[key] = len(self._values)
            self._values.append(value)
        self._codes[task] = self._numbers[key]

    def data(self, tasks: int) -> dict[str, Any]:
        return {"values": self._values, "codes": [self._codes.get(task, -1) for task in range(tasks)]}


def _task(key: str, record: TaskRecord, line: Mapping[str, Any] | None) -> list[Any]:
    job = record.job or {}
    done = getattr(record, "done", None) or [{}]
    seconds = [done[-1].get("delay_s"), done[-1].get("execution_s")]
    return [key, record.index, (line or {}).get("row_id", key), job.get("job_id"), *map(_plain, seconds)]


def _values(key: str, line: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a task's image or failure was asked for with; a value that is nothing is left out."""
    if line is None:
        return {}
    variables = line.get("variables", _cell(key, line.get("row_id", "")))
    given = {**variables, **{name: value for name, value in line.get("columns", {}).items() if name not in variables}}
    return {
        f"var_{name}" if name in _OWN_NAMES else name: _plain(value)
        for name, value in given.items()
        if value is not None and name != "id"
    }


def _cell(key: str, row_id: str) -> dict[str, Any]:
    """Return the grid's values that a key ends with; what failed before its line told them has no others."""
    try:
        found = json.loads(key.removeprefix(f"{row_id} "))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """Return a value as text where the page could not hold it as it is."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < _EXACT_BELOW else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _image(task: int, index: int, line: Mapping[str, Any]) -> list[Any]:
    usual = f"images/{index // _ROWS_A_FOLDER:03}/{index:06}_{line['sample']}.png"
    return [
        task,
        line["sample"],
        line.get("seed"),
        0 if line["file"] == usual else line["file"],
        line.get("width") or 0,
        line.get("height") or 0,
        line.get("size_bytes") or 0,
        (line.get("node") or {}).get("title") or 0,
    ]


def _failure(task: int, line: Mapping[str, Any]) -> list[Any]:
    error = line.get("error", {})
    return [
        task,
        error.get("code", ""),
        error.get("message", ""),
        error.get("node_id"),
        error.get("node_type") or None,
        line.get("try", 1),
        line.get("line"),
        line.get("job_id"),
    ]
