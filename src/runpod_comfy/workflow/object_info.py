"""What a ComfyUI has installed, as values: the answer of ``GET /object_info``, read one node type at a time.

A server with many custom nodes answers with 10 MB and more, and a workflow uses thirty types of two thousand: so a
type is parsed when it is asked for. Shapes were recorded from ComfyUI 0.3.64; the newer ones (``COMBO`` with options,
inputs that depend on a choice) are those of its V3 schema.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["ANY_TYPE", "InputType", "NodeType", "ObjectInfo", "accepts"]

ANY_TYPE: Final = "*"
_CHOICE: Final = "COMBO"
_DYNAMIC_CHOICE: Final = "COMFY_DYNAMICCOMBO_V3"
_VALUE_TYPES: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", _CHOICE, _DYNAMIC_CHOICE})
_UPLOADS: Final = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload")
_SEEDS: Final = frozenset({"seed", "noise_seed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class InputType:
    """One input of a node type.

    Attributes:
        name: Its name in the graph.
        type: What it takes: ``INT``, ``MODEL``, ``COMBO`` … (several with commas between); ``*`` is anything.
        required: Whether ComfyUI refuses a node without it.
        default: What the editor puts there at first; None where there is nothing.
        least: The smallest number it takes.
        most: The largest number it takes.
        choices: What a COMBO takes; None for other types.
        strict_choices: Whether ComfyUI itself refuses other values. It leaves choices of the V3 schema to the node.
        multiline: Whether it is a text of several lines.
        is_value: Whether the editor gives it a field; else it takes links only.
        is_upload: Whether its choices are files that were uploaded: a job brings its own.
        is_controlled: Whether the editor saves what becomes of the value after each run right behind it.
        help: The node author's words on it, or "".
        branches: For a choice that brings inputs of its own: those inputs by choice, named ``<name>.<input>``.
    """

    name: str
    type: str
    required: bool = True
    default: Any = None
    least: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] | None = field(default=None, repr=False)
    strict_choices: bool = False
    multiline: bool = False
    is_value: bool = False
    is_upload: bool = False
    is_controlled: bool = False
    help: str = ""
    branches: Mapping[str, tuple[InputType, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """One class of nodes.

    Attributes:
        name: Its name in the graph (``class_type``).
        display_name: Its name in the editor.
        inputs: Its inputs by name, in the editor's order.
        outputs: The types of what it gives, by slot.
        output_node: Whether ComfyUI runs a graph for its sake.
        needs_api_key: Whether it calls a paid service of Comfy.org, which takes a key of its own.
        deprecated: Whether its author wants it replaced.
    """

    name: str
    display_name: str
    inputs: Mapping[str, InputType] = field(repr=False)
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    needs_api_key: bool = False
    deprecated: bool = False


class ObjectInfo:
    """The node types of one ComfyUI.

    >>> info = ObjectInfo({"Invert": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"]}})
    >>> "Invert" in info, info["Invert"].outputs
    (True, ('IMAGE',))

    Args:
        data: The body of ``GET /object_info``: descriptions by node class.
        source: What messages call it, such as ``ComfyUI at http://127.0.0.1:8188``.

    Raises:
        ConfigurationError: It is no such body.
    """

    __slots__ = ("_data", "_given", "_types", "source")

    def __init__(self, data: Any, *, source: str = "object_info") -> None:
        if not isinstance(data, dict) or not all(isinstance(each, dict) and "input" in each for each in data.values()):
            raise ConfigurationError(
                f"{source} is no object_info: it takes what ComfyUI answers to GET /object_info, node classes with "
                "their inputs."
            )
        self.source = source
        self._data: dict[str, Any] = data
        self._types: dict[str, NodeType] = {}
        self._given: frozenset[str] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ObjectInfo:
        """Read a file that holds the body of ``GET /object_info``.

        Raises:
            ConfigurationError: It cannot be read or is something else.
        """
        try:
            data = orjson.loads(Path(path).read_bytes())
        except OSError as exc:
            raise ConfigurationError(f"The object_info {path} cannot be read: {exc.strerror or exc}.") from exc
        except orjson.JSONDecodeError as exc:
            raise ConfigurationError(f"The object_info {path} is no JSON: {exc}.") from exc
        return cls(data, source=str(path))

    @property
    def data(self) -> Mapping[str, Any]:
        """The descriptions as ComfyUI gave them."""
        return self._data

    def __contains__(self, class_type: object) -> bool:
        return class_type in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, class_type: str) -> NodeType:
        found = self._types.get(class_type)
        if found is None:
            found = self._types[class_type] = _node_type(class_type, self._data[class_type])
        return found

    def gives(self, type_name: str) -> bool:
        """Return whether any node has an output of this type; what none gives can only be typed into a field."""
        if self._given is None:
            outputs = (each.get("output") for each in self._data.values())
            self._given = frozenset(_type_name(slot) for each in outputs if isinstance(each, list) for slot in each)
        return type_name in self._given

    def get(self, class_type: str) -> NodeType | None:
        """Return a node type, None where it is not installed."""
        return self[class_type] if class_type in self._data else None


def accepts(wanted: str, given: str) -> bool:
    """Return whether an input takes what an output gives, as ComfyUI decides: one of several types is enough."""
    if wanted == given or ANY_TYPE in {wanted, given}:
        return True
    return not {each.strip() for each in given.split(",")}.isdisjoint({each.strip() for each in wanted.split(",")})


def _node_type(name: str, data: dict[str, Any]) -> NodeType:
    inputs: dict[str, InputType] = {}
    sections = data.get("input") or {}
    for section in ("required", "optional"):
        for input_name, spec in _items(sections.get(section)):
            inputs[input_name] = _input_type(input_name, spec, required=section == "required")
    display_name = data.get("display_name")
    return NodeType(
        name=name,
        display_name=display_name if isinstance(display_name, str) and display_name else name,
        inputs=inputs,
        outputs=tuple(_type_name(each) for each in data.get("output") or ()),
        output_node=data.get("output_node") is True,
        needs_api_key=data.get("api_node") is True,
        deprecated=data.get("deprecated") is True,
    )


def _input_type(name: str, spec: Any, *, required: bool) -> InputType:
    parts = spec if isinstance(spec, list) else [spec]
    first = parts[0] if parts else ANY_TYPE
    options = parts[1] if len(parts) > 1 and isinstance(parts[1], dict) else {}
    type_name = _type_name(first)
    branches = _branches(name, options) if type_name == _DYNAMIC_CHOICE else {}
    choices: tuple[Any, ...] | None = None
    if isinstance(first, list):
        choices = tuple(first)
    elif branches:
        choices = tuple(branches)
    elif type_name == _CHOICE and isinstance(options.get("options"), list) and not options.get("remote"):
        choices = tuple(options["options"])
    help_ = options.get("tooltip")
    return InputType(
        name=name,
        type=type_name,
        required=required,
        default=_default(options, choices),
        least=_number(options.get("min")),
        most=_number(options.get("max")),
        choices=choices,
        strict_choices=isinstance(first, list),
        multiline=options.get("multiline") is True,
        is_value=type_name in _VALUE_TYPES and not options.get("forceInput"),
        is_upload=any(options.get(flag) for flag in _UPLOADS),
        is_controlled=bool(options.get("control_after_generate")) or (name in _SEEDS and type_name == "INT"),
        help=help_ if isinstance(help_, str) else "",
        branches=branches,
    )


def _branches(name: str, options: Mapping[str, Any]) -> dict[str, tuple[InputType, ...]]:
    found: dict[str, tuple[InputType, ...]] = {}
    for option in options.get("options") or ():
        if isinstance(option, dict) and isinstance(option.get("key"), str):
            sections = option.get("inputs") or {}
            found[option["key"]] = tuple(
                _input_type(f"{name}.{inner}", spec, required=section == "required")
                for section in ("required", "optional")
                for inner, spec in _items(sections.get(section))
            )
    return found


def _items(section: Any) -> Iterable[tuple[str, Any]]:
    return section.items() if isinstance(section, dict) else ()


def _type_name(value: Any) -> str:
    return _CHOICE if isinstance(value, list) else value if isinstance(value, str) else ANY_TYPE


def _default(options: Mapping[str, Any], choices: tuple[Any, ...] | None) -> Any:
    if "default" in options:
        return options["default"]
    return choices[0] if choices else None


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None
