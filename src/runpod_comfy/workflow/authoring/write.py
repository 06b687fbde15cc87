"""Write a graph as a template: JSON with expressions, in which nothing else means anything to Jinja."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["jinja_text", "template_text"]

# In a JSON text these begin Jinja only inside strings, where JSON can write the brace in another way.
_JINJA: Final = re.compile(r"\{(?=[{%#])")


def template_text(graph: Mapping[str, Any], expressions: Mapping[tuple[str, str], str], *, header: str = "") -> str:
    """Return a template that renders to the graph, with expressions in place of some inputs.

    Args:
        graph: Nodes by id.
        expressions: What stands where a node (by id) has an input (by name): text such as ``"{{ prompt }}"``, with
            its quotes.
        header: What stands in front.

    Raises:
        TemplateError: A text of the graph cannot be written (half a surrogate pair).
    """
    nodes = [f"  {_json(node_id)}: {_node(node_id, node, expressions)}" for node_id, node in graph.items()]
    text = header + "{\n" + ",\n".join(nodes) + "\n}\n"
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise TemplateError(
            f"The workflow holds half a surrogate pair ({text[max(0, exc.start - 20) : exc.start]!r}…), which no file "
            "can hold. Type that text again in ComfyUI."
        ) from exc
    return text


def jinja_text(text: str) -> str:
    r"""Return a text as a literal in a Jinja expression, in which nothing ends the expression or what is around it.

    >>> print(jinja_text('say "hi"'))
    "say \x22hi\x22"
    """
    return '"' + "".join(char if _is_plain(char) else _escaped(char) for char in text) + '"'


def _node(node_id: str, node: Any, expressions: Mapping[tuple[str, str], str]) -> str:
    if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
        return _json(node)
    parts = []
    for key, value in node.items():
        if key != "inputs" or not value:
            parts.append(f"{_json(key)}: {_json(value)}")
            continue
        inputs = [
            f"      {_json(name)}: {expressions.get((node_id, name)) or _json(each)}" for name, each in value.items()
        ]
        parts.append('"inputs": {\n' + ",\n".join(inputs) + "\n    }")
    return "{\n    " + ",\n    ".join(parts) + "\n  }"


def _json(value: Any) -> str:
    return _JINJA.sub("\\\\u007b", json.dumps(value, ensure_ascii=False, allow_nan=False))


def _is_plain(char: str) -> bool:
    return char.isprintable() and char not in '"\\{}%#' and not 0xD800 <= ord(char) <= 0xDFFF  # noqa: PLR2004 - surrogates


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - sizes
