"""``export webdataset``: shards of a thousand samples, with a Parquet of their metadata beside each.

::

    00000.tar       000000000.png  000000000.txt  000000000.json  000000001.png  …
    00000.parquet   the same columns as in the .json, and the key

The names are img2dataset's. A key is digits only: webdataset cuts a name at its first dot.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.export.placing import new_folder
from runpod_comfy.export.report import Result
from runpod_comfy.export.tables import load_pyarrow, schema_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Picture, Source

__all__ = ["SAMPLES_IN_SHARD", "export_webdataset"]

SAMPLES_IN_SHARD: Final = 1000


def export_webdataset(source: Source, request: Request) -> Result:
    """Write shards into a new folder.

    Raises:
        ConfigurationError: The folder exists, or pyarrow is not installed.
        InputError: An image's metadata cannot be taken out.
        OSError: It cannot be written.
    """
    pa = load_pyarrow()
    pictures = source.pictures
    schema = schema_of([_about("", picture, request) for picture in pictures])
    shards = range(0, len(pictures), SAMPLES_IN_SHARD)
    with new_folder(request.target) as folder:
        for number, first in enumerate(shards):
            rows = _write_shard(folder / f"{number:05}.tar", pictures[first : first + SAMPLES_IN_SHARD], first, request)
            pa.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{number:05}.parquet")
    last = len(shards) - 1
    urls = "00000.tar" if not last else f"{{00000..{last:05}}}.tar"
    return Result(path=request.target / urls, images=len(pictures))


def _write_shard(path: Path, pictures: Sequence[Picture], first: int, request: Request) -> list[dict[str, Any]]:
    rows = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, picture in enumerate(pictures, first):
            key = f"{number:09}"
            _add(tar, f"{key}{picture.path.suffix.lower()}", request.placing.data(picture))
            _add(tar, f"{key}.txt", picture.caption.encode())
            row = _about(key, picture, request)
            _add(tar, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
            rows.append(row)
            request.on_image()
    return rows


def _about(key: str, picture: Picture, request: Request) -> dict[str, Any]:
    name = picture.number_path if request.strip_inputs else picture.row["file_name"]
    return {"key": key, **{f"var_{each}" if each == "key" else each: cell for each, cell in picture.row.items()}} | {
        "file_name": name
    }


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    tar.addfile(about, io.BytesIO(data))
