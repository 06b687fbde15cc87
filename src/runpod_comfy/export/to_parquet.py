"""``export parquet``: images within the table, as Hugging Face's hub stores and shows them.

The column ``image`` is a struct of bytes and path, and the schema says that it is an image, so ``datasets`` and the
hub's viewer decode it. Rows are written in groups of bounded size: no more than one group is in memory.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.export.placing import new_folder
from runpod_comfy.export.report import Result
from runpod_comfy.export.tables import load_pyarrow, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Picture, Source

__all__ = ["export_parquet"]

_FILE_BYTES: Final = 500_000_000  # as the hub's own conversion
_GROUP_BYTES, _GROUP_ROWS = 32_000_000, 100


def export_parquet(source: Source, request: Request) -> Result:
    """Write ``data/train-00000-of-00001.parquet`` and so on into a new folder.

    Raises:
        ConfigurationError: The folder exists, or pyarrow is not installed.
        InputError: An image's metadata cannot be taken out.
        OSError: It cannot be written.
    """
    pa = load_pyarrow()
    schema = _schema(pa, source.pictures)
    files = list(_parts(source.pictures, max_bytes=_FILE_BYTES))
    with new_folder(request.target) as folder:
        (folder / "data").mkdir()
        for number, pictures in enumerate(files):
            path = folder / "data" / f"train-{number:05}-of-{len(files):05}.parquet"
            _write(pa, schema, pictures, path, request)
    load = f"python -c \"from datasets import load_dataset; print(load_dataset('{request.target}'))\""
    is_plain = shlex.quote(str(request.target)) == str(request.target)
    return Result(path=request.target, images=len(source.pictures), next_step=load if is_plain else None)


def _write(pa: Any, schema: Any, pictures: Sequence[Picture], path: Path, request: Request) -> None:
    # Images are compressed already.
    compression = {name: "zstd" for name in schema.names if name != "image"}
    writer = pa.parquet.ParquetWriter(
        path, schema, compression={**compression, "image.bytes": "none", "image.path": "zstd"}, use_dictionary=False
    )
    with writer:
        for group in _parts(pictures, max_bytes=_GROUP_BYTES, max_rows=_GROUP_ROWS):
            rows = []
            for picture in group:
                data = request.placing.data(picture)
                name = picture.number_name if request.strip_inputs else str(picture.row["file_name"])
                row = {each: cell for each, cell in picture.row.items() if each != "file_name"}
                rows.append({"image": {"bytes": data, "path": name}, **row})
                request.on_image()
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=len(rows))


def _schema(pa: Any, pictures: Sequence[Picture]) -> Any:
    flat = schema_of([picture.row for picture in pictures])
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    fields += [field for field in flat if field.name != "file_name"]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {field.name: {"dtype": _dtype(field.type), "_type": "Value"} for field in fields[1:]}
    about = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": about})


def _dtype(arrow_type: Any) -> str:
    return {"double": "float64"}.get(str(arrow_type), str(arrow_type))


def _parts(pictures: Sequence[Picture], *, max_bytes: int, max_rows: int | None = None) -> Iterator[Sequence[Picture]]:
    """Cut into parts that are not larger, or hold one image."""
    begun, size = 0, 0
    for place, picture in enumerate(pictures):
        more = int(picture.line["size_bytes"])
        if place > begun and (size + more > max_bytes or (max_rows and place - begun >= max_rows)):
            yield pictures[begun:place]
            begun, size = place, 0
        size += more
    yield pictures[begun:]
