"""The values in a graph that may become variables, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from runpod_comfy.workflow.object_info import InputType

__all__ = ["Kind", "Place"]

Kind: TypeAlias = Literal["text", "seed", "number", "choice", "model", "size", "batch", "image", "folder", "prefix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One input of one node, with the value it has now.

    Attributes:
        node_id: The node.
        input_name: Its input.
        value: What is there.
        kind: What it is to people.
        base: What it would be called if it were the only one.
        title: The node's title, where its author gave it one; else "".
        node: The node for people: id and title or class.
        input_type: What is known of the input, or None.
    """

    node_id: str
    input_name: str
    value: Any = field(repr=False)
    kind: Kind
    base: str
    title: str = ""
    node: str = ""
    input_type: InputType | None = field(default=None, repr=False)
