"""``export csv``: a table for spreadsheets, and the images.

A cell of text that begins as a formula does gets an apostrophe before it: a prompt is text from outside, and
spreadsheets run formulas when they open a file. So does a number of more than 15 digits, which they would round.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.export.placing import new_folder
from runpod_comfy.export.report import Result

if TYPE_CHECKING:
    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Source

__all__ = ["export_csv"]

_NAME: Final = "images.csv"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_DIGITS_KEPT: Final = 15


def export_csv(source: Source, request: Request) -> Result:
    """Write ``images.csv`` and the images into a new folder.

    Raises:
        ConfigurationError: The folder exists.
        InputError: An image's metadata cannot be taken out.
        OSError: It cannot be written.
    """
    # With the mark by which Excel knows UTF-8.
    with (
        new_folder(request.target) as folder,
        (folder / _NAME).open("w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_cell(name) for name in source.pictures[0].row)
        for picture in source.pictures:
            name = picture.number_path if request.strip_inputs else picture.row["file_name"]
            request.placing.place(picture, folder / name)
            row = {**picture.row, "file_name": name}
            writer.writerow(map(_cell, row.values()))
            request.on_image()
    return Result(path=request.target / _NAME, images=len(source.pictures))


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        is_long_number = value.isdecimal() and len(value) > _DIGITS_KEPT
        return f"'{value}" if is_long_number or value.lstrip(" ").startswith(_FORMULA) else value
    return f"'{value}" if isinstance(value, int) and len(str(abs(value))) > _DIGITS_KEPT else value
