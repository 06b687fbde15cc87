"""Lines cut into pieces and put together again.

RunPod carries what a handler yields in chunks of at most 1 MB (docs: operation reference), so a line of JSON travels
as string pieces of which **only the last one ends in a newline**. Readers must not rely on where a line was cut, nor
on one piece holding no more than one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_LINE_CHARS", "MAX_PIECE_BYTES", "LineJoiner", "cut_line"]

MAX_PIECE_BYTES = 1_000_000
"""RunPod's limit for one yield. Whether it means 10⁶ or 2²⁰ bytes is unconfirmed, so the smaller one is kept."""

MAX_LINE_CHARS = 128 * 1024 * 1024
"""A longer line is given up: our worker's largest output is 64 MiB, which is 86 MiB of base64."""

_ENVELOPE_BYTES = 1_000


def cut_line(line: str) -> Iterator[str]:
    """Yield the pieces of an ASCII line, the last with a newline, each under 1 MB once it is JSON again.

    A piece is sent as a JSON string, in which each quote and backslash takes two bytes, so a line with many of them
    is cut at half the size.
    """
    escaped = line.count('"') + line.count("\\")
    room = MAX_PIECE_BYTES - _ENVELOPE_BYTES
    step = room - escaped if escaped < room // 10 else room // 2
    for start in range(0, len(line) - step, step):
        yield line[start : start + step]
    last = (len(line) - 1) // step * step if line else 0
    yield line[last:] + "\n"


class LineJoiner:
    """Puts pieces together again; knows nothing of what the lines say."""

    def __init__(self, *, max_chars: int = MAX_LINE_CHARS) -> None:
        self._max_chars = max_chars
        self._pieces: list[str] = []
        self._chars = 0
        self.overlong = 0

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._pieces)

    def feed(self, piece: str) -> Iterator[str]:
        """Yield each line that this piece ends. Lines over the limit are dropped and counted in ``overlong``."""
        start = 0
        while (end := piece.find("\n", start)) >= 0:
            self._keep(piece[start:end])
            yield from self._end()
            start = end + 1
        if start < len(piece):
            self._keep(piece[start:])

    def abandon(self) -> None:
        """Give up the line that has begun: its end will not come."""
        self._pieces, self._chars = [], 0

    def _keep(self, piece: str) -> None:
        self._chars += len(piece)
        if self._chars > self._max_chars:
            # The head stays as a marker that a line is under way; its size is bounded by one piece.
            del self._pieces[1:]
        else:
            self._pieces.append(piece)

    def _end(self) -> Iterator[str]:
        pieces, chars = self._pieces, self._chars
        self._pieces, self._chars = [], 0
        if chars > self._max_chars:
            self.overlong += 1
        elif chars:
            yield "".join(pieces)
