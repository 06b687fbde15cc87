"""Arguments of a run, checked before anything else is done with them. Pure."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.settings import shown_value

if TYPE_CHECKING:
    from runpod_comfy.media.inputs import ImageSource

__all__ = ["check_folder", "check_images", "check_pixels", "check_seconds", "check_variables"]

_MAX_S = 366 * 24 * 3600  # a loop's clock takes no number, however large


def check_seconds(name: str, value: Any) -> float | None:
    """Return a time in seconds.

    Raises:
        ConfigurationError: It is no number from 0 to a year.
    """
    if value is None:
        return None
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < value <= _MAX_S:
        raise ConfigurationError(
            f"{name} is {shown_value(value)}; it takes seconds greater than 0, up to {_MAX_S:,} (a year), or None."
        )
    return float(value)


def check_pixels(name: str, value: object) -> int | None:
    """Return a number of pixels.

    Raises:
        ConfigurationError: It is no whole number of at least 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is {shown_value(value)}; it takes a whole number of at least 1, or None.")
    return value


def check_variables(value: object) -> dict[str, Any]:
    """Return variables by name.

    Raises:
        ConfigurationError: They are no mapping, or a name is no string.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(
            f"variables is {shown_value(value)}; it takes a mapping of names to values, such as {{'steps': 8}}."
        )
    return dict(value)


def check_folder(name: str, value: object) -> Path | None:
    """Return a folder's path.

    Raises:
        ConfigurationError: It is no path.
    """
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigurationError(f"{name} is {shown_value(value)}; it takes the path of a folder, or None.")
    return Path(value)


def check_images(value: object) -> tuple[ImageSource, ...]:
    """Return images in their order; one image in place of a list of them is what people pass when they have one.

    Raises:
        InputError: It is neither.
    """
    if value is None:
        return ()
    # A PIL image has `getbands`.
    if isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(value, "getbands"):
        return (cast("ImageSource", value),)
    if not isinstance(value, Iterable):
        raise InputError(
            f"input_images is {shown_value(value)}; it takes a list of PIL images, paths or "
            "bytes of files, or one of them."
        )
    return tuple(value)
