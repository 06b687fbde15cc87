"""Images of a dataset as people name them, and the lines of its manifest that tell of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.dataset.lines import is_cut, read_line
from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reference", "manifest_lines"]

_WITH_ROW: Final = re.compile(r"(?P<folder>.+)#(?P<index>\d{1,9})(?:_(?P<sample>\d{1,9}))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Images of a dataset, as people name them.

    Attributes:
        folder: The dataset's folder.
        index: The number that names the row's files, or None for all rows.
        sample: The image, or None for all of the row.
    """

    folder: Path
    index: int | None = None
    sample: int | None = None

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """Read ``out#000123``, ``out#000123_2``, or the path of a dataset or of an image in it; else None.

        >>> Reference.parse("out#000123_2")
        Reference(folder=PosixPath('out'), index=123, sample=2)
        """
        path = Path(text)
        if path.is_file():
            return _of_file(path)
        if (path / "manifest.jsonl").is_file():
            return cls(folder=path)
        found = _WITH_ROW.fullmatch(text)
        if found is None:
            return None
        sample = found["sample"]
        return cls(
            folder=Path(found["folder"]), index=int(found["index"]), sample=None if sample is None else int(sample)
        )


def manifest_lines(manifest: Path) -> Iterator[dict[str, Any]]:
    """Yield a manifest's lines one after the other; a batch may be writing it meanwhile.

    Raises:
        ConfigurationError: It cannot be read, or a line of it.
    """
    try:
        with manifest.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if is_cut(raw):
                    return
                try:
                    yield read_line(raw)
                except ValueError as exc:
                    raise ConfigurationError(
                        f"{manifest}, line {number} is no line of a manifest: {exc}. Put it back as it was."
                    ) from exc
    except OSError as exc:
        raise ConfigurationError(f"{manifest} cannot be read ({exc.strerror}). Name a dataset's folder.") from exc


def _of_file(path: Path) -> Reference | None:
    """Find an image of a dataset in its folder; None for one that no manifest knows, or knows otherwise."""
    path = path.resolve()
    for root in path.parents:
        if (root / "run.json").is_file() and (root / "manifest.jsonl").is_file():
            return _known_file(root, path)
    return None


def _known_file(root: Path, path: Path) -> Reference | None:
    relative, size_bytes = path.relative_to(root).as_posix(), path.stat().st_size
    found: Reference | None = None
    for line in manifest_lines(root / "manifest.jsonl"):
        if line.get("schema") == "image/1" and line.get("file") == relative:
            same = line.get("size_bytes") == size_bytes
            found = Reference(folder=root, index=line["index"], sample=line["sample"]) if same else None
    return found
