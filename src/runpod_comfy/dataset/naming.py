"""Names of images out of a pattern, such as ``{sku}/{seed}``. Pure.

>>> pattern = NamePattern("{sku}/{prompt}_{sample}.png")
>>> pattern.name_for({"sku": "88-412 B", "prompt": "A “red” mug, Größe L", "sample": 2})
'88-412-b/a-red-mug-gro-e-l-2'

What rows say is never trusted: each part becomes small letters, digits and hyphens, and at most 80 bytes long.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

__all__ = ["ALWAYS_KNOWN", "FreeNames", "NamePattern", "split_word_in"]

ALWAYS_KNOWN: Final = frozenset({"id", "index", "row", "sample", "seed"})
"""Names that a pattern may use besides the row's columns and the template's variables."""

_MAX_PART_BYTES: Final = 80
_SPLIT_WORDS: Final = frozenset(
    {"train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"}
)
_FIELD: Final = re.compile(r"\{(\w+)\}")
_ENDING: Final = re.compile(r"\.(?:png|jpe?g|webp|gif|avif)\Z", re.IGNORECASE)
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)\Z")  # of Windows


class NamePattern:
    """A pattern of names below ``images/``; an ending in it is replaced by that of what arrives.

    Args:
        text: The pattern.

    Raises:
        ConfigurationError: It has no field, an empty part, or a brace that belongs to none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _ENDING.sub("", text).split("/")
        if any(not part or set(_FIELD.sub("", part)) & set("{}") for part in self._parts):
            raise ConfigurationError(
                f"--name {text!r} is no pattern: its parts hold text and {{column}}, such as '{{sku}}/{{seed}}.png'."
            )
        self.fields = frozenset(_FIELD.findall(text))
        if not self.fields:
            raise ConfigurationError(
                f"--name {text!r} names every image the same. Put a {{column}} into it, {{index}} or {{seed}}."
            )

    def check_fields(self, known: Container[str]) -> None:
        """Refuse a field that nothing will fill.

        Raises:
            ConfigurationError: It names the field.
        """
        for name in sorted(self.fields):
            if name not in known and name not in ALWAYS_KNOWN:
                raise ConfigurationError(f"--name {self.text!r}: there is no column or variable {name!r}.")

    def name_for(self, values: Mapping[str, Any]) -> str:
        """Return the name, with ``/`` between its parts and without an ending."""
        return "/".join(_part(part, values) for part in self._parts)


class FreeNames:
    """Gives each image a name that no other has, and the same image always the same; for several threads.

    >>> names = FreeNames()
    >>> [names.name_for("mug", (0, sample)) for sample in (0, 1, 0)]
    ['mug', 'mug-2', 'mug']

    Args:
        taken: The names that images have already, by their numbers.
    """

    def __init__(self, taken: Mapping[tuple[int, int], str] | None = None) -> None:
        self._names = dict(taken or {})
        self._taken = set(self._names.values())
        self._next: dict[str, int] = {}
        self._lock = threading.Lock()

    def name_for(self, name: str, number: tuple[int, int]) -> str:
        """Return the name, or with a number behind it where another image has it."""
        with self._lock:
            mine = self._names.get(number)
            if mine is not None and re.fullmatch(rf"{re.escape(name)}(?:-\d+)?", mine):
                return mine
            free, following = name, self._next.get(name, 2)
            while free in self._taken:
                free, following = f"{name}-{following}", following + 1
            self._next[name] = following
            self._names[number] = free
            self._taken.add(free)
            return free


def split_word_in(name: str) -> str | None:
    """Return the word for which Hugging Face's loaders would take a path for one split of several, or None.

    They look for these between hyphens, dots, digits and the like, and then leave out every file that has none
    (seen with datasets 5.2).

    >>> split_word_in("shoes/blue-val-07"), split_word_in("shoes/valley")
    ('val', None)
    """
    return next((word for word in re.split(r"[-._ 0-9/]+", name) if word in _SPLIT_WORDS), None)


def _part(pattern: str, values: Mapping[str, Any]) -> str:
    texts = {name: _slug(_text(name, values.get(name))) for name in _FIELD.findall(pattern)}

    def made() -> str:
        return _slug(_FIELD.sub(lambda field: texts[field[1]], pattern))

    # Cut the longest text, so that a seed behind a prompt stays whole.
    while (excess := len(made()) - _MAX_PART_BYTES) > 0 and any(texts.values()):
        longest = max(texts, key=lambda name: len(texts[name]))
        texts[longest] = texts[longest][: max(0, len(texts[longest]) - excess)].rstrip("-")
    name = made()[:_MAX_PART_BYTES].strip("-") or "none"
    return f"{name}-" if _DEVICE.match(name) else name


def _text(name: str, value: Any) -> str:
    return f"{value:06}" if name in {"index", "row"} and isinstance(value, int) else str("" if value is None else value)


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
