"""What feeds an input, through everything that does not run: reroutes, bypassed nodes, subgraph borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.workflow.object_info import accepts
from runpod_comfy.workflow.saved_format.model import INSIDE, OUTSIDE

if TYPE_CHECKING:
    from runpod_comfy.workflow.saved_format.expand import Scope
    from runpod_comfy.workflow.saved_format.model import SavedNode, Wire

__all__ = ["PASS_THROUGH", "PRIMITIVE", "FromNode", "FromValue", "find_source"]

PRIMITIVE: Final = "PrimitiveNode"
PASS_THROUGH: Final = frozenset({"Reroute", "Reroute (rgthree)"})
_SET, _GET = "SetNode", "GetNode"


@dataclass(frozen=True, slots=True)
class FromNode:
    """An input gets a node's output; ``muted`` where that node does not run."""

    node_id: str
    slot: int
    muted: bool = False


@dataclass(frozen=True, slots=True)
class FromValue:
    """An input gets a value: a primitive's, or one that a subgraph's host was given."""

    value: Any


@dataclass(frozen=True, slots=True)
class _At:
    """A place on the way back: at an input of a node, or (``output``) at an output."""

    scope: Scope
    node: SavedNode
    slot: int
    output: bool = False


def find_source(scope: Scope, node: SavedNode, slot: int, *, source: str) -> FromNode | FromValue | None:
    """Return what feeds a node's input; None where nothing does, and the field's own value counts.

    Args:
        scope: Where the node is.
        node: The node.
        slot: The place of the input among the node's.
        source: What messages call the file.

    Raises:
        WorkflowGraphError: The way leads in a circle.
    """
    wanted = node.inputs[slot].type
    at: _At | FromNode | FromValue | None = _At(scope, node, slot)
    seen: set[tuple[tuple[str, ...], str, int, bool]] = set()
    while isinstance(at, _At):
        key = (at.scope.path, at.node.node_id, at.slot, at.output)
        if key in seen:
            full_id = scope.full_id(node.node_id)
            raise WorkflowGraphError(
                f"{source}: node {full_id} ({node.type}): what is linked to its input "
                f"'{node.inputs[slot].name}' leads in a circle of reroutes or bypassed nodes. Cut it.",
                node_id=full_id,
            )
        seen.add(key)
        at = _before_output(at, wanted) if at.output else _before_input(at)
    return at


def _before_input(at: _At) -> _At | FromValue | None:
    slot = at.node.inputs[at.slot] if at.slot < len(at.node.inputs) else None
    wire = at.scope.graph.wires.get(slot.wire) if slot and slot.wire is not None else None
    if wire is None:
        return None
    if wire.source_id == INSIDE and at.scope.host is not None:
        return _through_border(at.scope, wire)
    return _output_of(at.scope, wire)


def _output_of(scope: Scope, wire: Wire) -> _At | None:
    before = scope.graph.nodes.get(wire.source_id)
    return _At(scope, before, wire.source_slot, output=True) if before else None


def _through_border(scope: Scope, wire: Wire) -> _At | FromValue | None:
    """Go from a subgraph's input to whatever its host has there."""
    host, outer = scope.host, scope.outer
    if host is None or outer is None or wire.source_slot >= len(scope.graph.inputs):
        return None
    name = scope.graph.inputs[wire.source_slot].name
    # The editor leaves out sockets of fields: places need not agree, names do.
    for index, slot in enumerate(host.inputs):
        if slot.name == name and slot.wire is not None:
            return _At(outer, host, index)
    return FromValue(scope.by_port[name]) if name in scope.by_port else None


def _before_output(at: _At, wanted: str) -> _At | FromNode | FromValue | None:  # noqa: PLR0911 - a table of cases
    node, scope = at.node, at.scope
    if node.bypassed:
        passed = _bypass(node, at.slot, wanted)
        return None if passed is None else _At(scope, node, passed)
    if node.node_id in scope.inner:
        if node.muted:
            return FromNode(scope.full_id(node.node_id), at.slot, muted=True)
        return _into(scope.inner[node.node_id], at.slot)
    if node.type == PRIMITIVE:
        given = scope.by_field.get((node.node_id, "value"))
        value = node.named_values.get("value", node.values[0] if node.values else None)
        return FromValue(value if given is None else given) if given is not None or value is not None else None
    if node.type in PASS_THROUGH or node.type == _SET:
        return _At(scope, node, 0)
    if node.type == _GET:
        return _named_source(scope, node)
    return FromNode(scope.full_id(node.node_id), at.slot, muted=node.muted)


def _into(inner: Scope, slot: int) -> _At | None:
    """Go from a host's output to whatever makes it in the subgraph."""
    port = inner.graph.outputs[slot] if slot < len(inner.graph.outputs) else None
    for wire_id in port.wires if port else ():
        wire = inner.graph.wires.get(wire_id)
        if wire is not None and wire.target_id == OUTSIDE:
            if wire.source_id == INSIDE:
                return _passed_through(inner, wire)
            return _output_of(inner, wire)
    return None


def _passed_through(inner: Scope, wire: Wire) -> _At | None:
    """Go through a subgraph whose input is wired straight to its output."""
    if inner.host is None or inner.outer is None or wire.source_slot >= len(inner.graph.inputs):
        return None
    name = inner.graph.inputs[wire.source_slot].name
    for index, slot in enumerate(inner.host.inputs):
        if slot.name == name:
            return _At(inner.outer, inner.host, index)
    return None


def _named_source(scope: Scope, node: SavedNode) -> _At | None:
    """Go from KJNodes' GetNode to the SetNode of the same name, in this graph or one around it."""
    name = node.values[0] if node.values else None
    around: Scope | None = scope
    while around is not None:
        for each in around.graph.nodes.values():
            if each.type == _SET and each.values and each.values[0] == name:
                return _At(around, each, 0)
        around = around.outer
    return None


def _bypass(node: SavedNode, slot: int, wanted: str) -> int | None:
    """Return the input that a bypassed node passes on to an output."""
    inputs = node.inputs
    if wanted == "*":
        return slot if slot < len(inputs) else 0 if inputs else None
    given = node.outputs[slot] if slot < len(node.outputs) else wanted
    fitting = [index for index, each in enumerate(inputs) if accepts(each.type, given) and accepts(each.type, wanted)]
    if slot in fitting:
        return slot
    exact = [index for index, each in enumerate(inputs) if each.type == wanted]
    return exact[0] if exact else fitting[0] if fitting else None
