"""The output folder of a dataset: where each file goes, and what other programs read.

::

    out/
    ├── images/000/000123_2.png   {index // 1000:03}/{index:06}_{sample}.{ext}, the worker's original bytes
    ├── files/000/…               what is no picture: videos, sounds, latents
    ├── manifest.jsonl            the truth, failures too (see ``manifest``)
    ├── metadata.jsonl            one flat line for each image that exists: what data loaders open
    ├── run.json                  what was asked
    └── .runpod-comfy/lock        one writer at a time

Names are digits only: words such as ``test`` or ``val`` in a path make Hugging Face's ImageFolder drop files (seen with
datasets 5.2), a dot cuts webdataset's keys, and names from users' data would have to be made safe. A thousand rows
share a folder, since hubs and file managers dislike more than ten thousand entries.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from runpod_comfy.dataset.manifest import Manifest
from runpod_comfy.dataset.metadata import metadata_text
from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.dataset.plan import Task
    from runpod_comfy.results import OutputFile

__all__ = ["OutputFolder", "RunRecord"]

RunRecord = dict[str, Any]

_ROWS_A_FOLDER = 1000
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}


class OutputFolder:
    """One dataset's folder, held by one process at a time.

    Args:
        root: The folder; made where it is missing.

    Raises:
        ConfigurationError: Another process writes there, it holds something else, or its manifest was edited.
        OSError: It cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._lock = _Lock(root / ".runpod-comfy" / "lock")
        try:
            _refuse_strangers(root)
            self.manifest = Manifest.open(root / "manifest.jsonl")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the metadata and let others in."""
        try:
            self.write_metadata()
            self.manifest.close()
        finally:
            self._lock.release()

    @property
    def run(self) -> RunRecord | None:
        """What was asked when the folder was begun, or None where it is new."""
        path = self.root / "run.json"
        try:
            found = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise ConfigurationError(f"{path} is not JSON. Put it back as it was, or name a new folder.") from exc
        return found if isinstance(found, dict) else None

    def write_run(self, record: RunRecord) -> None:
        """Say what was asked."""
        _write_whole(self.root / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def index_for(self, task: Task, taken: set[int]) -> int:
        """Return the number that names a task's files: the one it has had, its place in the data, or a free one."""
        record = self.manifest.tasks.get(task.key)
        if record is not None:
            return record.index
        index = task.index
        while index in taken:
            index = max(taken) + 1
        taken.add(index)
        return index

    def save(self, output: OutputFile, index: int, sample: int, *, is_image: bool) -> Path:
        """Write an output's bytes under its number and return the path below the folder.

        A file of that number is replaced: it belongs to a batch that was not whole.
        """
        ending = _EXTENSIONS.get(output.media_type) or _plain_suffix(output.name)
        kind = "images" if is_image else "files"
        relative = Path(kind, f"{index // _ROWS_A_FOLDER:03}", f"{index:06}_{sample}.{ending}")
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            part.write_bytes(output.data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return relative

    def is_whole(self, image: Mapping[str, Any]) -> bool:
        """Whether an image's file is there with the size that its line says."""
        try:
            return bool((self.root / image["file"]).stat().st_size == image["size_bytes"])
        except OSError:
            return False

    def write_metadata(self) -> None:
        """Write ``metadata.jsonl`` anew, where there are images."""
        images = (
            (record.index, sample, image)
            for record in sorted(self.manifest.tasks.values(), key=lambda each: each.index)
            for sample, image in sorted(record.images.items())
            if image.get("kind") == "images" and (self.root / image["file"]).exists()
        )
        if text := metadata_text(images):
            _write_whole(self.root / "metadata.jsonl", text)


def _refuse_strangers(root: Path) -> None:
    # A run that was planned and not begun leaves an empty manifest.
    strangers = {each.name for each in root.iterdir()} - {".runpod-comfy", "manifest.jsonl"}
    if strangers and not (root / "run.json").exists():
        raise ConfigurationError(
            f"{root} holds other files ({min(strangers)}) and no dataset. Name an empty folder, or a new one."
        )


def _plain_suffix(name: str) -> str:
    suffix = Path(name).suffix.removeprefix(".").lower()
    return suffix if suffix.isalnum() and suffix.isascii() and len(suffix) <= 8 else "bin"  # noqa: PLR2004 - as of names


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n", errors="surrogatepass") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _Lock:
    """One writer at a time; the system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            _lock_file(self._file.fileno())
        except OSError as exc:
            self._file.close()
            raise ConfigurationError(
                f"Another process writes into {path.parent.parent}. Wait for it, or name another folder."
            ) from exc

    def release(self) -> None:
        self._file.close()


def _lock_file(number: int) -> None:
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        import msvcrt  # noqa: PLC0415 - only Windows has it

        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # likewise
    else:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
