"""Answers of RunPod's official ComfyUI worker (worker-comfyui), read.

::

    5.x      {"images": [{"filename": "a_00001_.png", "type": "base64" | "s3_url", "data": "…"}], "errors": ["…"]?}
             {"status": "success_no_images", "images": []}
             {"images": […], "files": [as images]?, "texts": ["…"]?}   of this project's worker, which drops none
    failed: error "…", output {"details": ["…"]}
    ≤ 4.0.1  {"status": "success", "message": "<base64>" | "<url>"}     the last image of the history and no other
             {"status": "error", "message": "…"}                       the job is COMPLETED all the same

Facts: handler of worker-comfyui 5.8.5, 4.0.1 and 3.6.0.
"""

from __future__ import annotations

import mimetypes
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runpod_comfy.dialects.names import DistinctNames, plain_name
from runpod_comfy.dialects.native import RemoteError
from runpod_comfy.dialects.worker_comfyui_request import MARK, Layout, base_name
from runpod_comfy.events import BatchFinished, OutputReady
from runpod_comfy.media.formats import media_type_of
from runpod_comfy.media.wire import from_base64
from runpod_comfy.results import Origin, OutputElsewhere, OutputFile, OutputText, WorkflowOutputImage
from runpod_comfy.workflow.unroll import Copy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runpod_comfy.dialects.base import Heard, WorkerKind

__all__ = ["WorkerComfyuiReader", "kind_of_answer"]

_NODE_FAILED = re.compile(r"Node Type: (?P<type>.*?), Node ID: (?P<id>.*?), Message: (?P<message>.*)", re.DOTALL)
# Not "Missing 'workflow' parameter": old versions say that too, when they are asked to describe themselves.
_OWN_WORDS = ("Workflow validation failed", "Failed to upload one or more input images")
_SIMULATED = "simulated_uploaded/"
_SHOWN_ERRORS = 5


def kind_of_answer(output: Any) -> WorkerKind | None:
    """Return which version of this worker gives answers of that shape, or None where neither does."""
    match output:
        case {"images": [dict(first), *_]} if {"filename", "type", "data"} <= first.keys():
            return "worker-comfyui"
        case (
            {"images": [], "status": "success_no_images"}
            | {"images": [], "files": [*_]}
            | {"images": [], "texts": [*_]}
        ):
            return "worker-comfyui"
        case {"status": "success" | "error", "message": str()}:
            return "worker-comfyui-4"
    return None


@dataclass(slots=True)
class _Part:
    """One output of an answer: its place, and its bytes or address."""

    name: str
    subfolder: str | None
    node_id: str | None
    batch: int | None
    data: bytes = field(default=b"", repr=False)
    url: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class WorkerComfyuiReader:
    """Reads an answer of either version; without a layout, as for a job that another process sent, no seeds are known.

    Attributes:
        outputs: How many outputs are here or named with an address.
        gpu_s: None: this worker does not say.
        error: What the worker reported.
        kind: The version that answered, once an answer of it is here.
        uses_bucket: Whether the answer named addresses.
        problems: What the answer could not give, as phrases.
        description: What the worker said of itself, where it was asked: this project's does, in these shapes too.
    """

    layout: Layout = field(default_factory=Layout)
    outputs: int = 0
    gpu_s: float | None = None
    error: RemoteError | None = None
    kind: WorkerKind | None = None
    uses_bucket: bool = False
    problems: list[str] = field(default_factory=list)
    description: dict[str, Any] | None = None
    _complete: bool = False

    @property
    def complete(self) -> bool:
        """Whether a whole answer is here, without errors."""
        return self._complete

    def describe_loss(self) -> str | None:
        """Say what the answer could not give, or None."""
        return "; ".join(self.problems) or None

    def finish(self, output: Any, error: str | None) -> Iterator[Heard]:
        """Read the final status's ``output`` and ``error``."""
        if error is not None:
            details = _details(output)  # other workers' failures have none
            if details or error.startswith(_OWN_WORDS):
                self.kind = "worker-comfyui"
                self.error = self._failure([error, *details])
            return
        match output:
            case {"describe": dict(description)}:
                self.kind, self.description, self._complete = "worker-comfyui", description, True
                return
        self.kind = kind_of_answer(output)
        if self.kind is None:
            return
        if self.kind == "worker-comfyui-4":
            yield from self._last_image(output)
        else:
            items = [*output["images"], *_list(output.get("files"))]
            yield from self._in_order([part for item in items if (part := self._part(item))])
            for text in _texts(output.get("texts")):
                self.outputs += 1
                # Of several batches nobody can tell which one it is of.
                yield OutputReady(output=OutputText(text=text, origin=Origin()))
        if told := _texts(output.get("errors")):
            self.error = self._failure(told)
        self._complete = not self.problems and self.error is None

    def _last_image(self, output: Mapping[str, Any]) -> Iterator[Heard]:
        """Read the answer of an old version: one image, without a name."""
        message = output["message"]
        if output["status"] == "error":
            self.error = RemoteError(message=message)
            return
        node_id, prefix = self.layout.savers[0] if len(self.layout.savers) == 1 else (None, "image")
        stem = f"{PurePosixPath(prefix).name or 'image'}_00001_"
        is_url = message.startswith(("http://", "https://", _SIMULATED))
        part = self._filled(_Part(stem, _folder(prefix), node_id, 0), "s3_url" if is_url else "base64", message)
        if part is None:
            return
        if len(self.layout.seeds) > 1:
            self.problems.append(
                f"the endpoint runs worker-comfyui 4.0.1 or older, which returns the last image of a job only, and "
                f"this job made {len(self.layout.seeds)} batches. Pass worker='worker-comfyui-4' for one job a "
                "batch, or update the worker"
            )
        extension = PurePosixPath(message.partition("?")[0]).suffix if part.url else _extension(part.data)
        yield from self._in_order([replace(part, name=stem + (extension or ".png"))])

    def _part(self, item: object) -> _Part | None:
        match item:
            case {"filename": str(filename), "type": str(type_), "data": str(data)}:
                return self._filled(self._place(plain_name(filename)), type_, data)
        self.problems.append("an output without name or data")
        return None

    def _filled(self, part: _Part, type_: str, data: str) -> _Part | None:
        if data.startswith(_SIMULATED):
            self.problems.append(
                f"{part.name} was not uploaded: the endpoint names a bucket (BUCKET_ENDPOINT_URL) without whole "
                "credentials, so the worker only pretended to. Set BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY, "
                "or unset all three"
            )
            return None
        if type_ == "s3_url":
            self.uses_bucket = True
            return replace(part, url=data)
        decoded = None
        with suppress(ValueError):
            decoded = from_base64(data, allow_data_uri=True) if type_ == "base64" else None
        if decoded is None:
            self.problems.append(f"{part.name} arrived damaged")
            return None
        return replace(part, data=decoded)

    def _place(self, filename: str) -> _Part:
        """Tell from a file's name which node made it in which batch, and what it would be called without a mark."""
        if mark := MARK.search(filename):
            name = filename[: mark.start()] + filename[mark.end() :]
            number = int(mark[2])
            node_id, prefix = self.layout.savers[number] if number < len(self.layout.savers) else (None, "")
            return _Part(name, _folder(prefix), node_id, None if mark[1] == "s" else int(mark[1]))
        batch = 0 if len(self.layout.seeds) == 1 else None
        ours = [each for each in self.layout.savers if filename.startswith(f"{base_name(each[1])}_")]
        longest = max((len(base_name(prefix)) for _, prefix in ours), default=0)
        match [each for each in ours if len(base_name(each[1])) == longest]:
            case [(node_id, prefix)]:
                return _Part(filename, _folder(prefix), node_id, batch)
        # Two nodes save under one name, in a request that was not made for this worker: better none than the wrong one.
        return _Part(filename, None, None, batch)

    def _in_order(self, parts: Sequence[_Part]) -> Iterator[Heard]:
        """Yield batch by batch, as other workers do; what all batches share belongs to each of them."""
        names = DistinctNames()
        # Of several batches nobody can tell which one an old version's image is of.
        seeds = self.layout.seeds if self.kind != "worker-comfyui-4" or len(self.layout.seeds) == 1 else (None,)
        nodes = [node_id for node_id, _ in self.layout.savers]
        batches = max([len(seeds), *(part.batch + 1 for part in parts if part.batch is not None)])
        for batch in range(batches):
            seed = seeds[batch] if batch < len(seeds) else None
            made = [part for part in parts if part.batch in {batch, None}]
            made.sort(key=lambda part: nodes.index(part.node_id) if part.node_id in nodes else len(nodes))
            for part in made:
                self.outputs += 1
                origin = Origin(
                    batch=batch, seed=seed, node_id=part.node_id, node_title=self.layout.titles.get(part.node_id or "")
                )
                yield _heard(part, names.name_for(part.name, part.subfolder), origin)
            if made:
                yield BatchFinished(batch=batch, batch_count=batches, seed=seed)

    def _failure(self, texts: Sequence[str]) -> RemoteError:
        """Make one error of what was said, with the node as it is called in the graph that was rendered."""
        for text in texts:
            if found := _NODE_FAILED.search(text):
                copy = self.layout.copies.get(found["id"], Copy(found["id"], None))
                many = copy.batch is not None and len(self.layout.seeds) > 1
                where = (
                    f"batch {copy.batch + 1} of {len(self.layout.seeds)}, " if many and copy.batch is not None else ""
                )
                return RemoteError(
                    message=f"{where}node {copy.node_id} ({found['type']}): {found['message'].strip()}",
                    node_id=copy.node_id,
                    node_type=found["type"],
                )
        return RemoteError(message="; ".join(text.strip() for text in texts[:_SHOWN_ERRORS]))


def _heard(part: _Part, name: str, origin: Origin) -> Heard:
    if part.url is not None:
        return OutputElsewhere(url=part.url, name=name, subfolder=part.subfolder, origin=origin)
    return OutputReady(output=_as_output(part.data, name=name, subfolder=part.subfolder, origin=origin))


def _as_output(data: bytes, *, name: str, subfolder: str | None, origin: Origin) -> WorkflowOutputImage | OutputFile:
    """Return bytes as the value that a caller receives; videos come in the same way as pictures."""
    sniffed = media_type_of(data)
    is_picture = sniffed is not None and sniffed.startswith("image/")
    make = WorkflowOutputImage if is_picture else OutputFile
    return make(
        name=name,
        data=data,
        subfolder=subfolder,
        media_type=sniffed or mimetypes.guess_type(name)[0] or "application/octet-stream",
        origin=origin,
    )


def _folder(prefix: str) -> str | None:
    """Return the folder in a prefix, unless it has parts that only ComfyUI fills in."""
    folder = str(PurePosixPath(prefix.replace("\\", "/")).parent)
    return None if folder == "." or "%" in folder else folder


def _extension(data: bytes) -> str | None:
    return mimetypes.guess_extension(media_type_of(data) or "")


def _details(output: Any) -> list[str]:
    return _texts(output.get("details")) if isinstance(output, dict) else []


def _texts(value: Any) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
