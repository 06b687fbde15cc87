"""Images without what programs wrote into them: the workflow and the prompt above all. Pure.

The pixels are not encoded again: pieces of the file are left out. What says how the pixels are meant stays: a colour
profile, and the orientation of a photo.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from runpod_comfy.errors import InputError
from runpod_comfy.export.png import TEXT_CHUNKS, chunks_of, png_of_chunks
from runpod_comfy.media.formats import media_type_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["strip_metadata"]

_PNG_DROPPED: Final = TEXT_CHUNKS | {b"eXIf", b"tIME"}
_JPEG_APP0, _JPEG_APP1, _JPEG_APP2, _JPEG_APP14, _JPEG_APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_JPEG_COMMENT, _JPEG_END = 0xFE, 0xD9
# What follows 0xFF within coded data and is no marker: a stuffed zero, restarts, fill bytes.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_WEBP_DROPPED: Final = frozenset({b"EXIF", b"XMP "})
_WEBP_FLAGS: Final = 0x08 | 0x04  # EXIF and XMP
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = 1


def strip_metadata(data: bytes, label: str) -> bytes:
    """Return an image's bytes without its metadata.

    Args:
        data: A PNG, JPEG or WebP.
        label: What errors call it.

    Raises:
        InputError: It is another format, or damaged.
    """
    media_type = media_type_of(data)
    try:
        match media_type:
            case "image/png":
                return png_of_chunks(each for each in chunks_of(data) if each.kind not in _PNG_DROPPED)
            case "image/jpeg":
                return b"".join(_jpeg_without(data))
            case "image/webp":
                return _webp_without(data)
    except (ValueError, struct.error) as exc:
        raise InputError(f"{label} is damaged, so its metadata cannot be taken out: {exc}.") from exc
    raise InputError(
        f"{label} is {media_type or 'of an unknown format'}: metadata is taken out of PNG, JPEG and WebP only. Export "
        "without --strip-metadata, or save images as PNG."
    )


def _jpeg_without(data: bytes) -> Iterator[bytes]:
    """Yield the parts to keep; what stands behind the picture's end is not among them."""
    yield data[:2]
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            raise ValueError("it is cut off")
        yield data[at : found.start()]  # of a scan, and nothing elsewhere
        at, marker = found.start(), data[found.end() - 1]
        if marker == _JPEG_END:
            yield data[at : at + 2]
            return
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if end > len(data):
            raise ValueError("it is cut off")
        yield _jpeg_segment(marker, data[at:end])
        at = end


def _jpeg_segment(marker: int, segment: bytes) -> bytes:
    """Return what is kept of a segment: of what applications wrote, JFIF, a colour profile and Adobe's transform."""
    body = segment[4:]
    if marker == _JPEG_APP1 and body.startswith(b"Exif\0\0"):
        orientation = _orientation(body[6:])
        return b"" if orientation == _UPRIGHT else _exif_of_orientation(orientation)
    is_applications = _JPEG_APP0 <= marker <= _JPEG_APP15 or marker == _JPEG_COMMENT
    is_needed = marker in {_JPEG_APP0, _JPEG_APP14} or (marker == _JPEG_APP2 and body.startswith(b"ICC_PROFILE\0"))
    return segment if is_needed or not is_applications else b""


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return _UPRIGHT
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for number in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, first + 2 + 12 * number)
            if tag == _ORIENTATION and kind == 3 and 1 <= value <= 8:  # noqa: PLR2004 - a short, one of EXIF's eight
                return int(value)
    except struct.error:
        pass
    return _UPRIGHT


def _exif_of_orientation(orientation: int) -> bytes:
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return struct.pack(">BBH", 0xFF, _JPEG_APP1, len(body) + 2) + body


def _webp_without(data: bytes) -> bytes:
    kept, at = [], 12
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if len(data) < end:
        raise ValueError("it is cut off")
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        following = at + 8 + length + length % 2
        chunk = data[at:following]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:]
        if kind not in _WEBP_DROPPED:
            kept.append(chunk)
        at = following
    body = b"".join(kept)
    if not re.match(rb"VP8[ LX]", body):
        raise ValueError("it holds no picture")
    return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WEBP") + body
