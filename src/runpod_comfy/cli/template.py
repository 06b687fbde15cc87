"""``runpod-comfy template``: a workflow made a template, a template shown, either checked."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.arguments import find_images
from runpod_comfy.cli.completions import complete_template
from runpod_comfy.cli.failures import failure
from runpod_comfy.cli.options import object_info_option, output_options, target_options, variables_option
from runpod_comfy.cli.template_verb import template_batch_size
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb, VerbGroup
from runpod_comfy.errors import ConfigurationError, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.workflow.authoring.draft import Draft
    from runpod_comfy.workflow.declarations import Declaration

__all__ = ["command"]

_NODE_TYPES = "Node types: a file with ComfyUI's answer to GET /object_info."


def _for_target(command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a verb the options that say whose node types count."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = output_options(command, quiet=False, instead="in place of lines")(function)
        return object_info_option(_NODE_TYPES)(target_options(local=False)(function))

    return decorate


@click.group(
    cls=VerbGroup,
    name="template",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy template create workflow.json
  runpod-comfy template show workflow.json.jinja
  runpod-comfy template validate workflow.json.jinja""",
)
def command() -> None:
    """Make a workflow a template, look at one, check one."""


@command.command(
    cls=Verb,
    name="create",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy template create workflow.json
  runpod-comfy template create workflow.json --dry-run
  runpod-comfy template create picture.png -o fox.json.jinja --keep sampler --keep scheduler
  runpod-comfy template create workflow.json --set strength=12.strength_model --comfyui http://127.0.0.1:8188""",
)
@click.argument("workflow", type=click.Path(path_type=Path), shell_complete=complete_template)
@click.option(
    "--set",
    "added",
    multiple=True,
    metavar="NAME=NODE.INPUT",
    help="Make this input a variable too; NODE is the node's id or title.",
)
@click.option("--keep", multiple=True, metavar="NAME", help="Leave this as it is now: no variable.")
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The template.  [default: NAME.json.jinja]",
)
@click.option("--force", is_flag=True, help="Overwrite the template if it is there.")
@click.option("--dry-run", is_flag=True, help="Show the variables and write nothing.")
@_for_target("template create")
def create(
    *,
    target: Target,
    output: Output,
    object_info: Path | None,
    workflow: Path,
    added: tuple[str, ...],
    keep: tuple[str, ...],
    file: Path | None,
    force: bool,
    dry_run: bool,
) -> int:
    """Find what people vary in WORKFLOW and write a template in which that is variable.

    WORKFLOW is a file as ComfyUI saves or exports it, or a picture that ComfyUI saved. Prompts, seeds, sizes, photos,
    models and the like become variables with names; today's values stay as their defaults, so that the template makes
    what the workflow made. The template's path goes to stdout.

    A node titled $prompt (or $prompt.text) in ComfyUI is a variable of that name.
    """
    out = output
    draft = _draft(target, object_info, workflow, keep=keep, added=added, out=out)
    rows = [_row(each.declaration, each.declaration.node) for each in draft.variables.values()]
    lines = _table(rows)
    data = {"variables": _as_data({name: each.declaration for name, each in draft.variables.items()})}
    if dry_run:
        for line in lines:
            out.data(line)
        return out.succeed({"path": None, **data})
    for line in lines:
        out.note(f"  {line}")
    path = file or Path(f"{workflow.name.split('.')[0]}.json.jinja")
    _write(path, draft.text(), force=force)
    out.data(os.fspath(path))
    out.next_step(f"runpod-comfy run {path} {'--prompt …' if 'prompt' in draft.variables else '--help'}")
    return out.succeed({"path": os.fspath(path), **data})


@command.command(
    cls=Verb,
    name="show",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy template show workflow.json.jinja
  runpod-comfy template show workflow.json.jinja --json-schema""",
)
@click.argument("template", type=click.Path(path_type=Path), shell_complete=complete_template)
@click.option("--json-schema", "as_schema", is_flag=True, help="Write the variables as a JSON Schema.")
@_for_target("template show")
def show(*, target: Target, output: Output, object_info: Path | None, template: Path, as_schema: bool) -> int:
    """List the variables of TEMPLATE: name, default, what it takes, and where it goes."""
    from runpod_comfy.cli.template_files import open_template  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.cli.variables import declared_variables  # noqa: PLC0415 - likewise
    from runpod_comfy.workflow.declarations import json_schema  # noqa: PLC0415 - likewise

    out = output
    opened = open_template(template, lambda: _types(target, object_info, needed=True, out=out))
    declared = declared_variables(opened)
    if as_schema:
        out.data(json.dumps(json_schema(declared, title=opened.name), indent=2, ensure_ascii=False))
    else:
        for line in _table([_row(each, each.node or each.help) for each in declared.values()]):
            out.data(line)
    return out.succeed({"variables": _as_data(declared), "json_schema": json_schema(declared, title=opened.name)})


@command.command(
    cls=Verb,
    name="validate",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy template validate workflow.json.jinja --comfyui http://127.0.0.1:8188
  runpod-comfy template validate workflow.json.jinja photos/ --var steps=8 --object-info object_info.json

\b
Exit codes: 0 it would run (there may be warnings), 2 it would not.""",
)
@click.argument("template", type=click.Path(path_type=Path), shell_complete=complete_template)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@variables_option("A variable of the template.")
@_for_target("template validate")
def validate(
    *,
    target: Target,
    output: Output,
    object_info: Path | None,
    template: Path,
    images: tuple[Path, ...],
    assignments: tuple[str, ...],
) -> int:
    """Check TEMPLATE, with these IMAGEs, as the ComfyUI that shall run it would; nothing is sent.

    One line goes to stdout for each problem: file:node:input: what is wrong. Node types come from a file, from a
    ComfyUI server, or from what an endpoint told.
    """
    from runpod_comfy.cli.check import check_template  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.cli.template_files import open_template  # noqa: PLC0415 - likewise
    from runpod_comfy.cli.variables import parse_assignments  # noqa: PLC0415 - likewise
    from runpod_comfy.serverless.api import MAX_RUN_BODY_BYTES  # noqa: PLC0415 - likewise

    out = output
    types = _types(target, object_info, needed=True, out=out)
    if types is None:
        raise ConfigurationError(
            "There is nothing to check against. Name a ComfyUI server (--comfyui URL), an endpoint (--endpoint ID) or "
            "a file with ComfyUI's answer to GET /object_info (--object-info FILE)."
        )
    opened = open_template(template, lambda: types)
    problems = check_template(
        opened,
        types.info,
        images=tuple(find_images(images)),
        variables=parse_assignments(assignments, opened.declarations),
        batch_size=template_batch_size(opened),
        limit_bytes=MAX_RUN_BODY_BYTES if target.kind == "runpod" else None,
    )
    for problem in problems:
        out.data(str(problem))
    faulty = any(problem.severity == "error" for problem in problems)
    if not problems:
        out.note(f"  {template.name}: nothing is wrong with it")
    data = {"problems": [{**asdict(each), "where": each.where} for each in problems]}
    if faulty:
        return out.fail(failure("workflow_graph_error", f"{template.name} would not run."), data, told=True)
    return out.succeed(data)


def _types(target: Target, file: Path | None, *, needed: bool, out: Output) -> Any:
    from runpod_comfy.cli.node_types import find_node_types  # noqa: PLC0415 - `--help` needs none of it

    types = find_node_types(target, file=file, needed=needed)
    if types is not None:
        out.note(f"  node types: {types.origin}")
    return types


def _draft(
    target: Target,
    file: Path | None,
    workflow: Path,
    *,
    keep: tuple[str, ...],
    added: tuple[str, ...],
    out: Output,
) -> Draft:
    from runpod_comfy.workflow.authoring.draft import draft_template  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.workflow.graph import check_graph, is_saved_format  # noqa: PLC0415 - likewise
    from runpod_comfy.workflow.loading import read_any  # noqa: PLC0415 - likewise
    from runpod_comfy.workflow.saved_format.convert import convert_saved  # noqa: PLC0415 - likewise

    data = read_any(workflow)
    saved = is_saved_format(data)
    try:
        # Ranges and choices are worth asking for, but only a saved workflow may need them.
        types = _types(target, file, needed=saved, out=out)
    except RunpodComfyError as exc:
        if file is not None:
            raise
        out.warn(f"{exc} Going on without node types.")
        types = None
    info = types.info if types is not None else None
    graph = data
    if saved:
        converted = convert_saved(data, info, source=workflow.name)
        graph = converted.graph
        out.note(f"  {workflow.name}: saved (UI) format, converted; {len(graph)} nodes run")
        for note in converted.notes:
            out.warn(note)
    pairs = {name: where for name, equals, where in (each.partition("=") for each in added) if equals}
    if len(pairs) != len(added):
        raise click.UsageError("--set takes NAME=NODE.INPUT, such as strength=12.strength_model, each name once.")
    return draft_template(
        check_graph(graph, source=workflow.name).data, info, source=workflow.name, keep=keep, add=pairs
    )


def _row(declared: Declaration, last: str) -> tuple[str, str, str, str]:
    from runpod_comfy.workflow.declarations import ABSENT  # noqa: PLC0415 - `--help` needs none of it

    now = "" if declared.default is ABSENT else json.dumps(declared.default, ensure_ascii=False)
    return declared.name, now, declared.takes, last


def _table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    from runpod_comfy.cli.table import table_lines  # noqa: PLC0415 - `--help` needs none of it

    return table_lines(("VARIABLE", "NOW", "TAKES", "GOES TO"), rows) if rows else ["(no variables)"]


def _as_data(declared: Mapping[str, Declaration]) -> list[dict[str, Any]]:
    from runpod_comfy.workflow.declarations import ABSENT  # noqa: PLC0415 - `--help` needs none of it

    return [
        {
            "name": each.name,
            "type": each.type,
            "needed": each.default is ABSENT,
            "default": None if each.default is ABSENT else each.default,
            "min": each.least,
            "max": each.most,
            "choices": list(each.choices),
            "help": each.help,
            "node": each.node,
        }
        for each in declared.values()
    ]


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as exc:
        raise ConfigurationError(f"{path} is there already. Give another with -o FILE, or --force.") from exc
