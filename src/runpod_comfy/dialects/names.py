"""File names as ComfyUI counts them, kept apart where several runs made the same one.

ComfyUI counts up in the output folder of one machine, and for one prefix: two of either give the same name twice.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

__all__ = ["DistinctNames", "plain_name"]

_COUNTED = re.compile(r"(?P<head>.*_)(?P<number>\d{1,9})(?P<tail>_?\.\w+)", re.DOTALL)


class DistinctNames:
    """Gives each file a name that no other file has in the same subfolder."""

    def __init__(self) -> None:
        self._taken: set[tuple[str | None, str]] = set()
        self._next: dict[tuple[str | None, str, str], int] = {}

    def name_for(self, name: str, subfolder: str | None) -> str:
        """Return the name itself or, where it is taken, the next free one as ComfyUI would count on.

        >>> names = DistinctNames()
        >>> [names.name_for("face_00001_.png", None) for _ in range(3)]
        ['face_00001_.png', 'face_00002_.png', 'face_00003_.png']
        >>> [names.name_for("face.png", None) for _ in range(2)]
        ['face.png', 'face_1.png']
        """
        if (subfolder, name) not in self._taken:
            self._taken.add((subfolder, name))
            return name
        counted = _COUNTED.fullmatch(name)
        path = PurePosixPath(name)
        head, number, tail = counted.groups() if counted else (f"{path.stem}_", "0", path.suffix)
        # Where the last search ended, since many batches may ask for the same name.
        key = (subfolder, head, tail)
        following = max(self._next.get(key, 0), int(number) + 1)
        while (subfolder, free := f"{head}{following:0{len(number)}d}{tail}") in self._taken:
            following += 1
        self._next[key] = following + 1
        self._taken.add((subfolder, free))
        return free


def plain_name(name: str) -> str:
    """Return the last part of a name from outside, whichever separators it has."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "output" if last in {"", ".."} else last
