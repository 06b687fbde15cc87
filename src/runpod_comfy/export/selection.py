"""What people chose in the gallery: files of selections, read and merged. Pure, but for reading.

A file names images by task and sample, as the manifest does. The paths in it are for people and are never opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Choice", "chosen", "read_selection"]

_MAX_BYTES = 256 * 1024 * 1024
_MAX_STARS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one person thought of one image.

    Attributes:
        task: The key of its task.
        sample: Its place among the task's outputs.
        stars: 0 to 5.
        rejected: Whether it shall not be used.
    """

    task: str
    sample: int
    stars: int = 0
    rejected: bool = False


def read_selection(path: Path, *, run_id: str | None) -> list[Choice]:
    """Read one file.

    Args:
        path: The file.
        run_id: The id of the run that the images are of; a file of another run is refused.

    Raises:
        InputError: It cannot be read, or is no selection.
        ConfigurationError: It is of another run.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is no selection: it has more than {_MAX_BYTES // 2**20} MB.")
        found = json.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}. Check the path.") from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path} is not JSON. Export the selection again.") from exc
    if not isinstance(found, dict) or found.get("schema") != "selection/1" or not isinstance(found.get("images"), list):
        raise InputError(f"{path} is no selection/1: export it from the gallery of the dataset.")
    if found.get("run") is not None and run_id is not None and found["run"] != run_id:
        raise ConfigurationError(
            f"{path} was made in the gallery of another run ({str(found['run'])[:40]!r}; this one is {run_id!r}). "
            "Name the dataset that it belongs to."
        )
    return [_choice(each, number, path) for number, each in enumerate(found["images"], 1)]


def chosen(choices: Iterable[Choice], *, min_stars: int) -> set[tuple[str, int]]:
    """Return the images that are wanted, as task and sample.

    Where several people chose, the most stars count, and an image that one of them rejected is out.
    """
    stars: dict[tuple[str, int], int] = {}
    rejected: set[tuple[str, int]] = set()
    for each in choices:
        key = each.task, each.sample
        stars[key] = max(stars.get(key, 0), each.stars)
        if each.rejected:
            rejected.add(key)
    return {key for key, count in stars.items() if count >= min_stars and key not in rejected}


def _choice(value: Any, number: int, path: Path) -> Choice:
    task = value.get("task") if isinstance(value, dict) else None
    sample = value.get("sample") if isinstance(value, dict) else None
    if not isinstance(task, str) or not isinstance(sample, int):
        raise InputError(f"{path}: image {number} has no task and sample. Export the selection again.")
    stars, rejected = value.get("stars", 0), value.get("rejected", False)
    if isinstance(stars, bool) or not isinstance(stars, int) or not 0 <= stars <= _MAX_STARS:
        raise InputError(f"{path}: image {number} has {stars!r:.40} stars; there are 0 to {_MAX_STARS}.")
    return Choice(task=task, sample=sample, stars=stars, rejected=rejected is True)
