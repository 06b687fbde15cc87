"""Images, paths and bytes on their way to ComfyUI; names and bytes on their way to disk.

A PNG, JPEG or WebP is sent as the bytes it is; everything else becomes a PNG. ComfyUI's LoadImage applies the EXIF
orientation of what it loads, so a file that is sent as it is keeps that tag, and what is encoded here is turned upright
and carries none: each photo is turned exactly once. Pillow is loaded only where a picture must be decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import itertools
import math
import os
import re
import secrets
import struct
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pybase64

from runpod_comfy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from PIL import Image

__all__ = [
    "MAX_IMAGE_PIXELS",
    "EncodedImage",
    "ImageSource",
    "InputImage",
    "check_relative_name",
    "encode_image",
    "encode_images",
    "from_base64",
    "media_type_of",
    "name_images",
    "open_image",
    "safe_output_path",
    "to_base64",
    "write_new",
]

ImageSource: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview"

MAX_IMAGE_PIXELS = 178_956_970
"""More pixels than this are refused: from here on Pillow, and with it ComfyUI, suspects a decompression bomb."""

_MAX_PATH_LENGTH = 4096
_MAX_ENCODERS = 4  # a decoded photo takes 50 MB and more
_SENT_AS_THEY_ARE = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_SENT_FORMATS = frozenset({"PNG", "JPEG", "MPO", "WEBP"})  # as Pillow calls them; an MPO is a JPEG with more behind it
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_ALPHA_MODES = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}  # PNG has their like, though not them

_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), media_type)
    for pattern, media_type in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"BM.{4}\0{4}", "image/bmp"),
        (rb"II\*\0|MM\0\*", "image/tiff"),
        (rb".{4}ftypavi[fs]", "image/avif"),
        (rb".{4}ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", "image/heic"),
        (rb".{4}ftyp", "video/mp4"),
        (rb"\x1a\x45\xdf\xa3", "video/webm"),
    )
)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as the bytes that will be sent.

    Attributes:
        data: The bytes of a whole file.
        extension: ``png``, ``jpg`` or ``webp``.
        media_type: For example ``image/png``.
        label: What messages call it, for example ``input image 3 (cat.jpg)``.
    """

    data: bytes = field(repr=False)
    extension: str
    media_type: str
    label: str


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
            size = _size_in_container(data)
            if size is None:
                raise InputError(f"{label}: is truncated or damaged: the end of the file is missing. Copy it again.")
            _check_size(size, label)
            if max_pixels is None or math.prod(size) <= max_pixels:
                return EncodedImage(data, extension, media_type, label)
    with _pillow_errors(label):
        with _decoding():
            picture = _upright(image if data is None else _open(data, label))
        return EncodedImage(_as_png(picture, label, max_pixels), "png", "image/png", label)


async def encode_images(sources: Sequence[ImageSource], *, max_pixels: int | None = None) -> tuple[InputImage, ...]:
    """Encode images in threads of their own and name them in their order.

    Raises:
        InputError: One line for each image that cannot be used.
    """
    if not sources:
        return ()
    loop = asyncio.get_running_loop()
    # Not the loop's own executor: it also resolves host names, which must not wait behind photos.
    pool = ThreadPoolExecutor(min(len(sources), _MAX_ENCODERS), thread_name_prefix="runpod-comfy-encode")
    try:
        jobs = [
            functools.partial(encode_image, source, label=f"input image {number}", max_pixels=max_pixels)
            for number, source in enumerate(sources, 1)
        ]
        done = await asyncio.gather(*(loop.run_in_executor(pool, job) for job in jobs), return_exceptions=True)
        if failures := [each for each in done if isinstance(each, BaseException)]:
            surprises = [each for each in failures if not isinstance(each, InputError)]
            raise surprises[0] if surprises else InputError("\n".join(map(str, failures))) from failures[0]
        encoded = [each for each in done if isinstance(each, EncodedImage)]
        return await loop.run_in_executor(pool, name_images, encoded)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def name_images(encoded: Sequence[EncodedImage]) -> tuple[InputImage, ...]:
    """Name images so that names sort in their order (``00.png``, ``01.jpg``, …), in a subfolder named by their content.

    The same images in the same order get the same subfolder, so that ComfyUI's cache knows them in the next job.
    """
    width = max(2, len(str(len(encoded) - 1)))
    names = [f"{index:0{width}d}.{image.extension}" for index, image in enumerate(encoded)]
    content = hashlib.sha256()
    for name, image in zip(names, encoded, strict=True):
        content.update(f"{name} {len(image.data)}\n".encode())
        content.update(image.data)
    subfolder = f"rcc-{content.hexdigest()[:16]}"
    return tuple(
        InputImage(name, image.data, image.media_type, subfolder) for name, image in zip(names, encoded, strict=True)
    )


def media_type_of(data: bytes) -> str | None:
    """Return the media type that the first bytes of a file tell, for example ``image/png``, or None."""
    return next((media_type for pattern, media_type in _SIGNATURES if pattern.match(data)), None)


def open_image(data: bytes) -> Image.Image:
    """Return a file's picture, decoded.

    Raises:
        InputError: It is no image, is damaged, or has more than ``MAX_IMAGE_PIXELS``.
    """
    with _pillow_errors("image"), _decoding():
        image = _open(data, "image")
        image.load()
        return image


def to_base64(data: bytes | bytearray | memoryview) -> str:
    """Return bytes as base64 text without line breaks."""
    return pybase64.b64encode_as_string(data)


def from_base64(text: str, *, allow_data_uri: bool = False) -> bytes:
    """Return the bytes that base64 text stands for; other characters and missing padding are refused.

    Args:
        text: Base64, or with ``allow_data_uri`` also ``data:image/png;base64,…``.
        allow_data_uri: Whether such a prefix may stand before it.

    Raises:
        ValueError: It is not base64.
    """
    if not isinstance(text, str):
        raise ValueError(f"base64 text is expected, not {type(text).__name__}")  # noqa: TRY004 - callers map ValueError
    if allow_data_uri and text[:5].lower() == "data:":
        text = text.partition(",")[2]
    return pybase64.b64decode(text, validate=True)


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
        return Path(path).read_bytes()
    except FileNotFoundError as exc:
        raise InputError(f"{label}: there is no such file. Check the path; it starts at {Path.cwd()}.") from exc
    except IsADirectoryError as exc:
        raise InputError(f"{label}: is a folder. Give the files in it.") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or exc
        raise InputError(f"{label}: cannot be read ({reason}). Check the path and its permissions.") from exc


_decoding_lock = threading.Lock()


def _unread_file(image: Any) -> bytes | None:
    """Return the file behind a PIL image that was opened and not touched since, or None where its pixels count."""
    if image.format not in _SENT_FORMATS or getattr(image, "decoderconfig", None) or image.tell():
        return None
    # Pillow gives an unread WebP no tiles; what tells is `fp`, which loading replaces.
    is_webp = image.format == "WEBP"
    if not (is_webp or getattr(image, "tile", None)):
        return None
    data = b""
    with _decoding_lock, contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
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
    return data if _size_in_container(data) in (image.size, None) else None


def _check_size(size: tuple[int, int], label: str) -> None:
    if math.prod(size) > MAX_IMAGE_PIXELS:
        raise InputError(
            f"{label}: has {size[0]} x {size[1]} pixels; ComfyUI takes at most {MAX_IMAGE_PIXELS:,}. Scale it down."
        )
    if not math.prod(size):
        raise InputError(f"{label}: has {size[0]} x {size[1]} pixels, so there is nothing to send.")


def _size_in_container(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, JPEG or WebP, or None where the file is cut short."""
    by_type = {"image/png": _png_size, "image/jpeg": _jpeg_size, "image/webp": _webp_size}
    try:
        return by_type[media_type_of(data) or ""](data)
    except struct.error:  # it ends within a field
        return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return (width, height) if at <= len(data) else None


# What follows 0xFF within coded data and is no marker: a stuffed zero, restarts, fill bytes.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    # Segments are skipped by their length: the EXIF thumbnail in one of them has an end marker of its own.
    size, scans, at = None, 0, 2
    while found := _JPEG_MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == _JPEG_END:
            return size if scans else None
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">3xHH", data, at)
            size = (width, height)
        scans += marker == _JPEG_SCAN
        at += struct.unpack_from(">H", data, at)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
        return None
    match data[12:16]:
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
            return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
        case b"VP8L":
            bits = struct.unpack_from("<I", data, 21)[0]
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    return None


@contextlib.contextmanager
def _pillow_errors(label: str) -> Iterator[None]:
    """Make input errors of Pillow's, whose plugins raise anything on a damaged file."""
    try:
        yield
    except InputError:
        raise
    except Exception as exc:
        raise InputError(f"{label}: cannot be decoded ({exc}). Save it again as PNG or JPEG.") from exc


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Let one thread at a time decode, and keep Pillow's warnings about large or odd files to ourselves.

    Two threads must not read the same image object, nor overlap in ``catch_warnings``, which swaps a global list.
    """
    with _decoding_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes, label: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - most callers never decode a picture

    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as exc:
        raise InputError(f"{label}: has more pixels than Pillow and ComfyUI read. Scale it down first.") from exc
    except UnidentifiedImageError as exc:
        if media_type_of(data) == "image/heic":
            raise InputError(
                f"{label}: is a HEIC photo, which Pillow and ComfyUI do not read. Export it as JPEG, or install "
                "pillow-heif and call pillow_heif.register_heif_opener() first."
            ) from exc
        raise InputError(f"{label}: is not an image. Give a PNG, JPEG or WebP file.") from exc
    _check_size(image.size, label)
    if image.format == "EPS":  # Pillow would start Ghostscript, which runs the file as a program
        raise InputError(f"{label}: is an EPS drawing. Export it as PNG.")
    return image


def _upright(image: Any) -> Image.Image:
    """Return a copy of the picture, turned as its EXIF orientation says."""
    from PIL import ImageOps  # noqa: PLC0415 - most callers never decode a picture

    upright: Image.Image = ImageOps.exif_transpose(image)
    return upright


def _as_png(image: Image.Image, label: str, max_pixels: int | None) -> bytes:
    """Encode a picture of our own (it is changed) losslessly, after scaling it down to ``max_pixels``."""
    mode = image.mode
    if mode in {"I", "F"}:
        low, high = image.getextrema()
        if mode == "F" or not 0 <= low <= high < 2**16:  # type: ignore[operator]  # one band, so two numbers
            raise InputError(
                f"{label}: has pixels of mode {mode}, from {low} to {high}, which PNG cannot hold. Scale them to "
                "0…255 and convert the image to mode 'L' or 'RGB'."
            )
    if mode not in _PNG_MODES:
        image = image.convert("I").convert("I;16") if mode[0] == "I" else image.convert(_ALPHA_MODES.get(mode, "RGB"))
    if max_pixels is not None and math.prod(image.size) > max_pixels:
        image = _scaled_down(image, max_pixels)
    _check_size(image.size, label)
    # Metadata stays behind, an orientation above all. A colour profile describes pixels of the mode it came with.
    kept = ("transparency", "icc_profile") if mode in _PNG_MODES else ("transparency",)
    image.info = {key: image.info[key] for key in kept if image.info.get(key) is not None}
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _scaled_down(image: Image.Image, max_pixels: int) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - most callers never decode a picture

    if image.mode == "P" or "transparency" in image.info:  # neither palette indexes nor key colours can be averaged
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    width, height = image.size
    scale = math.sqrt(max_pixels / (width * height))
    width = min(max(1, int(width * scale)), max_pixels)
    height = min(max(1, int(height * scale)), max_pixels // width)
    return image.resize((width, height), Image.Resampling.LANCZOS)


_UNSAFE_NAME = re.compile(
    r"""[\x00-\x1f\x7f\\\ud800-\udfff]     # what no file system means as part of a name, and Windows' separator
      | ^[A-Z]:                            # a drive
      | (?:^|/) [. ]* (?:/|$)              # nothing, "." or ".."; also ".. ", whose end Windows drops
      | (?:^|/) (?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) [ ]* (?:[./]|$)  # devices of Windows
      """,
    re.VERBOSE | re.IGNORECASE,
)
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


def write_new(path: Path, data: bytes) -> Path:
    """Write a file that appears whole or not at all, beside files that exist, and return the path used.

    Where ``name.png`` exists the file becomes ``name_1.png``, ``name_2.png``, …, also with several processes at once.
    Missing folders are made.

    Raises:
        OSError: The disk is full, or the folder may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _publish(part, path)
    finally:
        part.unlink(missing_ok=True)


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
