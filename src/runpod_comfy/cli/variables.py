"""A template's variables as flags: each is an option with its type, range, choices and default."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from runpod_comfy.near import nearest
from runpod_comfy.workflow.declarations import ABSENT, Declaration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["DeclaredType", "declared_variables", "parse_assignments", "take_variables", "variable_options"]

# Whoever runs a template gives these in ways of their own.
_GIVEN = frozenset({"input_images", "input_images_dir", "batch_size", "seed"})
_PREFIX = "template_variable_"
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_SHOWN_DEFAULT = 60


class DeclaredType(click.ParamType[Any]):
    """Values as people type them, checked by what the template declares.

    ``@FILE`` is the text of the file, ``-`` is standard input.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.name = declaration.type

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return what the help shows in place of the value."""
        del param, ctx
        return {"int": "N", "float": "X", "bool": "true|false", "list": "JSON", "any": "VALUE"}.get(
            self.declaration.type, "TEXT"
        )

    def to_info_dict(self) -> Any:
        """Return what the variable takes, for ``--help-json``."""
        declared = self.declaration
        limits = {"min": declared.least, "max": declared.most, "choices": list(declared.choices)}
        return {**super().to_info_dict(), "type": declared.type, **limits}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as the template takes it."""
        if not isinstance(value, str):
            return value
        try:
            return self.declaration.check(self._read(value))
        except (ValueError, OSError) as exc:
            self.fail(f"{exc}.{self._meant(value)}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the choices that begin so."""
        del ctx, param
        choices = [str(each) for each in self.declaration.choices]
        if self.declaration.type == "bool":
            choices = ["true", "false"]
        return [CompletionItem(each) for each in choices if each.startswith(incomplete)]

    def _read(self, value: str) -> Any:
        if value == "-":
            value = sys.stdin.read().removesuffix("\n")
        elif value.startswith("@") and value[1:]:
            value = Path(value[1:]).read_text("utf-8")
        match self.declaration.type:
            case "text":
                return value
            case "bool":
                return _WORDS.get(value.lower(), value)
            case "choice":
                return next((each for each in self.declaration.choices if str(each) == value), value)
            case _:
                return _json_or_text(value)

    def _meant(self, value: str) -> str:
        near = nearest(value, self.declaration.choices)
        return f" Did you mean {near[0]!r}?" if near else ""


def declared_variables(template: WorkflowTemplate) -> dict[str, Declaration]:
    """Return all variables of a template; those that it does not declare take any value."""
    declared = dict(template.declarations)
    for name in sorted(template.variables | template.optional_variables):
        declared.setdefault(name, Declaration(name=name))
    return declared


def variable_options(template: WorkflowTemplate, *, taken: Collection[str]) -> list[click.Option]:
    """Return an option for each variable, but for those that are given in another way.

    Args:
        template: The template.
        taken: Option strings that mean something else, such as ``--json``: those variables are left to ``--var``.
    """
    options = []
    for name, declared in declared_variables(template).items():
        flags = [flag for flag in dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")) if flag not in taken]
        if name in _GIVEN or not flags:
            continue
        options.append(
            click.Option([*flags, _PREFIX + name], type=DeclaredType(declared), help=_help(template, declared))
        )
    return options


def take_variables(options: dict[str, Any]) -> dict[str, Any]:
    """Take the values of ``variable_options`` out of a command's parameters; by variable, those that were given."""
    found = {name: options.pop(name) for name in list(options) if name.startswith(_PREFIX)}
    return {name.removeprefix(_PREFIX): value for name, value in found.items() if value is not None}


def parse_assignments(assignments: Iterable[str], declared: Mapping[str, Declaration]) -> dict[str, Any]:
    """Read ``name=value`` pairs; values of declared variables as they were declared.

    Raises:
        click.BadParameter: There is no ``=`` or no name, a name comes twice, or a value is not taken.
    """
    from runpod_comfy.cli.arguments import parse_variables  # noqa: PLC0415 - it knows nothing of declarations

    plain, values = [], {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in declared or name in values:
            plain.append(assignment)
            continue
        try:
            values[name] = DeclaredType(declared[name]).convert(value, None, None)
        except click.BadParameter as exc:
            raise click.BadParameter(f"{name}: {exc.message}") from exc
    others = parse_variables(plain)
    if twice := sorted(values.keys() & others.keys()):
        raise click.BadParameter(f"{twice[0]} is given twice.")
    return {**others, **values}


def _help(template: WorkflowTemplate, declared: Declaration) -> str:
    parts = [declared.help[:1].upper() + declared.help[1:]] if declared.help else []
    if declared.type not in {"any", "text", "bool"}:
        parts.append(declared.takes[:1].upper() + declared.takes[1:])
    if declared.node:
        parts.append(f"Goes to {declared.node}")
    needed = declared.default is ABSENT and declared.name in template.variables
    text = ". ".join(part.rstrip(".") for part in parts)
    shown = "  [needed]" if needed else ""
    if declared.default is not ABSENT:
        shown = f"  [default: {_shown(declared.default)}]"
    return (f"{text}." if text else "") + shown


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_DEFAULT else text[:_SHOWN_DEFAULT] + "…"


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
