"""What the bytes of a file say of it without being decoded: its media type, and a picture's size."""

from __future__ import annotations

import re
import struct

__all__ = ["media_type_of", "size_in_container"]

_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), media_type)
    for pattern, media_type in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"BM.{4}\0{4}", "image/bmp"),
        (rb"II\*\0|MM\0\*", "image/tiff"),
        (rb".{4}ftypavi[fs]", "image/avif"),
        (rb".{4}ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", "image/heic"),
        (rb".{4}ftyp", "video/mp4"),
        (rb"\x1a\x45\xdf\xa3", "video/webm"),
    )
)


def media_type_of(data: bytes) -> str | None:
    """Return the media type that the first bytes of a file tell, for example ``image/png``, or None."""
    return next((media_type for pattern, media_type in _SIGNATURES if pattern.match(data)), None)


def size_in_container(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, JPEG or WebP, or None where the file is another one, or cut short."""
    by_type = {"image/png": _png_size, "image/jpeg": _jpeg_size, "image/webp": _webp_size}
    read = by_type.get(media_type_of(data) or "")
    try:
        return None if read is None else read(data)
    except struct.error:  # it ends within a field
        return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return (width, height) if at <= len(data) else None


# What follows 0xFF within coded data and is no marker: a stuffed zero, restarts, fill bytes.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    # Segments are skipped by their length: the EXIF thumbnail in one of them has an end marker of its own.
    size, scans, at = None, 0, 2
    while found := _JPEG_MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == _JPEG_END:
            return size if scans else None
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">3xHH", data, at)
            size = (width, height)
        scans += marker == _JPEG_SCAN
        at += struct.unpack_from(">H", data, at)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
        return None
    match data[12:16]:
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
            return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
        case b"VP8L":
            bits = struct.unpack_from("<I", data, 21)[0]
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    return None
