"""Claims on folders of input images, so that processes that share a ComfyUI do not remove what another still needs.

A claim is a shared lock (``flock``) on the folder. Who removes takes the lock alone, for a few unlinks, so
only the last one removes. The system lets go of a dead process's claims. Where there is no ``flock`` (Windows), there
are none, and processes must not share a ComfyUI.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["Claims"]

_TRIES = 20


class Claims:
    """The claims of one process, or one part of it, whose users share them and are counted."""

    def __init__(self) -> None:
        self._users: dict[Path, int] = {}
        self._descriptors: dict[Path, int] = {}

    def take(self, folder: Path) -> None:
        """Make the folder, and claim it.

        Raises:
            OSError: It cannot be made.
        """
        if folder not in self._users and sys.platform != "win32":
            self._descriptors[folder] = _locked(folder)
        self._users[folder] = self._users.get(folder, 0) + 1

    def drop(self, folder: Path) -> None:
        """Give a claim back."""
        self._users[folder] -= 1
        if not self._users[folder]:
            del self._users[folder]
            if (descriptor := self._descriptors.pop(folder, None)) is not None:
                os.close(descriptor)

    @contextmanager
    def alone(self, folder: Path) -> Iterator[bool]:
        """Tell whether nobody else has a claim on a folder that is claimed here, and keep it so within the context."""
        descriptor = self._descriptors.get(folder)
        if descriptor is None or sys.platform == "win32":
            yield True
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            is_alone = False
        try:
            yield is_alone
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def _locked(folder: Path) -> int:
    """Return a descriptor of the folder with a shared lock; another may be removing it, being empty, just now."""
    for tries_left in reversed(range(_TRIES)):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
        if not tries_left:
            break
    raise FileNotFoundError(f"{folder} is removed again and again")
