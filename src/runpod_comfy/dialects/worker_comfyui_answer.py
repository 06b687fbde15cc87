"""Requests and answers of RunPod's official ComfyUI worker (worker-comfyui 5.x), seen from the worker's side.

::

    {"images": [{"filename": "a_00001_.png", "type": "base64" | "s3_url", "data": "…"}], "errors": ["…"]?}
    {"status": "success_no_images", "images": []}
    {"error": "…", "details": ["…"]?}                                           RunPod shows the job as FAILED

An answer that RunPod does not take vanishes, and the job ends as COMPLETED without output; so it is measured here, and
what does not fit is named under ``errors``. Outputs that the official worker drops (videos and sounds that are not
reported as images, texts) come under further keys of ours, ``files`` and ``texts``, which are there only when needed.

Facts: handler of worker-comfyui 5.8.5. The texts of its input errors are what clients know, so they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.errors import InputError, JobFailed
from runpod_comfy.media.wire import to_base64

if TYPE_CHECKING:
    from runpod_comfy.results import OutputFile

__all__ = ["UPLOAD_FAILED", "Answer", "answer_limit", "failure_text", "is_node_failure", "read_input"]

UPLOAD_FAILED = "Failed to upload one or more input images"

# RunPod's docs give the request's limits for results too: 10 MB after /run, 20 MB after /runsync, whose ids begin with
# `sync-`. The exact figures are unconfirmed; the rest is room for the envelope.
_RUN_BYTES, _RUNSYNC_BYTES, _ENVELOPE_BYTES = 10_000_000, 20_000_000, 100_000
_SHOWN_CHARS, _SHOWN_ERRORS = 4000, 20


def read_input(body: object) -> dict[str, Any]:
    """Return a job's input as an object; it may also be a string of JSON.

    Raises:
        InputError: With the official worker's own words.
    """
    if body is None:
        raise InputError("Please provide input")
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise InputError("Invalid JSON format in input") from exc
    if not isinstance(body, dict) or body.get("workflow") is None:
        raise InputError("Missing 'workflow' parameter")
    images = body.get("images")
    if images is not None and not (isinstance(images, list) and all(_is_image(each) for each in images)):
        raise InputError("'images' must be a list of objects with 'name' and 'image' keys")
    return body


def answer_limit(job_id: str) -> int:
    """Return how many bytes of JSON the answer of a job may have."""
    return _RUNSYNC_BYTES if job_id.startswith("sync-") else _RUN_BYTES


def is_node_failure(error: Exception) -> bool:
    """Return whether a node failed while it computed, so that others may have made something."""
    return isinstance(error, JobFailed) and error.traceback is not None


def failure_text(error: Exception) -> str:
    """Return what goes under ``errors``; clients look for node and class in a failed node's."""
    text = _sendable(str(error))
    if isinstance(error, JobFailed) and is_node_failure(error):
        return f"Workflow execution error: Node Type: {error.node_type}, Node ID: {error.node_id}, Message: {text}"
    return text


@dataclass(slots=True)
class Answer:
    """One job's answer as it grows.

    Attributes:
        limit_bytes: How large its JSON may be.
        errors: What went wrong, as texts.
    """

    limit_bytes: int
    errors: list[str] = field(default_factory=list)
    _images: list[dict[str, str]] = field(default_factory=list)
    _files: list[dict[str, str]] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _bytes: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing has been made that is worth an answer."""
        return not (self._images or self._files or self._texts or self.errors)

    def add_file(self, output: OutputFile, *, url: str | None = None) -> None:
        """Add an output, with its URL where it was stored elsewhere."""
        name = self._distinct(_sendable(output.name))
        # Encoded sizes are known beforehand: base64 has four characters for three bytes.
        if url is None and not self._fits(4 * -(-output.size_bytes // 3) + len(name)):
            self.errors.append(
                f"{name} ({output.size_bytes / 2**20:.1f} MiB) does not fit: RunPod takes an answer of at most "
                f"{self.limit_bytes / 1e6:.0f} MB. Give the worker a bucket (BUCKET_ENDPOINT_URL and its keys), or the "
                "request an s3Config."
            )
            return
        data, kind = (url, "s3_url") if url is not None else (to_base64(output.data), "base64")
        item = {"filename": name, "type": kind, "data": data}
        (self._images if output.kind == "images" else self._files).append(item)
        self._bytes += len(orjson.dumps(item)) + 2

    def add_text(self, text: str) -> None:
        """Add a text that a node reported."""
        text = _sendable(text)
        size_bytes = len(orjson.dumps(text)) + 2
        if not self._fits(size_bytes):
            self.errors.append(f"A text of {len(text):,} characters does not fit into the answer.")
            return
        self._texts.append(text)
        self._bytes += size_bytes

    def result(self) -> dict[str, Any]:
        """Return the answer of a job that ended, well or not; what was made is in it in either case."""
        more: dict[str, Any] = {}
        if self._files:
            more["files"] = self._files
        if self._texts:
            more["texts"] = self._texts
        if self._images or (more and self.errors):
            return {"images": self._images} | more | ({"errors": self._shown_errors()} if self.errors else {})
        if self.errors:
            return {"error": "Job processing failed", "details": self._shown_errors()}
        return {"status": "success_no_images", "images": []} | more

    def _distinct(self, name: str) -> str:
        """Return a name that no other file of the answer has: it tells no subfolders, and people save by name."""
        path, number, distinct = PurePosixPath(name), 0, name
        while distinct in self._names:
            number += 1
            distinct = f"{path.stem}_{number}{path.suffix}"
        self._names.add(distinct)
        return distinct

    def _fits(self, size_bytes: int) -> bool:
        return self._bytes + size_bytes <= self.limit_bytes - _ENVELOPE_BYTES

    def _shown_errors(self) -> list[str]:
        kept = [error[:_SHOWN_CHARS] for error in self.errors[:_SHOWN_ERRORS]]
        left = len(self.errors) - len(kept)
        return [*kept, f"and {left} more"] if left else kept


def _is_image(image: object) -> bool:
    return isinstance(image, dict) and "name" in image and ("image" in image or "url" in image)


def _sendable(text: str) -> str:
    # The SDK could not send a lone surrogate, and would report nothing at all.
    return text.encode("utf-8", "replace").decode()
