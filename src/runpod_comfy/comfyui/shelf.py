"""Input images of all runs on one ComfyUI: put there, shared, and taken away with the last run that needs them.

Runs overlap, since the next job's images go up while the present one computes. Two jobs with the same folder and the
same images share them. Two with the same name and other images (``input.png`` is what many clients send) follow one
another, or one would compute with the other's photo.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.folders import remove_empty
from runpod_comfy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.folders import Folders
    from runpod_comfy.media.inputs import InputImage

__all__ = ["InputShelf"]

_AT_ONCE = 4
_TRIES = 20


@dataclass(slots=True)
class _Place:
    """A folder of images, or one image that is in none, and who uses it."""

    content: frozenset[tuple[str, str]]
    users: int = 0
    written: set[Path] = field(default_factory=set)


class InputShelf:
    """The input folder of one ComfyUI, for runs on one event loop.

    Args:
        folders: ComfyUI's folders; None uploads the images, and they stay.
    """

    def __init__(self, folders: Folders | None = None) -> None:
        self._folders = folders
        self._places: dict[tuple[str, str], _Place] = {}
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, client: ComfyUIClient, images: Iterable[InputImage]) -> AsyncIterator[None]:
        """Have these images in ComfyUI's input folder for as long as the context lasts."""
        images = tuple(images)
        wanted = _places(images)
        # All or none: two runs that each hold what the other waits for would wait for ever.
        while any(key in self._places and self._places[key].content != content for key, content in wanted.items()):
            self._changed.clear()
            await self._changed.wait()
        for key, content in wanted.items():
            self._places.setdefault(key, _Place(content)).users += 1
        try:
            await self._put_all(client, images)
            yield
        finally:
            # Shielded: who is cancelled twice must not leave the place taken.
            await asyncio.shield(asyncio.ensure_future(self._release(wanted)))

    async def _put_all(self, client: ComfyUIClient, images: tuple[InputImage, ...]) -> None:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def put(image: InputImage) -> None:
            async with turns:
                path = self._folders.input_path(image.subfolder, image.name) if self._folders else None
                if path is None:
                    if not await client.holds_input(image.name, image.data, subfolder=image.subfolder):
                        await client.upload(image.name, image.data, subfolder=image.subfolder)
                else:
                    await self._write(path, image)

        try:
            async with asyncio.TaskGroup() as puts:
                for image in images:
                    puts.create_task(put(image))
        except ExceptionGroup as group:
            # Any one of them says what is wrong; the group is an implementation detail.
            raise group.exceptions[0] from None

    async def _write(self, path: Path, image: InputImage) -> None:
        place = self._places[_key(image)]

        def note(writing: asyncio.Future[bool]) -> None:
            if writing.cancelled() or writing.exception() or not writing.result():
                return
            if place.users:
                place.written.add(path)
            else:
                self._remove({path})

        # A thread is not cancelled: what it has written must be known though nobody waits for it any more.
        writing = asyncio.ensure_future(asyncio.to_thread(_write, path, image.data))
        writing.add_done_callback(note)
        try:
            await asyncio.shield(writing)
        except OSError as exc:
            raise InputError(f"The image {image.name!r} cannot be written to ComfyUI's input folder: {exc}.") from exc

    async def _release(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            place = self._places[key]
            place.users -= 1
            if place.users == 0:
                del self._places[key]
                # On the loop, since the next run may want the place at once; it is a few unlinks.
                self._remove(place.written)
        self._changed.set()

    def _remove(self, paths: set[Path]) -> None:
        for path in paths:
            with suppress(OSError):
                path.unlink()
        if self._folders is not None:
            for folder in {path.parent for path in paths}:
                remove_empty(folder, self._folders.input)


def _places(images: Iterable[InputImage]) -> dict[tuple[str, str], frozenset[tuple[str, str]]]:
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for image in images:
        found.setdefault(_key(image), set()).add((image.name, hashlib.sha256(image.data).hexdigest()))
    return {key: frozenset(content) for key, content in found.items()}


def _key(image: InputImage) -> tuple[str, str]:
    return (image.subfolder, "") if image.subfolder else ("", image.name)


def _new_part(folder: Path) -> tuple[int, str]:
    """Make a file in a folder that may be there or not, and that another run may be removing just now, being empty."""
    for tries_left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
        except FileNotFoundError:
            if not tries_left:
                raise
    raise AssertionError  # the last try returns or raises


def _write(path: Path, data: bytes) -> bool:
    """Write a file in one step; False where it is there with this content, and then is not ours to remove."""
    with suppress(OSError):
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
    # Under a name that nodes that list the folder do not take for an image.
    descriptor, part = _new_part(path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return True
