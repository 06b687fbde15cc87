"""Tables of words, in columns that line up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["table_lines"]

_WIDEST = 60


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines; cells are cut where they are very long.

    >>> table_lines(("NAME", "NOW"), [("steps", "20"), ("prompt", "a fox")])
    ['NAME    NOW', 'steps   20', 'prompt  a fox']
    """
    cells = [[_cut(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _cut(cell: str) -> str:
    line = " ".join(cell.split())
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"
