"""What a template says about its variables: type, default, range, choices and help, in YAML.

It stands in a comment at the template's top, or beside the template in ``<its name>.yaml``::

    {# runpod-comfy:
    variables:
      prompt: {type: text, default: "a red fox", help: "node 6, Positive prompt"}
      steps: {type: int, default: 20, min: 1, max: 100}
      sampler: {type: choice, default: euler, choices: [euler, dpmpp_2m]}
    #}

Everything but the name can be left out.
"""

from __future__ import annotations

import math
import operator
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from runpod_comfy.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ABSENT", "Declaration", "declarations_text", "find_header", "json_schema", "read_declarations"]

ABSENT: Final = object()
"""In place of a default: there is none, so the variable must be given."""

TYPES: Final = ("text", "int", "float", "bool", "choice", "list", "any")
_HEADER: Final = re.compile(r"\s*\{#-?\s*runpod-comfy:[^\S\n]*\n(?P<yaml>.*?)-?#\}", re.DOTALL)
_KEYS: Final = frozenset({"type", "default", "min", "max", "choices", "help", "node"})
_SHOWN_CHOICES: Final = 12
_JSON_TYPES: Final = {
    "text": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One variable.

    Attributes:
        name: Its name.
        type: ``text``, ``int``, ``float``, ``bool``, ``choice`` (of ``choices``), ``list``, or ``any``.
        default: Its value where none is given; ``ABSENT`` where it must be.
        least: The smallest number it takes.
        most: The largest.
        choices: What a choice takes.
        help: Words on it.
        node: Where it goes, for people: the node's id and title.
    """

    name: str
    type: str = "any"
    default: Any = field(default=ABSENT)
    least: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""
    node: str = ""

    @property
    def takes(self) -> str:
        """What it takes, in a few words."""
        if self.type == "choice":
            listed = ", ".join(str(each) for each in self.choices[:_SHOWN_CHOICES])
            more = len(self.choices) - _SHOWN_CHOICES
            return f"one of {listed}" + (f" and {more} more" if more > 0 else "")
        words = {"text": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        word = words.get(self.type, "a list" if self.type == "list" else "any value")
        match self.least, self.most:
            case None, None:
                return word
            case least, None:
                return f"{word} of at least {least}"
            case None, most:
                return f"{word} of at most {most}"
            case least, most:
                return f"{word} from {least} to {most}"
        return word

    def check(self, value: Any) -> Any:
        """Return the value as the template gets it: a number of another kind, such as numpy's, becomes Python's.

        Raises:
            ValueError: It is of another type or out of range; the text says what is taken.
        """
        checked = _CHECKS[self.type](value)
        if checked is ABSENT:
            raise ValueError(f"{_shown(value)} is not {self.takes}")
        if self.type == "choice" and not any(checked == each and type(checked) is type(each) for each in self.choices):
            raise ValueError(f"{_shown(value)} is not {self.takes}")
        too_small = self.least is not None and checked < self.least
        too_large = self.most is not None and checked > self.most
        if self.type in {"int", "float"} and (too_small or too_large):
            raise ValueError(f"{_shown(value)} is not {self.takes}")
        return checked


def find_header(source: str) -> tuple[str, int] | None:
    """Return the YAML of a template's header and the line it begins at; None where it has none."""
    found = _HEADER.match(source)
    return (found["yaml"], source.count("\n", 0, found.start("yaml")) + 1) if found else None


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
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, made faster
    except yaml.YAMLError as exc:
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


def declarations_text(declarations: Mapping[str, Declaration]) -> str:
    """Return the YAML that ``read_declarations`` reads the same declarations from."""
    listed = {name: _spec(each) for name, each in declarations.items()}
    # One line for each variable; texts in double quotes, where everything can be escaped.
    lines = [
        f"  {name}: "
        + yaml.dump(
            spec, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True
        ).strip()
        for name, spec in listed.items()
    ]
    # In a text this would end the comment that the YAML stands in.
    return "\n".join(["variables:" if lines else "variables: {}", *lines]).replace("#}", "\\x23}") + "\n"


def json_schema(declarations: Mapping[str, Declaration], *, title: str) -> dict[str, Any]:
    """Return the variables as a JSON Schema (2020-12) of an object."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": {name: _property(each) for name, each in declarations.items()},
        "required": [name for name, each in declarations.items() if each.default is ABSENT],
        "additionalProperties": False,
    }


def _property(each: Declaration) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _JSON_TYPES[each.type]} if each.type in _JSON_TYPES else {}
    if each.choices:
        found["enum"] = list(each.choices)
    found |= {
        key: value
        for key, value in (("minimum", each.least), ("maximum", each.most), ("description", each.help))
        if value not in (None, "")
    }
    return found if each.default is ABSENT else found | {"default": each.default}


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


def _fault_in(name: Any, spec: Any) -> str | None:
    """Return what is wrong with the form of a declaration."""
    if not isinstance(name, str) or not name.isidentifier():
        return "has a name that Jinja cannot read: letters, digits and _"
    if not isinstance(spec, dict):
        return "takes a mapping: {type: int, default: 20}"
    if unknown := sorted(str(key) for key in spec if key not in _KEYS):
        return f"has what is not known here: {', '.join(unknown)}. It takes {', '.join(sorted(_KEYS))}"
    type_name, choices = _type_name(spec), spec.get("choices", [])
    if type_name not in TYPES or not isinstance(choices, list) or (type_name == "choice") != bool(choices):
        return f"is no {type_name!r}: there are {', '.join(TYPES)}, and a choice (it alone) has a list of choices"
    bounds = [key for key in ("min", "max") if key in spec]
    if all(type_name in {"int", "float"} and _as_float(spec[key]) is not ABSENT for key in bounds):
        return None
    return f"has a {bounds[0]}, which takes a number and is for int and float"


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


def _as_text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value if isinstance(value, str) else ABSENT


def _as_int(value: Any) -> Any:
    if isinstance(value, bool):
        return ABSENT
    try:
        return operator.index(value)
    except TypeError:
        pass
    number = _as_float(value)
    return int(number) if number is not ABSENT and number.is_integer() else ABSENT


def _as_float(value: Any) -> Any:
    if isinstance(value, bool | str):
        return ABSENT
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return ABSENT
    if not math.isfinite(number):
        return ABSENT
    return value if isinstance(value, int | float) else number


def _as_bool(value: Any) -> Any:
    return value if isinstance(value, bool) else ABSENT


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else ABSENT


def _as_it_is(value: Any) -> Any:
    return value


_CHECKS: Final = {
    "text": _as_text,
    "int": _as_int,
    "float": _as_float,
    "bool": _as_bool,
    "list": _as_list,
    "choice": _as_it_is,
    "any": _as_it_is,
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"  # noqa: PLR2004 - part of a line


# libyaml's loader takes a tenth of the time; wheels of PyYAML have it.
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(yaml.SafeDumper):
    """Writes texts in double quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write each value where it stands."""
        del data
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = text.isidentifier() and text not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
    style = None if plain and text.isascii() and text.lower() == text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)
