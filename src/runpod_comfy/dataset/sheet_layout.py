"""Where each tile of a contact sheet stands. Pure.

With two axes a table has a column for each value of one and a row for each value of the other; what else varies parts
the tiles into several tables, each with its values in its title, so that no image is hidden behind another. With one
axis these become the rows of one table. Without any, tiles follow each other.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.near import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runpod_comfy.dataset.tiles import Tile

__all__ = ["Legend", "Table", "lay_out", "legend_of", "shown_value"]

_MOST_FLOWING_COLUMNS: Final = 16
_OWN: Final = ("row", "id", "sample", "seed")  # of an image, not of how it was made


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Tiles in rows and columns.

    Attributes:
        title: What all of them have in common, or "".
        columns: The columns' headings; empty where tiles just follow each other.
        rows: The rows' headings, likewise.
        cells: The tiles, row by row; None where there is nothing.
    """

    title: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    cells: tuple[tuple[Tile | None, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """What a sheet says of itself.

    Attributes:
        same: What all images were made with, as ``name=value``.
        varying: The names of what differs between them.
        images: How many there are.
        missing: How many are not.
    """

    same: tuple[str, ...]
    varying: tuple[str, ...]
    images: int
    missing: int


def legend_of(tiles: Sequence[Tile]) -> Legend:
    """Return what is the same in all tiles and what differs."""
    values = _values_by_name(tiles)
    same = tuple(
        f"{name}={shown_value(next(iter(found.values())))}"
        for name, found in values.items()
        if len(found) == 1 and name not in _OWN
    )
    varying = tuple(name for name, found in values.items() if len(found) > 1 and name not in _OWN)
    images = sum(bool(tile.paths) for tile in tiles)
    return Legend(same=same, varying=varying, images=images, missing=len(tiles) - images)


def lay_out(
    tiles: Sequence[Tile], *, x: str | None = None, y: str | None = None, columns: int | None = None
) -> list[Table]:
    """Return the tables of a sheet.

    Args:
        tiles: What is shown.
        x: The variable whose values are columns.
        y: The variable whose values are rows.
        columns: Without axes, how many tiles stand side by side.

    Raises:
        ConfigurationError: There is no such variable.
    """
    if x is None and y is None:
        return [_flowing(tiles, columns)]
    values = _values_by_name(tiles)
    for name in (x, y):
        if name is not None and name not in values:
            near = nearest(name, values)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"No image has a variable {name!r}.{meant} There are: {', '.join(values)}.")
    axes = _Axes(x, y)
    placed = [tile for tile in tiles if None not in axes.place(tile)]
    tables = _crossed(placed, axes, values)
    if strangers := [tile for tile in tiles if None in axes.place(tile)]:
        names = " and ".join(name for name in (x, y) if name is not None)
        tables.append(replace(_flowing(strangers, columns), title=f"without a value for {names}"))
    return tables


def shown_value(value: Any) -> str:
    """Return a value as people read it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Axes(NamedTuple):
    x: str | None
    y: str | None

    def place(self, tile: Tile) -> tuple[str | None, str | None]:
        """Return where a tile stands: its values' texts, "" for an axis that there is not, None for no value."""
        x, y = (
            "" if name is None else _text(tile.values[name]) if name in tile.values else None
            for name in (self.x, self.y)
        )
        return x, y


_Place: TypeAlias = tuple[str | None, str | None]


@dataclass(slots=True)
class _Block:
    """Tiles that have all but the axes in common.

    Attributes:
        others: The other values that part blocks.
        sample: The tiles' number within their rows.
        title: What they have in common, in words.
        tiles: The tiles by place.
    """

    others: Mapping[str, str]
    sample: int
    title: str
    tiles: dict[_Place, Tile] = field(default_factory=dict)

    def takes(self, tile: Tile, place: _Place, sample: int) -> bool:
        """Whether a tile without a picture, of which less is known, may stand here."""
        return (
            place not in self.tiles
            and self.sample == sample
            and all(_text(tile.values[name]) == text for name, text in self.others.items() if name in tile.values)
        )


def _crossed(tiles: Sequence[Tile], axes: _Axes, values: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    blocks = _blocks(tiles, axes)
    xs, ys = ({"": None} if name is None else _sorted(values[name]) for name in axes)
    columns, rows = (
        tuple(f"{name} {shown_value(value)}" for value in along.values())
        for name, along in zip(axes, (xs, ys), strict=True)
    )
    if axes.x is not None and axes.y is not None:
        return [
            Table(
                title=block.title,
                columns=columns,
                rows=rows,
                cells=tuple(tuple(block.tiles.get((x, y)) for x in xs) for y in ys),
            )
            for block in blocks
        ]
    # One axis: what else varies makes the other one.
    titles = tuple(block.title for block in blocks)
    if axes.x is not None:
        return [
            Table(columns=columns, rows=titles, cells=tuple(tuple(b.tiles.get((x, "")) for x in xs) for b in blocks))
        ]
    return [Table(columns=titles, rows=rows, cells=tuple(tuple(b.tiles.get(("", y)) for b in blocks) for y in ys))]


def _blocks(tiles: Sequence[Tile], axes: _Axes) -> list[_Block]:
    parting = _parting(tiles, axes)
    counts_samples = "sample" not in axes
    many = counts_samples and len({tile.sample for tile in tiles}) > 1
    blocks: dict[Any, _Block] = {}
    turns: Counter[Any] = Counter()
    # Of what has no picture less may be known: it goes where it fits.
    for tile in sorted(tiles, key=lambda each: not each.paths):
        place, sample = axes.place(tile), tile.sample if counts_samples else 0
        if not tile.paths and (fitting := [each for each in blocks.values() if each.takes(tile, place, sample)]):
            fitting[0].tiles[place] = tile
            continue
        others = {name: _text(tile.values[name]) for name in parting if name in tile.values}
        key = (tuple(others.items()), sample)
        turn = turns[key, place]
        turns[key, place] += 1
        if (key, turn) not in blocks:
            words = [f"sample {sample}"] if many else []
            words += [f"row {tile.values.get('id', tile.name)}"] if turn else []
            words += [f"{name} {shown_value(tile.values[name])}" for name in others]
            blocks[key, turn] = _Block(others, sample, ", ".join(words))
        blocks[key, turn].tiles[place] = tile
    return list(blocks.values())


def _parting(tiles: Sequence[Tile], axes: _Axes) -> list[str]:
    """Return the variables that tell tiles of one place apart: each of them tells more than those before it."""
    pictures = [tile for tile in tiles if tile.paths]
    names = [name for name in _values_by_name(pictures) if name not in (*axes, *_OWN)]
    chosen: list[str] = []
    groups: list[tuple[Any, ...]] = [axes.place(tile) for tile in pictures]
    for name in names:
        finer = [(*group, _text(tile.values.get(name))) for group, tile in zip(groups, pictures, strict=True)]
        if len(set(finer)) > len(set(groups)):
            groups = finer
            chosen.append(name)
    return chosen


def _flowing(tiles: Sequence[Tile], columns: int | None) -> Table:
    wide = columns or min(_MOST_FLOWING_COLUMNS, max(1, math.ceil(math.sqrt(len(tiles)))))
    padded: list[Tile | None] = [*tiles, *[None] * (-len(tiles) % wide)]
    return Table(cells=tuple(tuple(padded[start : start + wide]) for start in range(0, len(padded), wide)))


def _values_by_name(tiles: Iterable[Tile]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for tile in tiles:
        for name, value in tile.values.items():
            found.setdefault(name, {}).setdefault(_text(value), value)
    return found


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sort numbers by size; other values stay in the order of the data."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values.values())
    return dict(sorted(values.items(), key=lambda item: item[1])) if numbers else dict(values)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
