"""One line of a manifest, read and checked: what it says names files and fills columns, and may come from others. Pure.

Only what is used is looked at, and only where it is there: lines of later versions may say more or less.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from runpod_comfy.errors import InputError
from runpod_comfy.media.files import check_relative_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_cut", "read_line"]


def is_cut(raw: bytes) -> bool:
    """Whether a crash has cut a line, or it is still being written.

    One that lacks its line break alone is whole, as no beginning of a JSON object is JSON: editors take the last
    break of a file away.
    """
    if raw.endswith(b"\n"):
        return False
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return True
    return False


def read_line(raw: bytes) -> dict[str, Any]:
    r"""Return what a line says.

    >>> read_line(b'{"schema": "batch/1", "task": "a", "index": 0, "batch": 0, "batches": 1}\n')["task"]
    'a'

    Raises:
        ValueError: It is no line of a manifest; the message says what is wrong with it.
    """
    try:
        line = json.loads(raw)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    if not isinstance(line, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of a file's text, not of a caller's type
    required = _REQUIRED.get(str(line.get("schema")), ())
    for name in ("schema", "task", "index", *required):
        if name not in line:
            raise ValueError(f"it has no {name}")
    for name, is_right in _CHECKS.items():
        if name in line and not is_right(line[name]):
            raise ValueError(f"its {name} is {line[name]!r:.60}")
    return line


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_object_or_null(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _is_seed(value: Any) -> bool:
    return value is None or _is_count(value) or (isinstance(value, str) and value.isascii() and value.isdecimal())


def _is_photos(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _is_file(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        check_relative_name(value)
    except InputError:
        return False
    return True


_REQUIRED: Final = {
    "job/1": ("job_id", "first_batch", "at"),
    "image/1": ("sample", "batch", "file", "row_id"),
    "batch/1": ("batch", "batches"),
}
_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "schema": _is_text,
    "task": _is_text,
    "index": _is_count,
    "row_id": _is_text,
    "sample": _is_count,
    "batch": _is_count,
    "batches": _is_count,
    "first_batch": _is_count,
    "file": _is_file,
    "size_bytes": _is_count,
    "width": _is_side,
    "height": _is_side,
    "variables": _is_object,
    "columns": _is_object,
    "node": _is_object_or_null,
    "seed": _is_seed,
    "photos": _is_photos,
    "at": _is_number,
    "error": _is_object_or_null,
}
