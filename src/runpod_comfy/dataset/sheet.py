"""Contact sheets drawn: pages of at most 64 million pixels, one in memory at a time.

A page is a pile of strips (a title, headings, a row of tiles); pictures are opened when their strip is drawn, several
at once, as small as the tile needs. So memory is that of one page however many images there are.
"""

from __future__ import annotations

import os
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runpod_comfy.dataset.sheet_layout import Legend, Table
    from runpod_comfy.dataset.tiles import Tile

__all__ = ["MAX_PAGE_PIXELS", "SheetStyle", "draw_pages"]

MAX_PAGE_PIXELS: Final = 64_000_000
"""No page has more: viewers and web sites refuse much larger pictures."""

_MAX_SIDE: Final = 8000
_TEXT_PX: Final = 14
_LINE_PX: Final = 20
_GAP_PX: Final = 4
_MARGIN_PX: Final = 12
_MIN_WIDTH_PX: Final = 480  # for words
_LEAST_SHARE: Final = 2  # of a cell's longer side: below it a reason has to be readable
_HEAD_PX: Final = 180  # of the rows' headings
_BACKGROUND, _INK, _FAINT, _EMPTY, _FAULT = "#16181d", "#f2f3f5", "#a4a9b3", "#23262d", "#4a2328"

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetStyle:
    """How a sheet looks.

    Attributes:
        title: The first line of each page.
        cell_px: The longer side of a picture.
        labels: Whether tiles have their names below them.
    """

    title: str
    cell_px: int = 256
    labels: bool = True


@dataclass(frozen=True, slots=True)
class _Cell:
    """The room that each tile has, and whether its name stands below it."""

    width: int
    height: int
    labels: bool

    @classmethod
    def for_all(cls, tables: Sequence[Table], style: SheetStyle) -> _Cell:
        """Return the smallest room in which all pictures fit, as far as their sizes are known."""
        side = style.cell_px
        tiles = (tile for table in tables for row in table.cells for tile in row if tile is not None and tile.paths)
        sizes = {tile.size for tile in tiles} or {None}
        shapes = [
            (side, side)
            if size is None or min(size) < 1
            else (side * size[0] // max(size), side * size[1] // max(size))
            for size in sizes
        ]
        least = side // _LEAST_SHARE
        return cls(max(least, *(w for w, _ in shapes)), max(least, *(h for _, h in shapes)), style.labels)

    @property
    def pitch(self) -> int:
        """From one tile to the next."""
        return self.width + _GAP_PX


@dataclass(frozen=True, slots=True)
class _Strip:
    """A full-width piece of a page, drawn when its place is known."""

    height: int
    draw: Callable[[Image.Image, int], None]
    is_heading: bool = False  # belongs to what follows


def draw_pages(tables: Sequence[Table], legend: Legend, style: SheetStyle) -> Iterator[Image.Image]:
    """Yield the pages, one after the other."""
    cell = _Cell.for_all(tables, style)
    sides = [_slices(table, cell) for table in tables]
    width = max((_width(part, cell) for parts in sides for part in parts), default=0)
    width = max(width, _MIN_WIDTH_PX)
    tall = min(_MAX_SIDE, (MAX_PAGE_PIXELS - 1) // width)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        strips = (strip for parts in sides for part in parts for strip in _strips(part, cell, width, threads))
        top = _legend_strip(legend, style, width)
        for page in _paginated(strips, tall - 2 * _MARGIN_PX - top.height):
            yield _drawn([top, *page], width)


def _slices(table: Table, cell: _Cell) -> list[Table]:
    """Cut a table that is too wide into tables side by side."""
    if not table.cells:
        return []
    most = (_MAX_SIDE - 2 * _MARGIN_PX - (_HEAD_PX if table.rows else 0)) // cell.pitch
    wide = len(table.cells[0])
    return [
        replace(
            table,
            columns=table.columns[start : start + most],
            cells=tuple(row[start : start + most] for row in table.cells),
        )
        for start in range(0, wide, most)
    ]


def _width(table: Table, cell: _Cell) -> int:
    return 2 * _MARGIN_PX + (_HEAD_PX if table.rows else 0) + len(table.cells[0]) * cell.pitch


def _strips(table: Table, cell: _Cell, width: int, threads: ThreadPoolExecutor) -> Iterator[_Strip]:
    left = _MARGIN_PX + (_HEAD_PX if table.rows else 0)
    if table.title:
        title = _cut(table.title, width - 2 * _MARGIN_PX)
        yield _Strip(
            _LINE_PX * 2, lambda page, y: _write(page, (_MARGIN_PX, y + _LINE_PX // 2), title), is_heading=True
        )
    heads = _headings(table, cell, left)
    if heads is not None:
        yield heads
    for number, row in enumerate(table.cells):
        head = table.rows[number] if table.rows else ""
        yield _row_strip(row, head, cell, left, threads)


def _headings(table: Table, cell: _Cell, left: int) -> _Strip | None:
    if not table.columns:
        return None
    lines = [_wrapped(text, cell.width) for text in table.columns]

    def draw(page: Image.Image, y: int) -> None:
        for number, texts in enumerate(lines):
            for line, text in enumerate(texts):
                _write(page, (left + number * cell.pitch, y + line * _LINE_PX), text)

    return _Strip(_LINE_PX * max(map(len, lines)) + _GAP_PX, draw, is_heading=True)


def _row_strip(row: Sequence[Tile | None], head: str, cell: _Cell, left: int, threads: ThreadPoolExecutor) -> _Strip:
    def draw(page: Image.Image, y: int) -> None:
        for line, text in enumerate(_wrapped(head, _HEAD_PX - 2 * _GAP_PX, most=max(1, cell.height // _LINE_PX))):
            _write(page, (_MARGIN_PX, y + line * _LINE_PX), text)
        pictures = threads.map(lambda tile: _picture(tile, cell) if tile else None, row)
        for number, (tile, picture) in enumerate(zip(row, pictures, strict=True)):
            if tile is not None:
                _put(page, (left + number * cell.pitch, y), tile, picture, cell)

    return _Strip(cell.height + _GAP_PX + (_LINE_PX if cell.labels else 0), draw)


def _picture(tile: Tile, cell: _Cell) -> Image.Image | str:
    """Return a tile's picture in its size, or why there is none."""
    reason, side = tile.reason, max(cell.width, cell.height)
    for path in tile.paths:
        try:
            with Image.open(path) as image:
                if max(image.size) < side and path != tile.paths[-1]:
                    continue  # a small copy that is too small
                image.draft("RGB", (side, side))  # JPEG decodes to a fraction at once
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((cell.width, cell.height))
                return upright.convert("RGB")
        except FileNotFoundError:
            reason = f"{path.name} is gone"
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            reason = f"{path.name} cannot be read: {exc}"
    return reason


def _put(page: Image.Image, at: tuple[int, int], tile: Tile, picture: Image.Image | str | None, cell: _Cell) -> None:
    x, y = at
    if isinstance(picture, Image.Image):
        page.paste(picture, (x + (cell.width - picture.width) // 2, y + (cell.height - picture.height) // 2))
    else:
        failed = bool(tile.paths) or ":" in tile.reason
        ImageDraw.Draw(page).rectangle(
            (x, y, x + cell.width - 1, y + cell.height - 1), fill=_FAULT if failed else _EMPTY
        )
        lines = _wrapped(picture or "", cell.width - 2 * _GAP_PX, most=max(1, (cell.height - _GAP_PX) // _LINE_PX))
        for number, text in enumerate(lines):
            _write(page, (x + _GAP_PX, y + _GAP_PX + number * _LINE_PX), text)
    if cell.labels:
        _write(page, (x, y + cell.height + 2), _cut(tile.name, cell.width), fill=_FAINT)


def _legend_strip(legend: Legend, style: SheetStyle, width: int) -> _Strip:
    counts = f"{legend.images:,} images" + (f", {legend.missing:,} missing" if legend.missing else "")
    room = width - 2 * _MARGIN_PX
    lines = [_cut(f"{style.title} · {counts}", room)]
    if legend.varying:
        lines.append(_cut(f"varies: {', '.join(legend.varying)}", room))
    if legend.same:
        lines += _wrapped(f"same: {' · '.join(legend.same)}", room, most=3)

    def draw(page: Image.Image, y: int) -> None:
        for number, text in enumerate(lines):
            _write(page, (_MARGIN_PX, y + number * _LINE_PX), text, fill=_FAINT if number else _INK)

    return _Strip(_LINE_PX * len(lines) + _MARGIN_PX, draw)


def _paginated(strips: Iterable[_Strip], room: int) -> Iterator[list[_Strip]]:
    """Fill pages; headings stay with what they head, and are drawn again where a page goes on with it."""
    page: list[_Strip] = []
    headings: list[_Strip] = []
    used, after_tile = 0, False
    for strip in strips:
        if strip.is_heading:
            headings = [*([] if after_tile else headings), strip]
            after_tile = False
            continue
        begins = not after_tile  # of a table, or of the whole
        needed = strip.height + (sum(each.height for each in headings) if begins else 0)
        if page and used + needed > room:
            yield page
            page, used, begins = [], 0, True
        if begins:
            page += headings
            used += sum(each.height for each in headings)
        page.append(strip)
        used += strip.height
        after_tile = True
    if page:
        yield page


def _drawn(strips: Sequence[_Strip], width: int) -> Image.Image:
    page = Image.new("RGB", (width, 2 * _MARGIN_PX + sum(strip.height for strip in strips)), _BACKGROUND)
    y = _MARGIN_PX
    for strip in strips:
        strip.draw(page, y)
        y += strip.height
    return page


def _write(page: Image.Image, at: tuple[int, int], text: str, *, fill: str = _INK) -> None:
    ImageDraw.Draw(page).text(at, text, font=_font(), fill=fill)


def _wrapped(text: str, room: int, *, most: int = 3) -> list[str]:
    """Return the lines of a text that fit; prompts are foreign text, line ends and all."""
    letters = max(4, int(room / (_TEXT_PX * 0.5)))
    lines = textwrap.wrap(" ".join(text.split())[: letters * (most + 1)], letters) or [""]
    kept = [_cut(line, room) for line in lines[:most]]
    if len(lines) > most:
        kept[-1] = _cut(f"{lines[most - 1]}…", room)
    return kept


def _cut(text: str, room: int) -> str:
    text = " ".join(text.split())
    font = _font()
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[: min(len(text) - 1, int(len(text) * room / font.getlength(f"{text}…")))]
    return f"{text}…"


@lru_cache(maxsize=1)
def _font() -> _Font:
    return ImageFont.load_default(_TEXT_PX)
