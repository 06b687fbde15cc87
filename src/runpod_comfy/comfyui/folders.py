"""ComfyUI's folders where they can be reached from here: read and written without going through its server.

ComfyUI serves ``/view`` and ``/upload`` from the process that computes, so each byte through them waits for Python's
lock. Whether a folder is the server's own is not believed but proved: a file written there must come back from it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runpod_comfy.errors import JobFailed, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.outputs import FileRef

__all__ = ["Folders", "find_folders", "option", "remove_empty"]

logger = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_KINDS = ("input", "output", "temp")


@dataclass(frozen=True, slots=True)
class Folders:
    """The three folders of a ComfyUI on this machine, resolved. Its methods block: call them in a thread."""

    input: Path
    output: Path
    temp: Path

    def path_of(self, ref: FileRef) -> Path | None:
        """Return where a reported file is; None where that would be outside its folder."""
        return _inside(self.temp if ref.type == "temp" else self.output, ref.subfolder, ref.filename)

    def input_path(self, subfolder: str, name: str) -> Path | None:
        """Return where an input image goes; None where that would be outside the input folder."""
        return _inside(self.input, subfolder, name)

    def remove(self, job_folder: str, refs: Iterable[FileRef], *, not_before: float) -> set[Path]:
        """Remove a job's output folder and the files it reported elsewhere; return the folders these were in.

        Args:
            job_folder: The folder's name below the output folder.
            refs: What was reported; a node may also show a file that it did not make, so of these only what was
                written since ``not_before`` goes.
            not_before: In seconds since the epoch.
        """
        if (own := _inside(self.output, "", job_folder)) is not None:
            shutil.rmtree(own, ignore_errors=True)
        folders = set()
        for ref in refs:
            path = self.path_of(ref)
            with suppress(OSError):
                if path is not None and path.stat().st_mtime >= not_before:
                    path.unlink()
                    folders.add(path.parent)
        return folders - {self.output, self.temp}

    def remove_empty(self, folders: Iterable[Path]) -> None:
        """Remove these folders and those above them, as far as they are empty; to be called when no node may save."""
        for folder in folders:
            remove_empty(folder, self.temp if folder.is_relative_to(self.temp) else self.output)


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it that are empty then, up to the root."""
    while folder != root and folder.is_relative_to(root):
        try:
            folder.rmdir()
        except OSError:  # something else is in it, or it is gone
            return
        folder = folder.parent


async def find_folders(client: ComfyUIClient, *, comfyui_dir: str | None) -> Folders | None:
    """Return the server's folders if they are on this machine, else None.

    Args:
        client: The server.
        comfyui_dir: ComfyUI's folder as far as is known; without it only a server on this machine's own address is
            asked for its command line.

    Raises:
        JobFailed: One of them is full, so that it cannot be told.
        TransportError: The server does not answer.
    """
    if comfyui_dir is None and not _is_loopback(client.origin):
        return None
    stats = await client.system_stats()
    for folders in _candidates(stats, comfyui_dir):
        if await _all_are_the_servers(client, folders):
            logger.info("%s: its files are read in %s", client.origin, folders.output)
            return folders
    logger.info("%s: its folders cannot be reached from here; files come over HTTP and stay there", client.origin)
    return None


def option(arguments: list[str], name: str) -> str | None:
    """Return an absolute path that a command line gives for an option, else None.

    A relative path on the command line starts at a folder that is not known here, so it does not count.
    """
    found = ""
    for position, argument in enumerate(arguments):
        if argument == name:
            found = next(iter(arguments[position + 1 :]), "")
        elif argument.startswith(f"{name}="):
            found = argument.removeprefix(f"{name}=")
    is_known = PurePosixPath(found).is_absolute() or PureWindowsPath(found).is_absolute()
    return found if is_known else None


def _candidates(stats: Mapping[str, object], comfyui_dir: str | None) -> Iterator[Folders]:
    """Yield where the folders may be, the likeliest first."""
    system = stats.get("system")
    argv = system.get("argv") if isinstance(system, dict) else None
    arguments = [str(each) for each in argv] if isinstance(argv, list) else []
    script = Path(arguments[0]) if arguments else Path()
    bases = (option(arguments, "--base-directory"), comfyui_dir, str(script.parent) if script.is_absolute() else None)
    for base in dict.fromkeys(base for base in bases if base):
        temp_base = option(arguments, "--temp-directory") or base
        yield Folders(
            Path(option(arguments, "--input-directory") or Path(base, "input")).resolve(),
            Path(option(arguments, "--output-directory") or Path(base, "output")).resolve(),
            Path(temp_base, "temp").resolve(),
        )


async def _all_are_the_servers(client: ComfyUIClient, folders: Folders) -> bool:
    for kind, folder in zip(_KINDS, (folders.input, folders.output, folders.temp), strict=True):
        if not await _is_the_servers(client, kind, folder):
            return False
    return True


async def _is_the_servers(client: ComfyUIClient, kind: str, folder: Path) -> bool:
    name, content = f".runpod-comfy-{secrets.token_hex(8)}", secrets.token_bytes(16)
    probe = folder / name

    def write() -> None:
        if kind == "temp" and folder.parent.is_dir():
            folder.mkdir(exist_ok=True)  # ComfyUI makes it with the first preview
        probe.write_bytes(content)

    def remove(_: object = None) -> None:
        with suppress(OSError):
            probe.unlink()

    # A thread is not cancelled: what it writes must not come after it was removed.
    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
        return await client.view(name, "", kind) == content
    except OSError as exc:
        if exc.errno in _FULL:
            raise JobFailed(
                f"There is no space left in ComfyUI's {kind} folder, {folder}. Give the worker a larger disk."
            ) from exc
        return False
    except RunpodComfyError:
        return False
    finally:
        if writing.done():
            remove()
        else:
            writing.add_done_callback(remove)


def _inside(root: Path, subfolder: str, name: str) -> Path | None:
    """Return the file's path if it is below ``root``, symbolic links followed."""
    if not name or "\0" in subfolder + name:
        return None
    try:
        path = (root / subfolder / name).resolve()
    except (OSError, RuntimeError):  # too long; links in a circle
        return None
    return path if path.is_relative_to(root) and path != root else None


def _is_loopback(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
