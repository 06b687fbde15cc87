"""Pictures as HTML for notebooks: small copies inside, no script, and never much of it.

A notebook keeps what it shows, so ten results of full pictures would make a file of hundreds of megabytes. Untrusted
notebooks drop scripts and style sheets; what is here needs neither. Names and texts are foreign: all are escaped.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from runpod_comfy.errors import InputError
from runpod_comfy.media.pictures import decoding, open_picture, picture_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from PIL import Image

__all__ = ["MAX_THUMBNAILS", "Thumbnail", "picture_html", "sheet_html"]

MAX_THUMBNAILS: Final = 24
"""More pictures than this are only counted."""

_SHEET_BYTES: Final = 200_000  # of all small copies of a sheet; base64 adds a third, and the rest is words
_THUMBNAIL_PX: Final = 160
_PICTURE_PX: Final = 512
_PICTURE_BYTES: Final = 150_000
_QUALITIES: Final = (80, 60, 35)
_MAX_TEXT: Final = 300  # characters

_TILE = "display:inline-block;vertical-align:top;width:160px;margin:0 6px 6px 0;font:12px sans-serif"
_NAME = "display:block;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;opacity:.75"
_WORDS = "font:13px sans-serif;margin:0 0 6px"


class Thumbnail(NamedTuple):
    """A picture on a sheet: its name, what a pointer over it tells, and where its bytes come from."""

    name: str
    about: str
    data: Callable[[], bytes]


def sheet_html(pictures: Sequence[Thumbnail], lines: Iterable[str]) -> str:
    """Return a contact sheet of the first pictures, and some lines of text below."""
    shown = pictures[:MAX_THUMBNAILS]
    room = _SHEET_BYTES // max(1, len(shown))
    tiles = "".join(f'<span style="{_TILE}">{_shown(each, _THUMBNAIL_PX, room)}</span>' for each in shown)
    more = len(pictures) - len(shown)
    words = [*([f"+ {more:,} more"] if more else []), *lines]
    return f"<div>{tiles}{''.join(map(_line, words))}</div>"


def picture_html(picture: Thumbnail, lines: Iterable[str]) -> str:
    """Return one picture, larger, and some lines of text below."""
    return f"<div>{_shown(picture, _PICTURE_PX, _PICTURE_BYTES)}{''.join(map(_line, lines))}</div>"


def _line(text: str) -> str:
    return f'<p style="{_WORDS}">{_escaped(text)}</p>'


def _escaped(text: str) -> str:
    return escape(text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…")


def _shown(picture: Thumbnail, side: int, room: int) -> str:
    name, about = _escaped(picture.name), _escaped(picture.about)
    try:
        data, (width, height) = _small(picture, side, room)
    except (InputError, OSError) as exc:  # the file that held it may be gone
        return f'<span style="{_NAME}" title="{_escaped(str(exc))}">{name}: cannot be shown</span>'
    source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    return (
        f'<img src="{source}" width="{width}" height="{height}" alt="{name}" title="{about}">'
        f'<span style="{_NAME}" title="{about}">{name}</span>'
    )


def _small(picture: Thumbnail, side: int, room: int) -> tuple[bytes, tuple[int, int]]:
    """Return a small copy of at most ``room`` bytes, and the size at which it is shown."""
    data = picture.data()
    with picture_errors(picture.name), decoding():
        image = open_picture(data, picture.name)
        image.draft("RGB", (side, side))
        image.thumbnail((side, side))
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    shown = image.size
    while True:
        for quality in _QUALITIES:
            encoded = _webp(image, quality)
            if len(encoded) <= room:
                return encoded, shown
        # Noise does not compress: it is shown from fewer pixels.
        image = image.resize((max(1, image.width * 2 // 3), max(1, image.height * 2 // 3)))


def _webp(image: Image.Image, quality: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", quality=quality, method=2)
    return encoded.getvalue()
