"""How many images a workflow's batch makes and how large they are, as far as the graph tells. Pure.

Only the server knows for sure. This is an estimate from sizes that stand in the graph as numbers, made to be rather
too large: it decides how much work goes into a job whose answer is lost when it is over a limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Extent", "saved_extents"]

_SCALES = ("scale_by", "upscale_by")
_UNKNOWN_UPSCALE = 4
"""Upscale models are 4x for the most part; a graph names the file, not the factor."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Images of one size.

    Attributes:
        images: How many.
        pixels: The pixels of each.
    """

    images: int
    pixels: int

    @property
    def total_pixels(self) -> int:
        """The pixels of all of them."""
        return self.images * self.pixels


def saved_extents(graph: Mapping[str, Any], *, input_pixels: Mapping[str, int]) -> dict[str, Extent | None]:
    """Return what each node that saves will save in one batch; None where the graph does not tell.

    Args:
        graph: A graph that has passed ``check_graph``.
        input_pixels: The pixels of each input image, by its name as a LoadImage node takes it.
    """
    sources = {
        node_id: [link[0] for value in node["inputs"].values() if (link := as_link(value))]
        for node_id, node in graph.items()
    }
    extents: dict[str, Extent | None] = {}
    for node_id in TopologicalSorter(sources).static_order():
        incoming = [extent for source in sources[node_id] if (extent := extents[source])]
        extents[node_id] = _extent(graph, node_id, incoming, input_pixels)
    return {node_id: extents[node_id] for node_id, node in graph.items() if "filename_prefix" in node["inputs"]}


def _extent(
    graph: Mapping[str, Any], node_id: str, incoming: list[Extent], input_pixels: Mapping[str, int]
) -> Extent | None:
    inputs = graph[node_id]["inputs"]
    numbers = {name: number for name, value in inputs.items() if (number := _number(graph, value)) is not None}
    pixels: float = max((each.pixels for each in incoming), default=0)
    if "width" in numbers and "height" in numbers:
        pixels = numbers["width"] * numbers["height"] or pixels
    elif "megapixels" in numbers:
        pixels = numbers["megapixels"] * 1024 * 1024
    elif not incoming and isinstance(inputs.get("image"), str):
        pixels = input_pixels.get(inputs["image"], 0)
    for name in _SCALES:
        pixels *= numbers.get(name, 1) ** 2
    if "upscale_model" in inputs:
        pixels *= _UNKNOWN_UPSCALE**2
    if pixels < 1:
        return None
    counts = [each.images for each in incoming]
    images = sum(counts) if graph[node_id]["class_type"].startswith("ImageBatch") else max(counts, default=1)
    factors = [numbers.get(name, 1) for name in ("batch_size", "amount")]
    if "width" in numbers:
        factors.append(numbers.get("length", 1))  # the frames of a video's latent
    for factor in factors:
        images *= max(1, int(factor))
    return Extent(max(1, images), int(pixels))


def _number(graph: Mapping[str, Any], value: Any) -> float | None:
    """Return an input's number, also where it comes from a node that holds nothing but that."""
    if (link := as_link(value)) and len(held := list(graph[link[0]]["inputs"].values())) == 1:
        value = held[0]
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None
