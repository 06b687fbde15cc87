"""The chunks of a PNG: read and written one by one, so that the pixels stay byte for byte as they are. Pure."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SIGNATURE", "TEXT_CHUNKS", "Chunk", "chunks_of", "png_of_chunks", "read_texts", "with_text"]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_MAX_TEXT_BYTES: Final = 64 * 1024 * 1024


class Chunk(NamedTuple):
    """One chunk: its kind, such as ``IDAT``, and its bytes."""

    kind: bytes
    data: bytes


def chunks_of(png: bytes) -> Iterator[Chunk]:
    """Yield a file's chunks up to its end.

    Raises:
        ValueError: It is no PNG, or cut off.
    """
    if not png.startswith(SIGNATURE):
        raise ValueError("it is no PNG")
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(png):
            raise ValueError("it is cut off")
        length, kind = struct.unpack_from(">I4s", png, at)
        if at + 12 + length > len(png):
            raise ValueError("it is cut off")
        yield Chunk(kind, png[at + 8 : at + 8 + length])
        at += 12 + length


def png_of_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Return the file that these chunks make."""
    parts = [SIGNATURE]
    for kind, data in chunks:
        parts += [struct.pack(">I4s", len(data), kind), data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(parts)


def read_texts(png: bytes) -> dict[str, str]:
    """Return a file's texts by their keywords; one that cannot be read is left out.

    Raises:
        ValueError: It is no PNG, or cut off.
    """
    found: dict[str, str] = {}
    for kind, data in chunks_of(png):
        if kind in TEXT_CHUNKS:
            keyword, _, rest = data.partition(b"\0")
            text = _text(kind, rest)
            if text is not None:
                found.setdefault(keyword.decode("latin-1"), text)
    return found


def with_text(png: bytes, keyword: str, text: str) -> bytes:
    """Return the file with a text, in place of one under the same keyword; everything else stays as it is.

    Raises:
        ValueError: It is no PNG, or cut off.
    """
    key = keyword.encode("latin-1")
    try:
        chunk = Chunk(b"tEXt", key + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        # Not compressed, in no language.
        chunk = Chunk(b"iTXt", key + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))
    kept = [each for each in chunks_of(png) if each.kind not in TEXT_CHUNKS or each.data.partition(b"\0")[0] != key]
    # Behind the header and what describes the pixels, before the first of them.
    first = next((place for place, each in enumerate(kept) if each.kind == b"IDAT"), len(kept) - 1)
    return png_of_chunks([*kept[:first], chunk, *kept[first:]])


def _text(kind: bytes, rest: bytes) -> str | None:
    try:
        if kind == b"tEXt":
            return rest.decode("latin-1")
        if kind == b"zTXt":
            return _inflated(rest[1:]).decode("latin-1")
        compressed = rest[0] == 1
        _, _, body = rest[2:].split(b"\0", 2)
        return (_inflated(body) if compressed else body).decode("utf-8", "replace")
    except (ValueError, IndexError, zlib.error):
        return None


def _inflated(data: bytes) -> bytes:
    # A text of gigabytes may hide in a few kilobytes.
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, _MAX_TEXT_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError("a text is too long")
    return text
