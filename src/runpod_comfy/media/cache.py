"""Inputs that were read and encoded before: the same photo in a thousand jobs is one photo.

A file is known by its device, inode, size and time of change, a picture by its pixels. Bytes need no memory: they are
sent as they are, or their content would have to be hashed, which takes as long as looking at it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from runpod_comfy.media.pictures import decoding

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["MAX_CACHED_BYTES", "Cache", "file_key", "picture_key"]

MAX_CACHED_BYTES = 128 * 1024 * 1024

_SETTLED_S = 2.0
_ORIENTATION = 0x0112

_T = TypeVar("_T")
_Entry: TypeAlias = tuple[_T, int]


class Cache(Generic[_T]):
    """Remembers what was made last, up to so many bytes; from any thread.

    Args:
        size_of: How many bytes a value has.
        limit_bytes: How many bytes are remembered; a larger value is made and forgotten.
    """

    def __init__(self, size_of: Callable[[_T], int], *, limit_bytes: int = MAX_CACHED_BYTES) -> None:
        self._size_of = size_of
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Entry[_T]] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[Hashable, Future[_T]] = {}

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what was made for this key, making it where it is not known; others who want it wait meanwhile."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
            making = self._making.get(key)
            if making is None:
                mine: Future[_T] = Future()
                self._making[key] = mine
        if making is not None:
            # Whoever made it may have failed under a name of its own: then this one fails under its own.
            return make() if making.exception() is not None else making.result()
        try:
            value = make()
        except BaseException as exc:
            self._made(key, None)
            mine.set_exception(exc)
            raise
        self._made(key, (value, self._size_of(value)))
        mine.set_result(value)
        return value

    def _made(self, key: Hashable, entry: _Entry[_T] | None) -> None:
        with self._lock:
            del self._making[key]
            if entry is None or entry[1] > self._limit_bytes:
                return
            self._kept[key] = entry
            self._kept_bytes += entry[1]
            while self._kept_bytes > self._limit_bytes:
                _, (_, size_bytes) = self._kept.popitem(last=False)
                self._kept_bytes -= size_bytes


def file_key(path: str) -> Hashable | None:
    """Return what changes when a file does, or None where that cannot be told."""
    try:
        about = Path(path).stat()
    except (OSError, ValueError):
        return None
    if time.time() - about.st_mtime < _SETTLED_S:
        # Written a moment ago: if it is written again, clocks that tick every second or two will not tell.
        return None
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


def picture_key(image: Any) -> Hashable | None:
    """Return what tells a PIL image's content from any other's, or None where that fails.

    Its identity would not do: a picture can be painted on between two jobs.
    """
    try:
        with decoding():
            content = hashlib.sha256(image.tobytes())
            palette = (image.palette.mode, image.palette.tobytes()) if image.palette is not None else None
            orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - Pillow's plugins raise anything; encoding it will say what is wrong
        return None
    kept = tuple(repr(image.info.get(name)) for name in ("transparency", "icc_profile"))
    return (image.mode, image.size, content.digest(), palette, orientation, kept)
