"""Several batches as one prompt: what depends on a seed is there once for each batch, everything else once.

A worker that takes one prompt a job then loads models, encodes texts and reads photos once for all batches, as
ComfyUI's cache would have it for prompts that follow each other. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from runpod_comfy.workflow.graph import as_link
from runpod_comfy.workflow.seeds import find_seed_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Copy", "Unrolled", "nodes_behind_seeds", "unroll"]


class Copy(NamedTuple):
    """Which node of the original graph a node stands for.

    Attributes:
        node_id: The original's id.
        batch: The batch, counted from 0; None for a node that all batches share.
    """

    node_id: str
    batch: int | None


@dataclass(frozen=True, slots=True)
class Unrolled:
    """Several batches as one graph.

    Attributes:
        graph: The graph. The first batch's nodes and the shared ones keep their ids.
        copies: What each of its nodes stands for, by its id.
    """

    graph: dict[str, Any] = field(repr=False)
    copies: Mapping[str, Copy] = field(repr=False)


def unroll(graph: Mapping[str, Any], seeds: Sequence[int]) -> Unrolled:
    """Return a graph in which each seed has its own copy of what depends on a seed; the original is not changed.

    Args:
        graph: A graph that has passed ``check_graph``.
        seeds: The seed of each batch, at least one.
    """
    behind = nodes_behind_seeds(graph)
    seed_inputs = find_seed_inputs(graph)
    links = _links_among(graph, behind)
    new_ids = _unused_ids(graph)
    unrolled = dict(graph)
    copies = {node_id: Copy(node_id, 0 if node_id in links else None) for node_id in graph}
    for batch, seed in enumerate(seeds):
        ids = {node_id: next(new_ids) if batch else node_id for node_id in behind}
        for node_id, new_id in ids.items():
            node = graph[node_id]
            inputs = dict(node["inputs"])
            for name, source_id, slot in links[node_id]:
                inputs[name] = [ids[source_id], slot]
            unrolled[new_id] = {**node, "inputs": inputs}
            copies[new_id] = Copy(node_id, batch)
        for node_id, name in seed_inputs:
            unrolled[ids[node_id]]["inputs"][name] = seed
    return Unrolled(unrolled, copies)


def nodes_behind_seeds(graph: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the nodes that hold a seed or are fed by one, however far behind it, in the graph's order."""
    feeds: dict[str, list[str]] = {}
    for node_id, node in graph.items():
        for value in node["inputs"].values():
            if link := as_link(value):
                feeds.setdefault(link[0], []).append(node_id)
    found: set[str] = set()
    to_visit = [node_id for node_id, _ in find_seed_inputs(graph)]
    while to_visit:
        node_id = to_visit.pop()
        if node_id not in found:
            found.add(node_id)
            to_visit += feeds.get(node_id, ())
    return tuple(node_id for node_id in graph if node_id in found)


def _links_among(graph: Mapping[str, Any], node_ids: Sequence[str]) -> dict[str, list[tuple[str, str, int]]]:
    """Return the links of each of these nodes to others of them: input, source and slot. Read once for all copies."""
    among = set(node_ids)
    return {
        node_id: [
            (name, *link)
            for name, value in graph[node_id]["inputs"].items()
            if (link := as_link(value)) and link[0] in among
        ]
        for node_id in node_ids
    }


def _unused_ids(graph: Mapping[str, Any]) -> Iterator[str]:
    """Yield ids that no node has: whole numbers, since some custom nodes read theirs as one."""
    highest = max((int(node_id) for node_id in graph if node_id.isascii() and node_id.isdecimal()), default=0)
    return (str(number) for number in count(highest + 1))
