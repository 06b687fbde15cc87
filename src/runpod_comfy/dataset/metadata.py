"""``metadata.jsonl``: one flat line for each image, as data loaders want it. Pure.

Hugging Face's loader takes a column's type from what it sees first and refuses another later; a column that is empty
for long and then a text ends it too (seen with datasets 5.2). So each column has one type, and every line every column.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["metadata_text"]

_RESERVED = frozenset({"file_name", "text", "seed", "row", "sample", "id", "width", "height", "sha256"})
_SIGNED_BELOW = 2**63


def metadata_text(images: Iterable[tuple[int, int, Mapping[str, Any]]]) -> str:
    """Return the file's text for images given as row, sample and manifest line."""
    lines = [_flat(row, sample, image) for row, sample, image in images]
    names = dict.fromkeys(name for line in lines for name in line)
    kinds = {name: {_kind(line.get(name)) for line in lines} - {"nothing"} for name in names}
    columns = {name: _Column(kinds[name]) for name in names if kinds[name]}
    return "".join(
        json.dumps({name: column.cell(line.get(name)) for name, column in columns.items()}, ensure_ascii=False) + "\n"
        for line in lines
    )


def _flat(row: int, sample: int, image: Mapping[str, Any]) -> dict[str, Any]:
    values = {**image.get("columns", {}), **image.get("variables", {})}
    seed = int(image["seed"]) if image.get("seed") is not None else None
    return {
        "file_name": image["file"],
        "text": str(values.get("prompt", "")),
        **{f"var_{name}" if name in _RESERVED else name: value for name, value in values.items()},
        # Loaders hold whole numbers in 64 bits with a sign; a larger seed would become a float.
        "seed": seed if seed is None or seed < _SIGNED_BELOW else str(seed),
        "row": row,
        "sample": sample,
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
        if not self._is_text or isinstance(value, str):
            return value
        return "" if value is None else json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__
