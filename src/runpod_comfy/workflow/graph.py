"""A workflow in ComfyUI's API format as a value, and the checks that cost nothing before it is sent.

ComfyUI answers a cycle with empty details, a node that is null with a 500, and an unknown link with the bare id; here
each of them is an error that names node, input and remedy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.errors import WorkflowGraphError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Graph", "Link", "as_link", "check_graph", "is_saved_format"]

_EXPORT_REMEDY = (
    "Export it again in ComfyUI: menu Workflow → Export (API); in older versions switch on Dev mode in the settings "
    'and choose "Save (API Format)".'
)
_WRAPPERS = ("prompt", "workflow", "output", "input")
_OUTPUT_CLASSES = ("Save", "Preview")


@dataclass(frozen=True, slots=True)
class Link:
    """One input that another node's output feeds."""

    node_id: str
    input_name: str
    source_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that has passed :func:`check_graph`.

    Attributes:
        data: Node ids to nodes, each ``{"class_type": …, "inputs": {…}}``: what ``POST /prompt`` takes as ``prompt``.
    """

    data: dict[str, Any] = field(repr=False)

    @property
    def nodes(self) -> Mapping[str, dict[str, Any]]:
        """The nodes by their ids."""
        return self.data

    def links(self) -> tuple[Link, ...]:
        """Every input that is fed by another node, in the order of the nodes."""
        return tuple(_links(self.data))

    def output_nodes(self) -> tuple[str, ...]:
        """The ids of the nodes that probably make outputs.

        Only the server knows for sure: a class may declare itself one. These are the nodes that feed no other, and
        those whose class is called ``Save…`` or ``Preview…``.
        """
        sources = {link.source_id for link in self.links()}
        return tuple(
            node_id
            for node_id, node in self.data.items()
            if node_id not in sources or node["class_type"].startswith(_OUTPUT_CLASSES)
        )

    def title(self, node_id: str) -> str:
        """The node's title as people see it in ComfyUI, else its class; the id itself for a node not in the graph."""
        return _title(self.data.get(node_id)) or node_id


def check_graph(graph: object, *, source: str = "workflow") -> Graph:
    """Return the graph if ComfyUI's API could take it; keys that are not known here are left alone.

    Args:
        graph: What a template rendered or a request carried.
        source: What messages call it, for example the template's name.

    Raises:
        WorkflowGraphError: It is no graph in API format, or is broken; the text names node, input and remedy.
    """
    if not isinstance(graph, dict):
        raise WorkflowGraphError(f"{source}: is no JSON object of nodes by their ids. {_EXPORT_REMEDY}")
    if not graph:
        raise WorkflowGraphError(f"{source}: has no nodes. {_EXPORT_REMEDY}")
    _refuse_other_formats(graph, source)
    for node_id, node in graph.items():
        _check_node(node_id, node, source)
    if not _is_json(graph):
        node_id = next((node_id for node_id, node in graph.items() if not _is_json({node_id: node})), "")
        raise WorkflowGraphError(
            f"{source}: node {node_id!r} holds what JSON cannot carry: half a surrogate pair, a number of more than 64 "
            "bits, or lists in lists hundreds deep.",
            node_id=node_id,
        )
    for link in _links(graph):
        if link.source_id not in graph:
            raise WorkflowGraphError(
                f"{source}: input '{link.input_name}' of {_called(link.node_id, graph)} is linked to node "
                f"{link.source_id}, which does not exist. Add that node, or give the input a value.",
                node_id=link.node_id,
            )
        if link.slot < 0:
            raise WorkflowGraphError(
                f"{source}: input '{link.input_name}' of {_called(link.node_id, graph)} is linked to output "
                f"{link.slot} of node {link.source_id}; outputs are counted from 0.",
                node_id=link.node_id,
            )
    _refuse_numbers_for_ids(graph, source)
    if cycle := _find_cycle(graph):
        raise WorkflowGraphError(
            f"{source}: nodes feed each other in a circle: {' → '.join(_called(each, graph) for each in cycle)}. "
            "Cut one of these links.",
            node_id=cycle[0],
        )
    return Graph(graph)


def is_saved_format(data: object) -> bool:
    """Return whether a file's JSON is a workflow as ComfyUI's editor saves it."""
    return isinstance(data, dict) and isinstance(data.get("nodes"), list) and "class_type" not in data


def as_link(value: object) -> tuple[str, int] | None:
    """Return node id and slot where an input's value is a link, ``["4", 0]``; None for any other value."""
    match value:
        case [str(source_id), int(slot)] if not isinstance(slot, bool):
            return source_id, slot
    return None


def _links(graph: Mapping[str, Any]) -> list[Link]:
    return [
        Link(node_id, input_name, *link)
        for node_id, node in graph.items()
        for input_name, value in node["inputs"].items()
        if (link := as_link(value))
    ]


def _refuse_other_formats(graph: Mapping[Any, Any], source: str) -> None:
    if is_saved_format(graph):
        raise WorkflowGraphError(
            f"{source}: is a workflow as ComfyUI's editor saves it; running it takes the API format. {_EXPORT_REMEDY}"
        )
    for key in _WRAPPERS:
        inner = graph.get(key)
        if isinstance(inner, dict) and "class_type" not in inner:
            raise WorkflowGraphError(
                f"{source}: is a request that holds a workflow, not the workflow itself. Give what is under "
                f"'{key}' alone."
            )


def _check_node(node_id: object, node: object, source: str) -> None:
    if not isinstance(node_id, str):
        raise WorkflowGraphError(
            f'{source}: the node id {node_id!r} is no string; ComfyUI knows nodes by strings. Write "{node_id}".',
            node_id=str(node_id),
        )
    where = f"{source}: node {node_id}"
    if not isinstance(node, dict):
        raise WorkflowGraphError(f"{where} is no JSON object. Only nodes may stand here.", node_id=node_id)
    class_type = node.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        title = _title(node)
        raise WorkflowGraphError(
            f"{where}{f' ({title})' if title else ''} has no 'class_type', the name of its class. {_EXPORT_REMEDY}",
            node_id=node_id,
        )
    if not isinstance(node.get("inputs"), dict):
        raise WorkflowGraphError(
            f"{source}: {_called(node_id, {node_id: node})} has no object 'inputs'. A node without inputs takes "
            '"inputs": {}.',
            node_id=node_id,
        )
    for input_name, value in node["inputs"].items():
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise WorkflowGraphError(
                f"{source}: input '{input_name}' of {_called(node_id, {node_id: node})} is a number of more than 64 "
                "bits, which ComfyUI does not take.",
                node_id=node_id,
            )


def _is_json(value: object) -> bool:
    try:
        orjson.dumps(value, default=str)
    except TypeError:
        return False
    return True


def _refuse_numbers_for_ids(graph: Mapping[str, Any], source: str) -> None:
    """Refuse ``[4, 0]`` for ``["4", 0]``; two numbers that name no node are a value."""
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            match value:
                case [int(source_id), int(slot)] if not isinstance(source_id, bool) and str(source_id) in graph:
                    raise WorkflowGraphError(
                        f"{source}: input '{input_name}' of {_called(node_id, graph)} is linked to {source_id} as a "
                        f'number; ComfyUI knows nodes by strings. Write ["{source_id}", {slot}].',
                        node_id=node_id,
                    )


def _find_cycle(graph: Mapping[str, Any]) -> list[str]:
    """Return the ids along a circle of links, the first one again at the end; empty where there is none."""
    feeds: dict[str, list[str]] = {node_id: [] for node_id in graph}
    waits_for = dict.fromkeys(graph, 0)
    for link in _links(graph):
        feeds[link.source_id].append(link.node_id)
        waits_for[link.node_id] += 1
    ready = [node_id for node_id, count in waits_for.items() if not count]
    while ready:
        for fed in feeds[ready.pop()]:
            waits_for[fed] -= 1
            if not waits_for[fed]:
                ready.append(fed)
    stuck = [node_id for node_id, count in waits_for.items() if count]
    if not stuck:
        return []
    # Each of these waits for another of them, so going from one to the next must come back to a node already seen.
    waits_on = {link.node_id: link.source_id for link in _links(graph) if waits_for[link.source_id]}
    path = stuck[:1]
    while (following := waits_on[path[-1]]) not in path:
        path.append(following)
    return [*path[path.index(following) :], following][::-1]


def _title(node: object) -> str:
    if not isinstance(node, dict):
        return ""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) and title else str(node.get("class_type") or "")


def _called(node_id: str, graph: Mapping[str, Any]) -> str:
    """Name a node so that a person finds it: id, class, and title where it has one of its own."""
    node = graph[node_id]
    title = _title(node)
    return f"node {node_id} ({node['class_type']}{f', “{title}”' if title != node['class_type'] else ''})"
