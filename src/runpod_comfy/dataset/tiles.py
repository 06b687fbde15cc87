"""What a contact sheet shows: images with what they were made with, and why others are missing.

>>> tiles = tiles_of_dataset(Path("out"))  # doctest: +SKIP
>>> tiles[0].name, tiles[0].values["cfg"]
('000000_0', 5)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.dataset.thumbs import thumb_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["Tile", "tiles_of_dataset", "tiles_of_files"]

_NOT_MADE = "not made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One place on a sheet.

    Attributes:
        name: What it is called.
        paths: Where its picture is, the best first: a small copy that may not exist, then the image. Empty where there
            is none.
        reason: Why there is none.
        sample: Its number within its row.
        size: Its width and height in pixels, where they are known.
        values: The variables and columns that it was made with.
    """

    name: str
    paths: tuple[Path, ...] = ()
    reason: str = ""
    sample: int = 0
    size: tuple[int, int] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def tiles_of_files(paths: Iterable[Path]) -> list[Tile]:
    """Return a tile for each file, by its name."""
    return [Tile(name=path.name, paths=(path,), size=_size_of(path)) for path in paths]


def tiles_of_dataset(folder: Path, *, num_samples: int = 1) -> list[Tile]:
    """Return the tiles of a dataset in the order of its rows, one for each image that there is or should be.

    Args:
        folder: The dataset's folder.
        num_samples: How many images a row should have at least.

    Raises:
        ConfigurationError: It is no dataset, or its manifest cannot be read.
    """
    records = sorted(read_manifest(folder / "manifest.jsonl").items(), key=lambda item: item[1].index)
    rows = _rows(records)
    tiles: list[Tile] = []
    for key, record in records:
        about = {**rows.get(_row_id(record), {}), **_cell(key, record)}
        tiles += _images(folder, record)
        there = {sample for sample, image in record.images.items() if image.get("kind") == "images"}
        tiles += [
            Tile(
                name=f"{record.index:06}_{sample}",
                reason=_reason(record),
                sample=sample,
                values={"row": record.index, "id": _row_id(record), "sample": sample, **about},
            )
            for sample in range(0 if record.images and not there else num_samples)
            if sample not in there
        ]
    return tiles


def _size_of(path: Path) -> tuple[int, int] | None:
    from PIL import Image  # noqa: PLC0415 - reads the header alone

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # noqa: PLR2004 - by EXIF, on its side
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError):
        return None
    return (height, width) if turned else (width, height)


def _images(folder: Path, record: TaskRecord) -> Iterable[Tile]:
    for sample, image in sorted(record.images.items()):
        if image.get("kind") != "images":
            continue
        small = folder / thumb_name(record.index, sample)
        own = {"row": record.index, "id": image["row_id"], "sample": sample, "seed": image.get("seed")}
        yield Tile(
            name=f"{record.index:06}_{sample}",
            paths=(small, folder / image["file"]),
            sample=sample,
            size=(image["width"], image["height"]) if image.get("width") and image.get("height") else None,
            values={**own, **image.get("variables", {}), **image.get("columns", {})},
        )


def _row_id(record: TaskRecord) -> str:
    lines = (*record.images.values(), *record.failures)
    return str(lines[0].get("row_id", "")) if lines else ""


def _cell(key: str, record: TaskRecord) -> dict[str, Any]:
    """Return the grid's values of a task, which its key ends with."""
    text = key.removeprefix(f"{_row_id(record)} ")
    try:
        cell = json.loads(text) if text.startswith("{") else None
    except ValueError:
        return {}
    return cell if isinstance(cell, dict) else {}


def _rows(records: Iterable[tuple[str, TaskRecord]]) -> dict[str, dict[str, Any]]:
    """Return what is the same in all images of a row: what a failed cell of it had too."""
    rows: dict[str, dict[str, Any]] = {}
    for key, record in records:
        cell = _cell(key, record)
        for image in record.images.values():
            values = {**image.get("columns", {}), **image.get("variables", {})}
            rows.setdefault(str(image["row_id"]), {name: v for name, v in values.items() if name not in cell})
            break
    return rows


def _reason(record: TaskRecord) -> str:
    if not record.failures:
        return _NOT_MADE
    error = record.failures[-1].get("error") or {}
    return f"{error.get('code', 'failed')}: {error.get('message', '')}"
