"""Input images on their way to ComfyUI: paths, bytes and PIL images become the bytes of files, named in their order.

A PNG, JPEG or WebP is sent as the bytes it is; everything else becomes a PNG. ComfyUI's LoadImage applies the EXIF
orientation of what it loads, so a file that is sent as it is keeps that tag, and what is encoded here is turned upright
and carries none: each photo is turned exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import math
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from runpod_comfy.errors import InputError
from runpod_comfy.media.cache import Cache, file_key, picture_key
from runpod_comfy.media.formats import media_type_of, size_in_container
from runpod_comfy.media.pictures import (
    check_size,
    decoding,
    open_picture,
    picture_errors,
    png_of,
    upright,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from PIL import Image

__all__ = [
    "OWN_SUBFOLDERS",
    "EncodedImage",
    "ImageSource",
    "InputImage",
    "check_picture",
    "encode_image",
    "encode_images",
    "name_images",
]

OWN_SUBFOLDERS = "rcc-"
"""What names of folders begin with that are made of their images' content; nobody but this project makes such."""

ImageSource: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview"

_MAX_FILE_BYTES = 1024 * 1024 * 1024
_MAX_PATH_LENGTH = 4096
_MAX_ENCODERS = 4  # a decoded photo takes 50 MB and more
_SENT_AS_THEY_ARE = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_READ_BY_PILLOW = frozenset({"image/gif", "image/bmp", "image/tiff"})
_SENT_FORMATS = frozenset({"PNG", "JPEG", "MPO", "WEBP"})  # as Pillow calls them; an MPO is a JPEG with more behind it


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as the bytes that will be sent.

    Attributes:
        data: The bytes of a whole file.
        extension: ``png``, ``jpg`` or ``webp``.
        media_type: For example ``image/png``.
        sha256: The hash of ``data``.
    """

    data: bytes = field(repr=False)
    extension: str
    media_type: str
    sha256: bytes = field(repr=False)

    @classmethod
    def of(cls, data: bytes, extension: str, media_type: str) -> EncodedImage:
        """Return it with its hash."""
        return cls(data, extension, media_type, hashlib.sha256(data).digest())


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image under the name and in the subfolder of ComfyUI's input folder where a workflow finds it."""

    name: str
    data: bytes = field(repr=False)
    media_type: str
    subfolder: str = ""


def encode_image(source: ImageSource, *, label: str | None = None, max_pixels: int | None = None) -> EncodedImage:
    """Return an image as bytes that ComfyUI reads; may be called from several threads at once.

    Args:
        source: A PIL image, a file's path, or a file's bytes. The PIL image is left as usable as it was.
        label: What messages call it; a file's name is added.
        max_pixels: Scale down (and encode again) what has more pixels than this.

    Raises:
        InputError: It cannot be read, is cut short, is no image, or has more than ``MAX_IMAGE_PIXELS``.
    """
    label = _label(source, label or "input image")
    image = source if _is_pil_image(source) else None
    data = _unread_file(image) if image is not None else _read(source, label)
    if data is not None:
        media_type = media_type_of(data) or ""
        if extension := _SENT_AS_THEY_ARE.get(media_type):
            size = _checked_size(data, label)
            if max_pixels is None or math.prod(size) <= max_pixels:
                return EncodedImage.of(data, extension, media_type)
    with picture_errors(label):
        with decoding():
            picture = upright(image if data is None else open_picture(data, label))
        return EncodedImage.of(png_of(picture, label, max_pixels), "png", "image/png")


class Encoders:
    """The threads that encode, and what they remember: one for a process."""

    def __init__(self) -> None:
        # Not the loop's own executor: it also resolves host names, which must not wait behind photos.
        self.threads = ThreadPoolExecutor(_MAX_ENCODERS, thread_name_prefix="runpod-comfy-encode")
        self.cache: Cache[EncodedImage] = Cache(lambda image: len(image.data))

    def encode(self, source: ImageSource, *, label: str, max_pixels: int | None) -> EncodedImage:
        """Do ``encode_image``, once for each content."""

        def make() -> EncodedImage:
            return encode_image(source, label=label, max_pixels=max_pixels)

        key = _key(source)
        return make() if key is None else self.cache.get((key, max_pixels), make)


@functools.cache
def encoders() -> Encoders:
    """Return the process's encoders."""
    return Encoders()


if hasattr(os, "register_at_fork"):
    # A child has none of the parent's threads, and may have inherited a lock that one of them held.
    os.register_at_fork(after_in_child=encoders.cache_clear)


def _key(source: ImageSource) -> Hashable | None:
    if isinstance(source, (str, os.PathLike)):
        return None if _is_no_path(path := os.fsdecode(source)) else file_key(path)
    if not _is_pil_image(source) or _unread_file(source) is not None:
        return None  # sent as they are
    return picture_key(source)


def check_picture(data: bytes, label: str) -> None:
    """Refuse a picture that is cut short or has more than ``MAX_IMAGE_PIXELS``, without decoding it.

    What is no picture, or none that Pillow reads, passes: the node that loads it has to say.

    Raises:
        InputError: Its size, or that its end is missing, is in the text.
    """
    media_type = media_type_of(data) or ""
    if media_type in _SENT_AS_THEY_ARE:
        _checked_size(data, label)
    elif media_type in _READ_BY_PILLOW:
        with picture_errors(label), decoding():
            open_picture(data, label)


def _checked_size(data: bytes, label: str) -> tuple[int, int]:
    size = size_in_container(data)
    if size is None:
        raise InputError(f"{label}: is truncated or damaged: the end of the file is missing. Copy it again.")
    check_size(size, label)
    return size


async def encode_images(sources: Sequence[ImageSource], *, max_pixels: int | None = None) -> tuple[InputImage, ...]:
    """Encode images in threads of their own and name them in their order; what is known is not encoded again.

    Raises:
        InputError: One line for each image that cannot be used.
    """
    if not sources:
        return ()
    loop = asyncio.get_running_loop()
    work = encoders()
    jobs = [
        functools.partial(work.encode, source, label=f"input image {number}", max_pixels=max_pixels)
        for number, source in enumerate(sources, 1)
    ]
    done = await asyncio.gather(*(loop.run_in_executor(work.threads, job) for job in jobs), return_exceptions=True)
    if failures := [each for each in done if isinstance(each, BaseException)]:
        surprises = [each for each in failures if not isinstance(each, InputError)]
        raise surprises[0] if surprises else InputError("\n".join(map(str, failures))) from failures[0]
    return name_images([each for each in done if isinstance(each, EncodedImage)])


def name_images(encoded: Sequence[EncodedImage]) -> tuple[InputImage, ...]:
    """Name images so that names sort in their order (``00.png``, ``01.jpg``, …), in a subfolder named by their content.

    The same images in the same order get the same subfolder, so that ComfyUI's cache knows them in the next job.
    """
    width = max(2, len(str(len(encoded) - 1)))
    names = [f"{index:0{width}d}.{image.extension}" for index, image in enumerate(encoded)]
    content = hashlib.sha256()
    for name, image in zip(names, encoded, strict=True):
        content.update(f"{name} ".encode() + image.sha256)
    subfolder = f"{OWN_SUBFOLDERS}{content.hexdigest()[:16]}"
    return tuple(
        InputImage(name, image.data, image.media_type, subfolder) for name, image in zip(names, encoded, strict=True)
    )


def _is_pil_image(source: object) -> bool:
    # Whoever has a PIL image has loaded PIL.
    image_class = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return image_class is not None and isinstance(source, image_class)


def _label(source: object, label: str) -> str:
    path = source if isinstance(source, (str, os.PathLike)) else getattr(source, "filename", "")
    if not path or _is_no_path(os.fsdecode(path)):
        return label
    name = "".join(char if char.isprintable() else "?" for char in Path(os.fsdecode(path)).name)
    return f"{label} ({name})"


def _is_no_path(text: str) -> bool:
    return len(text) > _MAX_PATH_LENGTH or text.lower().startswith(("http:", "https:", "data:"))


def _read(source: Any, label: str) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"{label}: is of type {type(source).__name__}; give a PIL image, a path or the bytes of a file "
            "(an array becomes an image by PIL.Image.fromarray)."
        )
    elif _is_no_path(path := os.fsdecode(source)):
        raise InputError(f"{label}: is a URL or base64 text, not a path. Download or decode it, and give the bytes.")
    else:
        data = _read_path(path, label)
    if not data:
        raise InputError(f"{label}: is empty (zero bytes). Copy or download it again.")
    return data


def _read_path(path: str, label: str) -> bytes:
    try:
        about = Path(path).stat()
        if stat.S_ISDIR(about.st_mode):
            raise InputError(f"{label}: is a folder. Give the files in it.")
        if not stat.S_ISREG(about.st_mode):  # a pipe or a device may never end
            raise InputError(f"{label}: is no regular file. Give a file, or its bytes.")
        if about.st_size > _MAX_FILE_BYTES:
            raise InputError(
                f"{label}: has {about.st_size:,} bytes; at most {_MAX_FILE_BYTES:,} are read. Scale it down."
            )
        return Path(path).read_bytes()
    except FileNotFoundError as exc:
        raise InputError(f"{label}: there is no such file. Check the path; it starts at {Path.cwd()}.") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or exc
        raise InputError(f"{label}: cannot be read ({reason}). Check the path and its permissions.") from exc


def _unread_file(image: Any) -> bytes | None:
    """Return the file behind a PIL image that was opened and not touched since, or None where its pixels count."""
    if image.format not in _SENT_FORMATS or getattr(image, "decoderconfig", None) or image.tell():
        return None
    # Pillow gives an unread WebP no tiles; what tells is `fp`, which loading replaces.
    is_webp = image.format == "WEBP"
    if not (is_webp or getattr(image, "tile", None)):
        return None
    data = b""
    with decoding(), contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
        position = image.fp.tell()
        try:
            image.fp.seek(0)
            data = image.fp.read()
        finally:
            image.fp.seek(position)
    if not data and not is_webp:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            data = Path(os.fsdecode(image.filename)).read_bytes()
    media_type = media_type_of(data)
    if media_type not in _SENT_AS_THEY_ARE or is_webp != (media_type == "image/webp"):
        return None
    return data if size_in_container(data) in (image.size, None) else None
