"""``runpod-comfy run``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.arguments import find_images
from runpod_comfy.cli.completions import complete_template
from runpod_comfy.cli.options import (
    Choice,
    batch_size_option,
    object_info_option,
    output_options,
    progress_option,
    target_options,
    timeout_option,
    variables_option,
)
from runpod_comfy.cli.template_verb import TemplateVerb, given_variables, opened_template, template_batch_size
from runpod_comfy.cli.verbs import HELP_OPTIONS

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target

__all__ = ["command"]


@click.command(
    cls=TemplateVerb,
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
@click.argument("template", type=click.Path(path_type=Path), shell_complete=complete_template)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@click.option(
    "--image",
    "more_images",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Input images, after those without a flag; several may follow one --image.",
)
@variables_option(
    "A variable of the template, like its own flag. VALUE is JSON (8, true), @FILE for a file's text, or text."
)
@click.option(
    "-n", "--num-samples", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Images wanted."
)
@batch_size_option
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
@target_options()
@timeout_option("Give up and cancel after.")
@click.option(
    "--input-max-pixels", type=click.IntRange(min=1), metavar="N", help="Scale input images down to N pixels (W x H)."
)
@object_info_option(
    "The node types of the ComfyUI that runs it (its answer to GET /object_info): checks the workflow before."
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
    type=Choice(["raise", "resubmit"]),
    default="raise",
    show_default=True,
    help="Where a submission was never answered: stop, or send it again, which may pay twice.",
)
@click.option(
    "--on-lost",
    type=Choice(["rerun", "raise"]),
    default="rerun",
    show_default=True,
    help="Where batches were lost on their way: make them again with the same seeds, or stop.",
)
@click.option(
    "--no-ledger", is_flag=True, help="Do not write the job down; runpod-comfy jobs and collect will not know it."
)
@click.option("--previews", is_flag=True, help="Save the workflow's preview images too.")
@output_options("run", events=True, instead="in place of paths")
@progress_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    target: Target,
    output: Output,
    template: Path,
    images: tuple[Path, ...],
    more_images: tuple[Path, ...],
    assignments: tuple[str, ...],
    batch_size: int | None,
    **options: Any,
) -> int:
    """Run the workflow TEMPLATE with your IMAGEs and save what it makes.

    TEMPLATE is a workflow, as ComfyUI saves or exports it, with variables in it (see `template create`) or without; or
    a picture that ComfyUI saved. Its variables are flags: `run TEMPLATE --help` lists them. An IMAGE is a PNG, JPEG or
    WebP file, or a folder of them. The paths of saved files go to stdout, one a line.

    Without --endpoint and --comfyui it runs on this machine, through an emulated RunPod endpoint, and the pictures are
    stand-ins that show what was sent.
    """
    found = tuple(find_images([*images, *more_images]))
    variables = given_variables(ctx, assignments, options)
    # Loads what a run needs: `--help` and typing errors don't wait for it.
    from runpod_comfy.cli.job import Job, JobOptions  # noqa: PLC0415 - see above

    opened = opened_template(ctx)
    job = JobOptions(
        target=target,
        template=opened or template,
        images=found,
        variables=variables,
        batch_size=batch_size or template_batch_size(opened),
        **options,
    )
    return Job(job, output).carry_out()
