"""A saved workflow as values: nodes, wires and subgraph definitions, whatever version of the editor wrote them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import WorkflowGraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["INSIDE", "OUTSIDE", "Port", "SavedGraph", "SavedNode", "SavedWorkflow", "Slot", "Wire", "read_saved"]

INSIDE: Final = "-10"
"""The id that stands for a subgraph's inputs in its wires."""
OUTSIDE: Final = "-20"
"""The id that stands for a subgraph's outputs in its wires."""

_NORMAL, _MUTED, _BYPASSED = 0, 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An input of a node: a socket, with or without a field (widget) of its own."""

    name: str
    type: str
    wire: str | None = None
    widget: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedNode:
    """A node as it was saved.

    Attributes:
        node_id: Its id in its own graph.
        type: Its class, or the id of a subgraph.
        title: What its author called it, or "".
        muted: Whether it is left out, and whatever it feeds goes without.
        bypassed: Whether it is left out, and its inputs are passed on.
        inputs: Its sockets.
        outputs: The types of what it gives.
        values: Its fields' values without names, in the editor's order.
        named_values: Its fields' values by name, where the editor saved names.
        properties: Whatever the editor keeps beside that.
        order: Its place in the order of execution when it was saved.
    """

    node_id: str
    type: str
    title: str = ""
    muted: bool = False
    bypassed: bool = False
    inputs: tuple[Slot, ...] = ()
    outputs: tuple[str, ...] = ()
    values: tuple[Any, ...] = field(default=(), repr=False)
    named_values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    properties: Mapping[str, Any] = field(default_factory=dict, repr=False)
    order: int = 0


@dataclass(frozen=True, slots=True)
class Wire:
    """A link between an output slot and a node's input."""

    source_id: str
    source_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a subgraph, with the wires that end there."""

    name: str
    wires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedGraph:
    """The workflow's own graph, or that of a subgraph."""

    nodes: Mapping[str, SavedNode]
    wires: Mapping[str, Wire]
    name: str = ""
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedWorkflow:
    """A whole file.

    Attributes:
        graph: The graph one sees first.
        subgraphs: Definitions by id, which is the type of the nodes that stand for them.
        groups: Definitions of the older group nodes by name, as they were saved.
    """

    graph: SavedGraph
    subgraphs: Mapping[str, SavedGraph] = field(default_factory=dict)
    groups: Mapping[str, Any] = field(default_factory=dict)


def read_saved(data: Mapping[str, Any], *, source: str) -> SavedWorkflow:
    """Read a saved workflow.

    Args:
        data: The file's JSON.
        source: What messages call it.

    Raises:
        WorkflowGraphError: A part of it is not what the editor writes; the text names it.
    """
    definitions = data.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    extra = data.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    return SavedWorkflow(
        graph=_graph(data, source),
        subgraphs={
            str(each["id"]): _graph(each, source)
            for each in (subgraphs if isinstance(subgraphs, list) else ())
            if isinstance(each, dict) and "id" in each
        },
        groups=groups if isinstance(groups, dict) else {},
    )


def read_node(data: Any, *, source: str, node_id: str | None = None) -> SavedNode:
    """Read one node.

    Raises:
        WorkflowGraphError: It is none.
    """
    own_id = node_id if node_id is not None else _id(data.get("id")) if isinstance(data, dict) else None
    if own_id is None or not isinstance(data.get("type"), str):
        raise WorkflowGraphError(
            f"{source}: one of its nodes has no id or no type ({str(data)[:80]}). Save it again in ComfyUI.",
            node_id=own_id,
        )
    values = data.get("widgets_values")
    named = data.get("widgets_values_named")
    # Some custom nodes (VideoHelperSuite) have always saved names.
    by_name = values if isinstance(values, dict) else named if isinstance(named, dict) else {}
    mode, order, properties = data.get("mode"), data.get("order"), data.get("properties")
    title = data.get("title")
    return SavedNode(
        node_id=own_id,
        type=data["type"],
        title=title if isinstance(title, str) else "",
        muted=mode == _MUTED,
        bypassed=mode == _BYPASSED,
        inputs=tuple(_slot(each) for each in _dicts(data.get("inputs"))),
        outputs=tuple(_type(each.get("type")) for each in _dicts(data.get("outputs"))),
        values=tuple(values) if isinstance(values, list) else (),
        named_values=by_name,
        properties=properties if isinstance(properties, dict) else {},
        order=order if isinstance(order, int) else 0,
    )


def _graph(data: Mapping[str, Any], source: str) -> SavedGraph:
    nodes = data.get("nodes")
    if not isinstance(nodes, list):
        raise WorkflowGraphError(f"{source}: a subgraph in it has no nodes. Save it again in ComfyUI.")
    read = [read_node(each, source=source) for each in nodes]
    name, links = data.get("name"), data.get("links")
    return SavedGraph(
        nodes={node.node_id: node for node in sorted(read, key=lambda node: node.order)},
        wires=dict(filter(None, map(_wire, links if isinstance(links, list) else ()))),
        name=name if isinstance(name, str) else "",
        inputs=tuple(_port(each) for each in _dicts(data.get("inputs"))),
        outputs=tuple(_port(each) for each in _dicts(data.get("outputs"))),
    )


def _wire(data: Any) -> tuple[str, Wire] | None:
    """Read a link: a list of id, source, slot, target, slot and type, or (in subgraphs) an object."""
    match data:
        case [link_id, source_id, int(source_slot), target_id, int(target_slot), *_]:
            ends = (link_id, source_id, target_id)
        case {
            "id": link_id,
            "origin_id": source_id,
            "origin_slot": int(source_slot),
            "target_id": target_id,
            "target_slot": int(target_slot),
        }:
            ends = (link_id, source_id, target_id)
        case _:
            return None
    ids = [_id(each) for each in ends]
    if None in ids:
        return None
    return str(ids[0]), Wire(str(ids[1]), source_slot, str(ids[2]), target_slot)


def _slot(data: Mapping[str, Any]) -> Slot:
    widget = data.get("widget")
    widget_name = widget.get("name") if isinstance(widget, dict) else None
    return Slot(
        name=str(data.get("name") or ""),
        type=_type(data.get("type")),
        wire=_id(data.get("link")),
        widget=widget_name if isinstance(widget_name, str) else None,
    )


def _port(data: Mapping[str, Any]) -> Port:
    wires = data.get("linkIds")
    ids = [_id(each) for each in wires] if isinstance(wires, list) else []
    return Port(str(data.get("name") or ""), tuple(each for each in ids if each is not None))


def _type(value: Any) -> str:
    # A list of choices, or 0 for "anything", in older files.
    return value if isinstance(value, str) and value else "COMBO" if isinstance(value, list) else "*"


def _id(value: Any) -> str | None:
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _dicts(value: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else ()
