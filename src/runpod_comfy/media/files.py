"""Names that others chose, made safe, and bytes on their way to disk."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import secrets
from typing import TYPE_CHECKING

from runpod_comfy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["check_relative_name", "publish", "published_as", "safe_output_path", "write_new", "write_part"]

_UNSAFE_NAME = re.compile(
    r"""[\x00-\x1f\x7f\\\ud800-\udfff]     # what no file system means as part of a name, and Windows' separator
      | ^[A-Z]:                            # a drive
      | (?:^|/) [. ]* (?:/|$)              # nothing, "." or ".."; also ".. ", whose end Windows drops
      | (?:^|/) (?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) [ ]* (?:[./]|$)  # devices of Windows
      """,
    re.VERBOSE | re.IGNORECASE,
)
_PART = ".part"
_MAX_PART_BYTES, _MAX_NAME_BYTES = 255, 1024


def check_relative_name(name: str) -> None:
    """Refuse a file's or subfolder's name (``a/b`` is one) that could lead out of the folder it is meant for.

    For names that clients send to workers and workers to clients; Windows' rules hold on every system, since either
    side may run it.

    Raises:
        InputError: It is absolute, goes up, is reserved or cannot be a name.
    """
    if _UNSAFE_NAME.search(name):
        problem = "could lead out of its folder"
    elif len(name.encode()) > _MAX_NAME_BYTES or max(len(part.encode()) for part in name.split("/")) > _MAX_PART_BYTES:
        problem = "is too long"
    else:
        return
    raise InputError(f"The name {ascii(name)[:100]} {problem}. Use a plain one, such as 'photo.png'.")


def safe_output_path(folder: Path, name: str, subfolder: str | None) -> Path:
    """Return where in ``folder`` an output goes; never a place outside it, also not through a symlink.

    Args:
        folder: Where the caller wants outputs.
        name: The file's name as the worker sent it.
        subfolder: The subfolder as the worker sent it, with a backslash between parts where it runs Windows.

    Raises:
        InputError: Name and subfolder would lead outside, or cannot be used.
    """
    below = (subfolder or "").replace("\\", "/")
    relative = f"{below.rstrip('/')}/{name}" if below else name
    check_relative_name(relative)
    path = folder / relative
    if "/" not in relative:
        return path  # straight in the folder, and `write_new` follows no link that has the name already
    if not _is_inside(path, folder):
        raise InputError(f"{path} is or goes through a symlink that leads out of {folder}. Choose another folder.")
    return path


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        with contextlib.suppress(FileNotFoundError):
            path.resolve(strict=True)  # only this refuses a loop of symlinks on every Python
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def write_new(path: Path, data: bytes, *, synced: bool = True) -> Path:
    """Write a file that appears whole or not at all, beside files that exist, and return the path used.

    Where ``name.png`` exists the file becomes ``name_1.png``, ``name_2.png``, …, also with several processes at once.
    Missing folders are made. With ``synced=False`` a power failure may leave it empty; it takes a tenth of the time.

    Raises:
        OSError: The disk is full, or the folder may not be written.
    """
    return publish(write_part(path, data, synced=synced), path)


def write_part(path: Path, data: bytes, *, synced: bool = True) -> Path:
    """Write the bytes of a file beside its place, under a hidden name, and return that: the first half of a write.

    Raises:
        OSError: The disk is full, or the folder may not be written; nothing is left.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}{_PART}")
    try:
        with part.open("xb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def publish(part: Path, path: Path) -> Path:
    """Give a finished part the first free name, and return it: the second half of a write.

    Raises:
        OSError: The folder may not be written; the part is gone.
    """
    try:
        return _publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def published_as(part: Path, path: Path, sha256: str, *, known: Callable[[Path], bool]) -> Path | None:
    """Return the name that a part has got, where whoever gave it was killed before it could say so, or None.

    Args:
        part: The hidden file, which may be gone.
        path: The place that was meant.
        sha256: Of the bytes, in hexadecimal.
        known: Says of a file whether it is known to be another one.
    """
    for candidate in _names_for(path):
        if not candidate.exists():
            break
        if part.exists():
            if candidate.samefile(part):
                return candidate
        elif not known(candidate) and hashlib.sha256(candidate.read_bytes()).hexdigest() == sha256:
            return candidate
    return None


def _publish(part: Path, path: Path, *, link: Callable[[Path, Path], None] = os.link) -> Path:
    """Give a finished file the first free name."""
    for candidate in _names_for(path):
        try:
            link(part, candidate)
        except FileExistsError:
            continue
        except OSError:  # FAT, exFAT and some network folders have no hard links: take the name, then replace it
            try:
                candidate.touch(exist_ok=False)
            except FileExistsError:
                continue
            part.replace(candidate)
        return candidate
    raise AssertionError  # names never end


def _names_for(path: Path) -> Iterator[Path]:
    yield path
    suffix = path.suffix if len(path.suffix) <= 16 else ""  # noqa: PLR2004 - longer is no suffix but a name with a dot
    stem = path.name.removesuffix(suffix).encode()
    for number in itertools.count(1):
        end = f"_{number}{suffix}"
        yield path.with_name(stem[: _MAX_PART_BYTES - len(end.encode())].decode(errors="ignore") + end)
