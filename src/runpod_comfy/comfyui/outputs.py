"""What a prompt's entry in ``/history`` says: its outputs, how it ended, and how long it took. Pure.

::

    {"outputs": {"9": {"images": [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}]}},
     "status": {"status_str": "success", "completed": true,
                "messages": [["execution_start", {"timestamp": …}], …]}}

Failed and interrupted prompts are both ``error`` there; only the messages tell them apart.
"""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from runpod_comfy.media.formats import media_type_of
from runpod_comfy.results import OutputFile, WorkflowOutputImage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runpod_comfy.results import Origin

__all__ = ["FileRef", "HistoryEntry", "OutputRef", "TextRef", "UniqueNames", "as_output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file that a node reported.

    Attributes:
        node_id: The node.
        kind: The key under which it was reported: ``images``, ``gifs``, ``audio``, …
        filename: Its name.
        subfolder: The folder below that of its type, or ``""``.
        type: ``output`` or ``temp``.
    """

    node_id: str
    kind: str
    filename: str
    subfolder: str = ""
    type: str = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRef:
    """A text that a node reported."""

    node_id: str
    text: str


OutputRef: TypeAlias = FileRef | TextRef

_TEXT_KEYS = frozenset({"text", "texts", "string"})


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One prompt's entry in ``/history``; anything in it may be missing."""

    raw: Mapping[str, Any] = field(repr=False)

    def outputs(self, graph: Mapping[str, Any]) -> list[OutputRef]:
        """Return what the nodes reported, in the order of the graph's nodes, each file once."""
        reported = _dict(self.raw.get("outputs"))
        known = [node_id for node_id in graph if node_id in reported]
        others = [node_id for node_id in reported if node_id not in graph]
        found: list[OutputRef] = []
        places = set()
        for ref in (ref for node_id in (*known, *others) for ref in _refs(node_id, reported[node_id])):
            if isinstance(ref, FileRef):
                place = (ref.type, ref.subfolder, ref.filename)
                if place in places:
                    continue
                places.add(place)
            found.append(ref)
        return found

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The ``execution_error`` message, with ``node_id``, ``exception_message``, ``traceback`` and more; or None."""
        return self._message("execution_error")

    @property
    def interrupted(self) -> bool:
        """Whether somebody interrupted it."""
        return self._message("execution_interrupted") is not None

    @property
    def failed(self) -> bool:
        """Whether it did not run to its end."""
        return _dict(self.raw.get("status")).get("status_str") == "error"

    @property
    def gpu_s(self) -> float | None:
        """From ``execution_start`` to its last message, in seconds, or None where ComfyUI does not say."""
        times = [
            about["timestamp"]
            for _, about in self._messages()
            if isinstance(about.get("timestamp"), (int, float)) and not isinstance(about["timestamp"], bool)
        ]
        return max(0.0, (times[-1] - times[0]) / 1000) if self._message("execution_start") and times else None

    def _message(self, kind: str) -> Mapping[str, Any] | None:
        return next((about for name, about in self._messages() if name == kind), None)

    def _messages(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        messages = _dict(self.raw.get("status")).get("messages")
        for message in messages if isinstance(messages, list) else ():
            match message:
                case [str(name), dict(about)]:
                    yield name, about


class UniqueNames:
    """Gives each file of a job a name that no other file of it has in the same subfolder.

    ComfyUI reports the same file again for a batch that it took whole from its cache.
    """

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def name_for(self, ref: FileRef, subfolder: str) -> str:
        """Return the file's own name, or ``name_1.png``, ``name_2.png``, … where it is taken in that subfolder."""
        # What a server says is not trusted to be a plain name: callers save under it.
        path = PurePosixPath(ref.filename.replace("\\", "/"))
        name, number = path.name or "output", 0
        while (subfolder, name) in self._taken:
            number += 1
            name = f"{path.stem}_{number}{path.suffix}"
        self._taken.add((subfolder, name))
        return name


_NOT_FOR_PILLOW = frozenset({"image/heic"})


def as_output(
    ref: FileRef, data: bytes, *, name: str, subfolder: str, origin: Origin
) -> WorkflowOutputImage | OutputFile:
    """Return a file as the value a caller receives.

    Only what was reported under ``images`` and is a picture that can be opened becomes one: videos are reported there
    too, and readers open every picture.
    """
    sniffed = media_type_of(data) or ""
    is_picture = ref.kind == "images" and sniffed.startswith("image/") and sniffed not in _NOT_FOR_PILLOW
    media_type = sniffed if sniffed.startswith("image/") else mimetypes.guess_type(ref.filename)[0] or sniffed
    make = WorkflowOutputImage if is_picture else OutputFile
    return make(
        name=name,
        data=data,
        subfolder=subfolder or None,
        kind=ref.kind,
        media_type=media_type or "application/octet-stream",
        origin=origin,
    )


def _refs(node_id: str, reported: object) -> Iterator[OutputRef]:
    for kind, items in _dict(reported).items():
        for item in items if isinstance(items, list) else [items]:
            match item:
                case {"filename": str(filename)} if filename:
                    type_ = item.get("type") or "output"
                    # `input` is what a node shows of its inputs.
                    if isinstance(type_, str) and type_ in {"output", "temp"}:
                        subfolder = item.get("subfolder")
                        yield FileRef(
                            node_id=node_id,
                            kind=kind,
                            filename=filename,
                            subfolder=subfolder if isinstance(subfolder, str) else "",
                            type=type_,
                        )
                case str(text) if kind in _TEXT_KEYS:
                    yield TextRef(node_id=node_id, text=text)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
