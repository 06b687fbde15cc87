"""The native answer: JSON lines, one output a line.

::

    {"images": [{"image": "<base64>", "name": "a_00001_.png", "subfolder": ""}], …}      what every reader knows
    {"images": [], "error": "…"}                                                         the end of a failed job
    {"seq": 9, "crc32": …, "images": [], "done": {"lines": 10, "gpu_s": 4.2}}            the end of a whole job (ours)

Every line has the key ``images``, if only as ``[]``: existing clients read it without asking. We add keys and never
change these: ``seq`` ``crc32`` ``batch`` ``seed`` ``node_id`` ``node_title`` ``files`` ``texts`` ``progress``
``batch_done`` ``warnings``, and on each output ``size_bytes`` and ``sha256``. They make an output trustworthy:
RunPod's SDK gives up a piece after one connection reset, the job still ends COMPLETED, and the joined line may still be
JSON with half an image in it.

An output that went to a bucket is an item of ``files`` with a presigned ``url`` in place of ``data``: among ``images``
existing clients would look for its ``image``. Whoever fetches it checks ``size_bytes`` and ``sha256``. The answer to
``{"input": {"describe": true}}`` is one line with the key ``describe``.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.dialects.lifting import Lifted, lift
from runpod_comfy.dialects.lines import LineJoiner, cut_line
from runpod_comfy.dialects.numbered import Line, missing_batches
from runpod_comfy.errors import ProtocolError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.media.formats import media_type_of
from runpod_comfy.media.wire import from_base64, to_base64
from runpod_comfy.results import Origin, OutputElsewhere, OutputFile, OutputText, WorkflowOutputImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runpod_comfy.events import Event
    from runpod_comfy.results import Output

__all__ = ["LineWriter", "NativeReader", "RemoteError"]


class LineWriter:
    """Turns a run's events into the pieces that a handler yields; numbers the lines that must not get lost."""

    def __init__(self) -> None:
        self._seq = 0

    def event(self, event: Event) -> Iterator[str]:
        """Yield the pieces of one event's line; events that have no line yield nothing."""
        match event:
            case OutputReady(output=output):
                yield from self._numbered(_encode_output(output))
            case BatchFinished():
                done = {"batch_count": event.batch_count, "gpu_s": event.gpu_s}
                yield from self._numbered({"batch": event.batch, "seed": event.seed, "batch_done": done})
            case Progress():
                # Unnumbered: nobody misses one, and a gap in the numbers shall mean a lost output.
                yield from cut_line(_json({"images": [], "progress": _encode_progress(event)}))
            case Warned(message=message):
                yield from self._numbered({"warnings": [message]})
            case _:
                return

    def stored(self, output: OutputFile, *, url: str) -> Iterator[str]:
        """Yield the pieces of the line of an output that is kept elsewhere, under a URL."""
        # Not among `images`: existing clients decode the `image` of each of those.
        yield from self._numbered({**_origin(output), "files": [{**_about(output), "url": url}]})

    def description(self, about: dict[str, Any]) -> Iterator[str]:
        """Yield the pieces of the line that says what the worker is."""
        yield from self._numbered({"describe": about})

    def error(
        self, text: str, *, node_id: str | None = None, node_type: str | None = None, traceback: str | None = None
    ) -> Iterator[str]:
        """Yield the pieces of the line that ends a failed job."""
        more = {"node_id": node_id, "node_type": node_type, "traceback": traceback}
        yield from self._numbered({"error": text, **{name: value for name, value in more.items() if value is not None}})

    def done(self, *, gpu_s: float | None) -> Iterator[str]:
        """Yield the pieces of the line that ends a whole job."""
        yield from self._numbered({"done": {"lines": self._seq + 1, "gpu_s": gpu_s}})

    def _numbered(self, line: dict[str, Any]) -> Iterator[str]:
        # Number and checksum lead, so that what is put together from two damaged lines cannot pass for one.
        rest = _json({"images": [], **line})[1:]
        head = f'{{"seq":{self._seq},"crc32":{zlib.crc32(rest.encode("ascii"))},'
        self._seq += 1
        yield from cut_line(head + rest)


def _json(line: dict[str, Any]) -> str:
    # ASCII only, since the SDK escapes everything else at up to twelve bytes a character.
    return json.dumps(line, ensure_ascii=True, separators=(",", ":"))


_HEAD_CHARS = 40
_HEAD = re.compile(rb'\{"seq":(\d{1,9}),"crc32":(\d{1,10}),')


def _is_spliced(line: bytes) -> bool:
    """Whether a line that begins like one of ours is not what was sent."""
    head = _HEAD.match(line)
    return head is not None and zlib.crc32(memoryview(line)[head.end() :]) != int(head[2])


def _encode_progress(event: Progress) -> dict[str, Any]:
    names = ("batch", "batch_count", "node_id", "node_title", "value", "maximum")
    progress = {name: getattr(event, name) for name in names}
    return progress if event.preview is None else {**progress, "preview": to_base64(event.preview)}


def _origin(output: Output) -> dict[str, Any]:
    return {name: getattr(output.origin, name) for name in ("batch", "seed", "node_id", "node_title")}


def _about(output: OutputFile) -> dict[str, Any]:
    return {
        "name": output.name,
        "subfolder": output.subfolder or "",
        "kind": output.kind,
        "media_type": output.media_type,
        "size_bytes": output.size_bytes,
        "sha256": output.sha256,
    }


def _encode_output(output: Output) -> dict[str, Any]:
    line = _origin(output)
    if isinstance(output, OutputText):
        data = output.text.encode("utf-8", "surrogatepass")
        sha256 = hashlib.sha256(data).hexdigest()
        return {**line, "texts": [{"text": output.text, "size_bytes": len(data), "sha256": sha256}]}
    about, data_in_text = _about(output), to_base64(output.data)
    if isinstance(output, WorkflowOutputImage):
        return {**line, "images": [{**about, "image": data_in_text}]}
    return {**line, "files": [{**about, "data": data_in_text}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteError:
    """What a worker said when it failed."""

    message: str
    node_id: str | None = None
    node_type: str | None = None
    traceback: str | None = None


@dataclass(slots=True)
class NativeReader:
    """Reads a job's answer from its pieces, and knows at any time what is still missing.

    Attributes:
        error: The error the worker reported, or None.
        gpu_s: How long ComfyUI computed for the job, in seconds, once the worker has said so.
        outputs: How many outputs arrived whole.
        lines: How many lines could be read.
        foreign: What a line that is JSON and not of this dialect looked like, or None.
        batches_done: How many batches the worker has finished.
        lost: What is known to have arrived damaged, as phrases.
        description: What the worker said of itself, where it was asked.
        arrived: The numbered lines that are here, in the order of arrival.
        batch_count: How many batches the job has, once the worker has said so; 0 before.
        earlier: The lines that an earlier reader of the job has put away; they are passed over.
    """

    description: dict[str, Any] | None = None
    error: RemoteError | None = None
    gpu_s: float | None = None
    outputs: int = 0
    lines: int = 0
    foreign: str | None = None
    batches_done: int = 0
    lost: list[str] = field(default_factory=list)
    arrived: list[Line] = field(default_factory=list)
    batch_count: int = 0
    earlier: InitVar[Iterable[Line]] = ()
    _joiner: LineJoiner = field(default_factory=LineJoiner)
    _seen: set[int] = field(default_factory=set)
    _line_count: int | None = None
    _spoilt: int = 0
    _finished: list[BatchFinished] = field(default_factory=list)

    def __post_init__(self, earlier: Iterable[Line]) -> None:
        self.arrived += earlier
        self._seen.update(line.seq for line in self.arrived)
        self._line_count = next((line.seq + 1 for line in self.arrived if line.ends_job), None)

    @property
    def complete(self) -> bool:
        """Whether the worker has said that it is done and every line of it is here."""
        return self._line_count is not None and not self.missing and not self.lost

    @property
    def numbered(self) -> bool:
        """Whether the worker numbers its lines, so that a loss can be told."""
        return bool(self._seen)

    @property
    def done(self) -> bool:
        """Whether the worker's last line has arrived: its end, or its error."""
        return self._line_count is not None or self.error is not None

    @property
    def missing(self) -> int:
        """How many numbered lines are known to be missing."""
        expected = self._line_count if self._line_count is not None else max(self._seen, default=-1) + 1
        return expected - len(self._seen)

    def describe_loss(self) -> str | None:
        """Say what is missing now that nothing more will come, or None where all is here."""
        parts = list(self.lost)
        if self.missing > len(parts):
            parts.append(f"{self.missing - len(parts)} line(s) of the answer never arrived whole")
        elif self.numbered and not self.done:
            parts.append("the end of the answer never arrived")
        elif not self.numbered and self._spoilt:
            parts.append(f"{self._spoilt} line(s) of the answer are damaged")
        if self._joiner.pending:
            parts.append("the last line is incomplete")
        return "; ".join(parts) or None

    def start_over(self) -> None:
        """Be ready to read the whole answer again; numbered lines that were read already are then passed over."""
        self._joiner = LineJoiner()
        self._spoilt = 0
        self.lost.clear()

    def feed(self, piece: object) -> Iterator[Event | OutputElsewhere]:
        """Take one piece, as ``/stream`` or the aggregate in ``/status`` gives it, and yield what it completes.

        Outputs that are in a bucket come as :class:`OutputElsewhere`; fetching them is the caller's business.

        Raises:
            ProtocolError: The piece is not of this dialect.
        """
        if not isinstance(piece, str):
            raise ProtocolError(
                f"The worker answered {_shape(piece)} where the native dialect has lines of text. "
                "The endpoint runs another kind of worker; deploy this project's, or one of the same wire format."
            )
        if self._joiner.pending and _HEAD.match(piece[:_HEAD_CHARS].encode("ascii", "replace")):
            # Within a line its quotes would be escaped: this is another line's beginning, and the end of the one
            # before was lost, or its worker died and the next one begins anew.
            self._spoilt += 1
            self._joiner.abandon()
        for line in self._joiner.feed(piece):
            yield from self._line(line)

    def _line(self, text: str) -> Iterator[Event | OutputElsewhere]:
        # Pieces of a line may be lost, and what is left may still be JSON. The next newline starts afresh.
        line, lifted = None, Lifted()
        with suppress(ValueError):
            encoded = text.encode()
            if not _is_spliced(encoded):
                short, lifted = lift(encoded)
                line = orjson.loads(short)
        if line is None:
            self._spoilt += 1
            return
        if line in ({}, []):
            return
        if not isinstance(line, dict) or not line.keys() & _KNOWN_KEYS:
            # Another dialect, or what is left of a line: which one is known at the end.
            self._spoilt += 1
            self.foreign = self.foreign or _shape(line)
            return
        self.lines += 1
        seq = _int(line.get("seq"))
        if seq is not None and (seq < 0 or seq in self._seen):
            return
        lost_before = len(self.lost)
        yield from self._outputs(line, lifted, ours=self.numbered or seq is not None)
        if seq is not None and len(self.lost) == lost_before:
            self._note_arrival(seq, line)
        yield from _notes(line)
        self._ends(line)
        if isinstance(line.get("describe"), dict):
            self.description = line["describe"]
        if isinstance(line.get("batch_done"), dict):
            self.batches_done += 1
            about = line["batch_done"]
            self.batch_count = max(self.batch_count, _int(about.get("batch_count")) or 0)
            self._finished.append(
                BatchFinished(
                    batch=_int(line.get("batch")) or 0,
                    batch_count=_int(about.get("batch_count")) or 0,
                    seed=_int(line.get("seed")),
                    gpu_s=_number(about.get("gpu_s")),
                )
            )
        if self._finished and line.keys() & _MAY_COMPLETE:
            yield from self._finished_whole()

    def _finished_whole(self) -> Iterator[BatchFinished]:
        """Yield what finished batches of which no line is missing any more: a lost one may come later, or never."""
        missing = missing_batches(self.arrived, self.batch_count) if self.numbered else ()
        waiting = [each for each in self._finished if each.batch in missing]
        yield from (each for each in self._finished if each.batch not in missing)
        self._finished = waiting

    def _note_arrival(self, seq: int, line: dict[str, Any]) -> None:
        self._seen.add(seq)
        ends_batch, ends_job = isinstance(line.get("batch_done"), dict), isinstance(line.get("done"), dict)
        self.arrived.append(Line(seq, _int(line.get("batch")), ends_batch, ends_job))

    def _outputs(self, line: dict[str, Any], lifted: Lifted, *, ours: bool) -> Iterator[OutputReady | OutputElsewhere]:
        origin = Origin(
            batch=_int(line.get("batch")),
            seed=_int(line.get("seed")),
            node_id=_text(line.get("node_id")),
            node_title=_text(line.get("node_title")),
            line=_int(line.get("seq")),
        )
        for key, data_key in (("images", "image"), ("files", "data")):
            for item in _items(line, key):
                if _text(item.get("url")) and not item.get(data_key):
                    output: OutputFile | OutputElsewhere | None = self._elsewhere(item, origin)
                else:
                    output = self._file(item, data_key, lifted, origin, ours=ours)
                if output is not None:
                    self.outputs += 1
                    yield output if isinstance(output, OutputElsewhere) else OutputReady(output=output)
        for item in _items(line, "texts"):
            text = item.get("text")
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""
            if isinstance(text, str) and self._is_whole(item, data, "a text", ours=ours):
                self.outputs += 1
                yield OutputReady(output=OutputText(text=text, origin=origin))

    def _file(
        self, item: dict[str, Any], data_key: str, lifted: Lifted, origin: Origin, *, ours: bool
    ) -> OutputFile | None:
        name = _text(item.get("name"))
        data = None
        with suppress(ValueError):
            data = lifted.decode(item.get(data_key))
        # A file may be empty, where a hash says that it was so from the start.
        if name is None or data is None or not (data or isinstance(item.get("sha256"), str)):
            self.lost.append(f"{name or 'an output'} arrived damaged")
            return None
        if not self._is_whole(item, data, name, ours=ours):
            return None
        media_type = _text(item.get("media_type")) or media_type_of(data) or "application/octet-stream"
        make = WorkflowOutputImage if data_key == "image" else OutputFile
        output = make(
            name=name,
            data=data,
            subfolder=_text(item.get("subfolder")) or None,
            kind=_text(item.get("kind")) or "images",
            media_type=media_type,
            origin=origin,
        )
        if isinstance(item.get("sha256"), str):
            vars(output)["sha256"] = item["sha256"]  # computed a moment ago, and not again
        return output

    def _elsewhere(self, item: dict[str, Any], origin: Origin) -> OutputElsewhere | None:
        name, url, sha256 = (_text(item.get(key)) for key in ("name", "url", "sha256"))
        size_bytes = _int(item.get("size_bytes"))
        if name is None or url is None or sha256 is None or size_bytes is None:
            self.lost.append(f"{name or 'an output'} in a bucket arrived damaged")
            return None
        return OutputElsewhere(
            url=url,
            size_bytes=size_bytes,
            sha256=sha256,
            name=name,
            subfolder=_text(item.get("subfolder")),
            kind=_text(item.get("kind")),
            media_type=_text(item.get("media_type")),
            origin=origin,
        )

    def _is_whole(self, item: dict[str, Any], data: bytes, name: str, *, ours: bool) -> bool:
        expected = item.get("sha256")
        whole = hashlib.sha256(data).hexdigest() == expected if isinstance(expected, str) else not ours
        if not whole:
            self.lost.append(f"{name} arrived damaged")
        return whole

    def _ends(self, line: dict[str, Any]) -> None:
        message = line.get("error")
        if message:
            self.error = RemoteError(
                message=message if isinstance(message, str) else json.dumps(message),
                node_id=_text(line.get("node_id")),
                node_type=_text(line.get("node_type")),
                traceback=_text(line.get("traceback")),
            )
        done = line.get("done")
        if isinstance(done, dict):
            self._line_count = _int(done.get("lines"))
            self.gpu_s = _number(done.get("gpu_s"))


_MAY_COMPLETE = {"images", "files", "texts", "batch_done", "done"}
_KNOWN_KEYS = {"images", "error", "done", "progress", "files", "texts", "warnings", "batch_done", "describe"}


def _notes(line: dict[str, Any]) -> Iterator[Progress | Warned]:
    progress = line.get("progress")
    if isinstance(progress, dict):
        yield Progress(
            batch=_int(progress.get("batch")) or 0,
            batch_count=_int(progress.get("batch_count")) or 0,
            node_id=_text(progress.get("node_id")),
            node_title=_text(progress.get("node_title")),
            value=_int(progress.get("value")) or 0,
            maximum=_int(progress.get("maximum")) or 0,
            preview=_preview(progress.get("preview")),
        )
    warnings = line.get("warnings")
    if isinstance(warnings, list):
        yield from (Warned(message=each) for each in warnings if isinstance(each, str))


def _preview(encoded: object) -> bytes | None:
    """Return a preview image; a damaged one is nobody's loss."""
    try:
        return from_base64(encoded) if isinstance(encoded, str) and encoded else None
    except ValueError:
        return None


def _items(line: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = line.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ProtocolError(f"The worker's {key!r} is {_shape(found)}; the native dialect has a list of objects there.")
    return found


def _shape(value: object) -> str:
    """Describe an answer without repeating what is in it: it may hold images or secrets."""
    if isinstance(value, dict):
        return "an object with the keys " + (", ".join(sorted(map(str, value))[:6]) or "(none)")
    return {list: "a list", str: "a string", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
