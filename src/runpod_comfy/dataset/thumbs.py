"""Small pictures of a dataset's images, for the pages that show thousands of them at once.

``__gallery__/thumbs/000/000123_2.webp`` is the thumbnail of row 123's sample 2: 256 px at its longer side. A browser
that scrolls through ten thousand originals of 1024 x 1024 stands still for seconds at a time; through these it does
not. They are a convenience: one that cannot be made is logged, and nothing else.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.errors import InputError
from runpod_comfy.media.pictures import decoding, open_picture, picture_errors, upright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from PIL import Image

    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["Missing", "drop_thumb", "keep_thumb", "make_thumbs", "missing_thumbs", "thumb_data", "thumb_name"]

logger = logging.getLogger(__name__)

_SIDE_PX, _QUALITY, _METHOD = 256, 72, 2
_ROWS_A_FOLDER = 1000
_FOLDER = "__gallery__/thumbs"
_HIGH_BYTE = 256  # pixels of 16 bits, shown in 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An image without a thumbnail.

    Attributes:
        index: Its row's number.
        sample: Its number in the row.
        path: Its file.
    """

    index: int
    sample: int
    path: Path


def thumb_name(index: int, sample: int) -> str:
    """Return a thumbnail's path below the dataset's folder, with slashes.

    >>> thumb_name(123, 2)
    '__gallery__/thumbs/000/000123_2.webp'
    """
    return f"{_FOLDER}/{index // _ROWS_A_FOLDER:03}/{index:06}_{sample}.webp"


def thumb_data(data: bytes, *, side_px: int = _SIDE_PX) -> bytes:
    """Return a picture made small, as WebP.

    Raises:
        InputError: It cannot be decoded.
    """
    with picture_errors("the image"):
        image = open_picture(data, "the image")
        # Lets JPEG's decoder leave out what would be thrown away.
        image.draft("RGB", (side_px, side_px))
        image.thumbnail((side_px, side_px), reducing_gap=2.0)
        encoded = io.BytesIO()
        _plain(upright(image)).save(encoded, "WEBP", quality=_QUALITY, method=_METHOD)
        return encoded.getvalue()


def keep_thumb(root: Path, index: int, sample: int, data: bytes) -> bool:
    """Write an image's thumbnail and tell whether that went well; blocks, and raises nothing that data can cause."""
    try:
        with decoding():
            small = thumb_data(data)
        _write(root, thumb_name(index, sample), small)
    except (InputError, OSError) as exc:
        logger.warning("row %s, sample %s: no thumbnail could be made: %s", index, sample, exc)
        return False
    return True


def drop_thumb(root: Path, index: int, sample: int) -> None:
    """Remove an image's thumbnail, where there is one: the image is about to be replaced."""
    try:
        (root / thumb_name(index, sample)).unlink(missing_ok=True)
    except OSError as exc:
        logger.warning("row %s, sample %s: an old thumbnail stays: %s", index, sample, exc)


def missing_thumbs(root: Path, tasks: Mapping[str, TaskRecord]) -> list[Missing]:
    """Return the images on disk that have no thumbnail yet."""
    there = {
        f"{_FOLDER}/{folder.name}/{each.name}"
        for folder in _entries(root / _FOLDER)
        if folder.is_dir()
        for each in _entries(Path(folder.path))
    }
    wanted = (
        Missing(index=record.index, sample=sample, path=root / image["file"])
        for record in tasks.values()
        for sample, image in record.images.items()
        if image["file"].startswith("images/") and thumb_name(record.index, sample) not in there
    )
    # A manifest may come from somebody else: nothing outside the folder is read for it.
    inside = (root / "images").resolve()
    return [each for each in wanted if each.path.is_file() and each.path.resolve().is_relative_to(inside)]


def make_thumbs(root: Path, wanted: Sequence[Missing], *, on_thumb: Callable[[int], None] = lambda _: None) -> int:
    """Make thumbnails in as many threads as there are processors and return how many could be made.

    Args:
        root: The dataset's folder.
        wanted: Of which images.
        on_thumb: Called after each with how many are done.
    """
    made = 0
    # Pillow decodes without Python's lock. The list of warnings belongs to the process, so it is left alone meanwhile.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")
        for done, is_made in enumerate(pool.map(lambda each: _make(root, each), wanted), 1):
            made += is_made
            on_thumb(done)
    return made


def _make(root: Path, missing: Missing) -> bool:
    try:
        _write(root, thumb_name(missing.index, missing.sample), thumb_data(missing.path.read_bytes()))
    except (InputError, OSError) as exc:
        logger.warning("%s: no thumbnail could be made: %s", missing.path, exc)
        return False
    return True


def _plain(image: Image.Image) -> Image.Image:
    """Return the picture in a mode that WebP has."""
    if image.mode in {"I;16", "I"}:
        return image.convert("I").point(lambda value: value * (1 / _HIGH_BYTE)).convert("L")
    if image.mode in {"RGB", "RGBA"}:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return ()


def _write(root: Path, name: str, data: bytes) -> None:
    path = root / name
    # A dataset may come from somebody else, with symlinks in it: nothing outside the folder is written.
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{path.parent} goes through a symlink that leads out of {root}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
