"""Datasets that were begun and are not complete: the command that goes on with one is kept in its folder."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["complete", "continuing", "under_way"]

_PLACE = (".runpod-comfy", "command")
_BEGINNING = ("runpod-comfy", "batch")
_LONGEST = 2000  # characters
_URL_USER = re.compile(r"(?<=://)[^/?#]*@")
_ADDRESSES = ("--comfyui", "--base-url")


def under_way(folder: Path, command_name: str) -> None:
    """Note that a dataset is being made, and by which command; not being able to is no reason to stop."""
    file = folder.joinpath(*_PLACE)
    with contextlib.suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        words = [command_name, *_without_passwords(sys.argv[1:])]
        file.write_text(shlex.join(words) + "\n", "utf-8", errors="surrogateescape")


def _without_passwords(words: Iterable[str]) -> Iterator[str]:
    """Yield a command's words without the user and the password of addresses: datasets are given to others."""
    is_address = False
    for word in words:
        option, equals, value = word.partition("=")
        if is_address:
            yield _URL_USER.sub("", word)
        elif equals and option in _ADDRESSES:
            yield f"{option}={_URL_USER.sub('', value)}"
        else:
            yield word
        is_address = word in _ADDRESSES


def complete(folder: Path) -> None:
    """Note that a dataset is complete."""
    with contextlib.suppress(OSError):
        folder.joinpath(*_PLACE).unlink(missing_ok=True)


def continuing(folder: Path) -> str | None:
    """Return the command that goes on with a dataset, or None where it is complete, or none."""
    try:
        words = shlex.split(folder.joinpath(*_PLACE).read_text("utf-8", errors="replace")[:_LONGEST])
    except (OSError, ValueError):
        return None
    # A folder may come from somebody else, and what is shown is copied and run.
    is_ours = len(words) > len(_BEGINNING) and tuple(words[:2]) == _BEGINNING and all(map(str.isprintable, words))
    return shlex.join(words) if is_ours else None
