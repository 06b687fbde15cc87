"""``runpod-comfy run``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runpod_comfy.cli.arguments import find_images, parse_variables, spread_option
from runpod_comfy.cli.output import Output
from runpod_comfy.cli.targets import choose_target
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb

__all__ = ["command"]


class _RunVerb(Verb):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread_option(args, "--image"))


@click.command(
    cls=_RunVerb,
    name="run",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy run portrait/workflow.json.jinja portrait/*.jpg -n 4
  runpod-comfy run portrait/workflow.json.jinja --image portrait/*.jpg --var steps=8 --var 'prompt=a "noir" portrait'
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
    help="A variable of the template. VALUE is JSON (8, true, [1, 2]), @FILE for the file's text, or text.",
)
@click.option(
    "-n", "--num-samples", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Images wanted."
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Images in a batch.",
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
    **options: Any,
) -> int:
    """Run the workflow TEMPLATE with your IMAGEs and save what it makes.

    TEMPLATE is a workflow in ComfyUI's API format with Jinja in it. An IMAGE is a PNG, JPEG or WebP file, or a folder
    of them. The paths of saved files go to stdout, one a line.

    Without --endpoint and --comfyui it runs on this machine, through an emulated RunPod endpoint, and the pictures are
    stand-ins that show what was sent.
    """
    target = choose_target(ctx, endpoint=endpoint, comfyui=comfyui, local=local, base_url=base_url, profile=profile)
    found = tuple(find_images([*images, *more_images]))
    variables = parse_variables(assignments)
    # Loads what a run needs: `--help` and typing errors don't wait for it.
    from runpod_comfy.cli.job import Job, JobOptions  # noqa: PLC0415 - see above

    job = JobOptions(target=target, images=found, variables=variables, **options)
    return Job(job, Output(command="run", as_json=as_json, quiet=quiet)).carry_out()
