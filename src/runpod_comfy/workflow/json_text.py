"""Python values as JSON text, and where in a JSON text one stands.

A template is text, so what a value becomes depends on its surroundings: ``"a {{ v }}"`` takes string content,
``"key": {{ v }}`` takes a JSON value, and in a comment nothing may end the comment. ``advance`` answers where one
stands after any piece of text; the other functions write a value for that place.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from json.encoder import encode_basestring
from pathlib import PurePath
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["State", "advance", "json_text", "plain_text", "string_content"]


class State(IntEnum):
    """Where a reader of JSON with comments stands after some text."""

    OUTSIDE = 0  # between tokens
    STRING = 1
    ESCAPE = 2  # a backslash in a string
    UNICODE_4 = 3  # \u in a string, four digits to go
    UNICODE_3 = 4
    UNICODE_2 = 5
    UNICODE_1 = 6
    SLASH = 7  # a slash outside a string: perhaps a comment
    LINE_COMMENT = 8
    BLOCK_COMMENT = 9
    STAR = 10  # an asterisk in a block comment: perhaps its end

    @property
    def in_comment(self) -> bool:
        """Whether what comes next is not read at all."""
        return self >= State.LINE_COMMENT

    @property
    def in_escape(self) -> bool:
        """Whether what comes next belongs to an escape sequence that the text began."""
        return State.ESCAPE <= self <= State.UNICODE_1


_HEX: Final = "0123456789abcdefABCDEF"
_IN_STRING: Final = {'"': State.OUTSIDE, "\\": State.ESCAPE}
_ANY: Final = re.compile(".", re.DOTALL)

# State → (the next character that matters, where it leads, where any other matching character leads).
_TRANSITIONS: Final[dict[State, tuple[re.Pattern[str], dict[str, State], State]]] = {
    State.OUTSIDE: (re.compile('["/]'), {'"': State.STRING, "/": State.SLASH}, State.OUTSIDE),
    State.STRING: (re.compile(r'["\\]'), _IN_STRING, State.STRING),
    State.ESCAPE: (_ANY, {"u": State.UNICODE_4}, State.STRING),
    State.UNICODE_4: (_ANY, _IN_STRING | dict.fromkeys(_HEX, State.UNICODE_3), State.STRING),
    State.UNICODE_3: (_ANY, _IN_STRING | dict.fromkeys(_HEX, State.UNICODE_2), State.STRING),
    State.UNICODE_2: (_ANY, _IN_STRING | dict.fromkeys(_HEX, State.UNICODE_1), State.STRING),
    State.UNICODE_1: (_ANY, _IN_STRING, State.STRING),
    State.SLASH: (
        _ANY,
        {"/": State.LINE_COMMENT, "*": State.BLOCK_COMMENT, '"': State.STRING},
        State.OUTSIDE,
    ),
    State.LINE_COMMENT: (re.compile("\n"), {}, State.OUTSIDE),
    State.BLOCK_COMMENT: (re.compile(r"\*"), {}, State.STAR),
    State.STAR: (_ANY, {"*": State.STAR, "/": State.OUTSIDE}, State.BLOCK_COMMENT),
}


def advance(text: str, state: State) -> State:
    """Return the state after reading ``text`` from ``state``."""
    position = 0
    pattern, leads_to, otherwise = _TRANSITIONS[state]
    while match := pattern.search(text, position):
        state = leads_to.get(match.group(), otherwise)
        position = match.end()
        pattern, leads_to, otherwise = _TRANSITIONS[state]
    return state


def json_text(value: Any) -> str:
    """Return a value as JSON text.

    Besides JSON's own types: paths (as POSIX strings), whole and real numbers of other libraries, any sequence
    or mapping, and whatever has ``tolist()`` (numpy, torch).

    Raises:
        TemplateError: No JSON can say this value; the text gives its type, never its content.
    """
    write = _WRITERS.get(type(value))
    return _other(value) if write is None else write(value)


def plain_text(value: Any) -> str:
    """Return a value as it reads inside a string, unescaped: text and paths as they are, the rest as JSON.

    Raises:
        TemplateError: No JSON can say this value.
    """
    if isinstance(value, str):
        return value
    return _posix(value) if isinstance(value, os.PathLike) else json_text(value)


def string_content(text: str) -> str:
    """Return ``text`` as it stands between the quotes of a JSON string.

    Raises:
        TemplateError: It holds half a surrogate pair, which UTF-8 cannot carry.
    """
    return _quoted(text)[1:-1]


def _quoted(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise TemplateError(
                f"a text has half a surrogate pair (U+{ord(text[exc.start]):04X}) at character {exc.start + 1}: it was "
                "cut inside an emoji, or decoded in a wrong way."
            ) from exc
    return encode_basestring(text)


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise TemplateError("a number is NaN or infinite, which JSON cannot say.")
    return float.__repr__(value)


def _array(items: Iterable[Any]) -> str:
    return "[" + ", ".join([json_text(item) for item in items]) + "]"


def _object(mapping: Mapping[Any, Any]) -> str:
    return "{" + ", ".join([f"{_key(key)}: {json_text(item)}" for key, item in mapping.items()]) + "}"


def _key(key: Any) -> str:
    # Two keys that are different in Python (1 and "1") must not become one in JSON.
    if not isinstance(key, str):
        raise TemplateError(f"a dict has a key of type {type(key).__name__}; JSON takes text as keys only.")
    return _quoted(key)


def _posix(path: os.PathLike[Any]) -> str:
    text = path if isinstance(path, PurePath) else os.fspath(path)
    if isinstance(text, bytes):
        raise TemplateError("a path is made of bytes. Decode it with os.fsdecode first.")
    return PurePath(text).as_posix() if isinstance(text, str) else text.as_posix()


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    str: _quoted,
    bool: {True: "true", False: "false"}.__getitem__,
    int: int.__repr__,
    float: _float,
    NoneType: lambda _: "null",
    list: _array,
    tuple: _array,
    dict: _object,
}
# What other types count as, the narrower before the wider.
_KINDS: Final[tuple[tuple[type, Callable[[Any], str]], ...]] = (
    (str, _quoted),
    (os.PathLike, lambda value: _quoted(_posix(value))),
    (Mapping, _object),
    (Sequence, _array),
    (numbers.Real, lambda value: _float(float(value))),
)


def _other(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        raise TemplateError(f"a value is {type(value).__name__}, which JSON cannot say. Decode it to text first.")
    if callable(tolist := getattr(value, "tolist", None)):
        return json_text(tolist())
    if hasattr(value, "__index__"):
        return int.__repr__(operator.index(value))
    for kind, write in _KINDS:
        if isinstance(value, kind):
            return write(value)
    raise TemplateError(
        f"a value is of type {type(value).__name__}, which JSON cannot say. Templates take text, numbers, true and "
        "false, none, lists, dicts and paths (the filter list makes a list of a generator or a set)."
    )
