"""Read JSON as people write it: with comments and trailing commas.

Everything else is as strict as it can be, because a workflow that is read in another way than it was meant costs
GPU time: no doubled keys (the first would be lost without a word), no NaN or Infinity, no half surrogate pairs.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from runpod_comfy.errors import TemplateError

__all__ = ["read_json"]

# An unfinished string reaches to the end, as it does for the reader.
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_COMMENT: Final = re.compile(rf"{_STRING}|(?P<extra>//[^\n]*+|/\*.*?\*/)", re.DOTALL)
# A comma right after a bracket or comma follows nothing, so it is no trailing comma: left for the reader to refuse.
_TRAILING_COMMA: Final = re.compile(rf"{_STRING}|[\[{{,]\s*+,|(?P<extra>,)(?=\s*+[\]}}])", re.DOTALL)
_TOKEN: Final = re.compile(rf"(?P<string>{_STRING})|(?P<mark>[\[\]{{}},:])|(?P<word>[^\s\[\]{{}},:\"]++)", re.DOTALL)
# Escaped backslashes and whole pairs are passed over; what is left is half a pair.
_HALF_PAIR: Final = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_WINDOW: Final = 40  # characters shown before and after the fault: a prompt or a base64 text is never shown whole


class _Refused(ValueError):
    """The strict reader met something that is JSON to Python, but not to us; its place is found afterwards."""


def read_json(text: str, *, template: str) -> Any:
    """Read a rendered template.

    Args:
        text: JSON, with ``//`` and ``/* */`` comments and trailing commas.
        template: The template's name, for errors.

    Raises:
        TemplateError: It is not JSON; with ``line`` and ``column`` of the rendered text, and the text around it.
    """
    if not text.strip():
        raise TemplateError(f"{template} renders to nothing; it should render to a workflow.", template=template)
    _refuse_half_pairs(text, template=template)
    plain = text
    try:
        try:
            return _strict(text)
        except json.JSONDecodeError:
            # Blanks in place of what is left out keep every position as it is.
            plain = _TRAILING_COMMA.sub(_blank, _COMMENT.sub(_blank, text))
            return _strict(plain)
    except json.JSONDecodeError as exc:
        _fail(text, exc.pos, _reason(plain, exc), template=template, cause=exc)
    except _Refused as exc:
        position, reason = _find_refused(plain)
        _fail(text, position, reason, template=template, cause=exc)
    except (ValueError, RecursionError) as exc:  # a number of 5,000 digits, brackets 10,000 deep
        raise TemplateError(f"{template} does not render to usable JSON: {exc}.", template=template) from exc


def _strict(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused
    return found


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):  # 1e999
        raise _Refused
    return value


def _refuse(_name: str) -> NoReturn:
    raise _Refused


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group()) if match["extra"] else match.group()


def _find_refused(text: str) -> tuple[int, str]:
    """Return where the first refused thing stands in a text that is JSON to Python, and why it is refused."""
    keys: list[set[str] | None] = []  # for each open bracket: the keys so far, or None for an array
    before = ""
    for token in _TOKEN.finditer(text):
        found = token.group()
        if token["mark"]:
            if found in "{[":
                keys.append(set() if found == "{" else None)
            elif found in "}]":
                keys.pop()
        elif token["word"]:
            if found in {"NaN", "Infinity", "-Infinity"} or (found[-1].isdigit() and not math.isfinite(float(found))):
                return token.start(), f"{found if len(found) < _WINDOW else 'a number'} is no number that JSON can say"
        elif before in {"{", ","} and keys and keys[-1] is not None:
            key = json.loads(found)
            if key in keys[-1]:
                return token.start(), f"the key {_cut(key)!r} is there twice in one object"
            keys[-1].add(key)
        before = found if token["mark"] else ""
    raise AssertionError("the strict reader refused nothing")


def _refuse_half_pairs(text: str, *, template: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        _fail(text, exc.start, "half a surrogate pair", template=template, cause=exc)
    for match in _HALF_PAIR.finditer(text) if "\\u" in text else ():
        if match["half"]:
            _fail(text, match.start(), f"{match['half']} is half a surrogate pair", template=template)


def _reason(text: str, exc: json.JSONDecodeError) -> str:
    if exc.msg.startswith("Invalid control character"):
        return "a line break or tab inside a string (write \\n or \\t)"
    if text.startswith(("True", "False", "None"), exc.pos):
        return "Python's True, False and None are true, false and null in JSON"
    if text.startswith("/*", exc.pos):
        return "a comment that never ends"
    return exc.msg


def _fail(text: str, position: int, reason: str, *, template: str, cause: Exception | None = None) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    line_start = text.rfind("\n", 0, position) + 1
    line_end = text.find("\n", position)
    start = max(line_start, position - _WINDOW)
    end = min(line_end if line_end >= 0 else len(text), position + _WINDOW)
    head = ("…" if start > line_start else "") + text[start:position]
    tail = text[position:end] + ("…" if end < (line_end if line_end >= 0 else len(text)) else "")
    snippet = "".join(char if char.isprintable() else " " for char in head + tail)
    column = position - line_start + 1
    raise TemplateError(
        f"{template} does not render to JSON: {reason}, at line {line}, column {column} of the rendered text:\n"
        f"    {snippet}\n    {' ' * len(head)}^",
        template=template,
        line=line,
        column=column,
    ) from cause


def _cut(text: str) -> str:
    return text if len(text) <= _WINDOW else text[:_WINDOW] + "…"
