"""Declarations in YAML, as people write them.

They stand in a comment at the template's top, or beside the template in ``<its name>.yaml``::

    {# runpod-comfy:
    variables:
      prompt: {type: text, default: "a red fox", help: "node 6, Positive prompt"}
      steps: {type: int, default: 20, min: 1, max: 100}
      sampler: {type: choice, default: euler, choices: [euler, dpmpp_2m]}
    #}

Everything but the name can be left out.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import yaml

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.declarations import ABSENT, TYPES, Declaration, as_number

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["declarations_text", "read_declarations"]

_TAG: Final = "tag:yaml.org,2002:"
_MAX_CHARS: Final = 1_000_000
_MAX_DEPTH: Final = 50
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_KEYS: Final = frozenset({"type", "default", "min", "max", "choices", "help", "node"})


def read_declarations(text: str, *, template: str, first_line: int = 1) -> dict[str, Declaration]:
    """Read declarations.

    Args:
        text: YAML: a mapping with ``variables``.
        template: The file's name, for errors.
        first_line: The line of the file at which the text begins.

    Raises:
        TemplateError: It is no such YAML, or a declaration contradicts itself.
    """
    try:
        _refuse_bombs(text)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, made faster
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        line = first_line + mark.line if mark is not None else None
        reason = getattr(exc, "problem", None) or str(exc)
        raise TemplateError(
            f"{template}{f', line {line}' if line else ''}: its variables are no YAML: {reason}.",
            template=template,
            line=line,
        ) from exc
    variables = data.get("variables") if isinstance(data, dict) else None
    if not isinstance(variables, dict):
        raise TemplateError(f"{template}: the header takes a mapping of variables: “variables:”.", template=template)
    return {str(name): _declaration(name, spec, template) for name, spec in variables.items()}


def _refuse_bombs(text: str) -> None:
    """Refuse what is small as text and endless as data, and what would overflow the stack of libyaml.

    Raises:
        ValueError: It is one of those.
    """
    if len(text) > _MAX_CHARS:
        raise ValueError(f"it has {len(text):,} characters, and {_MAX_CHARS:,} are taken")
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("an alias (*name) is not taken; write the value again")  # noqa: TRY004 - it is a value's
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def declarations_text(declarations: Mapping[str, Declaration]) -> str:
    """Return the YAML that ``read_declarations`` reads the same declarations from."""
    listed = {name: _spec(each) for name, each in declarations.items()}
    # One line for each variable; texts in double quotes, where everything can be escaped.
    lines = [
        f"  {_key(name)}: "
        + yaml.dump(
            spec, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True
        ).strip()
        for name, spec in listed.items()
    ]
    # In a text this would end the comment that the YAML stands in.
    return "\n".join(["variables:" if lines else "variables: {}", *lines]).replace("#}", "\\x23}") + "\n"


def _declaration(name: Any, spec: Any, template: str) -> Declaration:
    spec = {} if spec is None else spec
    fault = _fault_in(name, spec)
    if fault is None:
        declared = _declared(name, spec)
        try:
            if declared.default is not ABSENT:
                declared.check(declared.default)
        except ValueError as exc:
            fault = f"has a default that it would refuse: {exc}"
        else:
            return declared
    raise TemplateError(f"{template}: the variable {name!r} {fault}.", template=template)


def _fault_in(name: Any, spec: Any) -> str | None:  # noqa: PLR0911 - a table of faults
    """Return what is wrong with the form of a declaration."""
    if not isinstance(name, str) or not name.isidentifier():
        return (
            "has no name that Jinja reads: letters, digits and _ (YAML takes on, yes, null and the like in quotes only)"
        )
    if not isinstance(spec, dict):
        return "takes a mapping: {type: int, default: 20}"
    if unknown := sorted(str(key) for key in spec if key not in _KEYS):
        return f"has what is not known here: {', '.join(unknown)}. It takes {', '.join(sorted(_KEYS))}"
    type_name, choices = _type_name(spec), spec.get("choices", [])
    if type_name not in TYPES or not isinstance(choices, list) or (type_name == "choice") != bool(choices):
        return f"is no {type_name!r}: there are {', '.join(TYPES)}, and a choice (it alone) has a list of choices"
    if not _is_json([spec.get("default"), choices]):
        return "has a value that JSON lacks, such as .nan or .inf"
    bounds = [key for key in ("min", "max") if key in spec]
    if all(type_name in {"int", "float"} and as_number(spec[key]) is not ABSENT for key in bounds):
        return None
    return f"has a {bounds[0]}, which takes a number and is for int and float"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _type_name(spec: Mapping[str, Any]) -> Any:
    return spec.get("type", "choice" if spec.get("choices") else "any")


def _declared(name: str, spec: Mapping[str, Any]) -> Declaration:
    return Declaration(
        name=name,
        type=_type_name(spec),
        default=spec.get("default", ABSENT),
        least=spec.get("min"),
        most=spec.get("max"),
        choices=tuple(spec.get("choices", ())),
        help=str(spec.get("help", "")),
        node=str(spec.get("node", "")),
    )


def _spec(each: Declaration) -> dict[str, Any]:
    listed: dict[str, Any] = {"type": each.type}
    if each.default is not ABSENT:
        listed["default"] = each.default
    if each.least is not None:
        listed["min"] = each.least
    if each.most is not None:
        listed["max"] = each.most
    if each.choices:
        listed["choices"] = list(each.choices)
    if each.help:
        listed["help"] = each.help
    if each.node:
        listed["node"] = each.node
    return listed


def _key(name: str) -> str:
    # Some words are truth values, or nothing, to YAML.
    return f'"{name}"' if name.lower() in _YAML_WORDS else name


# libyaml's loader takes a tenth of the time; wheels of PyYAML have it.
_FastLoader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FastLoader):  # type: ignore[misc]  # one of two classes
    """Reads what JSON has too: a date is a text, and sets, bytes and the like are refused."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in each if tag != f"{_TAG}timestamp"]
    for first, each in _FastLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: make
    for tag, make in _FastLoader.yaml_constructors.items()
    if tag not in {_TAG + name for name in ("timestamp", "binary", "set", "omap", "pairs")}
}


class _Dumper(yaml.SafeDumper):
    """Writes texts in double quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write each value where it stands."""
        del data
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = text.isidentifier() and text not in _YAML_WORDS
    style = None if plain and text.isascii() and text.lower() == text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)
