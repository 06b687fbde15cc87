"""``manifest.jsonl``: the truth of an output folder, one line for each thing that happened, never changed afterwards.

===========  =========================================================================================================
schema       a line says
===========  =========================================================================================================
job/1        a job of this task was accepted: where, under which id, from which batch on
image/1      an image is on disk (written before the line is)
batch/1      a batch of this task is whole: all its images are above
done/1       a job of this task ended with everything: how long it waited and computed
failure/1    a try of this task ended without everything
===========  =========================================================================================================

A crash can cut the last line; readers drop it and writers go on behind the last whole one. No line holds a key, an
image or a presigned address. ``schemas/manifest-line.json`` describes the lines.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from runpod_comfy.dataset.lines import is_cut, read_line
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
        whole: Its batches that are whole.
        done: The lines of its jobs that ended well.
        failures: Its failed tries' lines.
        job: The line of its last job, or None.
        job_ended: Whether that job is known to have ended.
    """

    index: int
    images: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    done: list[Mapping[str, Any]] = field(default_factory=list)
    failures: list[Mapping[str, Any]] = field(default_factory=list)
    job: Mapping[str, Any] | None = None
    job_ended: bool = False


def read_manifest(path: Path) -> dict[str, TaskRecord]:
    """Return what a manifest says, by the tasks' keys; a batch may be writing it meanwhile.

    Raises:
        ConfigurationError: There is none, or a line of it cannot be read.
    """
    try:
        return _read(path).tasks
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"{path.parent} is no dataset: it has no {path.name}. Name a folder that `batch` made."
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}.") from exc


class Manifest:
    """The file, open for writing at its end.

    >>> with Manifest.open(Path("out/manifest.jsonl")) as manifest:  # doctest: +SKIP
    ...     manifest.add({"schema": "batch/1", "task": "88-412", "index": 411, "batch": 0, "batches": 1})

    Attributes:
        tasks: What the lines say, by the tasks' keys; kept up to date by ``add``.
        dropped: Whether a line that a crash had cut was left out.
    """

    def __init__(self, path: Path) -> None:
        found = _read(path) if path.exists() else _Found()
        self.tasks = found.tasks
        self.dropped = found.dropped
        # Opened for reading too: Windows truncates nothing that is open for appending alone.
        self._file = path.open("r+b") if path.exists() else path.open("x+b")
        self._file.truncate(found.size_bytes)
        self._file.seek(found.size_bytes)
        if not found.ended:
            self._file.write(b"\n")

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
        self._file.write(json_line(line).encode())
        self._file.flush()
        _note(self.tasks, line)

    def close(self) -> None:
        """Make sure that all lines are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(slots=True)
class _Found:
    """What a file holds: tasks, the bytes of whole lines, if the last has its break, if a cut one follows."""

    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    size_bytes: int = 0
    ended: bool = True
    dropped: bool = False


def _read(path: Path) -> _Found:
    found = _Found()
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if is_cut(raw):
                found.dropped = True
                break
            try:
                _note(found.tasks, read_line(raw))
            except ValueError as exc:
                raise ConfigurationError(
                    f"{path}, line {number} is no line of a manifest: {exc}. Put the file back as it was, or start "
                    "with another --output-dir."
                ) from exc
            found.size_bytes += len(raw)
            found.ended = raw.endswith(b"\n")
    return found


def _note(tasks: dict[str, TaskRecord], line: Mapping[str, Any]) -> None:
    record = tasks.setdefault(line["task"], TaskRecord(index=line["index"]))
    match line["schema"]:
        case "job/1":
            record.job, record.job_ended = line, False
        case "image/1":
            record.images[line["sample"]] = _sharing(line, record.images)
        case "batch/1":
            record.whole.add(line["batch"])
            record.job_ended = record.job_ended or len(record.whole) >= line["batches"]
        case "done/1":
            record.done.append(line)
            record.job_ended = True
        case "failure/1":
            record.failures.append(line)
            record.job_ended = True
        case _:  # of a later version
            pass


def _sharing(line: Mapping[str, Any], images: Mapping[int, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the line with what another one of its task says too as the same objects: tens of thousands are kept."""
    other = next(iter(images.values()), {})

    def shared(name: str, value: Any) -> Any:
        theirs = other.get(name)
        return theirs if type(theirs) is type(value) and theirs == value else value

    return {sys.intern(name): shared(name, value) for name, value in line.items()}
