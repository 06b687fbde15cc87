"""The output folder of a dataset: where each file goes, and what other programs read.

::

    out/
    ├── images/000/000123_2.png   {index // 1000:03}/{index:06}_{sample}.{ext}, the worker's original bytes
    ├── files/000/…               what is no picture: videos, sounds, latents
    ├── manifest.jsonl            the truth, failures too (see ``manifest``)
    ├── metadata.jsonl            one flat line for each image that exists: what data loaders open
    ├── README.md                 the dataset's card (see ``card``)
    ├── run.json                  what was asked
    ├── template/                 the workflow as it was (see ``template_copy``)
    ├── gallery.html              a page to look at it all (see ``runpod_comfy.gallery``)
    ├── __gallery__/thumbs/       small pictures (see ``thumbs``); data loaders pass folders of such names over
    └── .runpod-comfy/lock        one writer at a time

Names are digits only, unless a pattern was asked for (see ``naming``): words such as ``test`` or ``val`` in a path make
Hugging Face's ImageFolder drop files (seen with datasets 5.2), a dot cuts webdataset's keys, and names from users' data
have to be made safe. A thousand rows share a folder, since hubs and file managers dislike more than ten thousand
entries.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from runpod_comfy.dataset.captions import Caption
from runpod_comfy.dataset.card import card_text
from runpod_comfy.dataset.manifest import Manifest
from runpod_comfy.dataset.metadata import flat_rows, metadata_text
from runpod_comfy.dataset.naming import FreeNames
from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runpod_comfy.dataset.naming import NamePattern
    from runpod_comfy.dataset.plan import Task
    from runpod_comfy.results import OutputFile

__all__ = ["OutputFolder", "RunRecord", "is_held"]

RunRecord = dict[str, Any]

_ROWS_A_FOLDER = 1000
_METADATA_EVERY_S, _METADATA_SHARE = 30.0, 20
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}


class OutputFolder:
    """One dataset's folder, held by one process at a time.

    Args:
        root: The folder; made where it is missing.
        names: Names images by what their rows say, in place of by their numbers.

    Raises:
        ConfigurationError: Another process writes there, it holds something else, or its manifest was edited.
        OSError: It cannot be written.
    """

    def __init__(self, root: Path, *, names: NamePattern | None = None) -> None:
        self.root = root
        self._names = names
        root.mkdir(parents=True, exist_ok=True)
        self._lock = _Lock(root / ".runpod-comfy" / "lock")
        try:
            _refuse_strangers(root)
            self.manifest = Manifest.open(root / "manifest.jsonl")
            self._remove_halves()
            self._free_names = FreeNames(self._files_by_number() if names else {})
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
        finally:
            self.manifest.close()
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

    def new_run_id(self) -> str:
        """Return the id of the run that the folder was begun with, or a new one: 16 hexadecimal digits."""
        found = (self.run or {}).get("id")
        return found if isinstance(found, str) else secrets.token_hex(8)

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

    def save(
        self, output: OutputFile, index: int, sample: int, *, is_image: bool, values: Mapping[str, Any] | None = None
    ) -> Path:
        """Write an output's bytes under its number and return the path below the folder.

        A file of that number is replaced: it belongs to a batch that was not whole.

        Args:
            output: The output.
            index: Its task's number.
            sample: Its place among the task's outputs.
            is_image: Whether it is a picture.
            values: What a pattern of names may use.
        """
        ending = _EXTENSIONS.get(output.media_type) or _plain_suffix(output.name)
        relative = Path("images" if is_image else "files", f"{index // _ROWS_A_FOLDER:03}", f"{index:06}_{sample}")
        if is_image and self._names is not None:
            relative = Path("images", self._free_names.name_for(self._names.name_for(values or {}), (index, sample)))
        relative = relative.with_name(f"{relative.name}.{ending}")
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            part.write_bytes(output.data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return relative

    def _remove_halves(self) -> None:
        """Remove what a kill left half written; the lock says that nobody else is at it."""
        for kind in ("images", "files"):
            for part in (self.root / kind).rglob(".*.part"):
                part.unlink(missing_ok=True)

    def _files_by_number(self) -> dict[tuple[int, int], str]:
        return {
            (record.index, sample): image["file"].rpartition(".")[0].removeprefix("images/")
            for record in self.manifest.tasks.values()
            for sample, image in record.images.items()
        }

    def write_sidecar(self, image: Mapping[str, Any], kind: str) -> None:
        """Write what an image's line says into a file beside it: ``txt`` for its caption, ``json`` for its columns.

        Raises:
            ConfigurationError: The caption cannot be made.
            OSError: It cannot be written.
        """
        caption = Caption((self.run or {}).get("caption"))
        text = caption.of(image) if kind == "txt" else metadata_text(flat_rows([image], caption))
        _write_whole((self.root / image["file"]).with_suffix(f".{kind}"), text)

    def is_whole(self, image: Mapping[str, Any]) -> bool:
        """Whether an image's file is there with the size that its line says."""
        try:
            # Of tens of thousands, so without making a path of each.
            return bool(os.stat(f"{self.root}/{image['file']}").st_size == image["size_bytes"])  # noqa: PTH116 - see above
        except OSError:
            return False

    def write_metadata(self) -> None:
        """Write ``metadata.jsonl`` anew, and the card where nobody has edited it, if there are images.

        Raises:
            ConfigurationError: The caption that ``run.json`` asks for cannot be made.
            OSError: It cannot be written.
        """
        self._write_metadata(self._images())

    async def keep_metadata(self, stop: asyncio.Event) -> None:
        """Write the metadata now and then until ``stop`` is set, so that a crash leaves it at most so old."""
        took_s = 0.0
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                # Of tens of thousands of images the text takes seconds, in which little else runs.
                async with asyncio.timeout(max(_METADATA_EVERY_S, _METADATA_SHARE * took_s)):
                    await stop.wait()
            if not stop.is_set():
                began_s = time.monotonic()
                # The list is made here: the manifest may grow while the text is made.
                await asyncio.to_thread(self._write_metadata, self._images())
                took_s = time.monotonic() - began_s

    def _images(self) -> list[Mapping[str, Any]]:
        return [
            image
            for record in sorted(self.manifest.tasks.values(), key=lambda each: each.index)
            for _, image in sorted(record.images.items())
            if image["file"].startswith("images/")
        ]

    def _write_metadata(self, images: list[Mapping[str, Any]]) -> None:
        run = self.run or {}
        there = (image for image in images if os.path.exists(f"{self.root}/{image['file']}"))  # noqa: PTH110 - likewise
        rows = flat_rows(there, Caption(run.get("caption")))
        if rows:
            _write_whole(self.root / "metadata.jsonl", metadata_text(rows))
            self._write_card(rows, run)

    def _write_card(self, rows: Sequence[Mapping[str, Any]], run: RunRecord) -> None:
        path, ours = self.root / "README.md", self.root / ".runpod-comfy" / "card.sha256"
        if path.exists() and not (ours.exists() and ours.read_text() == _digest(path.read_bytes())):
            return
        text = card_text(rows, run, title=self.root.resolve().name)
        _write_whole(path, text)
        _write_whole(ours, _digest(text.encode()))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_held(root: Path) -> bool:
    """Whether another process writes into a folder now."""
    path = root / ".runpod-comfy" / "lock"
    if not path.exists():
        return False
    try:
        _Lock(path).release()
    except (ConfigurationError, OSError):
        return True
    return False


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
