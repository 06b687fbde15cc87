"""Variables inside ComfyUI: a node titled ``$prompt`` or ``$prompt.text`` is a variable, and nothing needs editing.

``$name`` fills the node's one value; ``$name.input`` says which. An exclamation mark makes it needed (it has no
default then), and words after a colon are its help: ``$prompt.text!: what to draw``. Several are set apart by commas.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.authoring.names import is_taken
from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Titled", "find_titled"]

_PART: Final = re.compile(
    r"\$(?P<name>[^\W\d]\w*)(?:\.~?(?P<input>[\w.]+))?(?P<needed>!)?(?::\s*(?P<help>.*))?", re.DOTALL
)
_NEXT: Final = re.compile(r",\s*(?=\$)")
_MAIN: Final = ("text", "prompt", "value", "image", "string", "seed", "noise_seed")


class Titled(NamedTuple):
    """A variable that a node's title names."""

    name: str
    node_id: str
    input_name: str
    needed: bool
    help: str


def find_titled(graph: Mapping[str, Any], *, source: str) -> list[Titled]:
    """Return the variables that titles name.

    Raises:
        TemplateError: A title does not say which of several values it means, there is none, or its name is taken.
    """
    found = []
    for node_id, node in graph.items():
        meta = node.get("_meta") if isinstance(node, dict) else None
        title = meta.get("title") if isinstance(meta, dict) else None
        if not isinstance(title, str) or not title.startswith("$") or not isinstance(node.get("inputs"), dict):
            continue
        for part in _NEXT.split(title):
            if match := _PART.fullmatch(part.strip()):
                name = match["name"]
                if is_taken(name):
                    raise TemplateError(
                        f"{source}: node {node_id} ({node.get('class_type')}) is titled ${name}, which is a word of "
                        f"Jinja or Python. Title it ${name}_value, for example.",
                        template=source,
                    )
                input_name = match["input"] or _only_value(name, node_id, node, source)
                _check(name, node_id, node, input_name, source)
                found.append(Titled(name, node_id, input_name, match["needed"] is not None, match["help"] or ""))
    return found


def _only_value(name: str, node_id: str, node: Mapping[str, Any], source: str) -> str:
    values: list[str] = [each for each, value in node["inputs"].items() if as_link(value) is None]
    if name in values:
        return name
    if len(values) == 1:
        return values[0]
    main = [each for each in _MAIN if each in values]
    if main:
        return main[0]
    which = f"one of {', '.join(values)}: title it ${name}.{values[0]}" if values else "a value, and it has links only"
    raise TemplateError(
        f"{source}: node {node_id} ({node.get('class_type')}) is titled ${name}, which takes {which}.", template=source
    )


def _check(name: str, node_id: str, node: Mapping[str, Any], input_name: str, source: str) -> None:
    if input_name not in node["inputs"] or as_link(node["inputs"][input_name]) is not None:
        values = [each for each, value in node["inputs"].items() if as_link(value) is None]
        raise TemplateError(
            f"{source}: node {node_id} ({node.get('class_type')}) is titled ${name}.{input_name}, but has no value of "
            f"that name. It has: {', '.join(values) or 'none'}.",
            template=source,
        )
