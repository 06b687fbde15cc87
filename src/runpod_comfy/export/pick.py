"""Chosen images in a folder of their own, which is a dataset again: the gallery and every export take it."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING

from runpod_comfy.dataset.card import card_text
from runpod_comfy.dataset.manifest import Manifest
from runpod_comfy.dataset.metadata import metadata_text
from runpod_comfy.dataset.thumbs import thumb_name
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.export.placing import link_or_copy, new_folder
from runpod_comfy.export.report import Result

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Picture, Source

__all__ = ["pick"]

_SIDECARS = (".txt", ".json")


def pick(source: Source, wanted: Collection[tuple[str, int]], request: Request) -> Result:
    """Link the chosen images into a new folder, with their captions, thumbs, manifest, metadata, template and card.

    Args:
        source: The dataset.
        wanted: The images, as task and sample.
        request: Where to, and how.

    Raises:
        ConfigurationError: The folder exists, or none of the images is there.
        OSError: It cannot be written.
    """
    pictures = [each for each in source.pictures if (each.line["task"], each.line["sample"]) in wanted]
    if not pictures:
        raise ConfigurationError(
            f"None of the {len(wanted):,} chosen images is in {source.root}. Check --stars, and that it is "
            "their dataset."
        )
    run = {**source.run, "id": secrets.token_hex(8), "picked_from": source.run.get("id")}
    with new_folder(request.target) as folder:
        with Manifest.open(folder / "manifest.jsonl") as manifest:
            for picture in pictures:
                request.placing.place(picture, folder / picture.line["file"])
                _take_along(picture, source.root, folder)
                manifest.add(picture.line)
                request.on_image()
        _write_about(folder, run, pictures, title=request.target.resolve().name)
        _copy_template(source.root, folder)
    missing = len(wanted) - len(pictures)
    warnings = (f"{missing:,} chosen images are not in {source.root} and were left out.",) if missing else ()
    return Result(path=request.target, images=len(pictures), warnings=warnings)


def _take_along(picture: Picture, root: Path, folder: Path) -> None:
    file = picture.path.relative_to(root)
    thumb = root / thumb_name(picture.line["index"], picture.line["sample"])
    for path in (*(root / file.with_suffix(ending) for ending in _SIDECARS), thumb):
        if path.is_file() and not path.is_symlink():
            place = folder / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # two images whose names differ in their endings only
                link_or_copy(path, place)


def _write_about(folder: Path, run: dict[str, object], pictures: list[Picture], *, title: str) -> None:
    rows = [picture.row for picture in pictures]
    texts = {
        "run.json": json.dumps(run, indent=2, ensure_ascii=False) + "\n",
        "metadata.jsonl": metadata_text(rows),
        "README.md": card_text(rows, run, title=title),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _copy_template(root: Path, folder: Path) -> None:
    for path in (root / "template").rglob("*"):
        if path.is_file() and not path.is_symlink():
            place = folder / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, place)
