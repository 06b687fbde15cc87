"""``export hf``: a folder that ``datasets`` and Hugging Face's hub take as it is, and the command that uploads it.

Without a folder to make, the dataset's own is brought up to date: its captions, its metadata and its card.
"""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.dataset.card import card_text
from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.metadata import metadata_text
from runpod_comfy.dataset.naming import split_word_in
from runpod_comfy.export.placing import new_folder
from runpod_comfy.export.report import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Source

__all__ = ["export_hf", "refresh_in_place"]

# https://huggingface.co/docs/hub/repositories-recommendations: under 10,000 entries a folder, under 100,000 files.
_ENTRIES_IN_FOLDER: Final = 10_000
_FILES: Final = 100_000
_FILE_BYTES: Final = 50_000_000_000
# What is of use on this machine only.
_NOT_UPLOADED: Final = (".runpod-comfy/*", "__gallery__/*", "gallery.html", "manifest.jsonl", "run.json")


def export_hf(source: Source, request: Request) -> Result:
    """Write images, metadata and card into a new folder.

    Raises:
        ConfigurationError: The folder exists.
        InputError: An image's metadata cannot be taken out.
        OSError: It cannot be written.
    """
    rows: list[dict[str, Any]] = []
    with new_folder(request.target) as folder:
        for picture in source.pictures:
            name = picture.number_path if request.strip_inputs else str(picture.row["file_name"])
            request.placing.place(picture, folder / name)
            rows.append({**picture.row, "file_name": name})
            request.on_image()
        (folder / "metadata.jsonl").write_text(metadata_text(rows), encoding="utf-8", newline="\n")
        card = card_text(rows, source.run, title=request.target.resolve().name, is_exported=True)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    return _result(request.target, rows, [])


def refresh_in_place(source: Source, *, caption: str | None) -> Result:
    """Write the metadata and the card of the dataset's own folder; what is made later gets the same captions.

    Raises:
        ConfigurationError: Another process writes into it.
        OSError: It cannot be written.
    """
    with OutputFolder(source.root) as folder:
        if caption is not None:
            folder.write_run({**source.run, "caption": caption})
    return _result(source.root, [picture.row for picture in source.pictures], _NOT_UPLOADED)


def _result(folder: Path, rows: Sequence[dict[str, Any]], left_out: Sequence[str]) -> Result:
    excluded = [word for pattern in left_out for word in ("--exclude", pattern)]
    name = folder.resolve().name
    command = shlex.join(["hf", "upload", f"YOUR-NAME/{name}", str(folder), ".", "--repo-type", "dataset", *excluded])
    return Result(path=folder, images=len(rows), warnings=tuple(_beyond_limits(folder, rows)), next_step=command)


def _beyond_limits(folder: Path, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what the hub or its loaders would not take as it is."""
    names = [str(row["file_name"]) for row in rows]
    if len(names) > _FILES:
        yield f"the hub takes fewer than {_FILES:,} files a repository, and these are {len(names):,}: export parquet."
    for parent, count in Counter(str(PurePosixPath(name).parent) for name in names).items():
        if count >= _ENTRIES_IN_FOLDER:
            yield f"the hub takes fewer than {_ENTRIES_IN_FOLDER:,} files a folder, and {parent} has {count:,}."
    if large := next((name for name in names if (folder / name).stat().st_size > _FILE_BYTES), None):
        yield f"the hub takes no file over {_FILE_BYTES // 10**9} GB, and {large} is larger."
    if split := next((name for name in names if split_word_in(name)), None):
        yield (
            f"for the word {split_word_in(split)!r} in {split} load_dataset('imagefolder', data_dir=…) leaves images "
            "out; load_dataset of the folder itself does not, as its card says what is data."
        )
    others = {path.name for path in folder.glob("*") if path.suffix in {".csv", ".parquet"}}
    if others:
        yield f"{min(others)} beside metadata.jsonl makes loaders fail or take it for the data: move it elsewhere."
