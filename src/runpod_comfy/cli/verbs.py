"""The verbs of ``runpod-comfy``, each imported when it is used, and how the command starts and ends."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from runpod_comfy._version import __version__
from runpod_comfy.cli import COMPLETE_VARIABLE
from runpod_comfy.cli.failures import Interrupted, describe
from runpod_comfy.cli.output import Output, open_streams, tidy_streams
from runpod_comfy.errors import RunpodComfyError
from runpod_comfy.near import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["COMMAND_NAME", "HELP_OPTIONS", "Verb", "VerbGroup", "run_command"]

COMMAND_NAME = "runpod-comfy"
HELP_OPTIONS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Listed(NamedTuple):
    """A verb as the list of verbs shows it: its module is not imported for that."""

    module: str
    help: str
    is_group: bool = False


_VERBS = {
    "run": _Listed("runpod_comfy.cli.run", "Run a workflow: template and photos in, images out."),
    "batch": _Listed("runpod_comfy.cli.batch", "Run a workflow for every row of a table, or over a grid: a dataset."),
    "gallery": _Listed("runpod_comfy.cli.gallery", "Write a dataset's page: look through images, compare, choose."),
    "export": _Listed(
        "runpod_comfy.cli.export", "Write a dataset for Hugging Face, kohya, Civitai, webdataset or a table."
    ),
    "pick": _Listed("runpod_comfy.cli.pick", "Put the images chosen in a gallery into a folder of their own."),
    "rerun": _Listed("runpod_comfy.cli.rerun", "Make the same picture again, or with one thing changed."),
    "sheet": _Listed("runpod_comfy.cli.sheet", "Draw a dataset's images side by side: contact sheets."),
    "jobs": _Listed("runpod_comfy.cli.jobs", "List the jobs that were submitted, and what became of them."),
    "collect": _Listed("runpod_comfy.cli.collect", "Fetch what jobs made while nobody watched, before it expires."),
    "template": _Listed(
        "runpod_comfy.cli.template", "Make a workflow a template, look at one, check one.", is_group=True
    ),
    "describe": _Listed("runpod_comfy.cli.describe", "Ask an endpoint or a ComfyUI server what it has installed."),
    "example": _Listed(
        "runpod_comfy.cli.example", "Write a portrait template and two photos here, to try things with."
    ),
    "init": _Listed("runpod_comfy.cli.init", "Store your RunPod key and endpoint, or your ComfyUI's address."),
    "deploy": _Listed("runpod_comfy.cli.deploy", "Print what to type into RunPod's forms to deploy the worker."),
    "doctor": _Listed("runpod_comfy.cli.doctor", "Find what keeps jobs from running, and say what mends it."),
    "health": _Listed("runpod_comfy.cli.health", "Show an endpoint's workers and jobs."),
    "cost": _Listed("runpod_comfy.cli.cost", "Say what jobs cost at least: GPU seconds, images, dollars."),
    "logs": _Listed("runpod_comfy.cli.logs", "Show what the worker wrote while it had a job."),
    "cancel": _Listed("runpod_comfy.cli.cancel", "Cancel jobs of an endpoint."),
    "completion": _Listed(
        "runpod_comfy.cli.completion", "Make your shell complete verbs, options, variables and jobs."
    ),
    "emulator": _Listed("runpod_comfy.cli.emulator", "Run RunPod Serverless and a stand-in ComfyUI on this machine."),
}


def _write_help_json(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    del param
    if value and not ctx.resilient_parsing:
        click.echo(json.dumps(_described(ctx), default=lambda _: None, ensure_ascii=False))
        ctx.exit()


def _described(ctx: click.Context) -> dict[str, Any]:
    """Return what a command takes, as click describes it, with the examples of its help."""
    command: dict[str, Any] = ctx.to_info_dict()["command"]
    for each in (command, *command.get("commands", {}).values()):
        lines = (each.get("epilog") or "").splitlines()
        each["examples"] = [line.strip() for line in lines if line.strip().startswith(f"{COMMAND_NAME} ")]
    return {"schema": "help/1", "version": __version__, **command}


class _Described(click.Command):
    """A command that describes itself for programs too."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        text = "Describe this as JSON and exit."
        option = click.Option(
            ["--help-json"], is_flag=True, is_eager=True, expose_value=False, help=text, callback=_write_help_json
        )
        self.params.append(option)


class VerbGroup(_Described, click.Group):
    """Several verbs under one name."""


class Verb(_Described):
    """A verb, with help that rich-click draws on a terminal; loading it takes longer than everything else here."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the help text."""
        if not sys.stdout.isatty():
            return super().get_help(ctx)
        import rich_click  # noqa: PLC0415 - only people look at panels
        from rich.text import Text  # noqa: PLC0415 - likewise

        # A string would be wrapped, examples and all; that this is taken too is not in the signature.
        epilog = cast("str", Text((self.epilog or "").replace("\b\n", "")))
        pretty = rich_click.RichCommand(
            name=self.name,
            params=[each for each in self.get_params(ctx) if each is not self.get_help_option(ctx)],
            help=self.help,
            epilog=epilog,
            context_settings=self.context_settings,
        )
        config = rich_click.RichHelpConfiguration(
            option_groups={
                "*": [
                    {"name": title, "options": [each.opts[0] for each in group]}
                    for title, group in self.option_groups(ctx).items()
                ]
            }
        )
        with rich_click.RichContext(
            pretty, info_name=ctx.info_name, parent=ctx.parent, rich_help_config=config
        ) as pretty_ctx:
            return pretty.get_help(pretty_ctx)

    def option_groups(self, ctx: click.Context) -> dict[str, list[click.Parameter]]:
        """Return options that the help shows under a title of their own, by title."""
        del ctx
        return {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of a group under its title first."""
        groups = self.option_groups(ctx)
        grouped = {id(each) for group in groups.values() for each in group}
        rest = [each for each in self.get_params(ctx) if id(each) not in grouped]
        for title, group in (*groups.items(), ("Options", rest)):
            records = [record for each in group if (record := each.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class _Verbs(VerbGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        listed = _VERBS.get(cmd_name)
        if listed is None:
            return None
        command: click.Command = importlib.import_module(listed.module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = nearest(args[0], _VERBS) if args[0] not in _VERBS else []
        if near:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.help) for name, listed in _VERBS.items()])


@click.group(
    cls=_Verbs,
    name=COMMAND_NAME,
    invoke_without_command=True,
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  runpod-comfy example\n  runpod-comfy run portrait/workflow.json.jinja portrait/*.jpg -n 4",
)
@click.version_option(__version__, "-V", "--version", prog_name=COMMAND_NAME)
@click.pass_context
def _command(ctx: click.Context) -> None:
    """Run ComfyUI workflows on RunPod, on your own ComfyUI, or on a local stand-in."""
    if ctx.invoked_subcommand is None:
        from pathlib import Path  # noqa: PLC0415 - a verb has no use for it

        from runpod_comfy.cli.welcome import look_around, welcome  # noqa: PLC0415 - likewise

        click.echo(welcome(look_around(Path())))


def run_command(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or what ``failures`` gives."""
    open_streams()
    tidy_streams()
    _interrupt_on_signals()
    words = sys.argv[1:] if args is None else list(args)
    # A usage error comes before the options are read.
    output = Output(as_json=bool({"--json", "--events"} & set(words)), command=_verb_in(words))
    try:
        result: Any = _command.main(args, prog_name=COMMAND_NAME, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    except (KeyboardInterrupt, click.Abort, click.ClickException, RunpodComfyError) as exc:
        return output.fail(describe(_interrupt_in(exc) or exc))
    return result if isinstance(result, int) else 0


def _verb_in(words: Sequence[str]) -> str | None:
    """Return the verb that a command line names, with the one below it where it is a group."""
    for number, word in enumerate(words):
        if word in _VERBS:
            below = words[number + 1 : number + 2] if _VERBS[word].is_group else []
            return " ".join([word, *(each for each in below if not each.startswith("-"))])
    return None


def _interrupt_in(exc: BaseException) -> BaseException | None:
    """Return the interrupt that click turned into an ``Abort``."""
    cause = exc.__cause__ or exc.__context__
    return cause if isinstance(exc, click.Abort) and isinstance(cause, KeyboardInterrupt) else None


def _interrupt_on_signals() -> None:
    """Let signals that ask a process to end do what Ctrl-C does: cancel what is being paid for, then leave."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # One that is ignored, as under nohup, stays so.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)
