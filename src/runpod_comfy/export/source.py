"""What is exported: the images of a dataset's folder, finished, interrupted, or with failed rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.dataset.metadata import column_name, flat_rows
from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.media.files import check_relative_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runpod_comfy.dataset.captions import Caption
    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["Picture", "Source", "read_run", "read_source"]

_ROWS_A_FOLDER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image.

    Attributes:
        path: Its file.
        line: Its line of the manifest.
        row: Its columns, as of ``metadata.jsonl``.
    """

    path: Path
    line: Mapping[str, Any]
    row: dict[str, Any]

    @property
    def caption(self) -> str:
        """What is written beside it."""
        return str(self.row.get("text", ""))

    @property
    def number_name(self) -> str:
        """A name for a folder without folders: its numbers and its ending."""
        return f"{self.line['index']:06}_{self.line['sample']}{self.path.suffix.lower()}"

    @property
    def number_path(self) -> str:
        """A path that says nothing but its numbers."""
        return f"images/{self.line['index'] // _ROWS_A_FOLDER:03}/{self.number_name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A folder's images, in the order of its data.

    Attributes:
        root: The folder.
        run: What its ``run.json`` says.
        tasks: What its manifest says.
        pictures: The images whose files are there.
        missing: How many the manifest knows whose files are gone.
        failed: How many tasks failed and have no image.
    """

    root: Path
    run: Mapping[str, Any]
    tasks: Mapping[str, TaskRecord]
    pictures: Sequence[Picture]
    missing: int = 0
    failed: int = 0


def read_source(root: Path, *, caption: Caption | None = None, strip_inputs: bool = False) -> Source:
    """Read a folder; a batch may be writing into it meanwhile.

    Args:
        root: The folder.
        caption: What the column ``text`` holds.
        strip_inputs: Leave out the rows' ids and the columns that are no variables of the template.

    Raises:
        ConfigurationError: It is no dataset, has no image, or a caption cannot be made.
        InputError: A path in its manifest leads out of it.
    """
    tasks = read_manifest(root / "manifest.jsonl")
    inside = _Inside(root)
    lines = [
        line
        for record in sorted(tasks.values(), key=lambda each: each.index)
        for _, line in sorted(record.images.items())
        if str(line["file"]).startswith("images/")
    ]
    there = [(line, path) for line in lines if (path := inside.path(line["file"])).is_file()]
    if not there:
        raise ConfigurationError(f"{root} has no images yet. Its manifest tells of failures, if there were any.")
    rows = flat_rows((line for line, _ in there), caption)
    hidden = _inputs(line for line, _ in there) if strip_inputs else frozenset[str]()
    pictures = [
        Picture(path=path, line=line, row={name: cell for name, cell in row.items() if name not in hidden})
        for (line, path), row in zip(there, rows, strict=True)
    ]
    return Source(
        root=root,
        run=read_run(root),
        tasks=tasks,
        pictures=pictures,
        missing=len(lines) - len(there),
        failed=sum(1 for record in tasks.values() if record.failures and not record.images),
    )


class _Inside:
    """Finds files that a manifest names; it may come from somebody else, and must not lead out of its folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_root = root.resolve()
        self._known: set[Path] = set()

    def path(self, file: str) -> Path:
        check_relative_name(file)
        path = self._root / file
        if path.parent not in self._known:
            if not path.parent.resolve().is_relative_to(self._real_root):
                raise InputError(f"{path} goes through a symlink that leads out of {self._root}.")
            self._known.add(path.parent)
        if path.is_symlink():
            raise InputError(f"{path} is a symlink. Put the file itself there.")
        return path


def _inputs(lines: Any) -> frozenset[str]:
    columns, variables = set[str](), set[str]()
    for line in lines:
        columns.update(line.get("columns", {}))
        variables.update(line.get("variables", {}))
    return frozenset({"id", *(column_name(name) for name in columns - variables)})


def read_run(root: Path) -> dict[str, Any]:
    """Return what a folder's ``run.json`` says; nothing where there is none.

    Raises:
        ConfigurationError: It is not JSON.
    """
    try:
        found = json.loads((root / "run.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise ConfigurationError(f"{root / 'run.json'} is not JSON. Put it back as it was.") from exc
    return found if isinstance(found, dict) else {}
