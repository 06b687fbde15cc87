"""``manifest.jsonl``: the truth of an output folder, one line for each thing that happened, never changed afterwards.

===========  =========================================================================================================
schema       a line says
===========  =========================================================================================================
job/1        a job of this task was accepted: where, under which id, from which batch on
image/1      an image is on disk (written before the line is)
batch/1      a batch of this task is whole: all its images are above
failure/1    a try of this task ended without everything
===========  =========================================================================================================

A crash can cut the last line; readers drop it and writers go on behind the last whole one. No line holds a key, an
image or a presigned address.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from runpod_comfy.dataset.metadata import json_line
from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Manifest", "TaskRecord", "read_manifest"]


@dataclass(slots=True)
class TaskRecord:
    """What the manifest says of one task.

    Attributes:
        index: Its number, which names its files.
        images: Its images' lines by sample number; a later line replaces an earlier one.
        batches: How many of its batches are whole, from the first on.
        failures: Its failed tries' lines.
        job: The line of its last job, or None.
        job_ended: Whether that job is known to have ended.
    """

    index: int
    images: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    batches: int = 0
    failures: list[Mapping[str, Any]] = field(default_factory=list)
    job: Mapping[str, Any] | None = None
    job_ended: bool = False


def read_manifest(path: Path) -> dict[str, TaskRecord]:
    """Return what a manifest says, by the tasks' keys; a batch may be writing it meanwhile.

    Raises:
        ConfigurationError: There is none, or a line of it cannot be read.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"{path.parent} is no dataset: it has no {path.name}. Name a folder that `batch` made."
        )
    manifest = Manifest.__new__(Manifest)
    manifest.tasks, manifest._path = {}, path  # noqa: SLF001 - reading alone opens nothing for writing
    manifest._read()  # noqa: SLF001 - likewise
    return manifest.tasks


class Manifest:
    """The file, open for writing at its end.

    >>> with Manifest.open(Path("out/manifest.jsonl")) as manifest:  # doctest: +SKIP
    ...     manifest.add({"schema": "batch/1", "task": "88-412", "index": 411, "batch": 0, "batches": 1})

    Attributes:
        tasks: What the lines say, by the tasks' keys; kept up to date by ``add``.
        dropped: Whether a line that a crash had cut was left out.
    """

    def __init__(self, path: Path) -> None:
        self.tasks: dict[str, TaskRecord] = {}
        self.dropped = False
        self._path = path
        end = self._read()
        # Opened for reading too: Windows truncates nothing that is open for appending alone.
        self._file = path.open("r+b") if path.exists() else path.open("x+b")
        self._file.truncate(end)
        self._file.seek(end)

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """Read what there is and be ready to write.

        Raises:
            ConfigurationError: A line in the middle cannot be read: somebody has edited the file.
            OSError: It cannot be read or written.
        """
        return cls(path)

    def jobs_under_way(self) -> list[str]:
        """Return the ids of jobs that no line says the end of."""
        return [record.job["job_id"] for record in self.tasks.values() if record.job and not record.job_ended]

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one line; it survives the end of this process, and a power cut loses at most the last ones."""
        self._file.write(json_line(line).encode("utf-8", "surrogatepass"))
        self._file.flush()
        self._note(line)

    def close(self) -> None:
        """Make sure that all lines are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _read(self) -> int:
        """Take in every whole line and return where the last one ends."""
        if not self._path.exists():
            return 0
        end = 0
        with self._path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    self.dropped = True
                    break
                try:
                    line = json.loads(raw)
                    self._note(line)
                except (ValueError, TypeError, KeyError, AttributeError) as exc:
                    raise ConfigurationError(
                        f"{self._path}, line {number} is no line of a manifest. Put the file back as it was, or start "
                        "with another --output-dir."
                    ) from exc
                end += len(raw)
        return end

    def _note(self, line: Mapping[str, Any]) -> None:
        record = self.tasks.setdefault(line["task"], TaskRecord(index=line["index"]))
        match line["schema"]:
            case "job/1":
                record.job, record.job_ended = line, False
            case "image/1":
                record.images[line["sample"]] = line
            case "batch/1":
                # Batches come in their order, so the last one tells how many there are.
                record.batches = max(record.batches, line["batch"] + 1)
                record.job_ended = record.job_ended or record.batches >= line["batches"]
            case "failure/1":
                record.failures.append(line)
                record.job_ended = True
            case _:  # of a later version
                pass
