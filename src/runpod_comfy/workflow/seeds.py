"""Which inputs of a workflow are its seeds, and which seeds its batches get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.settings import shown_value
from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

__all__ = ["SEED_INPUTS", "draw_seeds", "find_seed_inputs", "with_seed"]

SEED_INPUTS = ("seed", "noise_seed", "rand_seed")
"""The names under which ComfyUI's samplers and most custom nodes take a seed."""

_PRIMITIVE_INPUTS = frozenset({"value", "int", "integer", "number", "int_value"})  # in lower case
_DRAWN_BELOW = 2**32  # JavaScript front ends lose digits of numbers above 2**53, and 32-bit nodes take no more
_GIVEN_BELOW = 2**64


def find_seed_inputs(graph: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return node id and input name of every number that seeds something, each once.

    These are the whole numbers under a name of ``SEED_INPUTS``. Where such an input is linked, it is the number of the
    primitive that feeds it: of a node without links whose only whole number is called ``value``, ``int``, ``integer``,
    ``number`` or ``int_value``. Nodes that hold nothing but one link (reroutes) are passed through. A seed that is
    computed in another way is left alone.
    """
    found: dict[tuple[str, str], None] = {}
    for node_id in graph:
        for name, value in _inputs(graph, node_id).items():
            if name not in SEED_INPUTS:
                continue
            if _is_whole_number(value):
                found[node_id, name] = None
            elif (link := as_link(value)) and (primitive := _primitive_behind(graph, link[0])):
                found[primitive] = None
    return tuple(found)


def with_seed(graph: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the graph with this seed in all its seed inputs; other nodes are shared, the original is not changed."""
    seeded = dict(graph)
    for node_id, name in find_seed_inputs(graph):
        node = seeded[node_id]
        seeded[node_id] = {**node, "inputs": {**node["inputs"], name: seed}}
    return seeded


def draw_seeds(count: int, *, seed: int | None, rng: random.Random) -> tuple[int, ...]:
    """Return a seed for each of ``count`` batches, no two alike.

    Args:
        count: How many batches there are.
        seed: The first batch's seed, from which the next ones count up, beginning again at 0 after 2**32 - 1 (after
            2**64 - 1 where the first one is larger). None draws seeds below 2**32.
        rng: Where drawn seeds come from.

    Raises:
        ConfigurationError: ``seed`` is not a whole number from 0 to 2**64 - 1.
    """
    if seed is None:
        return tuple(rng.sample(range(_DRAWN_BELOW), count))
    if not _is_whole_number(seed) or not 0 <= seed < _GIVEN_BELOW:
        raise ConfigurationError(
            f"seed is {shown_value(seed)}; it takes a whole number from 0 to 2**64 - 1 ({_GIVEN_BELOW - 1})."
        )
    below = _DRAWN_BELOW if seed < _DRAWN_BELOW else _GIVEN_BELOW
    return tuple((seed + index) % below for index in range(count))


def _primitive_behind(graph: Mapping[str, Any], node_id: str) -> tuple[str, str] | None:
    passed: set[str] = set()
    while node_id not in passed:
        passed.add(node_id)
        inputs = _inputs(graph, node_id)
        links = [link for value in inputs.values() if (link := as_link(value))]
        if not links:
            numbers = [name for name, value in inputs.items() if _is_whole_number(value)]
            is_primitive = len(numbers) == 1 and numbers[0].lower() in _PRIMITIVE_INPUTS
            return (node_id, numbers[0]) if is_primitive else None
        if len(inputs) != 1:
            return None
        node_id = links[0][0]
    return None


def _inputs(graph: Mapping[str, Any], node_id: str) -> Mapping[str, Any]:
    node = graph.get(node_id)
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
