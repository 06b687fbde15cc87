"""What comes back: the outputs of a workflow as frozen values, and the list that a caller receives.

An output keeps the bytes that ComfyUI wrote. A picture is decoded when ``.item`` is first asked for, so whoever only
saves files never pays for decoding, and a saved PNG keeps the workflow that ComfyUI put into it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from runpod_comfy.errors import InputError
from runpod_comfy.media.files import safe_output_path, write_new
from runpod_comfy.media.formats import media_type_of
from runpod_comfy.media.html import Thumbnail, picture_html, sheet_html
from runpod_comfy.media.pictures import decoding, open_picture, picture_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image

__all__ = [
    "Origin",
    "Output",
    "OutputElsewhere",
    "OutputFile",
    "OutputText",
    "Timings",
    "WorkflowOutputImage",
    "WorkflowResult",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where in a run an output was made.

    Attributes:
        batch: The batch within the job, counted from 0; None where the worker does not say.
        seed: The seed of that batch: with it, and the same template and inputs, the output can be made again.
        node_id: The id of the ComfyUI node that reported the output.
        node_title: That node's title, as people see it in ComfyUI.
        line: The number of the line of the worker's answer that brought it; None where lines have none.
    """

    batch: int | None = None
    seed: int | None = None
    node_id: str | None = None
    node_title: str | None = None
    line: int | None = field(default=None, repr=False, compare=False)


_NOWHERE = Origin()
_SHOWN = 5  # files, texts and warnings in a notebook


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file that a workflow made: a picture, a video, a sound, a latent.

    Attributes:
        name: The file's name as ComfyUI set it, for example ``portrait_00001_.png``.
        data: The file's bytes exactly as the worker sent them.
        subfolder: The folder below ComfyUI's output folder, or None.
        kind: The key under which ComfyUI reported it: ``images``, ``gifs``, ``audio``, ``3d``, …
        media_type: For example ``image/png``.
        origin: Batch, seed and node.
        path: Where it was saved as it arrived (``output_dir=``); its bytes are then not in memory, and ``data`` reads
            them from there each time. None where they are in memory.
    """

    name: str
    data: bytes = field(repr=False)
    subfolder: str | None = None
    kind: str = "images"
    media_type: str = "application/octet-stream"
    origin: Origin = _NOWHERE
    path: Path | None = None

    def but(self, *, name: str | None = None, origin: Origin | None = None) -> Self:
        """Return this output under another name or of another origin; where a file holds its bytes, it is not read."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        vars(other).update(name=name or self.name, origin=origin or self.origin)
        return other

    def kept_at(self, path: Path) -> Self:
        """Return this output without its bytes, which are in that file."""
        kept = object.__new__(type(self))
        known = {**vars(self), "path": path, "size_bytes": self.size_bytes, "sha256": self.sha256}
        known.pop("data", None)  # it may be in another file by now
        vars(kept).update(known)
        return kept

    def __getattr__(self, name: str) -> Any:
        # Asked only for what is not there; `data` is missing where a file holds it.
        path = vars(self).get("path")
        if name != "data" or path is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)
        return path.read_bytes()

    @property
    def seed(self) -> int | None:
        """The seed of the batch that made this output, or None where the worker does not say."""
        return self.origin.seed

    @property
    def batch(self) -> int | None:
        """The batch within the job, counted from 0, or None where the worker does not say."""
        return self.origin.batch

    @property
    def node_id(self) -> str | None:
        """The id of the ComfyUI node that reported the output, or None where the worker does not say."""
        return self.origin.node_id

    @cached_property
    def size_bytes(self) -> int:
        """How many bytes ``data`` has."""
        return len(self.data)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of ``data``, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def save(self, target: str | os.PathLike[str]) -> Path:
        """Write the original bytes and return the path written.

        Args:
            target: A folder that exists, or a name that ends in a separator: there the file keeps ComfyUI's name and
                never overwrites (``name_1.png``, ``name_2.png``, …). Anything else is the file to write, replaced if
                it exists.
        """
        path = Path(target)
        if path.is_dir() or os.fspath(target).endswith(("/", os.sep)):
            path.mkdir(parents=True, exist_ok=True)
            return write_new(safe_output_path(path, self.name, None), self.data)
        path.write_bytes(self.data)
        return path


@dataclass(frozen=True, kw_only=True)
class WorkflowOutputImage(OutputFile):
    """One picture, ``.item`` for Pillow and ``.save`` for its original bytes.

    >>> for image_item in executor.submit_workflow(template, num_samples=4):  # doctest: +SKIP
    ...     image_item.save("out/")  # the worker's bytes, with the workflow that ComfyUI stores in a PNG
    ...     image_item.item.resize((64, 64))  # Pillow
    """

    @cached_property
    def item(self) -> Image.Image:
        """The picture as a ``PIL.Image.Image``, opened when first asked for and the same object afterwards.

        Raises:
            InputError: The worker's bytes are no picture, or one that must not be opened (see ``open_picture``).
        """
        with picture_errors(self.name), decoding():
            return open_picture(self.data, self.name)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a small copy, the name and the seed."""
        return picture_html(self._thumbnail(), () if self.seed is None else (f"seed {self.seed}",))

    def _thumbnail(self) -> Thumbnail:
        about = "" if self.seed is None else f", seed {self.seed}"
        return Thumbnail(self.name, f"{self.name}{about}", lambda: self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputText:
    """One text that a node reported, such as a caption.

    Attributes:
        text: The text.
        origin: Batch, seed and node.
    """

    text: str
    origin: Origin = _NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputElsewhere:
    """An output that an answer names and does not hold; whoever reads the answer fetches it.

    Attributes:
        url: Where it is; whoever has it has the file, so it is kept out of ``repr``.
        name: As of :class:`OutputFile`, and so are ``subfolder`` and ``origin``.
        kind: As of :class:`OutputFile`, or None where the worker does not say.
        media_type: Likewise.
        size_bytes: How many bytes it has, or None where the worker does not say.
        sha256: Their SHA-256, in hexadecimal, or None where the worker does not say.
    """

    url: str = field(repr=False)
    name: str
    subfolder: str | None = None
    kind: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    origin: Origin = _NOWHERE

    def with_data(self, data: bytes) -> OutputFile:
        """Return the output with its bytes.

        Raises:
            ValueError: They are not what the worker said they would be.
        """
        if self.size_bytes not in {None, len(data)} or self.sha256 not in {None, hashlib.sha256(data).hexdigest()}:
            raise ValueError(f"{self.name} is damaged")
        media_type = self.media_type or media_type_of(data) or "application/octet-stream"
        is_picture = self.kind in {None, "images"} and media_type.startswith("image/") and media_type != "image/heic"
        make = WorkflowOutputImage if is_picture else OutputFile
        return make(
            name=self.name,
            data=data,
            subfolder=self.subfolder,
            kind=self.kind or "images",
            media_type=media_type,
            origin=self.origin,
        )


Output: TypeAlias = WorkflowOutputImage | OutputFile | OutputText


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long the parts of a job took, in seconds; None where nobody said.

    Attributes:
        queue_s: From submission until a worker took the job (RunPod's ``delayTime``).
        execution_s: From then until the worker was done (RunPod's ``executionTime``); RunPod bills at least this.
        gpu_s: The part of it in which ComfyUI computed, as the worker measured it.
        total_s: From the call to the last byte, as measured here.
    """

    queue_s: float | None = None
    execution_s: float | None = None
    gpu_s: float | None = None
    total_s: float | None = None


class WorkflowResult(list[WorkflowOutputImage]):
    """The pictures of one submission, in order, and what else it made.

    Attributes:
        files: Outputs that are not pictures (videos, sounds, latents, …).
        texts: Texts that nodes reported.
        job_id: RunPod's id of the job, or None where there was none; of several jobs, the last.
        job_ids: All of them, where the work was split.
        places: Where it ran, as ``WorkflowExecutor.connect`` takes it.
        submission_id: Our own id of the submission.
        seeds: The seed of each batch.
        timings: How long it took.
        warnings: What a careful reader should know, as sentences.
    """

    def __init__(
        self,
        images: Iterable[WorkflowOutputImage] = (),
        *,
        files: Iterable[OutputFile] = (),
        texts: Iterable[OutputText] = (),
        job_id: str | None = None,
        job_ids: Iterable[str] = (),
        places: Iterable[str] = (),
        submission_id: str | None = None,
        seeds: Iterable[int] = (),
        timings: Timings | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        super().__init__(images)
        self.files = list(files)
        self.texts = list(texts)
        self.job_id = job_id
        self.job_ids = tuple(job_ids)
        self.places = tuple(places)
        self.submission_id = submission_id
        self.seeds = tuple(seeds)
        self.timings = timings or Timings()
        self.warnings = tuple(warnings)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every picture and file into a folder and return the paths; nothing there is overwritten.

        The folder is made where it is missing. Subfolders that the workflow chose are kept.

        Raises:
            InputError: A name that the worker sent leads out of the folder; all others are written all the same.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        refused: list[InputError] = []
        for each in self.outputs:
            try:
                path = safe_output_path(root, each.name, each.subfolder)
            except InputError as exc:
                refused.append(exc)
            else:
                written.append(write_new(path, each.data))
        if refused:
            raise InputError(f"{refused[0]} It was not written; {len(written)} other file(s) were.") from refused[0]
        return written

    @property
    def outputs(self) -> list[OutputFile]:
        """Pictures and other files together."""
        return [*self, *self.files]

    def __repr__(self) -> str:
        return f"<WorkflowResult {self._contents()}, job_id={self.job_id!r}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the first pictures as small copies, and the rest in words."""
        timings = [
            f"{name} {seconds:.1f} s"
            for name, seconds in (
                ("queue", self.timings.queue_s),
                ("execution", self.timings.execution_s),
                ("total", self.timings.total_s),
            )
            if seconds is not None
        ]
        job = [f"job {self.job_id}"] if self.job_id else []
        lines = [", ".join([self._contents(), *job, *timings])]
        lines += [f"{file.name} ({file.media_type}, {file.size_bytes:,} bytes)" for file in self.files[:_SHOWN]]
        lines += [text.text for text in self.texts[:_SHOWN]]
        lines += [f"Warning: {warning}" for warning in self.warnings[:_SHOWN]]
        return sheet_html([image._thumbnail() for image in self], lines)  # noqa: SLF001 - of this module

    def _contents(self) -> str:
        parts = [f"{len(self)} images"]
        parts += [f"{len(many)} {what}" for many, what in ((self.files, "files"), (self.texts, "texts")) if many]
        return ", ".join(parts)
