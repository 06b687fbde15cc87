"""Input images of all runs on one ComfyUI: put there, shared, and taken away with the last run that needs them.

Runs overlap, since the next job's images go up while the present one computes. Two jobs with the same folder and the
same images share them. Two with the same name and other images (``input.png`` is what many clients send) follow one
another, or one would compute with the other's photo. That holds within a process. Between processes, claims keep a
folder of images that another needs; images of other content under one name would still meet.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.claims import Claims
from runpod_comfy.comfyui.folders import remove_empty
from runpod_comfy.errors import InputError
from runpod_comfy.media.inputs import OWN_SUBFOLDERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.folders import Folders
    from runpod_comfy.media.inputs import InputImage

__all__ = ["InputShelf"]

_AT_ONCE = 4


@dataclass(slots=True)
class _Place:
    """A folder of images, or one image that is in none, and who uses it."""

    content: frozenset[tuple[str, str]]
    users: int = 0
    written: set[Path] = field(default_factory=set)
    claimed: Path | None = None


class InputShelf:
    """The input folder of one ComfyUI, for runs on one event loop.

    Args:
        folders: ComfyUI's folders; None uploads the images, and they stay.
    """

    def __init__(self, folders: Folders | None = None) -> None:
        self._folders = folders
        self._places: dict[tuple[str, str], _Place] = {}
        self._changed = asyncio.Event()
        self._claims = Claims()

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
        # A thread is not cancelled: what it has written must be known though nobody waits for it any more.
        writing = asyncio.ensure_future(self._written(path, image, place))
        try:
            await asyncio.shield(writing)
        except OSError as exc:
            raise InputError(f"The image {image.name!r} cannot be written to ComfyUI's input folder: {exc}.") from exc

    async def _written(self, path: Path, image: InputImage, place: _Place) -> None:
        with self._claimed(path.parent if image.subfolder else None) as folder:
            if await asyncio.to_thread(_write, path, image.data) or image.subfolder.startswith(OWN_SUBFOLDERS):
                place.written.add(path)
            if not place.users:
                self._remove(place)
            elif folder is not None and place.claimed is None:
                place.claimed = folder
                self._claims.take(folder)

    @contextmanager
    def _claimed(self, folder: Path | None) -> Iterator[Path | None]:
        if folder is None:  # the input folder itself, where other people's images are
            yield None
            return
        self._claims.take(folder)
        try:
            yield folder
        finally:
            self._claims.drop(folder)

    async def _release(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            place = self._places[key]
            place.users -= 1
            if place.users == 0:
                del self._places[key]
                # On the loop, since the next run may want the place at once; it is a few unlinks.
                self._remove(place)
        self._changed.set()

    def _remove(self, place: _Place) -> None:
        """Remove what a place holds, unless another process needs it, whose business that is then."""
        paths, place.written = place.written, set()
        for folder in {path.parent for path in paths}:
            with self._claims.alone(folder) as is_alone:
                for path in paths if is_alone else ():
                    with suppress(OSError):
                        path.unlink()
                if is_alone and self._folders is not None:
                    remove_empty(folder, self._folders.input)
        if place.claimed is not None:
            self._claims.drop(place.claimed)
            place.claimed = None


def _places(images: Iterable[InputImage]) -> dict[tuple[str, str], frozenset[tuple[str, str]]]:
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for image in images:
        found.setdefault(_key(image), set()).add((image.name, hashlib.sha256(image.data).hexdigest()))
    return {key: frozenset(content) for key, content in found.items()}


def _key(image: InputImage) -> tuple[str, str]:
    return (image.subfolder, "") if image.subfolder else ("", image.name)


def _write(path: Path, data: bytes) -> bool:
    """Write a file in one step; False where it is there with this content, and then is not ours to remove."""
    with suppress(OSError):
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
    # Under a name that nodes that list the folder do not take for an image.
    descriptor, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return True
