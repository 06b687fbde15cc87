"""A request for RunPod's official ComfyUI worker (worker-comfyui), and what its answer will be read with.

::

    {"workflow": {...}, "images": [{"name": "a.png", "image": "<base64>"}]}

It runs one prompt a job, so several batches become one prompt (see ``workflow.unroll``). An answer names files without
node or folder; so each node that saves gets a prefix of its own, from which batch and node are read again, and which is
taken off the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import TemplateError
from runpod_comfy.media.wire import to_base64
from runpod_comfy.workflow.graph import Graph
from runpod_comfy.workflow.inputs import name_inputs_flat
from runpod_comfy.workflow.seeds import with_seed
from runpod_comfy.workflow.unroll import Copy, Unrolled, nodes_behind_seeds, unroll

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.submission import Submission

__all__ = [
    "MARK",
    "Layout",
    "base_name",
    "encode_request",
    "layout_of_first_batch",
    "refuse_directories",
    "why_not_unrolled",
    "without_previews",
]

MARK = re.compile(r"-rcc(\d+|s)x(\d+)(?!\d)")
"""What a prefix gets: the batch (or ``s`` for what all batches share) and the number of the node that saves."""

_SAVES_NOTHING = ("Preview", "Show", "Display", "Note", "MarkdownNote")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a request's answer will be read with.

    Attributes:
        seeds: The seed of each batch in the request; None for one that is not known.
        copies: Which node and batch each node of the sent graph stands for.
        savers: The nodes that save, in the order in which their marks number them: original id and own prefix.
        titles: The titles of the original nodes.
    """

    seeds: tuple[int | None, ...] = (None,)
    copies: Mapping[str, Copy] = field(default_factory=dict, repr=False)
    savers: tuple[tuple[str, str], ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict, repr=False)


def encode_request(submission: Submission) -> tuple[dict[str, Any], Layout]:
    """Return a job's ``input`` and how to read its answer.

    Args:
        submission: All its batches go into the one prompt; ask :func:`why_not_unrolled` before sending several.

    Raises:
        TemplateError: The workflow reads a folder of images, which this worker does not make.
    """
    refuse_directories(submission)
    workflow, images = name_inputs_flat(submission.workflow, submission.images)
    unrolled = _unrolled(workflow, submission)
    graph, savers = _marked(unrolled, submission.batch_count)
    layout = Layout(
        seeds=submission.seeds or (None,) * submission.batch_count,
        copies=unrolled.copies,
        savers=savers,
        titles=_titles(submission.workflow),
    )
    request: dict[str, Any] = {
        "workflow": graph,
        "images": [{"name": image.name, "image": to_base64(image.data)} for image in images],
        "submission_id": submission.submission_id,
    }
    if key := submission.extra_data.get("api_key_comfy_org"):
        request["comfy_org_api_key"] = key
    return request, layout


def without_previews(workflow: dict[str, Any]) -> dict[str, Any]:
    """Return the workflow without the nodes that only preview.

    Version 4 and older return the last image of all, and look for it among the saved ones even where it is a preview.
    """
    sources = {link.source_id for link in Graph(workflow).links()}
    kept = {
        node_id: node
        for node_id, node in workflow.items()
        if node_id in sources or not node["class_type"].startswith("Preview")
    }
    return kept or workflow


def layout_of_first_batch(submission: Submission) -> Layout:
    """Return how to read this worker's answer to a request that was made for another one: it runs the first batch."""
    alone = _as_it_is(submission.workflow, batch=0)
    return Layout(
        seeds=submission.seeds[:1] or (None,),
        copies=alone.copies,
        savers=_marked(alone, 1)[1],
        titles=_titles(submission.workflow),
    )


def refuse_directories(submission: Submission) -> None:
    """Raise where the workflow needs a folder of its input images.

    Raises:
        TemplateError: With the node's id and the remedies.
    """
    flat, _ = name_inputs_flat(submission.workflow, submission.images)
    graph = Graph(submission.workflow)
    for node_id, node in flat.items():
        for name, value in node["inputs"].items():
            if isinstance(value, str) and any(
                re.search(rf"{re.escape(each)}(?!-\d)", value) for each in submission.subfolders
            ):
                raise TemplateError(
                    f"Input '{name}' of node {node_id} ({graph.title(node_id)}) takes the folder of the input images "
                    "({{ input_images_dir }}), and RunPod's worker-comfyui has none: it takes images by name only. "
                    "Load them with LoadImage nodes and {{ input_images[0] }}, {{ input_images[1] }}, …, or deploy "
                    "this project's worker on the endpoint."
                )


def why_not_unrolled(workflow: Mapping[str, Any]) -> str | None:
    """Say why batches of this workflow cannot share a prompt, or None where they can.

    It takes that the images of each batch can be told apart by their files' names.
    """
    graph = Graph(dict(workflow))
    sources = {link.source_id for link in graph.links()}
    for node_id in nodes_behind_seeds(workflow):
        node = workflow[node_id]
        prefix = node["inputs"].get("filename_prefix")
        if isinstance(prefix, str):
            continue
        called = f"node {node_id} ({graph.title(node_id)})"
        if prefix is not None:
            return f"the filename_prefix of {called} is linked, so its batches' files cannot be told apart"
        if node_id not in sources and not node["class_type"].startswith(_SAVES_NOTHING):
            return f"{called} has no filename_prefix, so its batches' files could not be told apart"
    return None


def base_name(prefix: str) -> str:
    """Return what names of files begin with that are saved under this prefix."""
    return PurePosixPath(prefix.replace("\\", "/")).name


def _unrolled(workflow: dict[str, Any], submission: Submission) -> Unrolled:
    if submission.batch_count > 1 and submission.seeds:
        return unroll(workflow, submission.seeds)
    if submission.seeds:
        workflow = with_seed(workflow, submission.seeds[0])
    return _as_it_is(workflow, batch=None if submission.batch_count > 1 else 0)


def _as_it_is(workflow: dict[str, Any], *, batch: int | None) -> Unrolled:
    return Unrolled(workflow, {node_id: Copy(node_id, batch) for node_id in workflow})


def _titles(workflow: dict[str, Any]) -> dict[str, str]:
    graph = Graph(workflow)
    return {node_id: graph.title(node_id) for node_id in workflow}


def _marked(unrolled: Unrolled, batch_count: int) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Give each node that saves a prefix that tells batch and node.

    One batch needs no marks, unless two of its nodes save under one name.
    """
    savers: dict[str, tuple[int, str]] = {}
    graph = dict(unrolled.graph)
    prefixes = {
        node_id: prefix
        for node_id in unrolled.copies
        if isinstance(prefix := graph[node_id]["inputs"].get("filename_prefix"), str)
    }
    are_needed = batch_count > 1 or len({base_name(each) for each in prefixes.values()}) < len(prefixes)
    for node_id, prefix in prefixes.items():
        node, copy = graph[node_id], unrolled.copies[node_id]
        number, _ = savers.setdefault(copy.node_id, (len(savers), prefix))
        if are_needed:
            batch = "s" if copy.batch is None else copy.batch
            graph[node_id] = {**node, "inputs": {**node["inputs"], "filename_prefix": f"{prefix}-rcc{batch}x{number}"}}
    return graph, tuple((node_id, prefix) for node_id, (_, prefix) in savers.items())
