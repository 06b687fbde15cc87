"""Where a dataset's template and photos are, as far as its folder tells."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError, RunpodComfyError
from runpod_comfy.workflow.template import WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Origins"]


class Origins:
    """What a dataset was made from.

    Args:
        folder: The dataset's folder.

    Attributes:
        run: What ``run.json`` says.
        template_notes: What to know about the template, as sentences; there when ``template`` was asked for.

    Raises:
        ConfigurationError: It is no dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = _read_run(folder)
        self.template_notes: list[str] = []

    @property
    def batch_size(self) -> int:
        """How many images a batch has."""
        size = self.run.get("batch_size")
        return size if isinstance(size, int) and size > 0 else 1

    @cached_property
    def template(self) -> WorkflowTemplate:
        """The template, the folder's own copy first.

        Raises:
            ConfigurationError: It is gone.
            TemplateError: It cannot be read.
        """
        path, self.template_notes = _template_of(self.folder, self.run)
        return WorkflowTemplate(path)

    @cached_property
    def _photos_by_row(self) -> tuple[dict[str, tuple[Path, ...]] | None, str]:
        """The rows' photos by the data that the run was made from, or why they are not known."""
        named = Path(str(self.run["data"]))
        data = next((each for each in (named, self.folder.parent / named.name) if each.exists()), None)
        if data is None:
            return None, f"{named}, which named the rows' photos, is gone"
        from runpod_comfy.dataset.rows import read_rows  # noqa: PLC0415 - a grid has no rows

        try:
            return {row.id: row.photos for row in read_rows(data).rows}, ""
        except RunpodComfyError as exc:
            return None, f"the rows' photos are not known: {exc}"

    def photos(self, line: Mapping[str, Any]) -> tuple[tuple[Path, ...] | None, list[str]]:
        """Return an image's photos, and what to know about them; None where they are not known or gone.

        They are those that its line names, else those of its row in the data that the run was made from.
        """
        if isinstance(line.get("photos"), list):
            return _found([(Path(str(each)), self.folder.parent / str(each)) for each in line["photos"]])
        if not self.run.get("data"):
            return (), []
        rows, reason = self._photos_by_row
        if rows is None:
            return None, [reason]
        if line.get("row_id") not in rows:
            return None, [f"{self.run['data']} has no row {line.get('row_id')} any more, which named its photos"]
        return _found([(each,) for each in rows[str(line["row_id"])]])


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


def _found(places: Iterable[Sequence[Path]]) -> tuple[tuple[Path, ...] | None, list[str]]:
    """Return each photo, at the first of the places where it may be."""
    photos: list[Path] = []
    for each in places:
        there = next((path for path in each if path.is_file()), None)
        if there is None:
            return None, [f"the photo {each[0]} is gone"]
        photos.append(there)
    return tuple(photos), ["the photos are read from where they were; no copy of them was kept"] if photos else []
