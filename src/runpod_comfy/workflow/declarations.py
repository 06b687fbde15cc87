"""What a template says about its variables, as values: type, default, range, choices and help."""

from __future__ import annotations

import math
import operator
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ABSENT", "TYPES", "Declaration", "as_number", "json_schema"]

ABSENT: Final = object()
"""In place of a default: there is none, so the variable must be given."""

TYPES: Final = ("text", "int", "float", "bool", "choice", "list", "any")
"""The types there are."""

_SHOWN_CHOICES: Final = 12
_JSON_TYPES: Final = {
    "text": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One variable.

    Attributes:
        name: Its name.
        type: ``text``, ``int``, ``float``, ``bool``, ``choice`` (of ``choices``), ``list``, or ``any``.
        default: Its value where none is given; ``ABSENT`` where it must be.
        least: The smallest number it takes.
        most: The largest.
        choices: What a choice takes.
        help: Words on it.
        node: Where it goes, for people: the node's id and title.
    """

    name: str
    type: str = "any"
    default: Any = field(default=ABSENT)
    least: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""
    node: str = ""

    @property
    def takes(self) -> str:
        """What it takes, in a few words."""
        if self.type == "choice":
            listed = ", ".join(str(each) for each in self.choices[:_SHOWN_CHOICES])
            more = len(self.choices) - _SHOWN_CHOICES
            return f"one of {listed}" + (f" and {more} more" if more > 0 else "")
        words = {"text": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        word = words.get(self.type, "a list" if self.type == "list" else "any value")
        match self.least, self.most:
            case None, None:
                return word
            case least, None:
                return f"{word} of at least {least}"
            case None, most:
                return f"{word} of at most {most}"
            case least, most:
                return f"{word} from {least} to {most}"
        return word

    def check(self, value: Any) -> Any:
        """Return the value as the template gets it: a number of another kind, such as numpy's, becomes Python's.

        Raises:
            ValueError: It is of another type or out of range; the text says what is taken.
        """
        checked = _CHECKS[self.type](value)
        if checked is ABSENT:
            raise ValueError(f"{_shown(value)} is not {self.takes}")
        if self.type == "choice" and not any(checked == each and type(checked) is type(each) for each in self.choices):
            raise ValueError(f"{_shown(value)} is not {self.takes}")
        too_small = self.least is not None and checked < self.least
        too_large = self.most is not None and checked > self.most
        if self.type in {"int", "float"} and (too_small or too_large):
            raise ValueError(f"{_shown(value)} is not {self.takes}")
        return checked


def json_schema(declarations: Mapping[str, Declaration], *, title: str) -> dict[str, Any]:
    """Return the variables as a JSON Schema (2020-12) of an object."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": {name: _property(each) for name, each in declarations.items()},
        "required": [name for name, each in declarations.items() if each.default is ABSENT],
        "additionalProperties": False,
    }


def _property(each: Declaration) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _JSON_TYPES[each.type]} if each.type in _JSON_TYPES else {}
    if each.choices:
        found["enum"] = list(each.choices)
    found |= {
        key: value
        for key, value in (("minimum", each.least), ("maximum", each.most), ("description", each.help))
        if value not in (None, "")
    }
    return found if each.default is ABSENT else found | {"default": each.default}


def _as_text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, int | float) and not isinstance(value, bool):  # tables know no types: the year 1999
        return str(value)
    return value if isinstance(value, str) else ABSENT


def _as_int(value: Any) -> Any:
    if isinstance(value, bool):
        return ABSENT
    try:
        return operator.index(value)
    except TypeError:
        pass
    number = as_number(value)
    return int(number) if number is not ABSENT and number.is_integer() else ABSENT


def as_number(value: Any) -> Any:
    """Return a finite number that is no text and no truth value; ABSENT for anything else."""
    if isinstance(value, bool | str):
        return ABSENT
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return ABSENT
    if not math.isfinite(number):
        return ABSENT
    return value if isinstance(value, int | float) else number


def _as_bool(value: Any) -> Any:
    return value if isinstance(value, bool) else ABSENT


def _as_list(value: Any) -> Any:
    # A list stays the one it is: some know more than their items.
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else ABSENT


def _as_it_is(value: Any) -> Any:
    return value


_CHECKS: Final = {
    "text": _as_text,
    "int": _as_int,
    "float": as_number,
    "bool": _as_bool,
    "list": _as_list,
    "choice": _as_it_is,
    "any": _as_it_is,
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"  # noqa: PLR2004 - part of a line
