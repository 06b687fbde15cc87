"""A saved workflow turned into the API format: what ComfyUI's editor does when it queues one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.near import nearest
from runpod_comfy.workflow.graph import as_link
from runpod_comfy.workflow.saved_format.expand import expand
from runpod_comfy.workflow.saved_format.groups import group_host, group_name
from runpod_comfy.workflow.saved_format.model import read_saved
from runpod_comfy.workflow.saved_format.values import as_input, fields_of, name_values, name_values_by_sockets
from runpod_comfy.workflow.saved_format.wires import PASS_THROUGH, PRIMITIVE, FromNode, FromValue, find_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.workflow.object_info import ObjectInfo
    from runpod_comfy.workflow.saved_format.expand import Host, Scope
    from runpod_comfy.workflow.saved_format.model import SavedNode

__all__ = ["Converted", "convert_saved"]

# They are the editor's own and never run.
_EDITOR_ONLY: Final = frozenset(
    {
        PRIMITIVE,
        *PASS_THROUGH,
        "Note",
        "MarkdownNote",
        "SetNode",
        "GetNode",
        "Label (rgthree)",
        "Bookmark (rgthree)",
        "Fast Muter (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Groups Bypasser (rgthree)",
        "Fast Actions Button (rgthree)",
        "Mute / Bypass Relay (rgthree)",
        "Mute / Bypass Repeater (rgthree)",
        "Node Collector (rgthree)",
        "Random Unmuter (rgthree)",
    }
)
_RECORDED: Final = frozenset({"WEBCAM", "AUDIO_RECORD", "LOAD_3D", "LOAD_3D_ANIMATION"})
# What the editor replaces when it queues a prompt, and a server does not.
_DATE: Final = re.compile(r"%date:[^%]*%|%[^%\s/\\]+\.[^%\s/\\]+%")
_ALTERNATIVES: Final = re.compile(r"(?<!\\)\{[^{}|]*\|[^{}]*\}")
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Converted:
    """A workflow in API format.

    Attributes:
        graph: Node ids to nodes.
        notes: What will not be as in the editor, as sentences that name the node.
    """

    graph: dict[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()


def convert_saved(data: Mapping[str, Any], info: ObjectInfo | None, *, source: str = "workflow") -> Converted:
    """Turn a saved workflow into the API format.

    Args:
        data: The file's JSON.
        info: The node types of a ComfyUI. Without it, only files convert whose values carry names (editors since
            2026 write them).
        source: What messages call the file.

    Raises:
        WorkflowGraphError: Nodes of it cannot be converted; the text names each with id, type and reason, and
            ``node_id`` is the first one's.
    """
    return _Conversion(data, info, source).result()


class _Conversion:
    def __init__(self, data: Mapping[str, Any], info: ObjectInfo | None, source: str) -> None:
        self._workflow = read_saved(data, source=source)
        self._info = info
        self._source = source
        self._notes: list[str] = []
        self._faults: dict[str, str] = {}

    def result(self) -> Converted:
        top = expand(self._workflow, self._group_host, source=self._source)
        graph: dict[str, Any] = {}
        for scope, node in top.nodes():
            if node.type not in _EDITOR_ONLY:
                full_id = scope.full_id(node.node_id)
                inputs = self._inputs(scope, node, full_id)
                graph[full_id] = {"inputs": inputs, "class_type": node.type, "_meta": {"title": self._title(node)}}
        if self._faults:
            raise self._refusal()
        if not graph:
            raise WorkflowGraphError(
                f"{self._source}: has no nodes that run: there are none, or they are notes, muted or bypassed. Unmute "
                "them in ComfyUI and save again (or: menu Workflow → Export (API))."
            )
        for node in graph.values():
            # What fed these inputs does not run.
            node["inputs"] = {
                name: value
                for name, value in node["inputs"].items()
                if (link := as_link(value)) is None or link[0] in graph
            }
        return Converted(graph, tuple(self._notes))

    def _group_host(self, node: SavedNode) -> Host | None:
        name = group_name(node)
        if name is None:
            return None
        return group_host(node, self._workflow.groups.get(name), self._info, source=self._source)

    def _inputs(self, scope: Scope, node: SavedNode, full_id: str) -> dict[str, Any]:
        values = self._values(node, full_id)
        for (node_id, name), value in scope.by_field.items():
            if node_id == node.node_id and name in values:
                values[name] = value
        inputs = {name: as_input(value) for name, value in values.items()}
        for place, slot in enumerate(node.inputs):
            match find_source(scope, node, place, source=self._source):
                case FromNode(node_id=source_id, slot=source_slot):
                    inputs[slot.name] = [source_id, source_slot]
                case FromValue(value=value):
                    inputs[slot.name] = as_input(value)
        self._note_differences(full_id, node, inputs)
        return inputs

    def _values(self, node: SavedNode, full_id: str) -> dict[str, Any]:
        known = self._info.get(node.type) if self._info is not None else None
        if known is not None and self._info is not None:
            return name_values(node, fields_of(node, known, self._info))
        named = name_values_by_sockets(node)
        if named is None:
            self._faults[full_id] = f"node {full_id} ({_called(node)}): {self._unknown(node)}"
            return {}
        if self._info is not None:
            self._notes.append(
                f"node {full_id} ({_called(node)}) is of a type that is not in {self._info.source}; its values were "
                "taken by the names in the file."
            )
        return named

    def _unknown(self, node: SavedNode) -> str:
        if self._info is None:
            return "the file does not say which of its values belongs to which input"
        near = nearest(node.type, self._info)
        return (
            f"its type is not in {self._info.source}" + (f" (the nearest there: {near[0]})" if near else "") + ", and "
            "the file does not say which of its values belongs to which input"
        )

    def _title(self, node: SavedNode) -> str:
        known = self._info.get(node.type) if self._info is not None else None
        return node.title or (known.display_name if known is not None else node.type)

    def _note_differences(self, full_id: str, node: SavedNode, inputs: Mapping[str, Any]) -> None:
        """Say where the editor would put something else in place of a value, each time it queues."""
        known = self._info.get(node.type) if self._info is not None else None
        if known is not None and any(each.type in _RECORDED for each in known.inputs.values()):
            self._notes.append(
                f"node {full_id} ({_called(node)}) takes what the editor records when it queues; what was saved is "
                "sent instead."
            )
        for name, value in inputs.items():
            if not isinstance(value, str):
                continue
            where = f"node {full_id} ({_called(node)}), input '{name}'"
            if name == "filename_prefix" and _DATE.search(value):
                self._notes.append(f"{where}: %…% is filled in by the editor only; it is sent as it is written.")
            field_ = known.inputs.get(name) if known is not None else None
            if field_ is not None and field_.multiline and _ALTERNATIVES.search(value):
                self._notes.append(
                    f"{where}: the editor draws one of {{a|b}} each time; here the text is sent as it is written."
                )

    def _refusal(self) -> WorkflowGraphError:
        lines = list(self._faults.values())
        shown = lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
        remedy = (
            "Name a ComfyUI that has these node types, or a file with its answer to GET /object_info, or export the "
            "workflow in API format (menu Workflow → Export (API))."
        )
        return WorkflowGraphError(
            f"{self._source} cannot be converted to the API format:\n  " + "\n  ".join(shown) + f"\n{remedy}",
            node_id=next(iter(self._faults)),
        )


def _called(node: SavedNode) -> str:
    return f"{node.type}, “{node.title}”" if node.title and node.title != node.type else node.type
