"""A graph in API format as a workflow that ComfyUI's editor opens, so that a picture dropped there brings its nodes.

A picture made over the API holds only its ``prompt``. Sites that show pictures (Civitai, for one) take it for ComfyUI's
only where it holds a ``workflow`` too, and that must be the editor's own format: version 0.4, with links by number and
the values of widgets in the order in which the node's class declares them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["editor_workflow"]

_WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_SEEDS = frozenset({"seed", "noise_seed"})
_MAX_DIGITS = 9  # of a node's number, so that the editor counts on from it
_COLUMN, _GAP, _HEADER, _ROW, _WIDTH = 360, 40, 50, 26, 300


def editor_workflow(graph: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the graph as ComfyUI's editor saves it; None where a node's class is not described.

    Seeds are set to stay as they are, since what is opened shall make the same picture again.

    Args:
        graph: The graph in API format.
        classes: What ``/object_info`` says of each class.
    """
    if not all(isinstance(classes.get(node["class_type"]), dict) for node in graph.values()):
        return None
    numbers = _numbers(graph)
    nodes = [_Node(numbers[node_id], node, classes[node["class_type"]]) for node_id, node in graph.items()]
    by_id = dict(zip(graph, nodes, strict=True))
    links: list[list[Any]] = []
    for node in nodes:
        for slot, each in enumerate(node.inputs):
            link = as_link(node.given.get(each.name))
            source = by_id.get(link[0]) if link else None
            if link is None or source is None or link[1] >= len(source.outputs):
                continue
            links.append([len(links) + 1, source.number, link[1], node.number, slot, source.outputs[link[1]]])
            source.feeds[link[1]].append(len(links))
            node.fed[slot] = len(links)
    places = _places(graph)
    return {
        "last_node_id": max(numbers.values(), default=0),
        "last_link_id": len(links),
        "nodes": [node.saved(place, order) for order, (node, place) in enumerate(zip(nodes, places, strict=True))],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of a class."""

    name: str
    type: str
    is_widget: bool
    options: Mapping[str, Any]
    choices: list[Any]

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the values of its widget, and of those that the editor puts after it."""
        value = given.get(self.name)
        if value is None or as_link(value):
            value = self.options.get("default", self.choices[0] if self.choices else None)
        after = []
        if self.options.get("control_after_generate", self.type == "INT" and self.name in _SEEDS):
            after = ["fixed", ""] if self.type == "COMBO" else ["fixed"]
        if self.options.get("image_upload"):
            after.append("image")
        return [value, *after]


@dataclass(slots=True)
class _Node:
    number: int
    node: Mapping[str, Any]
    about: Mapping[str, Any]
    inputs: list[_Input] = field(init=False)
    outputs: list[str] = field(init=False)
    feeds: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    fed: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        declared = list(_declared(self.about, self.given))
        # As the editor lists them: first what is linked, then what has a widget.
        self.inputs = sorted(declared, key=lambda each: each.is_widget)
        outputs = self.about.get("output")
        self.outputs = [
            each if isinstance(each, str) else "COMBO" for each in (outputs if isinstance(outputs, list) else [])
        ]

    @property
    def given(self) -> Mapping[str, Any]:
        inputs: Mapping[str, Any] = self.node["inputs"]
        return inputs

    def saved(self, place: tuple[int, int], order: int) -> dict[str, Any]:
        class_type = self.node["class_type"]
        names = self.about.get("output_name")
        names = names if isinstance(names, list) and len(names) == len(self.outputs) else self.outputs
        meta = self.node.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        saved = {
            "id": self.number,
            "type": class_type,
            "pos": list(place),
            "size": [_WIDTH, _height(self.node)],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": [
                {"name": each.name, "type": each.type, "link": self.fed.get(slot)}
                | ({"widget": {"name": each.name}} if each.is_widget else {})
                for slot, each in enumerate(self.inputs)
            ],
            "outputs": [
                {"name": str(name), "type": kind, "links": self.feeds.get(slot), "slot_index": slot}
                for slot, (name, kind) in enumerate(zip(names, self.outputs, strict=True))
            ],
            "properties": {"Node name for S&R": class_type},
            "widgets_values": [value for each in self.inputs if each.is_widget for value in each.values(self.given)],
        }
        if isinstance(title, str) and title not in {"", class_type, self.about.get("display_name")}:
            saved["title"] = title
        return saved


def _declared(about: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[_Input]:
    """Yield a class's inputs in the order of their declaration."""
    inputs = about.get("input")
    for group in ("required", "optional"):
        declared = inputs.get(group) if isinstance(inputs, dict) else None
        for name, spec in declared.items() if isinstance(declared, dict) else ():
            kind, *more = spec if isinstance(spec, list) and spec else ["*"]
            options = more[0] if more and isinstance(more[0], dict) else {}
            choices = kind if isinstance(kind, list) else options.get("options")
            type_ = "COMBO" if isinstance(kind, list) else str(kind)
            has_value = given.get(name) is not None and as_link(given[name]) is None
            is_widget = has_value or (type_ in _WIDGET_TYPES and not options.get("forceInput"))
            yield _Input(name, type_, is_widget, options, choices if isinstance(choices, list) else [])


def _numbers(graph: Mapping[str, Any]) -> dict[str, int]:
    """Number the nodes: their own ids where these are numbers; nodes of a subgraph (``9:3``) get new ones."""
    own = {
        node_id: int(node_id)
        for node_id in graph
        if node_id.isascii() and node_id.isdecimal() and len(node_id) <= _MAX_DIGITS
    }
    if len(set(own.values())) < len(own):
        own = {}
    free = max(own.values(), default=0)
    numbers = {}
    for node_id in graph:
        if node_id not in own:
            free += 1
        numbers[node_id] = own.get(node_id, free)
    return numbers


def _places(graph: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Place the nodes in columns, each to the right of what feeds it."""
    depths: dict[str, int] = {}
    for first in graph:
        stack = [first]
        while stack:
            node_id = stack[-1]
            links = (as_link(value) for value in graph[node_id]["inputs"].values())
            sources = [link[0] for link in links if link and link[0] in graph]
            unknown = [source for source in sources if source not in depths]
            if unknown and node_id not in depths:
                stack += unknown
            else:
                depths.setdefault(node_id, 1 + max((depths[source] for source in sources), default=-1))
                stack.pop()
    below: defaultdict[int, int] = defaultdict(int)
    places = []
    for node_id, node in graph.items():
        depth = depths[node_id]
        places.append((depth * _COLUMN, below[depth]))
        below[depth] += _height(node) + _GAP
    return places


def _height(node: Mapping[str, Any]) -> int:
    return _HEADER + _ROW * (len(node["inputs"]) + 1)
