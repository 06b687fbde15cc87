"""The page with small pictures inside, to send as one file."""

from __future__ import annotations

import base64
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from runpod_comfy.dataset.thumbs import thumb_data, thumb_name
from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.gallery.data import gallery_data
from runpod_comfy.gallery.page import files_in, page_text, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runpod_comfy.dataset.manifest import TaskRecord
    from runpod_comfy.gallery.page import Gallery

__all__ = ["SINGLE_PAGE_NAME", "write_single_page"]

SINGLE_PAGE_NAME = "gallery-single.html"

logger = logging.getLogger(__name__)

_SIDE_PX = 128
_MAX_BYTES = 30_000_000


def write_single_page(gallery: Gallery, tasks: Mapping[str, TaskRecord], *, max_bytes: int = _MAX_BYTES) -> Path:
    """Write the page with its pictures and return its path.

    Raises:
        ConfigurationError: It would be larger than ``max_bytes``.
        OSError: It cannot be written.
    """
    root = gallery.root
    data = gallery_data(tasks.items(), images_wanted=gallery.images_wanted, files=files_in(root))
    numbers = [data["tasks"][image[0]][1] for image in data["images"]]
    paths = [root / thumb_name(number, image[1]) for number, image in zip(numbers, data["images"], strict=True)]
    with ThreadPoolExecutor() as pool:
        thumbs = list(pool.map(_embedded, paths))
    text = page_text({**gallery.about(), **data, "thumbs": thumbs, "live": None})
    size_bytes = len(text.encode())
    if size_bytes > max_bytes:
        raise ConfigurationError(
            f"One file of {len(paths):,} images would have {size_bytes / 1e6:.0f} MB, and browsers take some "
            f"{max_bytes / 1e6:.0f}. Pick fewer images first, or send the folder with gallery.html in it."
        )
    path = root / SINGLE_PAGE_NAME
    write_whole(path, text)
    return path


def _embedded(path: Path) -> str | None:
    """Return a thumbnail made smaller as a ``data:`` address, or None where there is none."""
    try:
        small = thumb_data(path.read_bytes(), side_px=_SIDE_PX)
    except (InputError, OSError) as exc:
        logger.warning("%s: left out of the page: %s", path, exc)
        return None
    return f"data:image/webp;base64,{base64.b64encode(small).decode()}"
