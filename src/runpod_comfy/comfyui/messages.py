"""What ComfyUI says over its websocket, parsed into small frozen values made for ``match``.

Text messages are ``{"type", "data"}``; binary ones begin with a big-endian number that tells their kind. Messages of a
prompt go only to the client that queued it, and what was missed while the socket was away is never said again, so
they serve progress and tell when to look; what a prompt came to is in ``/history``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

__all__ = [
    "Connected",
    "Executing",
    "Lost",
    "Message",
    "NodeProgress",
    "Other",
    "Preview",
    "PromptEnded",
    "QueueStatus",
    "parse_binary",
    "parse_text",
]


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is open. What was sent before, and while it was away, is missing."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The socket is closed, or could not be opened; it will be tried again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """``status``: the queue has changed. It goes to every socket."""

    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Executing:
    """``executing`` with a node: it computes now. After a reconnect ComfyUI says so without the prompt's id."""

    prompt_id: str | None
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """``progress``: a node is at one of its steps."""

    prompt_id: str | None
    node_id: str | None
    value: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEnded:
    """``executing`` with node null: done, failed or interrupted, and ``/history`` has it.

    ``execution_success`` and its like come up to 200 ms before the entry in ``/history`` and are not used.
    """

    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A picture sent over the socket: a sampler's preview, or the output of a SaveImageWebsocket node.

    Attributes:
        data: A JPEG or PNG file.
        prompt_id: The prompt, where ComfyUI says so.
        node_id: The node, where ComfyUI says so.
    """

    data: bytes = field(repr=False)
    prompt_id: str | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Anything else, such as what custom nodes send.

    Attributes:
        kind: Its type.
        prompt_id: The prompt it belongs to, or None.
    """

    kind: str
    prompt_id: str | None = None


Message: TypeAlias = Connected | Lost | QueueStatus | Executing | NodeProgress | PromptEnded | Preview | Other


def parse_text(text: str) -> Message:
    """Return what a text message says; one that is malformed is an :class:`Other`."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        message = None
    kind = _text(message.get("type")) if isinstance(message, dict) else None
    data = message.get("data") if isinstance(message, dict) else None
    return _parse(kind or "", data if isinstance(data, dict) else {})


def _parse(kind: str, data: dict[str, Any]) -> Message:
    prompt_id = _text(data.get("prompt_id"))
    # A node that makes a subgraph of others runs under ids of its own; the display id is the one in the workflow.
    node_id = _text(data.get("display_node")) or _text(data.get("node"))
    match kind:
        case "status":
            return QueueStatus(remaining=_remaining(data))
        case "executing" if node_id is not None:
            return Executing(prompt_id=prompt_id, node_id=node_id)
        case "executing" if prompt_id is not None:
            return PromptEnded(prompt_id=prompt_id)
        case "progress":
            value, maximum = _int(data.get("value")), _int(data.get("max"))
            return NodeProgress(prompt_id=prompt_id, node_id=node_id, value=value, maximum=maximum)
        case _:
            return Other(kind=kind, prompt_id=prompt_id)


_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4


def parse_binary(data: bytes) -> Message:
    """Return what a binary message says; one that is malformed is an :class:`Other`.

    Kind 1 is four bytes of format and an image; kind 4 is four bytes of length, so much JSON, and an image.
    """
    try:
        kind, second = struct.unpack_from(">II", data)
        if kind == _PREVIEW:
            return Preview(data=data[8:])
        if kind == _PREVIEW_WITH_METADATA:
            about = orjson.loads(data[8 : 8 + second])
            return Preview(
                data=data[8 + second :],
                prompt_id=_text(about.get("prompt_id")),
                node_id=_text(about.get("display_node_id")) or _text(about.get("node_id")),
            )
    except (struct.error, orjson.JSONDecodeError, AttributeError):
        return Other(kind="binary")
    return Other(kind="binary")


def _remaining(data: dict[str, Any]) -> int:
    status = data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    return _int(info.get("queue_remaining")) if isinstance(info, dict) else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and abs(value) < 2**53 else 0
