"""Group nodes, which subgraphs replaced in 2025: made hosts of a subgraph, so that nothing else has to know them.

A group has no list of inputs: the editor derives them from the node types inside, and gives them names and places in
the order in which it comes across them. The same is done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.workflow.saved_format.expand import Host
from runpod_comfy.workflow.saved_format.model import INSIDE, OUTSIDE, Port, SavedGraph, Wire, read_node
from runpod_comfy.workflow.saved_format.values import CONTROL_WORDS, fields_of
from runpod_comfy.workflow.saved_format.wires import PASS_THROUGH, PRIMITIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.workflow.object_info import ObjectInfo
    from runpod_comfy.workflow.saved_format.model import SavedNode

__all__ = ["group_host", "group_name"]


def group_name(node: SavedNode) -> str | None:
    """Return the name of the group that a node stands for, None for any other node."""
    for prefix in ("workflow>", "workflow/"):
        if node.type.startswith(prefix):
            return node.type.removeprefix(prefix)
    return None


def group_host(node: SavedNode, data: Any, info: ObjectInfo | None, *, source: str) -> Host:
    """Return the host that a group node is.

    Args:
        node: The node.
        data: The group's definition as it was saved.
        info: The node types.
        source: What messages call the file.

    Raises:
        WorkflowGraphError: The definition is missing or broken, or has node types that are not known.
    """
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise WorkflowGraphError(
            f"{source}: node {node.node_id} is a group “{group_name(node)}” that the file does not define. Convert it "
            "to a subgraph in ComfyUI, or to nodes, and save again.",
            node_id=node.node_id,
        )
    inner = [read_node(each, source=source, node_id=str(index)) for index, each in enumerate(data["nodes"])]
    unknown = sorted(
        {each.type for each in inner} - {PRIMITIVE, *PASS_THROUGH} - (set(info) if info is not None else set())
    )
    if unknown or info is None:
        where = info.source if info is not None else "no object_info"
        raise WorkflowGraphError(
            f"{source}: node {node.node_id} is a group “{group_name(node)}” of {', '.join(unknown) or 'nodes'}; its "
            f"inputs follow from these types, which {where} does not know. Convert the group to nodes in ComfyUI.",
            node_id=node.node_id,
        )
    return _Group(node, inner, data, info).host()


@dataclass(slots=True)
class _Faces:
    """What a group shows on its outside."""

    ports: list[tuple[str, str, int]] = field(default_factory=list)  # name, node inside, place of its socket
    fields: list[tuple[str, str, bool]] = field(default_factory=list)  # node inside, field, may have a control word
    late: list[tuple[SavedNode, str]] = field(default_factory=list)  # fields that were made sockets
    seen: dict[str, int] = field(default_factory=dict)


class _Group:
    def __init__(self, node: SavedNode, inner: list[SavedNode], data: Mapping[str, Any], info: ObjectInfo) -> None:
        self._node = node
        self._inner = {each.node_id: each for each in inner}
        self._info = info
        config = data.get("config")
        self._config: Mapping[str, Any] = config if isinstance(config, dict) else {}
        self._links = [
            (str(link[0]), link[1], str(link[2]), link[3])
            for link in data.get("links") or ()
            if isinstance(link, list) and link[3:] and link[0] is not None
        ]
        self._external = {(str(each[0]), each[1]) for each in data.get("external") or () if isinstance(each, list)}
        self._fed = {(target, slot) for _, _, target, slot in self._links}

    def host(self) -> Host:
        faces = _Faces()
        for each in self._inner.values():
            self._add_inputs(each, faces)
        for each, name in faces.late:
            self._add_port(each, name, faces)
            faces.fields.append((each.node_id, name, False))
        wires = {
            f"inside {index}": Wire(source, out, target, slot)
            for index, (source, out, target, slot) in enumerate(self._links)
        }
        for place, (_, inner_id, slot) in enumerate(faces.ports):
            wires[f"in {place}"] = Wire(INSIDE, place, inner_id, slot)
        outputs = self._outputs()
        for place, (inner_id, slot) in enumerate(outputs):
            wires[f"out {place}"] = Wire(inner_id, slot, OUTSIDE, place)
        graph = SavedGraph(
            nodes={each.node_id: self._rewired(each, wires) for each in self._inner.values()},
            wires=wires,
            name=group_name(self._node) or "",
            inputs=tuple(Port(name, (f"in {place}",)) for place, (name, _, _) in enumerate(faces.ports)),
            outputs=tuple(Port("", (f"out {place}",)) for place in range(len(outputs))),
        )
        return Host(graph=graph, by_field=self._values(faces))

    def _add_inputs(self, node: SavedNode, faces: _Faces) -> None:
        if node.type == PRIMITIVE:
            self._name(node, "value", faces)
            faces.fields.append((node.node_id, "value", True))
            return
        if node.type in PASS_THROUGH:
            if (node.node_id, 0) not in self._fed and node.inputs:
                self._add_port(node, node.inputs[0].name, faces)
            return
        node_type = self._info[node.type]
        with_field = {each.name: each for each in fields_of(node, node_type, self._info)}
        sockets = {slot.name: slot for slot in node.inputs}
        bare = []
        for name in node_type.inputs:
            if name not in with_field:
                bare.append(name)
            elif name in sockets and sockets[name].widget is not None:
                faces.late.append((node, name))
            else:
                self._name(node, name, faces)
                faces.fields.append((node.node_id, name, with_field[name].is_controlled))
        for name in bare:
            self._add_port(node, name, faces)

    def _add_port(self, node: SavedNode, name: str, faces: _Faces) -> None:
        """Show an input of a node inside on the outside, unless something inside feeds it or it was hidden."""
        place = next((index for index, slot in enumerate(node.inputs) if slot.name == name), None)
        if place is None or (node.node_id, place) in self._fed:
            return
        shown = self._name(node, name, faces)
        if self._asked(node, "input", name).get("visible") is not False:
            faces.ports.append((shown, node.node_id, place))

    def _name(self, node: SavedNode, name: str, faces: _Faces) -> str:
        """Return an input's name on the outside: made longer where it is taken."""
        shown = str(self._asked(node, "input", name).get("name") or name)
        key = shown
        if (node.type == PRIMITIVE and node.title) or shown in faces.seen:
            prefix = f"{node.title or node.type} "
            key = shown = prefix + name
            if shown in faces.seen:
                shown = f"{prefix}{faces.seen[shown]} {name}"
        faces.seen[key] = faces.seen.get(key, 1) + 1
        return shown

    def _asked(self, node: SavedNode, side: str, name: str) -> Mapping[str, Any]:
        """Return what its author set for one input or output."""
        found: Any = self._config
        for key in (node.node_id, side, name):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def _outputs(self) -> list[tuple[str, int]]:
        used = {(source, slot) for source, slot, _, _ in self._links}
        shown = []
        for node in self._inner.values():
            known = self._info.get(node.type)
            for slot in range(len(known.outputs) if known else len(node.outputs)):
                hidden = (node.node_id, slot) in used and (node.node_id, slot) not in self._external
                if self._asked(node, "output", str(slot)).get("visible", not hidden):
                    shown.append((node.node_id, slot))
        return shown

    def _rewired(self, node: SavedNode, wires: Mapping[str, Wire]) -> SavedNode:
        """Return a node whose sockets name the group's own wires: those in the file are of the graph it came from."""
        fed = {wire.target_slot: wire_id for wire_id, wire in wires.items() if wire.target_id == node.node_id}
        return replace(node, inputs=tuple(replace(slot, wire=fed.get(place)) for place, slot in enumerate(node.inputs)))

    def _values(self, faces: _Faces) -> dict[tuple[str, str], Any]:
        values: dict[tuple[str, str], Any] = {}
        rest = list(self._node.values)[::-1]
        for node_id, name, has_control in faces.fields:
            if not rest:
                break
            value = rest.pop()
            if value is not None:
                values[node_id, name] = value
            if has_control and rest and isinstance(rest[-1], str) and rest[-1] in CONTROL_WORDS:
                rest.pop()
        return values
