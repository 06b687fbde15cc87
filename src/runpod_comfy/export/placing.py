"""Files put into a folder that appears whole or not at all: hard links where possible, which cost no disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.export.stripping import strip_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runpod_comfy.export.source import Picture

__all__ = ["Placing", "beside", "link_or_copy", "new_folder"]


def beside(root: Path, ending: str) -> Path:
    """Return a folder beside another, named after it: ``out-kohya`` beside ``out``."""
    parent = root.parent if root.name not in {"", ".."} else root.resolve().parent
    return parent / f"{root.resolve().name}-{ending}"


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``target`` where everything went well, and else is gone.

    Raises:
        ConfigurationError: ``target`` exists and is not empty.
        OSError: It cannot be made.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} exists already. Name another folder with --to, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{secrets.token_hex(6)}.part"
    part.mkdir()
    try:
        yield part
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()
        part.replace(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How files get to where they go.

    Attributes:
        copied: Copy, so that a program that changes files in place leaves the dataset as it is.
        stripped: Without what ComfyUI and others wrote into them.
    """

    copied: bool = False
    stripped: bool = False

    def place(self, picture: Picture, path: Path) -> None:
        """Put an image there; its row tells the hash of what it has become.

        Raises:
            InputError: What is in its file cannot be taken out without changing its pixels.
            OSError: It cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.stripped:
            path.write_bytes(self.data(picture))
        elif self.copied:
            shutil.copyfile(picture.path, path)
        else:
            link_or_copy(picture.path, path)

    def data(self, picture: Picture) -> bytes:
        """Return an image's bytes as they go out; its row tells their hash.

        Raises:
            InputError: As of ``place``.
            OSError: They cannot be read.
        """
        data = picture.path.read_bytes()
        if self.stripped:
            data = strip_metadata(data, str(picture.path))
            if "sha256" in picture.row:
                picture.row["sha256"] = hashlib.sha256(data).hexdigest()
        return data


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system has none or the folder is on another disk."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
