"""Bytes as base64 text and back, as they travel within JSON."""

from __future__ import annotations

import pybase64

__all__ = ["from_base64", "to_base64"]

_LONGEST_PREFIX = 200


def to_base64(data: bytes | bytearray | memoryview) -> str:
    """Return bytes as base64 text without line breaks."""
    return pybase64.b64encode_as_string(data)


def from_base64(text: str | memoryview, *, allow_data_uri: bool = False) -> bytes:
    """Return the bytes that base64 text stands for; other characters and missing padding are refused.

    Args:
        text: Base64, as text or as the bytes of text, or with ``allow_data_uri`` also ``data:image/png;base64,…``.
        allow_data_uri: Whether such a prefix may stand before it.

    Raises:
        ValueError: It is not base64.
    """
    if not isinstance(text, (str, memoryview)):
        raise ValueError(f"base64 text is expected, not {type(text).__name__}")  # noqa: TRY004 - callers map ValueError
    if allow_data_uri:
        text = _without_prefix(text)
    return pybase64.b64decode(text, validate=True)


def _without_prefix(text: str | memoryview) -> str | memoryview:
    if isinstance(text, str):
        return text.partition(",")[2] if text[:5].lower() == "data:" else text
    head = bytes(text[:_LONGEST_PREFIX])
    return text[head.find(b",") + 1 :] if head[:5].lower() == b"data:" else text
