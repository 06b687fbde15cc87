"""JSON as ComfyUI writes it, which is as Python does: what a node reports may be no JSON at all."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

__all__ = ["dumps"]


def dumps(value: Any) -> bytes:
    """Write a value; NaN, Infinity and halves of surrogate pairs come out as Python has them.

    >>> dumps({"score": float("nan"), "count": 2})
    b'{"score": NaN, "count": 2}'
    """
    try:
        text = orjson.dumps(value, default=str)
    except TypeError:
        return json.dumps(value, default=str).encode()
    # orjson makes null of NaN, so only what has a null can have had one: few answers are written twice.
    return json.dumps(value, default=str).encode() if b"null" in text and _has_nan(value) else text


def _has_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nan, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_nan, value))
    return isinstance(value, float) and not math.isfinite(value)
