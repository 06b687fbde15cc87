"""Variables varied on purpose: ``cfg=5,7,9``, ``cfg=5..9/2``, ``cfg=1..10#5``, ``prompt=@prompts.txt``.

>>> parse_axis("cfg=5..9/2")
Axis(name='cfg', values=(5, 7, 9))
>>> parse_axis("cfg=1..10#4").values
(1, 4, 7, 10)
>>> parse_axis('prompt="a, b",c').values
('a, b', 'c')
>>> [dict(cell) for cell in cells([parse_axis("cfg=5,7"), parse_axis("steps=10,20")], zipped=True)]
[{'cfg': 5, 'steps': 10}, {'cfg': 7, 'steps': 20}]

A1111's two forms are read too: ``1-5 (+2)`` and ``1-10 [5]``.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["MAX_AXIS_VALUES", "Axis", "cell_count", "cells", "parse_axis", "product_text"]

MAX_AXIS_VALUES = 10_000
"""More values on one axis than this are taken for a slip of the finger."""

_N = r"(-?\d+(?:\.\d+)?)"
_RANGES = (
    (re.compile(rf"{_N}\.\.{_N}(?:/{_N})?"), "step"),
    (re.compile(rf"{_N}\.\.{_N}#(\d+)"), "count"),
    (re.compile(rf"{_N}-{_N}\s*\(\+{_N}\)"), "step"),
    (re.compile(rf"{_N}-{_N}\s*\[(\d+)\]"), "count"),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """One variable and the values it takes in turn."""

    name: str
    values: tuple[Any, ...]


def parse_axis(text: str) -> Axis:
    """Read one ``--grid``.

    Raises:
        ConfigurationError: It is none, has no value, has one twice, or far too many.
    """
    name, equals, written = text.partition("=")
    name = name.strip()
    if not equals or not name.isidentifier():
        raise ConfigurationError(f"--grid {text!r} is not name=values, such as cfg=5,7,9 or cfg=5..9/2.")
    values = tuple(_values(written.strip(), text))
    if not values:
        raise ConfigurationError(f"--grid {text!r} has no values.")
    if len(values) > MAX_AXIS_VALUES:
        raise _too_many(text, len(values))
    seen: set[str] = set()
    for value in values:
        if repr(value) in seen:
            raise ConfigurationError(f"--grid {text!r} has {value!r} twice.")
        seen.add(repr(value))
    return Axis(name, values)


def cells(axes: Sequence[Axis], *, zipped: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield each combination; with ``zipped`` the first values together, then the second ones.

    Raises:
        ConfigurationError: A variable has two axes, or zipped axes are of different lengths.
    """
    names = [axis.name for axis in axes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"--grid names {twice!r} twice; give all its values at once.")
    if zipped and len({len(axis.values) for axis in axes}) > 1:
        lengths = ", ".join(f"{axis.name} has {len(axis.values)}" for axis in axes)
        raise ConfigurationError(f"--zip takes grids of one length: {lengths}.")
    columns = [axis.values for axis in axes]
    combined = zip(*columns, strict=True) if zipped and axes else itertools.product(*columns)
    for values in combined:
        yield dict(zip(names, values, strict=True))


def cell_count(axes: Sequence[Axis], *, zipped: bool = False) -> int:
    """Return how many combinations there are, without making them: a few long axes have more than memory holds.

    >>> cell_count([Axis("a", (1, 2)), Axis("b", (1, 2))]), cell_count([])
    (4, 1)
    """
    lengths = [len(axis.values) for axis in axes]
    return max(lengths) if zipped and lengths else math.prod(lengths)


def product_text(axes: Sequence[Axis], *, zipped: bool = False) -> str:
    """Return how many combinations there are, as people multiply them: ``40 x 5 x 5``."""
    lengths = [len(axis.values) for axis in axes]
    return str(lengths[0]) if zipped and lengths else " x ".join(map(str, lengths)) or "1"


def _values(written: str, text: str) -> list[Any]:
    if written.startswith("@"):
        return _lines(Path(written[1:]), text)
    for pattern, kind in _RANGES:
        if found := pattern.fullmatch(written):
            low, high = Decimal(found[1]), Decimal(found[2])
            if kind == "count":
                return _spaced(low, high, int(found[3]), text)
            return _stepped(low, high, Decimal(found[3] or 1), text)
    try:
        [row] = csv.reader([written], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as exc:
        raise ConfigurationError(f"--grid {text!r}: {exc}. Put a value with a comma in double quotes.") from exc
    return [_value(cell) for cell in row]


def _lines(path: Path, text: str) -> list[Any]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"--grid {text!r}: the file {path} cannot be read: {reason}.") from exc
    return [line.strip() for line in lines if line.strip()]


def _stepped(low: Decimal, high: Decimal, step: Decimal, text: str) -> list[Any]:
    if step == 0:
        raise ConfigurationError(f"--grid {text!r} has a step of 0.")
    step = abs(step) if high >= low else -abs(step)
    count = int((high - low) / step) + 1
    if count > MAX_AXIS_VALUES:
        raise _too_many(text, count)
    return [_number(low + step * index) for index in range(count)]


def _too_many(text: str, count: int) -> ConfigurationError:
    return ConfigurationError(f"--grid {text!r} has {count:,} values; more than {MAX_AXIS_VALUES:,} are not taken.")


def _spaced(low: Decimal, high: Decimal, count: int, text: str) -> list[Any]:
    if not 1 <= count <= MAX_AXIS_VALUES:
        raise ConfigurationError(f"--grid {text!r} asks for {count:,} values; it takes 1 to {MAX_AXIS_VALUES:,}.")
    if count == 1:
        return [_number(low)]
    whole = low == int(low) and high == int(high) and abs(high - low) >= count - 1
    points = [low + (high - low) * index / (count - 1) for index in range(count)]
    return [math.floor(point + Decimal("0.5")) if whole else round(float(point), 10) for point in points]


def _value(cell: str) -> Any:
    try:
        number = Decimal(cell)
    except InvalidOperation:
        return {"true": True, "false": False}.get(cell, cell)
    return _number(number) if re.fullmatch(_N, cell) else cell


def _number(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() and "." not in str(number) else float(number)
