"""A few lines at the bottom of a terminal that are drawn over and over, with other lines scrolling above them.

Rich's ``Live`` counts the lines it drew and goes up by as many. A terminal that becomes narrower wraps them, and then
pieces of the old block stay on the screen; here the wrapped lines are counted anew for the width of now.
"""

from __future__ import annotations

import os
import shutil
import threading
import unicodedata
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LiveBlock", "columns_of", "cut"]

_UP, _ERASE_BELOW = "\x1b[{}A", "\r\x1b[J"
_REDRAWN_EVERY_S = 0.25


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns


class LiveBlock:
    """The lines that ``render`` gives, drawn four times a second while it is entered.

    Args:
        render: Gives the lines for a width in columns; each must fit into it.
        write: Writes to the terminal.
        width: Gives its width in columns.
    """

    def __init__(
        self,
        render: Callable[[int], list[str]],
        *,
        write: Callable[[str], None],
        width: Callable[[], int] = _terminal_width,
    ) -> None:
        self._render = render
        self._write = write
        self._width = width
        self._drawn: list[int] = []  # the columns that each line on the screen took
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, name="live-block", daemon=True)

    def __enter__(self) -> Self:
        if os.name == "nt":
            import colorama  # type: ignore[import-untyped]  # noqa: PLC0415 - click brings it where it is needed

            colorama.just_fix_windows_console()
        self.draw()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._write(self._erasing())
            self._drawn = []

    def draw(self) -> None:
        """Draw the lines as they are now."""
        with self._lock:
            self._write(self._erasing() + self._drawing())

    def write_line(self, text: str) -> None:
        """Write a line that stays, above the block."""
        with self._lock:
            self._write(f"{self._erasing()}{text}\n{self._drawing()}")

    def _keep_drawing(self) -> None:
        while not self._stop.wait(_REDRAWN_EVERY_S):
            self.draw()

    def _erasing(self) -> str:
        width = max(1, self._width())
        rows = sum(max(1, -(-columns // width)) for columns in self._drawn)
        return (_UP.format(rows) if rows else "") + _ERASE_BELOW

    def _drawing(self) -> str:
        lines = self._render(max(1, self._width() - 1))
        self._drawn = [columns_of(line) for line in lines]
        return "".join(f"{line}\n" for line in lines)


def columns_of(text: str) -> int:
    """Return how many columns a text takes; its colours take none, and characters of East Asia two each."""
    first, *coloured = text.split("\x1b[")
    shown = first + "".join(part.partition("m")[2] for part in coloured)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in shown)


def cut(text: str, columns: int) -> str:
    """Return a text without colours so that it takes no more columns."""
    if columns_of(text) <= columns:
        return text
    while text and columns_of(text) > columns - 3:
        text = text[: -max(1, (columns_of(text) - columns + 3) // 2)]
    return f"{text}..."[: max(0, columns)]
