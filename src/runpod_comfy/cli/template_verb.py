"""Verbs that run a template: it is opened before the options are read, since its variables are options too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.arguments import spread_option
from runpod_comfy.cli.targets import target_of_environment
from runpod_comfy.cli.verbs import Verb
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runpod_comfy.cli.node_types import NodeTypes
    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["TemplateVerb", "given_variables", "opened_template", "template_batch_size"]

_TEMPLATE = "runpod_comfy.template"  # where the context keeps it
_HELP = frozenset({"-h", "--help", "--help-json"})


class TemplateVerb(Verb):
    """A verb whose first argument is a template."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Open the template that the words name, then read the options, its variables among them."""
        args = spread_option(args, "--image")
        from runpod_comfy.cli.template_files import (  # noqa: PLC0415 - `--help` alone needs none
            find_template_word,
            refuse_picture_before_template,
        )

        path = find_template_word(args, self.params)
        if path is not None:
            try:
                refuse_picture_before_template(path, args)
                ctx.meta[_TEMPLATE] = _open(path, args, ask=not ctx.resilient_parsing)
            except (RunpodComfyError, click.UsageError):
                # Help and completion do without; a run says what is wrong.
                if not (ctx.resilient_parsing or _HELP & set(args)):
                    raise
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, with those of the template."""
        params = super().get_params(ctx)
        template = ctx.meta.get(_TEMPLATE)
        if template is None:
            return params
        from runpod_comfy.cli.variables import variable_options  # noqa: PLC0415 - only with a template

        taken = [flag for each in params for flag in (*each.opts, *each.secondary_opts)]
        return [*params, *variable_options(template, taken=taken)]

    def option_groups(self, ctx: click.Context) -> dict[str, list[click.Parameter]]:
        """Return the template's variables under its name, for the help."""
        template = ctx.meta.get(_TEMPLATE)
        own = set(map(id, self.params))
        extra = [each for each in self.get_params(ctx) if id(each) not in own and not _HELP & set(each.opts)]
        return {f"Variables of {template.name}": extra} if template is not None and extra else {}


def opened_template(ctx: click.Context) -> WorkflowTemplate | None:
    """Return the template that was opened, or None where the words name no file; what reads it says what is wrong."""
    found: WorkflowTemplate | None = ctx.meta.get(_TEMPLATE)
    return found


def given_variables(ctx: click.Context, assignments: Iterable[str], options: dict[str, Any]) -> dict[str, Any]:
    """Take the values of the template's variables out of ``options``, and add those of ``--var``.

    Raises:
        click.UsageError: A variable is given twice, or a value is not taken.
    """
    from runpod_comfy.cli.variables import parse_assignments, take_variables  # noqa: PLC0415 - not for `--help`

    template = opened_template(ctx)
    variables = parse_assignments(assignments, template.declarations if template is not None else {})
    flags = take_variables(options)
    if twice := sorted(variables.keys() & flags.keys()):
        raise click.UsageError(f"{twice[0]} is given twice, by its flag and by --var.", ctx)
    return {**variables, **flags}


def template_batch_size(template: WorkflowTemplate | None) -> int:
    """Return the batch size that a template declares, or 1."""
    declared = template.declarations.get("batch_size") if template is not None else None
    return declared.default if declared is not None and isinstance(declared.default, int) else 1


def _open(path: Path, args: list[str], *, ask: bool) -> WorkflowTemplate:
    from runpod_comfy.cli.node_types import find_node_types  # noqa: PLC0415 - see the caller
    from runpod_comfy.cli.template_files import open_template  # noqa: PLC0415 - see the caller

    def find_types() -> NodeTypes | None:
        # The options are not read yet.
        named = {flag: _option_value(args, flag) for flag in ("--object-info", "--comfyui", "--endpoint")}
        target = target_of_environment(comfyui=named["--comfyui"], endpoint=named["--endpoint"])
        file = named["--object-info"]
        return find_node_types(target, file=Path(file) if file else None, needed=True) if ask or file else None

    return open_template(path, find_types)


def _option_value(args: list[str], flag: str) -> str | None:
    for word, following in zip(args, [*args[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
