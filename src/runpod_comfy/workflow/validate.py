"""Pre-flight: what a ComfyUI would say to a graph, known before anything is sent or paid for.

The rules are those by which ComfyUI 0.3.64 accepts or refuses a prompt, read off its recorded answers. It says no more
than the first stage of its own check, and where it runs half of a workflow in silence, here the other half is named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.near import nearest
from runpod_comfy.workflow.graph import as_link, check_graph
from runpod_comfy.workflow.object_info import accepts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runpod_comfy.workflow.graph import Graph
    from runpod_comfy.workflow.object_info import InputType, NodeType, ObjectInfo

__all__ = ["MODEL_SUFFIXES", "Problem", "refuse_faulty", "validate_workflow"]

_SHOWN_CHOICES: Final = 8
_SHOWN_PROBLEMS: Final = 12
_LINK_LENGTH: Final = 2
# Suffixes of files that are kept on a server, not written into a node's code.
MODEL_SUFFIXES: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft", ".onnx", ".yaml")
_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {"INT": int, "FLOAT": float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that ComfyUI would refuse, or that is probably not meant.

    Attributes:
        severity: ``error`` where a run would fail or lack outputs; ``warning`` for the rest.
        code: What kind it is: ``unknown_node_type``, ``missing_model``, ``not_a_choice``, ``missing_input``,
            ``wrong_type``, ``out_of_range``, ``broken_link``, ``no_output``, ``graph``, ``idle_node``,
            ``unused_image``, ``needs_api_key``, ``too_large``.
        message: What is wrong and what to do.
        source: The file.
        node_id: The node, or None.
        input_name: Its input, or None.
        nearest: What was probably meant, the best first.
    """

    severity: Literal["error", "warning"]
    code: str
    message: str
    source: str
    node_id: str | None = None
    input_name: str | None = None
    nearest: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The place, as ``file:node:input``."""
        return ":".join(part for part in (self.source, self.node_id, self.input_name) if part is not None)

    def __str__(self) -> str:
        return f"{self.where}: {self.severity}: {self.message}"


def validate_workflow(
    graph: object,
    info: ObjectInfo,
    *,
    source: str = "workflow",
    input_images: Sequence[str] = (),
    body_bytes: int | None = None,
    limit_bytes: int | None = None,
) -> tuple[Problem, ...]:
    """Return what is wrong with a workflow, for a ComfyUI with these node types; errors first.

    Args:
        graph: The workflow in API format.
        info: What is installed.
        source: What the problems call the workflow.
        input_images: The images that come with the job, as a LoadImage node names them.
        body_bytes: The size of the request, where it is known.
        limit_bytes: The size that the target accepts.
    """
    try:
        checked = check_graph(graph, source=source)
    except WorkflowGraphError as exc:
        message = str(exc).removeprefix(f"{source}: ")
        return (Problem(severity="error", code="graph", message=message, source=source, node_id=exc.node_id),)
    check = _Check(checked, info, source, frozenset(input_images))
    check.run()
    if body_bytes is not None and limit_bytes is not None and body_bytes > limit_bytes:
        check.say(
            "error",
            "too_large",
            f"the request is {body_bytes / 1e6:.1f} MB and the limit is {limit_bytes / 1e6:.1f} MB. Send fewer or "
            "smaller images (input_max_pixels scales them down).",
        )
    return tuple(sorted(check.problems, key=lambda problem: problem.severity != "error"))


def refuse_faulty(problems: Sequence[Problem], *, target: str, remedy: str = "") -> None:
    """Raise one error for all problems that are errors; none of them raises nothing.

    Raises:
        WorkflowGraphError: There are errors; ``node_id`` is the first one's.
    """
    faults = [problem for problem in problems if problem.severity == "error"]
    if not faults:
        return
    lines = [f"  {fault.where}: {fault.message}" for fault in faults[:_SHOWN_PROBLEMS]]
    if len(faults) > _SHOWN_PROBLEMS:
        lines.append(f"  and {len(faults) - _SHOWN_PROBLEMS} more")
    raise WorkflowGraphError(
        f"{target} would refuse this workflow; nothing was sent.\n" + "\n".join([*lines, *filter(None, [remedy])]),
        node_id=faults[0].node_id,
    )


class _Check:
    def __init__(self, graph: Graph, info: ObjectInfo, source: str, input_images: frozenset[str]) -> None:
        self._graph = graph
        self._info = info
        self._source = source
        self._images = input_images
        self.problems: list[Problem] = []

    def run(self) -> None:
        types: dict[str, NodeType] = {}
        for node_id, node in self._graph.nodes.items():
            known = self._info.get(node["class_type"])
            if known is None:
                self._unknown_type(node_id, node["class_type"])
            else:
                types[node_id] = known
        ends = [node_id for node_id, known in types.items() if known.output_node]
        if not ends and len(types) == len(self._graph.nodes):
            self.say(
                "error",
                "no_output",
                "no node makes an output, so ComfyUI would not run it. Add a SaveImage or PreviewImage node.",
            )
        needed = self._upstream(ends, types)
        for node_id, known in types.items():
            if node_id in needed:
                self._node(node_id, known)
            elif ends:
                self.say("warning", "idle_node", f"{known.name} leads to no output, so it does not run.", node_id)
        self._unused_images()

    def say(
        self,
        severity: Literal["error", "warning"],
        code: str,
        message: str,
        node_id: str | None = None,
        input_name: str | None = None,
        *,
        near: Sequence[str] = (),
    ) -> None:
        self.problems.append(
            Problem(
                severity=severity,
                code=code,
                message=message,
                source=self._source,
                node_id=node_id,
                input_name=input_name,
                nearest=tuple(near),
            )
        )

    def _unknown_type(self, node_id: str, class_type: str) -> None:
        near = nearest(class_type, self._info)
        meant = f" Did you mean {near[0]}?" if near else ""
        self.say(
            "error",
            "unknown_node_type",
            f"the node type {class_type} is not installed.{meant} Install the custom node that brings it.",
            node_id,
            near=near,
        )

    def _upstream(self, ends: Sequence[str], types: Mapping[str, NodeType]) -> set[str]:
        """Return the nodes that ComfyUI looks at: those that its output nodes need, by inputs that their types have."""
        found = set(ends)
        waiting = list(ends)
        while waiting:
            node_id = waiting.pop()
            known = types.get(node_id)
            for name, value in self._graph.nodes[node_id]["inputs"].items():
                link = as_link(value)
                if link and link[0] not in found and (known is None or _takes(known, name)):
                    found.add(link[0])
                    waiting.append(link[0])
        return found

    def _node(self, node_id: str, known: NodeType) -> None:
        inputs = self._graph.nodes[node_id]["inputs"]
        if known.needs_api_key:
            self.say(
                "warning",
                "needs_api_key",
                f"{known.name} calls a paid service of Comfy.org: the ComfyUI that runs it needs an account's key.",
                node_id,
            )
        for each in _expected(known, inputs):
            if each.name in inputs:
                self._input(node_id, each, inputs[each.name])
            elif each.required:
                what = "a value" if each.is_value else f"a link to a {each.type}"
                self.say("error", "missing_input", f"{known.name} needs {what} here.", node_id, each.name)

    def _input(self, node_id: str, wanted: InputType, value: Any) -> None:
        if isinstance(value, list):
            self._link(node_id, wanted, value)
            return
        if isinstance(value, dict) and "__value__" in value:
            value = value["__value__"]
        try:
            converted = _CONVERTERS.get(wanted.type, _same)(value)
        except (TypeError, ValueError, OverflowError):
            message = f"{_shown(value)} is no {wanted.type}."
            self.say("error", "wrong_type", message, node_id, wanted.name)
            return
        if wanted.choices is not None:
            self._choice(node_id, wanted, converted)
        elif _is_number(converted):
            self._range(node_id, wanted, converted)

    def _range(self, node_id: str, wanted: InputType, value: float) -> None:
        least, most = wanted.least, wanted.most
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = f"{_bound(least, '-∞')} to {_bound(most, '∞')}"
            self.say("error", "out_of_range", f"{value} is out of range; it takes {bounds}.", node_id, wanted.name)

    def _choice(self, node_id: str, wanted: InputType, value: Any) -> None:
        choices = wanted.choices or ()
        if value in choices:
            return
        if wanted.is_upload:
            self._uploaded(node_id, wanted, value)
            return
        near = nearest(value, choices)
        meant = f" Did you mean {near[0]}?" if near else ""
        if _are_models(value, choices):
            there = "" if choices else " There is none of this kind."
            message = f"{_shown(value)} is not on the server.{meant}{there}"
            self.say("error", "missing_model", message, node_id, wanted.name, near=near)
            return
        listed = ", ".join(str(each) for each in choices[:_SHOWN_CHOICES])
        more = f" and {len(choices) - _SHOWN_CHOICES} more" if len(choices) > _SHOWN_CHOICES else ""
        message = f"{_shown(value)} is not one of {listed}{more}.{meant}"
        # ComfyUI 0.3.64 itself does not look at choices of the V3 schema; the node fails on them, or does not.
        severity: Literal["error", "warning"] = "error" if wanted.strict_choices else "warning"
        self.say(severity, "not_a_choice", message, node_id, wanted.name, near=near)

    def _uploaded(self, node_id: str, wanted: InputType, value: Any) -> None:
        """Check the name of an input file; the list has the files of the input folder itself, and none below it."""
        name = str(value)
        if name in self._images or "/" in name or name.endswith(("[input]", "[output]", "[temp]")):
            return
        self.say(
            "error",
            "missing_model" if _are_models(value, ()) else "missing_file",
            f"{_shown(value)} is not in the input folder, and not among the images of this job. Give it as an input "
            "image.",
            node_id,
            wanted.name,
        )

    def _link(self, node_id: str, wanted: InputType, value: list[Any]) -> None:
        link = as_link(value)
        if link is None:
            shape = "a link is [node id, slot]" if len(value) != _LINK_LENGTH else "there is no such node"
            message = f'ComfyUI reads a list as a link, and {shape}. A list as a value is written {{"__value__": […]}}.'
            self.say("error", "broken_link", message, node_id, wanted.name)
            return
        source_id, slot = link
        source_type = self._info.get(self._graph.nodes[source_id]["class_type"])
        if source_type is None:
            return  # said already
        if not 0 <= slot < len(source_type.outputs):
            count = len(source_type.outputs)
            message = (
                f"node {source_id} ({source_type.name}) has {count} output{'s' * (count != 1)}, and no slot {slot}."
            )
            self.say("error", "broken_link", message, node_id, wanted.name)
            return
        given = source_type.outputs[slot]
        if not accepts(wanted.type, given):
            message = f"it takes {wanted.type}, and slot {slot} of node {source_id} ({source_type.name}) gives {given}."
            self.say("error", "wrong_type", message, node_id, wanted.name)

    def _unused_images(self) -> None:
        """Name the images that nothing reads, by name or by folder."""
        if not self._images:
            return
        texts = [
            value
            for node in self._graph.nodes.values()
            for value in node["inputs"].values()
            if isinstance(value, str) and value
        ]
        for name in sorted(self._images):
            folder = name.rpartition("/")[0]
            read = any(text == name or (folder and text.rstrip("/").endswith(folder)) for text in texts)
            if not read:
                message = f"no node reads the input image {name}. Use {{{{ input_images[…] }}}} or input_images_dir."
                self.say("warning", "unused_image", message)


def _expected(known: NodeType, inputs: Mapping[str, Any]) -> Iterator[InputType]:
    for each in known.inputs.values():
        yield each
        chosen = inputs.get(each.name)
        if each.branches and isinstance(chosen, str):
            yield from each.branches.get(chosen, ())


def _takes(known: NodeType, name: str) -> bool:
    # Inputs that grow in number, or belong to a choice, carry the name of their group in front.
    return name in known.inputs or name.partition(".")[0] in known.inputs


def _are_models(value: Any, choices: Sequence[Any]) -> bool:
    names = [value, *choices[:3]]
    return any(isinstance(name, str) and name.lower().endswith(MODEL_SUFFIXES) for name in names)


def _same(value: Any) -> Any:
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bound(value: float | None, endless: str) -> str:
    return endless if value is None or math.isinf(value) else str(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"  # noqa: PLR2004 - a line of a terminal
