"""What people type, read: several files after one ``--image``, folders of photos, ``--var name=value``."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["find_images", "parse_variables", "spread_option"]

# What ComfyUI reads and the library sends as it is.
_PICTURES = frozenset({".jpeg", ".jpg", ".png", ".webp"})
_PATTERN = frozenset("*?[")  # a shell leaves them as they are where it finds nothing, or they are quoted
_TEMPLATES = frozenset({".jinja", ".j2", ".json"})


def spread_option(words: Sequence[str], option: str) -> list[str]:
    """Give each of the words that follow ``option`` an ``option`` of its own: a shell makes several of ``*.jpg``.

    >>> spread_option(["a.json", "--image", "1.jpg", "2.jpg", "-n", "4"], "--image")
    ['a.json', '--image', '1.jpg', '--image', '2.jpg', '-n', '4']

    The words end at the next option, or at a template: no picture is named like one.
    """
    spread: list[str] = []
    inside = False
    for index, word in enumerate(words):
        if word == "--":
            return [*spread, *words[index:]]
        is_value = inside and not word.startswith("-") and Path(word).suffix.lower() not in _TEMPLATES
        # The first value follows its option anyway.
        if is_value and words[index - 1] != option:
            spread.append(option)
        spread.append(word)
        inside = word == option or is_value
    return spread


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return the files, with each folder replaced by its pictures, and each pattern by its files, in their order.

    Raises:
        click.BadParameter: A folder has no pictures, or a pattern has matched nothing.
    """
    found: list[Path] = []
    for path in paths:
        if not _is_folder(path):
            found += [path] if not _PATTERN & set(str(path)) or _is_there(path) else _matching(path)
            continue
        pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES and file.is_file())
        if not pictures:
            raise click.BadParameter(f"the folder {path} has no pictures (.jpg, .png or .webp).")
        found += pictures
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have; what is wrong with it is said when it is read
        return False


def _matching(pattern: Path) -> list[Path]:
    found = sorted(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute one
    if not found:
        raise click.BadParameter(f"the pattern {pattern} matched nothing; it starts at {Path.cwd()}.")
    return found


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def parse_variables(assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs.

    >>> parse_variables(["steps=8", "upscale=true", "prompt=a red fox", 'year="1999"'])
    {'steps': 8, 'upscale': True, 'prompt': 'a red fox', 'year': '1999'}

    A value that is JSON is that value, ``@file`` is the text of the file, anything else is text.

    Raises:
        click.BadParameter: There is no ``=`` or no name, a name comes twice, or a file cannot be read.
    """
    variables: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{assignment!r} is not name=value.")
        if name in variables:
            raise click.BadParameter(f"{name} is given twice.")
        variables[name] = _read_text(name, Path(value[1:])) if value.startswith("@") else _parse_value(value)
    return variables


def _parse_value(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_json)
    except ValueError:
        return value


def _no_json(constant: str) -> Any:
    """NaN and Infinity are words, not JSON."""
    raise ValueError(constant)


def _read_text(name: str, path: Path) -> str:
    try:
        return path.read_text("utf-8-sig").removesuffix("\n")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise click.BadParameter(
            f"the file of {name}=@{path} cannot be read: {reason}. (A text that begins with @: {name}='\"@…\"'.)"
        ) from exc
