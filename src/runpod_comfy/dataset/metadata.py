"""``metadata.jsonl``: one flat line for each image, as data loaders want it. Pure.

Hugging Face's loader takes a column's type from what it sees first and refuses another later; a column that is empty
for long and then a text ends it too (seen with datasets 5.2). So each column has one type, and every line every column.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runpod_comfy.dataset.captions import Caption

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["column_name", "flat_rows", "json_line", "metadata_text"]

_RESERVED = frozenset({"file_name", "text", "seed", "row", "sample", "id", "width", "height", "sha256"})
_SIGNED_BELOW = 2**63  # loaders hold whole numbers in 64 bits with a sign; a larger one would become a float
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half of a character, which UTF-8 cannot hold
_LINE_ENDS = {char: f"\\u{char:04x}" for char in (0x85, 0x2028, 0x2029)}  # line ends to Python, and not to JSON


def flat_rows(images: Iterable[Mapping[str, Any]], caption: Caption | None = None) -> list[dict[str, Any]]:
    """Return one flat row for each image's line of the manifest, all with the same columns, each of one type.

    Args:
        images: The lines, in their order.
        caption: What the column ``text`` holds.

    Raises:
        ConfigurationError: The caption cannot be made of one of them.
    """
    caption = caption or Caption()
    rows = [_flat(image, caption) for image in images]
    names = dict.fromkeys(name for row in rows for name in row)
    kinds: dict[str, set[str]] = {name: set() for name in names}
    for row in rows:
        for name, value in row.items():
            kinds[name].add(_kind(value))
    columns = {name: _Column(kinds[name] - {"nothing"}) for name in names if kinds[name] - {"nothing"}}
    return [{name: column.cell(row.get(name)) for name, column in columns.items()} for row in rows]


def metadata_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the file's text for flat rows."""
    return "".join(map(json_line, rows))


def json_line(value: Mapping[str, Any]) -> str:
    """Return an object as one line of JSON, whatever a reader takes for the end of a line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_LINE_ENDS)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def column_name(name: str) -> str:
    """Return the column that a row's column or a variable becomes: another where the name has a meaning of its own."""
    return f"var_{name}" if name in _RESERVED else name


def _flat(image: Mapping[str, Any], caption: Caption) -> dict[str, Any]:
    values = {**image.get("columns", {}), **image.get("variables", {})}
    return {
        "file_name": image["file"],
        "text": caption.of(image),
        **{column_name(name): value for name, value in values.items()},
        "seed": int(image["seed"]) if image.get("seed") is not None else None,
        "row": image["index"],
        "sample": image["sample"],
        "id": image["row_id"],
        "width": image.get("width"),
        "height": image.get("height"),
        "sha256": image["sha256"],
    }


class _Column:
    """The one type of a column: that of its values, or text where they differ."""

    def __init__(self, kinds: set[str]) -> None:
        self._is_text = len(kinds) > 1 or not kinds <= {"number", "boolean"}

    def cell(self, value: Any) -> Any:
        if not self._is_text:
            return value
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and not -_SIGNED_BELOW <= value < _SIGNED_BELOW:
        return "large number"
    return "number" if isinstance(value, (int, float)) else type(value).__name__
