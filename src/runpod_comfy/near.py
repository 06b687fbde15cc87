"""Names that are most like one that somebody typed: verbs, variables, choices, nodes, models and files alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(name: object, known: Iterable[Any], *, count: int = 1) -> list[str]:
    """Return the known names that are most like this one, the best first.

    >>> nearest("SDXL.safetensors", ["sd15.ckpt", "models/sdxl.safetensors"])
    ['models/sdxl.safetensors']

    Case, folders and file endings weigh nothing at first, since those are what people get wrong.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - nearly every command is typed right

    by_core: dict[str, str] = {}
    for each in known:
        by_core.setdefault(_core(str(each)), str(each))
    return [by_core[each] for each in get_close_matches(_core(str(name)), by_core, n=count, cutoff=0.6)]


def _core(name: str) -> str:
    stem = name.replace("\\", "/").rpartition("/")[2]
    return stem.rpartition(".")[0].lower() or stem.lower()
