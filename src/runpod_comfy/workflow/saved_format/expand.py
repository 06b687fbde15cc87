"""Subgraphs laid out: each node that stands for one becomes a scope, with the nodes of its definition in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.workflow.saved_format.model import INSIDE
from runpod_comfy.workflow.saved_format.values import CONTROL_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runpod_comfy.workflow.saved_format.model import SavedGraph, SavedNode, SavedWorkflow

__all__ = ["Host", "Scope", "expand"]

_MOST_NODES: Final = 50_000  # definitions can hold each other many times over
_PROMOTED: Final = "-1"  # in a host's list of fields: the field of one of its own inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What stands for a subgraph: its definition, and the values that this host gives to the fields inside.

    Attributes:
        graph: The definition.
        by_port: Values by the subgraph's input name.
        by_field: Values by node id (inside) and field name.
    """

    graph: SavedGraph
    by_port: Mapping[str, Any] = field(default_factory=dict)
    by_field: Mapping[tuple[str, str], Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Scope:
    """One graph in its place: the workflow's own, or a subgraph's for one host.

    Attributes:
        graph: Its nodes and wires.
        path: The ids of the hosts that lead here.
        outer: The scope that its host is in, None for the workflow's own graph.
        host: The node that stands for it there.
        by_port: Values that the host gives by input name.
        by_field: Values that it gives by node id and field name.
        inner: The scopes of the hosts in it, by their node ids.
    """

    graph: SavedGraph
    path: tuple[str, ...] = ()
    outer: Scope | None = None
    host: SavedNode | None = None
    by_port: Mapping[str, Any] = field(default_factory=dict)
    by_field: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    inner: dict[str, Scope] = field(default_factory=dict)

    def full_id(self, node_id: str) -> str:
        """Return a node's id in the API's graph: the hosts' ids and its own, with colons between."""
        return ":".join((*self.path, node_id))

    def nodes(self) -> Iterator[tuple[Scope, SavedNode]]:
        """Yield the nodes that run, those of subgraphs in their host's place."""
        for node in self.graph.nodes.values():
            if node.muted or node.bypassed:
                continue
            if node.node_id in self.inner:
                yield from self.inner[node.node_id].nodes()
            else:
                yield self, node


def expand(workflow: SavedWorkflow, group_host: Callable[[SavedNode], Host | None], *, source: str) -> Scope:
    """Lay a workflow out.

    Args:
        workflow: The file.
        group_host: Makes a host of a node that stands for a group; None for any other node.
        source: What messages call the file.

    Raises:
        WorkflowGraphError: A subgraph holds itself, or there are too many nodes.
    """
    return _Expansion(workflow, group_host, source).scope(Scope(graph=workflow.graph), ())


class _Expansion:
    def __init__(self, workflow: SavedWorkflow, group_host: Callable[[SavedNode], Host | None], source: str) -> None:
        self._workflow = workflow
        self._group_host = group_host
        self._source = source
        self._count = 0

    def scope(self, scope: Scope, types: tuple[str, ...]) -> Scope:
        self._count += len(scope.graph.nodes)
        if self._count > _MOST_NODES:
            raise WorkflowGraphError(
                f"{self._source}: its subgraphs hold more than {_MOST_NODES:,} nodes, laid out. Make it smaller.",
                node_id=scope.full_id("").rstrip(":"),
            )
        for node in scope.graph.nodes.values():
            host = self._host(scope, node)
            if host is None:
                continue
            full_id = scope.full_id(node.node_id)
            if node.type in types:
                raise WorkflowGraphError(
                    f"{self._source}: node {full_id}: the subgraph “{host.graph.name or node.type}” holds itself.",
                    node_id=full_id,
                )
            inner = Scope(
                graph=host.graph,
                path=(*scope.path, node.node_id),
                outer=scope,
                host=node,
                by_port=host.by_port,
                by_field=host.by_field,
            )
            scope.inner[node.node_id] = self.scope(inner, (*types, node.type))
        return scope

    def _host(self, scope: Scope, node: SavedNode) -> Host | None:
        graph = self._workflow.subgraphs.get(node.type)
        if graph is None:
            return self._group_host(node)
        by_port, by_field = _values(node, graph, self._workflow.subgraphs)
        # What the outer host says about this one's fields weighs more than what was saved here.
        for (node_id, name), value in scope.by_field.items():
            if node_id == node.node_id:
                fields = [key for key in _listed_fields(node) if key[1] == name and key[0] != _PROMOTED]
                if fields and all(port.name != name for port in graph.inputs):
                    by_field[fields[0]] = value
                else:
                    by_port[name] = value
        return Host(graph=graph, by_port=by_port, by_field=by_field)


def _values(
    node: SavedNode, graph: SavedGraph, subgraphs: Mapping[str, SavedGraph]
) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Return what a host's saved values mean; three generations of the editor wrote them in three ways."""
    by_port: dict[str, Any] = {}
    by_field: dict[tuple[str, str], Any] = {}
    listed = _listed_fields(node)
    if node.named_values:
        by_port = {port.name: node.named_values[port.name] for port in graph.inputs if port.name in node.named_values}
    elif listed:
        for (inner_id, name), value in zip(listed, node.values, strict=False):
            if value is None:
                continue
            if inner_id == _PROMOTED:
                by_port[name] = value
            else:
                by_field[inner_id, name] = value
    else:
        names = [port.name for port in graph.inputs if has_field(graph, port.name, subgraphs)]
        values = list(node.values)
        if len(values) > len(names):  # with what becomes of seeds in between
            values = [each for each in values if not (isinstance(each, str) and each in CONTROL_WORDS)]
        by_port = {name: value for name, value in zip(names, values, strict=False) if value is not None}
    by_port.update(_set_aside(node))
    return by_port, by_field


def _listed_fields(node: SavedNode) -> list[tuple[str, str]]:
    listed = node.properties.get("proxyWidgets")
    pairs = listed if isinstance(listed, list) else ()
    return [(str(each[0]), str(each[1])) for each in pairs if isinstance(each, list) and each[1:]]


def _set_aside(node: SavedNode) -> Iterator[tuple[str, Any]]:
    """Yield values that the editor could not place when it changed its format, but still uses."""
    entries = node.properties.get("proxyWidgetErrorQuarantine")
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case {"originalEntry": [inner_id, str(name), *_], "hostValue": value} if str(inner_id) == _PROMOTED:
                if value is not None:
                    yield name, value


def has_field(graph: SavedGraph, port_name: str, subgraphs: Mapping[str, SavedGraph], depth: int = 0) -> bool:
    """Return whether a subgraph's input ends at a field, maybe in a subgraph further in, and not at a bare socket."""
    port = next((each for each in graph.inputs if each.name == port_name), None)
    for wire_id in port.wires if port else ():
        wire = graph.wires.get(wire_id)
        target = graph.nodes.get(wire.target_id) if wire and wire.source_id == INSIDE else None
        slot = next((each for each in target.inputs if each.wire == wire_id), None) if target else None
        if target is None or slot is None:
            continue
        if slot.widget is not None:
            return True
        nested = subgraphs.get(target.type)
        if nested is not None and depth < len(subgraphs) and has_field(nested, slot.name, subgraphs, depth + 1):
            return True
    return False
