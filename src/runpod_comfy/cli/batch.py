"""``runpod-comfy batch``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.completions import complete_template
from runpod_comfy.cli.options import (
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
    name="batch",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy batch portrait/workflow.json.jinja portrait --samples 2 -o dataset
  runpod-comfy batch workflow.json.jinja products.csv --samples 4 --grid cfg=3,5 -o out --dry-run
  runpod-comfy batch workflow.json.jinja --grid cfg=5..9/2 --grid prompt=@prompts.txt -o out -y
  runpod-comfy batch workflow.json.jinja products.csv -o out --max-cost 12 --price 1.10

\b
DATA is .csv (Excel's too), .jsonl, .parquet, or a folder of photos; its columns are the template's variables. The
columns id, seed and image are special. The same command again goes on where it ended and pays for nothing twice.
Exit codes: as of run; 1 where a row failed.""",
)
@click.argument("template", type=click.Path(path_type=Path), shell_complete=complete_template)
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--grid", "grid", multiple=True, metavar="NAME=VALUES", help="Vary a variable: 5,7,9 · 5..9/2 · 1..10#5 · @FILE."
)
@click.option("--zip", "zipped", is_flag=True, help="Take the grids' values together instead of all combinations.")
@variables_option("A variable for all rows, like its own flag; as of run.")
@click.option(
    "-n",
    "--samples",
    "num_samples",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Images for each row and cell.",
)
@batch_size_option
@click.option(
    "--seeds",
    default="per-row",
    show_default=True,
    metavar="same|per-row|N",
    help="Seeds; in a grid they are the same in all cells of a row.",
)
@click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path), default="dataset", show_default=True, help="The folder."
)
@click.option("--name", metavar="PATTERN", help="Name images so, such as '{sku}/{seed}.png', in place of by numbers.")
@click.option("--allow-split-words", is_flag=True, help="Let --name give names with test, val, train and the like.")
@click.option(
    "--sidecar", type=click.Choice(["txt", "json"]), help="Write a caption, or all columns, beside each image."
)
@click.option("--jobs", type=click.IntRange(1, 1000), default=8, show_default=True, metavar="N", help="Jobs at once.")
@click.option("--dry-run", is_flag=True, help="Show the plan and send nothing.")
@click.option("-y", "--yes", is_flag=True, help="Start without asking.")
@click.option(
    "--confirm-above",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Ask before more images than this.",
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    metavar="N",
    help="Refuse a plan with more images than this.",
)
@click.option(
    "--max-cost", "max_cost_usd", type=click.FloatRange(0, min_open=True), metavar="USD", help="Start nothing beyond."
)
@click.option("--max-gpu-seconds", "max_gpu_s", type=click.FloatRange(0, min_open=True), metavar="S", help="Likewise.")
@click.option(
    "--price",
    "price_per_hour_usd",
    type=click.FloatRange(0, min_open=True),
    metavar="USD",
    help="What a worker costs an hour; else the profile's.",
)
@click.option(
    "--on-interrupt",
    type=click.Choice(["cancel", "finish"]),
    default="cancel",
    show_default=True,
    help="At Ctrl-C, cancel all jobs, or let those that run finish.",
)
@click.option("--skip-bad", is_flag=True, help="Leave rows out that cannot be used.")
@click.option("--retry-failed/--no-retry-failed", default=True, show_default=True, help="Try failed rows again.")
@target_options()
@timeout_option("Give up a job after.")
@object_info_option("Node types, where TEMPLATE is a workflow as ComfyUI saves it.")
@output_options("batch")
@progress_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    target: Target,
    output: Output,
    template: Path,
    assignments: tuple[str, ...],
    batch_size: int | None,
    **options: Any,
) -> int:
    """Run TEMPLATE for every row of DATA and every cell of a grid, and make a dataset of what it gives.

    The variables of TEMPLATE are flags, as for run, and then the same in all rows.

    Shows what it will do before anything is paid for. Each image is on disk and in the manifest as soon as it arrives.
    """
    del options["object_info"]  # read when the template was opened
    variables = given_variables(ctx, assignments, options)
    # Loads what a run needs: `--help` and typing errors don't wait for it.
    from runpod_comfy.cli.dataset import DatasetCommand, DatasetOptions  # noqa: PLC0415 - see above

    opened = opened_template(ctx)
    asked = DatasetOptions(
        target=target,
        template=template,
        opened=opened,
        variables=variables,
        batch_size=batch_size or template_batch_size(opened),
        **options,
    )
    return DatasetCommand(asked, output).carry_out()
