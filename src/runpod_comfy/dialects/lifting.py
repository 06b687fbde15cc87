"""Base64 taken out of a line before the line is parsed.

Nearly all of an answer is base64. Parsing it as JSON copies each of it once more, and keeps Python's lock for as long
as that takes (0.1 s for 40 MB); finding where it begins and ends, and decoding it from there, does neither.
"""

from __future__ import annotations

import re

from runpod_comfy.media.wire import from_base64

__all__ = ["Lifted", "lift"]

# A key that opens a string. Within a JSON string each quote has a backslash before it, so no text can look like this.
_OPENING = re.compile(rb'"(?:image|data)": ?"')
_LEAST_CHARS = 4096


class Lifted:
    """The binary values of one line; in the line itself, each is a number in their place."""

    def __init__(self) -> None:
        self._values: list[memoryview] = []

    def add(self, value: memoryview) -> bytes:
        """Keep a value and return what stands for it."""
        self._values.append(value)
        return b"%d" % (len(self._values) - 1)

    def decode(self, value: object) -> bytes:
        """Return the bytes that a value of the line stands for: a string of base64, or a number of ours.

        Raises:
            ValueError: It is neither.
        """
        if isinstance(value, str):
            return from_base64(value, allow_data_uri=True)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self._values):
            return from_base64(self._values[value], allow_data_uri=True)
        raise ValueError("neither base64 nor a value that was lifted out")


def lift(line: bytes) -> tuple[bytes, Lifted]:
    """Return a line without its large binary values, and those values."""
    lifted = Lifted()
    parts: list[bytes | memoryview] = []
    view = memoryview(line)
    done = 0
    for opening in _openings(line):
        start = opening + 1
        end = line.find(b'"', start)
        if end - start < _LEAST_CHARS or line.find(b"\\", start, end) >= 0:
            continue  # too short to matter, never closed, or escaped, which base64 need not be: the parser knows
        parts += (view[done:opening], lifted.add(view[start:end]))
        done = end + 1
    return (b"".join((*parts, view[done:])) if parts else line), lifted


def _openings(line: bytes) -> list[int]:
    """Return where strings begin that may be binary: the places of their first quotes."""
    found, at = [], 0
    while opening := _OPENING.search(line, at):
        found.append(opening.end() - 1)
        # The next key cannot begin before this string has ended.
        at = max(opening.end(), line.find(b'"', opening.end()))
    return found
