"""The rows of a dataset, read from CSV, JSON lines, Parquet or a folder of photos.

>>> table = read_rows(Path("products.csv"))  # doctest: +SKIP
>>> table.rows[0].values
{'prompt': 'a red mug', 'cfg': 7}

A row has an identity for ever: its column ``id``, else a hash of what it says. Results are kept under it, so the same
row is never paid for twice, wherever in the file it stands. A text in a cell is text: no Jinja in it is evaluated.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["PHOTO_COLUMNS", "BadRow", "Row", "Table", "read_rows"]

PHOTO_COLUMNS = ("input_images", "images", "image", "photos", "photo")
"""Columns that name a row's photos, in the order in which they are looked for; several photos are parted by ``|``."""

_PICTURES = frozenset({".jpeg", ".jpg", ".png", ".webp"})
_DELIMITERS = ",;\t"
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_ID_DIGITS = 16
_MAX_NUMBER_CHARS = 300  # beyond, a decimal is infinite, and Python reads no whole number of 4,300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        id: Its identity.
        line: The line of the file it begins on, counted from 1; for a folder its place.
        values: What its columns say, without id and photos; empty cells are left out.
        photos: Its photos, as paths.
    """

    id: str
    line: int
    values: Mapping[str, Any] = field(default_factory=dict)
    photos: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All rows of a source.

    Attributes:
        rows: Those that can be used, in their order.
        bad: Those that cannot.
        columns: The names of the columns, in their order.
    """

    rows: tuple[Row, ...]
    bad: tuple[BadRow, ...] = ()
    columns: tuple[str, ...] = ()


def read_rows(path: Path) -> Table:
    """Read a file of data, or a folder: one row for each of its subfolders, or else for each of its pictures.

    Raises:
        InputError: It cannot be read, two rows have one id, or a column has decimal commas.
    """
    if path.is_dir():
        return _table(_folder_records(path), path)
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv" | ".txt":
                records = _with_numbers(list(_csv_records(path.read_text("utf-8-sig"), path)), path)
            case ".jsonl" | ".ndjson":
                records = list(_jsonl_records(path.read_text("utf-8-sig")))
            case ".parquet":
                records = list(_parquet_records(path))
            case suffix:
                raise InputError(f"{path}: {suffix or 'this'} is no format of rows. Give .csv, .jsonl or .parquet.")
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}. Check the path.") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"{path} is not UTF-8. Save it as “CSV UTF-8”.") from exc
    return _table(records, path)


@dataclass(frozen=True, slots=True)
class _Record:
    """What stands on a line before it is looked at: its cells, or the reason why it has none."""

    line: int
    cells: Mapping[str, Any] | None = None
    reason: str = ""


def _csv_records(text: str, path: Path) -> Iterator[_Record]:
    lines = io.StringIO(text, newline="")
    header_text = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_text.count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, path)
        begun = reader.line_num + 1
        for cells in reader:
            line, begun = begun, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                yield _Record(line, reason=f"has {len(cells)} cells; the header has {len(header)}")
            else:
                yield _Record(line, {name: cell for name, cell in zip(header, cells, strict=True) if cell != ""})
    except csv.Error as exc:
        raise InputError(f"{path}, line {reader.line_num}: {exc}. Is a quote left open?") from exc


def _with_numbers(records: list[_Record], path: Path) -> list[_Record]:
    """Read cells that are written as numbers as numbers."""
    for column in dict.fromkeys(name for each in records for name in each.cells or ()):
        cells = [each.cells[column] for each in records if each.cells and column in each.cells]
        commas = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
        if commas and all(_DECIMAL_COMMA.fullmatch(cell) or _NUMBER.fullmatch(cell) for cell in cells):
            written = commas[0].replace(",", ".")
            raise InputError(f"{path}: the column {column!r} has decimal commas ({commas[0]}). Write {written}.")
    return [
        replace(each, cells={name: _value(name, cell) for name, cell in each.cells.items()}) if each.cells else each
        for each in records
    ]


def _value(column: str, cell: str) -> str | int | float:
    # An id is a name: 1.10 and 1.1 are two articles.
    if column != "id" and len(cell) <= _MAX_NUMBER_CHARS and _NUMBER.fullmatch(cell):
        return float(cell) if "." in cell else int(cell)
    return cell


def _check_header(header: list[str], path: Path) -> None:
    if not header:
        raise InputError(f"{path} is empty. Its first line names the columns.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        what = f"the column {twice[0]!r} twice" if twice and twice[0] else "a column without a name"
        raise InputError(f"{path} has {what}. Give each column a name of its own in the first line.")


def _jsonl_records(text: str) -> Iterator[_Record]:
    # Not splitlines(), which also parts at characters that JSON allows within a text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as exc:
            yield _Record(number, reason=f"is not JSON ({exc})")
            continue
        if isinstance(cells, dict):
            yield _Record(number, {str(name): value for name, value in cells.items() if value is not None})
        else:
            yield _Record(number, reason="is no JSON object")


def _parquet_records(path: Path) -> Iterator[_Record]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - optional, and large
    except ImportError as exc:
        raise InputError(f"Reading {path} needs pyarrow: pip install 'runpod-comfy-client[datasets]'.") from exc
    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowException as exc:
        raise InputError(f"{path} cannot be read as Parquet: {exc}") from exc
    for number, cells in enumerate(rows, 1):
        yield _Record(number, {name: value for name, value in cells.items() if value is not None})


def _folder_records(folder: Path) -> list[_Record]:
    sets = [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith((".", "_"))]
    photos = (
        {each.name: _pictures(each) for each in sets} if sets else {each.stem: [each] for each in _pictures(folder)}
    )
    found = [
        _Record(number, {"id": name, "input_images": [str(each.relative_to(folder)) for each in pictures]})
        if pictures
        else _Record(number, reason=f"the folder {name} has no pictures")
        for number, (name, pictures) in enumerate(photos.items(), 1)
    ]
    if not found:
        raise InputError(f"The folder {folder} has neither pictures (.jpg, .png, .webp) nor folders of them.")
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in _PICTURES and each.is_file())


def _table(records: Iterable[_Record], path: Path) -> Table:
    folder = path if path.is_dir() else path.parent
    records = list(records)
    columns = tuple(dict.fromkeys(name for each in records for name in each.cells or ()))
    rows: list[Row] = []
    bad = [BadRow(line=each.line, reason=each.reason) for each in records if each.cells is None]
    for record in records:
        if record.cells is None:
            continue
        try:
            rows.append(_row(record.cells, record.line, folder))
        except ValueError as exc:
            bad.append(BadRow(line=record.line, reason=str(exc)))
    _refuse_duplicates(rows, path)
    return Table(rows=tuple(rows), bad=tuple(sorted(bad, key=lambda each: each.line)), columns=columns)


def _row(cells: Mapping[str, Any], line: int, folder: Path) -> Row:
    photo_column = next((name for name in PHOTO_COLUMNS if name in cells), None)
    names = _names(cells[photo_column]) if photo_column else []
    photos = tuple(folder / name for name in names)
    for photo in photos:
        if not photo.is_file():
            raise ValueError(f"the photo {photo} does not exist")
    values = {name: cell for name, cell in cells.items() if name not in {"id", photo_column}}
    identity = str(cells["id"]) if "id" in cells else _content_id(values, names)
    return Row(id=identity, line=line, values=values, photos=photos)


def _content_id(values: Mapping[str, Any], photos: list[str]) -> str:
    content = json.dumps([values, photos], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]


def _names(cell: Any) -> list[str]:
    names = cell if isinstance(cell, list) else str(cell).split("|")
    return [str(name).strip() for name in names if str(name).strip()]


def _refuse_duplicates(rows: list[Row], path: Path) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        if row.id in lines:
            raise InputError(
                f"{path}: lines {lines[row.id]} and {row.line} are the same row (id {row.id}). Remove one, or give "
                "them different values in a column 'id'."
            )
        lines[row.id] = row.line
