"""Pictures decoded, turned upright and encoded. Pillow is loaded when the first one must be decoded, and not before."""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import InputError
from runpod_comfy.media.formats import media_type_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

__all__ = [
    "MAX_IMAGE_PIXELS",
    "check_size",
    "decoding",
    "open_picture",
    "picture_errors",
    "png_of",
    "upright",
]

MAX_IMAGE_PIXELS = 178_956_970
"""More pixels than this are refused: from here on Pillow, and with it ComfyUI, suspects a decompression bomb."""

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_ALPHA_MODES = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}  # PNG has their like, though not them

_ORIENTATION = 0x0112  # EXIF's tag

_lock = threading.Lock()


def _renew_lock() -> None:
    """A child has none of the parent's threads, and one of them may have held the lock."""
    global _lock  # noqa: PLW0603 - one for each process
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def check_size(size: tuple[int, int], label: str) -> None:
    """Refuse a picture that ComfyUI would refuse for its width and height.

    Raises:
        InputError: It has none, or more than ``MAX_IMAGE_PIXELS``.
    """
    if math.prod(size) > MAX_IMAGE_PIXELS:
        raise InputError(
            f"{label}: has {size[0]} x {size[1]} pixels; ComfyUI takes at most {MAX_IMAGE_PIXELS:,}. Scale it down."
        )
    if not math.prod(size):
        raise InputError(f"{label}: has {size[0]} x {size[1]} pixels, so there is nothing to send.")


@contextlib.contextmanager
def picture_errors(label: str) -> Iterator[None]:
    """Make input errors of Pillow's, whose plugins raise anything on a damaged file."""
    try:
        yield
    except InputError:
        raise
    except Exception as exc:
        raise InputError(f"{label}: cannot be decoded ({exc}). Save it again as PNG or JPEG.") from exc


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Let one thread at a time decode, and keep Pillow's warnings about large or odd files to ourselves.

    Two threads must not read the same image object, nor overlap in ``catch_warnings``, which swaps a global list.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_picture(data: bytes, label: str) -> Image.Image:
    """Return a file's picture, its pixels not read yet.

    Raises:
        InputError: It is no image, or has more than ``MAX_IMAGE_PIXELS``.
    """
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
    check_size(image.size, label)
    if image.format == "EPS":  # Pillow would start Ghostscript, which runs the file as a program
        raise InputError(f"{label}: is an EPS drawing. Export it as PNG.")
    return image


def upright(image: Any) -> Image.Image:
    """Return a copy of the picture, turned as its EXIF orientation says; an EXIF that cannot be read says nothing.

    ``ImageOps.exif_transpose`` fails on such a one, also where it has read the orientation and writes the rest anew.
    """
    from PIL.Image import Transpose  # noqa: PLC0415 - most callers never decode a picture

    image.load()
    turn = None
    # Pillow's reader raises anything on damaged metadata.
    with contextlib.suppress(Exception):
        turn = {
            2: Transpose.FLIP_LEFT_RIGHT,
            3: Transpose.ROTATE_180,
            4: Transpose.FLIP_TOP_BOTTOM,
            5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270,
            7: Transpose.TRANSVERSE,
            8: Transpose.ROTATE_90,
        }.get(image.getexif().get(_ORIENTATION))
    turned: Image.Image = image.copy() if turn is None else image.transpose(turn)
    return turned


def png_of(image: Image.Image, label: str, max_pixels: int | None) -> bytes:
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
    check_size(image.size, label)
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
