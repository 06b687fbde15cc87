"""ComfyUI's refusals and failures as errors of our tree, naming node, class, title and ComfyUI's own words. Pure.

The top-level ``error.details`` of a refusal is empty whenever the faulty node is upstream of the output node: what is
wrong stands in ``node_errors``. A 200 can carry them too, where one output node is fine and another is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import JobFailed, TransportError
from runpod_comfy.near import nearest
from runpod_comfy.workflow.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = [
    "ComputingStopped",
    "ServerRestarted",
    "called",
    "execution_failure",
    "nearest_class",
    "node_error_texts",
    "refusal",
]

_SHOWN_CHARS = 300
_SHOWN_NODES = 5
_MODELS = (".bin", ".ckpt", ".gguf", ".onnx", ".pt", ".pt2", ".pth", ".safetensors", ".sft")


class ComputingStopped(TransportError):
    """ComfyUI answers, takes prompts, and computes no more; only another start helps."""


class ServerRestarted(JobFailed):
    """ComfyUI has forgotten the prompts that it had accepted."""


def refusal(body: Mapping[str, Any], graph: dict[str, Any]) -> JobFailed:
    """Return the error for a ``POST /prompt`` that was answered 400.

    Args:
        body: The answer: ``{"error": {"type", "message", "details"}, "node_errors": {...}}``.
        graph: What was sent.
    """
    node_errors = _dict(body.get("node_errors"))
    error = _dict(body.get("error"))
    node_id: str | None
    if node_errors:
        node_id = next(iter(node_errors))
        text = "; ".join(node_error_texts(node_errors, graph))
    else:
        text = _sentence(error.get("message"), error.get("details")) or "it gave no reason"
        # Seen: "Node ID '#1'" for a class that is not installed.
        found = re.fullmatch(r"Node ID '#(.+)'", str(error.get("details") or ""))
        node_id = found[1] if found and found[1] in graph else None
        if node_id is not None:
            text = f"{called(node_id, graph)}: {_shortened(error.get('message'))}"
    node_type = _class_of(node_id, graph) or _class_of(node_id, node_errors)
    told = [f"ComfyUI refused the workflow: {text.rstrip('.')}.", *dict.fromkeys(_next_steps(error, node_errors))]
    return JobFailed(" ".join(told), node_id=node_id, node_type=node_type)


def nearest_class(error: JobFailed, installed: Iterable[str]) -> JobFailed:
    """Return the error for a node class that is not installed with what to do, and the nearest one that is."""
    near = nearest(error.node_type or "", installed)
    advice = f"The nearest there is: {near[0]!r}. " if near else ""
    advice += "Install the custom node that brings it, and start ComfyUI again."
    return JobFailed(f"{error} {advice}", node_id=error.node_id, node_type=error.node_type)


def node_error_texts(node_errors: Mapping[str, Any], graph: dict[str, Any]) -> list[str]:
    """Return one phrase for each node at fault: which one, and ComfyUI's words."""
    texts = []
    for node_id, about in list(node_errors.items())[:_SHOWN_NODES]:
        errors = _dict(about).get("errors")
        reasons = [_reason(each) for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
        texts.append(f"{called(node_id, graph)}: {', '.join(reasons) or 'no reason given'}")
    if len(node_errors) > _SHOWN_NODES:
        texts.append(f"and {len(node_errors) - _SHOWN_NODES} more nodes")
    return texts


def execution_failure(error: Mapping[str, Any], graph: dict[str, Any], *, where: str) -> JobFailed:
    """Return the error for an ``execution_error`` message; ``where`` names the batch, to begin a sentence."""
    node_id = str(error.get("node_id") or "") or None
    kind = str(error.get("exception_type") or "").rpartition(".")[2]
    reason = _shortened(error.get("exception_message")) or "no reason given"
    text = f"{where} failed in {called(node_id, graph) if node_id else 'a node'}: {kind + ': ' if kind else ''}{reason}"
    if "OutOfMemory" in kind or "out of memory" in reason.lower():
        text = f"{text.rstrip('.')}. The GPU's memory is too small: take a smaller batch_size or size, or a larger GPU"
    lines = error.get("traceback")
    return JobFailed(
        f"{text.rstrip('.')}.",
        node_id=node_id,
        node_type=str(error.get("node_type") or "") or None,
        traceback="".join(map(str, lines)) if isinstance(lines, list) else None,
    )


def called(node_id: str, graph: dict[str, Any]) -> str:
    """Name a node so that a person finds it: id, class, and title where it has one of its own."""
    node_type, title = _class_of(node_id, graph), Graph(graph).title(node_id)
    if node_type is None:
        return f"node {node_id}"
    return f"node {node_id} ({node_type}{f', “{title}”' if title != node_type else ''})"


def _next_steps(error: Mapping[str, Any], node_errors: Mapping[str, Any]) -> Iterator[str]:
    if error.get("type") == "prompt_no_outputs":
        yield "Add a node that ends it, such as SaveImage."
    for about in list(node_errors.values())[:_SHOWN_NODES]:
        errors = _dict(about).get("errors")
        for each in errors if isinstance(errors, list) else ():
            received = _dict(_dict(each).get("extra_info")).get("received_value")
            match _dict(each).get("type"):
                case "value_not_in_list" if str(received).lower().endswith(_MODELS):
                    yield "Put the model into its folder under ComfyUI's models/, or pass one that is there."
                case "value_not_in_list":
                    yield "Pass a value that this ComfyUI has."
                case "custom_validation_failed" if "Invalid image file" in str(_dict(each).get("details")):
                    yield "Give the picture as an input image, or put it into ComfyUI's input/ folder."
                case "required_input_missing":
                    yield "Give that input a value or a link."


def _reason(error: Mapping[str, Any]) -> str:
    text = _sentence(error.get("message"), error.get("details"))
    extra = _dict(error.get("extra_info"))
    received = extra.get("received_value")
    if error.get("type") == "value_not_in_list" and isinstance(received, str):
        near = nearest(received, _choices(extra.get("input_config")))
        text += f" (the nearest there is: {near[0]!r})" if near else ""
    return text


def _choices(input_config: object) -> Iterator[str]:
    options: Sequence[Any] = input_config if isinstance(input_config, list) else ()
    for choices in (options[0] if options else None, _dict(options[1] if options[1:] else None).get("options")):
        if isinstance(choices, list):
            yield from (each for each in choices if isinstance(each, str))


def _sentence(message: object, details: object) -> str:
    parts = [_shortened(message), _shortened(details)]
    return ": ".join(part.rstrip(".") for part in parts if part)


def _shortened(text: object) -> str:
    """Return text on one line; ComfyUI repeats whole lists of installed models, and errors of CUDA's fill pages."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"


def _class_of(node_id: str | None, graph: Mapping[str, Any]) -> str | None:
    class_type = _dict(graph.get(node_id or "")).get("class_type")
    return class_type if isinstance(class_type, str) else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
