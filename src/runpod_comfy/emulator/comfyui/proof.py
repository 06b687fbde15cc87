"""Labelled proofs: pictures that show what was sent, and never pretend to be what a model would draw."""

from __future__ import annotations

import colorsys
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

__all__ = ["Proof", "draw_proof"]

_HEADLINE = "STAND-IN"
_SUBTITLE = "not a generated picture: this shows what was sent"
_MAX_THUMBNAILS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a proof shows.

    Attributes:
        seed: The seed; it also sets the colour, so that different seeds differ at a glance.
        facts: Names and values, such as steps and checkpoint.
        texts: Titles and longer texts, such as prompts.
        photos: Names and pictures of the inputs that arrived.
        index: Which picture of the batch it is, counted from 0.
        count: How many pictures the batch has.
    """

    seed: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    photos: tuple[tuple[str, Image.Image], ...] = field(default=(), repr=False)
    index: int = 0
    count: int = 1


def draw_proof(proof: Proof, width: int, height: int) -> Image.Image:
    """Draw a proof of that size, in RGB."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - only whoever draws loads Pillow

    dark, light, accent = _colours(proof)
    image = Image.linear_gradient("L").rotate(90).resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.composite(Image.new("RGB", (width, height), light), Image.new("RGB", (width, height), dark), image)
    pen = _Pen(ImageDraw.Draw(canvas), width, height, accent)
    if min(width, height) < 96:  # noqa: PLR2004 - too small for words
        pen.write(f"{proof.seed or 0}", size=max(8, height // 6))
        return canvas
    pen.band(_HEADLINE, f"{proof.index + 1} of {proof.count}")
    pen.write(_SUBTITLE, size=pen.small, faint=True)
    pen.skip()
    if proof.seed is not None:
        pen.write(f"seed {proof.seed}", size=pen.large)
    for name, value in proof.facts:
        pen.pair(name, value)
    pen.thumbnails(canvas, proof.photos)
    for title, text in proof.texts:
        pen.skip()
        pen.write(title.upper(), size=pen.small, accent=True)
        pen.paragraph(text)
    return canvas


def _colours(proof: Proof) -> tuple[tuple[int, int, int], ...]:
    digest = hashlib.sha256(f"{proof.seed}".encode()).digest()
    hue = int.from_bytes(digest[:4], "big") / 2**32
    shift = 0.04 * proof.index
    return tuple(
        _rgb(hue + shift, saturation, value) for saturation, value in ((0.55, 0.22), (0.5, 0.42), (0.45, 0.95))
    )


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


class _Pen:
    """Writes from the top down and stops at the lower edge."""

    def __init__(self, draw: ImageDraw.ImageDraw, width: int, height: int, accent: tuple[int, int, int]) -> None:
        self._draw = draw
        self._width, self._height, self._accent = width, height, accent
        unit = max(8, min(width, height) // 40)
        self.small, self.normal, self.large = unit, round(unit * 1.25), round(unit * 2)
        self._margin = unit * 2
        self._y = 0

    def band(self, left: str, right: str) -> None:
        """Write the headline on a band of the accent colour."""
        font, tall = _font(self.large), round(self.large * 2.1)
        self._draw.rectangle((0, 0, self._width, tall), fill=self._accent)
        self._draw.text((self._margin, tall // 2), left, font=font, fill=(20, 20, 24), anchor="lm")
        self._draw.text((self._width - self._margin, tall // 2), right, font=font, fill=(20, 20, 24), anchor="rm")
        self._y = tall + self.small

    def write(self, text: str, *, size: int, faint: bool = False, accent: bool = False) -> None:
        """Write one line."""
        if self._y + size > self._height:
            return
        fill = self._accent if accent else (205, 208, 214) if faint else (250, 250, 252)
        self._draw.text((self._margin, self._y), text, font=_font(size), fill=fill)
        self._y += round(size * 1.4)

    def pair(self, name: str, value: str) -> None:
        """Write a name and its value."""
        if self._y + self.normal > self._height:
            return
        self._draw.text((self._margin, self._y), name, font=_font(self.normal), fill=self._accent)
        left = self._margin + self.normal * 8
        self._draw.text((left, self._y), value, font=_font(self.normal), fill=(250, 250, 252))
        self._y += round(self.normal * 1.4)

    def paragraph(self, text: str) -> None:
        """Write a text, broken into lines that fit."""
        font = _font(self.normal)
        room = self._width - 2 * self._margin
        for line in text.splitlines() or [""]:
            for part in _wrapped(line, font, room):
                self.write(part, size=self.normal)

    def thumbnails(self, canvas: Image.Image, photos: tuple[tuple[str, Image.Image], ...]) -> None:
        """Put small copies of the input pictures in a row, with their names."""
        if not photos:
            return
        self.skip()
        self.write(f"{len(photos)} INPUT IMAGE{'S' if len(photos) > 1 else ''}", size=self.small, accent=True)
        side = min((self._width - 2 * self._margin) // 4, self._height // 5)
        left, top = self._margin, self._y
        for name, photo in photos[:_MAX_THUMBNAILS]:
            if left + side > self._width or top + side > self._height:
                break
            small = photo.copy()
            small.thumbnail((side, side))
            canvas.paste(small, (left, top))
            self._draw.text((left, top + side + 2), name[-18:], font=_font(self.small), fill=(205, 208, 214))
            left += side + self._margin // 2
        self._y = top + side + round(self.small * 1.8)

    def skip(self) -> None:
        """Leave some room."""
        self._y += self.small


def _wrapped(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> list[str]:
    parts = [""]
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}".strip()
        if font.getlength(longer) <= room:
            parts[-1] = longer
            continue
        # A word that is wider than the picture is cut.
        while word and font.getlength(word) > room:
            fits = max(1, int(len(word) * room / font.getlength(word)))
            parts.append(word[:fits])
            word = word[fits:]  # noqa: PLW2901 - what is left of it
        parts.append(word)
    return [part for part in parts if part] or [""]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont  # noqa: PLC0415 - only whoever draws loads Pillow

    return ImageFont.load_default(size)
