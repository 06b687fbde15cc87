"""``runpod-comfy run``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.arguments import find_images, spread_option
from runpod_comfy.cli.output import Output
from runpod_comfy.cli.targets import choose_target, target_of_environment
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from runpod_comfy.cli.node_types import NodeTypes
    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["command"]


_TEMPLATE = "runpod_comfy.template"  # where the context keeps it


class _RunVerb(Verb):
    """Reads the template first: its variables are options too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
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
        extra = [each for each in self.get_params(ctx) if id(each) not in own and "--help" not in each.opts]
        return {f"Variables of {template.name}": extra} if template is not None and extra else {}


_HELP = frozenset({"-h", "--help"})


def _open(path: Path, args: list[str], *, ask: bool) -> WorkflowTemplate:
    from runpod_comfy.cli.node_types import find_node_types  # noqa: PLC0415 - see the caller
    from runpod_comfy.cli.template_files import open_template  # noqa: PLC0415 - see the caller

    def find_types() -> NodeTypes | None:
        # The options are not read yet.
        named = {flag: _option_value(args, flag) for flag in ("--object-info", "--comfyui", "--endpoint")}
        url, endpoint = named["--comfyui"], named["--endpoint"]
        target = target_of_environment(comfyui=url, endpoint=endpoint)
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


@click.command(
    cls=_RunVerb,
    name="run",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy run portrait/workflow.json.jinja portrait/*.jpg -n 4
  runpod-comfy run portrait/workflow.json.jinja --image portrait/*.jpg --steps 8 --prompt 'a "noir" portrait'
  runpod-comfy run workflow.json.jinja me.jpg -n 16 -b 8 --seed 7 --endpoint 4m7x2k9q -o out
  runpod-comfy run workflow.json.jinja photos/ --comfyui http://127.0.0.1:8188 --json

\b
Exit codes: 0 done, 1 job failed, 2 usage, 3 credentials, 4 time-out, 130 interrupted (after cancelling the job).
The API key comes from RUNPOD_API_KEY or RunPod's own ~/.runpod/config.toml, never from an option.""",
)
@click.argument("template", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@click.option(
    "--image",
    "more_images",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Input images, after those without a flag; several may follow one --image.",
)
@click.option(
    "--var",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of the template, like its own flag. VALUE is JSON (8, true), @FILE for a file's text, or text.",
)
@click.option(
    "-n", "--num-samples", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Images wanted."
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images in a batch.  [default: the template's, or 1]",
)
@click.option(
    "--seed",
    type=int,  # its range is the library's business
    metavar="N",
    help="Seed of the first batch; the next ones count up from it.",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    default="out",
    show_default=True,
    help="Folder for what is made; nothing in it is overwritten.",
)
@click.option(
    "--endpoint", envvar="RUNPOD_ENDPOINT_ID", show_envvar=True, metavar="ID", help="Run on this RunPod endpoint."
)
@click.option("--comfyui", envvar="COMFYUI_URL", show_envvar=True, metavar="URL", help="Run on this ComfyUI server.")
@click.option("--local", is_flag=True, help="Run on the local stand-in, whatever the environment says.")
@click.option("--profile", metavar="NAME", help="Run where this profile of `init` says, whatever the environment says.")
@click.option("--base-url", metavar="URL", help="Another address of RunPod's API (or set RUNPOD_ENDPOINT_BASE_URL).")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Give up and cancel after.",
)
@click.option(
    "--input-max-pixels", type=click.IntRange(min=1), metavar="N", help="Scale input images down to N pixels (W x H)."
)
@click.option(
    "--object-info",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The node types of the ComfyUI that runs it (its answer to GET /object_info): checks the workflow before.",
)
@click.option("--no-check", is_flag=True, help="Send it even if what is known of the target says that it will fail.")
@click.option(
    "--queue-timeout",
    "queue_timeout_s",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Give up and cancel where no worker has taken the job after.",
)
@click.option(
    "--on-uncertain",
    type=click.Choice(["raise", "resubmit"]),
    default="raise",
    show_default=True,
    help="Where a submission was never answered: stop, or send it again, which may pay twice.",
)
@click.option(
    "--on-lost",
    type=click.Choice(["rerun", "raise"]),
    default="rerun",
    show_default=True,
    help="Where batches were lost on their way: make them again with the same seeds, or stop.",
)
@click.option(
    "--no-ledger", is_flag=True, help="Do not write the job down; runpod-comfy jobs and collect will not know it."
)
@click.option("--previews", is_flag=True, help="Save the workflow's preview images too.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object to stdout in place of paths.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
@click.option(
    "--progress", type=click.Choice(["rich", "plain", "none"]), help="How to show progress, if not by terminal."
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    images: tuple[Path, ...],
    more_images: tuple[Path, ...],
    assignments: tuple[str, ...],
    endpoint: str | None,
    comfyui: str | None,
    base_url: str | None,
    profile: str | None,
    local: bool,
    as_json: bool,
    quiet: bool,
    batch_size: int | None,
    template: Path,
    **options: Any,
) -> int:
    """Run the workflow TEMPLATE with your IMAGEs and save what it makes.

    TEMPLATE is a workflow, as ComfyUI saves or exports it, with variables in it (see `template create`) or without; or
    a picture that ComfyUI saved. Its variables are flags: `run TEMPLATE --help` lists them. An IMAGE is a PNG, JPEG or
    WebP file, or a folder of them. The paths of saved files go to stdout, one a line.

    Without --endpoint and --comfyui it runs on this machine, through an emulated RunPod endpoint, and the pictures are
    stand-ins that show what was sent.
    """
    target = choose_target(ctx, endpoint=endpoint, comfyui=comfyui, local=local, base_url=base_url, profile=profile)
    found = tuple(find_images([*images, *more_images]))
    # Loads what a run needs: `--help` and typing errors don't wait for it.
    from runpod_comfy.cli.job import Job, JobOptions  # noqa: PLC0415 - see above
    from runpod_comfy.cli.variables import parse_assignments, take_variables  # noqa: PLC0415 - see above

    opened: WorkflowTemplate | None = ctx.meta.get(_TEMPLATE)
    declared = opened.declarations if opened is not None else {}
    variables, flags = parse_assignments(assignments, declared), take_variables(options)
    if twice := sorted(variables.keys() & flags.keys()):
        raise click.UsageError(f"{twice[0]} is given twice, by its flag and by --var.", ctx)
    if batch_size is None:
        default = declared["batch_size"].default if "batch_size" in declared else None
        batch_size = default if isinstance(default, int) else 1
    job = JobOptions(
        target=target,
        template=opened or template,
        images=found,
        variables={**variables, **flags},
        batch_size=batch_size,
        **options,
    )
    return Job(job, Output(command="run", as_json=as_json, quiet=quiet)).carry_out()
