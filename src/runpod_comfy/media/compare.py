"""Two pictures compared pixel by pixel, and the difference in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runpod_comfy.errors import InputError
from runpod_comfy.media.pictures import decoding, open_picture, picture_errors

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Comparison", "compare_pictures"]

_SLIGHT_MEAN = 2.0  # of 255: what another GPU or another version of a library makes of the same numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far a picture differs from another one.

    Attributes:
        same_bytes: Whether the files are equal, metadata included.
        same_pixels: Whether the pictures are.
        changed_share: How many of the pixels differ, from 0 to 1.
        mean: The mean difference of all values, of 255.
        most: The largest difference of one value, of 255.
        sizes: Width and height of both where they differ, else None; nothing more is compared then.
        readable: Whether both are pictures; else only their bytes are compared.
    """

    same_bytes: bool = False
    same_pixels: bool = False
    changed_share: float = 1.0
    mean: float = 255.0
    most: int = 255
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    readable: bool = True

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """What is smaller the more alike the two are."""
        return not self.same_pixels, self.sizes is not None, self.mean

    def __str__(self) -> str:
        if self.same_bytes:
            return "identical, byte for byte"
        if not self.readable:
            return "differs in its bytes"
        if self.same_pixels:
            return "identical pixels"
        if self.sizes is not None:
            (w0, h0), (w1, h1) = self.sizes
            return f"differs: {w0} x {h0} before, {w1} x {h1} now"
        slight = "slightly " if self.mean <= _SLIGHT_MEAN else ""
        return (
            f"differs {slight}by {self.mean:.2f} of 255 in the mean, {self.most} at most, in "
            f"{self.changed_share:.1%} of the pixels"
        )


def compare_pictures(before: bytes, now: bytes) -> Comparison:
    """Compare two files; what is no picture is compared by its bytes.

    >>> compare_pictures(b"x", b"x").same_bytes
    True
    """
    if before == now:
        return Comparison(same_bytes=True, same_pixels=True, changed_share=0.0, mean=0.0, most=0)
    try:
        with picture_errors("before"), decoding():
            old = _loaded(before)
        with picture_errors("now"), decoding():
            new = _loaded(now)
    except InputError:
        return Comparison(readable=False)
    if old.size != new.size:
        return Comparison(sizes=(old.size, new.size))
    # 16 bits would be cut to 8 by what follows.
    if old.mode == new.mode and old.tobytes() == new.tobytes():
        return Comparison(same_pixels=True, changed_share=0.0, mean=0.0, most=0)
    return _measured(old, new)


def _loaded(data: bytes) -> Image.Image:
    image = open_picture(data, "picture")
    image.load()
    return image


def _measured(old: Image.Image, new: Image.Image) -> Comparison:
    from PIL import ImageChops, ImageStat  # noqa: PLC0415 - only who compares needs them

    difference = ImageChops.difference(old.convert("RGBA"), new.convert("RGBA"))
    bands = difference.split()
    largest = bands[0]
    for band in bands[1:]:
        largest = ImageChops.lighter(largest, band)
    untouched = largest.histogram()[0] / (old.width * old.height)
    colours = ImageStat.Stat(difference).mean[:3]
    return Comparison(
        # A palette may hold the same colours; of more than 8 bits a value, the conversion has dropped some.
        same_pixels=untouched == 1.0 and not {old.mode[0], new.mode[0]} & {"I", "F"},
        changed_share=1.0 - untouched,
        mean=sum(colours) / len(colours),
        most=int(largest.getextrema()[1]),  # type: ignore[arg-type]  # one band, so two numbers
    )
