"""Whether ComfyUI would take a graph, and what it says if not; bodies as recorded from ComfyUI 0.3.64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.emulator.comfyui.nodes import ANY, node_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_comfy.emulator.comfyui.nodes import Input

__all__ = ["Verdict", "validate"]


@dataclass(slots=True)
class Verdict:
    """What is wrong with a graph, and which output nodes can run all the same."""

    error: dict[str, Any] | None = None
    node_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


def validate(graph: dict[str, Any], *, file_exists: Callable[[str], bool], strict: bool = False) -> Verdict:
    """Check a graph as ``POST /prompt`` does.

    Args:
        graph: Node ids to nodes.
        file_exists: Whether LoadImage would find a file of that name.
        strict: Refuse node types that are not known, as a real server does.
    """
    for node_id, node in graph.items():
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Verdict(error=_error("invalid_prompt", message, f"Node ID '#{node_id}'"))
        if strict and not node_type(node["class_type"]).known:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return Verdict(error=_error("invalid_prompt", message, f"Node ID '#{node_id}'"))
    ends = [node_id for node_id, node in graph.items() if node_type(node["class_type"]).output_node]
    if not ends:
        return Verdict(error=_error("prompt_no_outputs", "Prompt has no outputs"))
    check = _Check(graph, file_exists)
    verdict = Verdict()
    for node_id in ends:
        if check.passes(node_id, ()):
            verdict.outputs.append(node_id)
        else:
            for faulty in check.reached & check.faults.keys():
                check.dependents.setdefault(faulty, []).append(node_id)
        check.reached.clear()
    verdict.node_errors = {
        node_id: {
            "errors": faults,
            "dependent_outputs": check.dependents.get(node_id, []),
            "class_type": graph[node_id]["class_type"],
        }
        for node_id, faults in check.faults.items()
    }
    if not verdict.outputs:
        details = "; ".join(
            f"{fault['message']}: {fault['details']}"
            for node_id in ends
            for fault in check.faults.get(node_id, [])
            if fault["type"] not in _QUIET
        )
        verdict.error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return verdict


# Faults that do not show in the top-level details.
_QUIET = {"return_type_mismatch", "value_not_in_list"}


class _Check:
    def __init__(self, graph: dict[str, Any], file_exists: Callable[[str], bool]) -> None:
        self._graph = graph
        self._file_exists = file_exists
        self._passed: dict[str, bool] = {}
        self.faults: dict[str, list[dict[str, Any]]] = {}
        self.dependents: dict[str, list[str]] = {}
        self.reached: set[str] = set()

    def passes(self, node_id: str, path: tuple[str, ...]) -> bool:
        """Check a node and everything upstream of it."""
        self.reached.add(node_id)
        if node_id in path:
            return False  # a circle, of which ComfyUI says nothing more
        if node_id not in self._passed:
            self._passed[node_id] = self._node(node_id, (*path, node_id))
        return self._passed[node_id]

    def _node(self, node_id: str, path: tuple[str, ...]) -> bool:
        node = self._graph[node_id]
        if "inputs" not in node:
            return self._fault(node_id, "exception_during_validation", "Exception when validating node", "'inputs'")
        kind = node_type(node["class_type"])
        sound = True
        for name, wanted in kind.inputs.items():
            if name not in node["inputs"]:
                if wanted.required:
                    sound = self._fault(
                        node_id, "required_input_missing", "Required input is missing", name, input_name=name
                    )
                continue
            sound = self._input(node_id, name, wanted, node["inputs"][name], path) and sound
        if not kind.known:
            links = [value for value in node["inputs"].values() if _is_link(value)]
            sound = all(value[0] in self._graph and self.passes(value[0], path) for value in links) and sound
        return sound

    def _input(  # noqa: PLR0911 - a list of checks
        self, node_id: str, name: str, wanted: Input, value: Any, path: tuple[str, ...]
    ) -> bool:
        if isinstance(value, list):
            return self._link(node_id, name, wanted, value, path)
        number = _number(wanted, value)
        if isinstance(number, ValueError):
            return self._fault(
                node_id,
                "invalid_input_type",
                f"Failed to convert an input value to a {wanted.type} value",
                f"{name}, {value}, {number}",
                input_name=name,
            )
        if number is not None and wanted.least is not None and number < wanted.least:
            message = f"Value {value} smaller than min of {wanted.least}"
            return self._fault(node_id, "value_smaller_than_min", message, name, input_name=name)
        if number is not None and wanted.most is not None and number > wanted.most:
            message = f"Value {value} bigger than max of {wanted.most}"
            return self._fault(node_id, "value_bigger_than_max", message, name, input_name=name)
        if wanted.choices and value not in wanted.choices:
            details = f"{name}: '{value}' not in {list(wanted.choices)}"
            return self._fault(node_id, "value_not_in_list", "Value not in list", details, input_name=name)
        if self._graph[node_id]["class_type"] == "LoadImage" and name == "image" and not self._file_exists(str(value)):
            details = f"image - Invalid image file: {value}"
            message = "Custom validation failed for node"
            return self._fault(node_id, "custom_validation_failed", message, details, input_name=name)
        return True

    def _link(self, node_id: str, name: str, wanted: Input, value: list[Any], path: tuple[str, ...]) -> bool:
        if len(value) != 2:  # noqa: PLR2004 - node id and slot
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return self._fault(node_id, "bad_linked_input", message, name, input_name=name)
        source, slot = value
        if not isinstance(source, str) or source not in self._graph:
            return self._fault(node_id, "exception_during_validation", "Exception when validating node", repr(source))
        gives = node_type(self._graph[source]["class_type"])
        if gives.known:
            if not isinstance(slot, int) or slot >= len(gives.outputs):
                text = "tuple index out of range"
                return self._fault(node_id, "exception_during_validation", "Exception when validating node", text)
            if wanted.type not in {ANY, gives.outputs[slot]} and not wanted.choices:
                details = f"{name}, received_type({gives.outputs[slot]}) mismatch input_type({wanted.type})"
                message = "Return type mismatch between linked nodes"
                return self._fault(node_id, "return_type_mismatch", message, details, input_name=name)
        if "inputs" not in self._graph[source]:
            message = "Exception when validating inner node"
            return self._fault(source, "exception_during_inner_validation", message, "'inputs'", input_name=name)
        return self.passes(source, path)

    def _fault(self, node_id: str, kind: str, message: str, details: str, **extra_info: Any) -> bool:
        self.reached.add(node_id)
        self.faults.setdefault(node_id, []).append(
            {"type": kind, "message": message, "details": details, "extra_info": extra_info}
        )
        return False


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)  # noqa: PLR2004 - node id and slot


def _number(wanted: Input, value: Any) -> float | ValueError | None:
    """Convert as ComfyUI does: strings of digits, floats and booleans pass for whole numbers."""
    try:
        match wanted.type:
            case "INT":
                return int(value)
            case "FLOAT":
                return float(value)
            case _:
                return None
    except (TypeError, ValueError) as exc:
        return ValueError(str(exc))


def _error(kind: str, message: str, details: str = "") -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}
