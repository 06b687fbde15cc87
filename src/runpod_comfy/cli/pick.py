"""``runpod-comfy pick``: the images that were chosen in the gallery, in a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.export import progress, show_result
from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.options import output_options
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.export.report import Result

__all__ = ["command"]


@click.command(
    cls=Verb,
    name="pick",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy pick dataset selection.json
  runpod-comfy pick dataset selection.json --stars 3 --to chosen
  runpod-comfy pick dataset mine.json theirs.json --to chosen

Of several files the most stars count, and what one of them rejects is out. The folder is a dataset again: the gallery
and export take it. Its files are hard links where the disk is the same, so they cost no space.""",
)
@click.argument("source", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("selections", metavar="SELECTION...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--stars", type=click.IntRange(0, 5), default=1, show_default=True, metavar="N", help="Take images with so many."
)
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="DIR", help="The folder to make.")
@click.option("--copy", "copied", is_flag=True, help="Copy files in place of linking, for programs that change them.")
@output_options("pick")
def command(
    *,
    source: Path,
    selections: tuple[Path, ...],
    stars: int,
    target: Path | None,
    copied: bool,
    output: Output,
) -> int:
    """Put images of the dataset OUT that SELECTIONs, exported by its gallery, give stars to into a new folder."""
    try:
        return show_result(_pick(source, selections, stars, target, output, copied=copied), output)
    except (RunpodComfyError, OSError) as exc:
        return output.fail(describe(exc))


def _pick(
    root: Path, selections: tuple[Path, ...], stars: int, target: Path | None, output: Output, *, copied: bool
) -> Result:
    from runpod_comfy.dataset.captions import Caption  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.export.pick import pick  # noqa: PLC0415 - likewise
    from runpod_comfy.export.placing import Placing, beside  # noqa: PLC0415 - likewise
    from runpod_comfy.export.report import Request  # noqa: PLC0415 - likewise
    from runpod_comfy.export.selection import chosen, read_selection  # noqa: PLC0415 - likewise
    from runpod_comfy.export.source import read_run, read_source  # noqa: PLC0415 - likewise

    run = read_run(root)
    choices = [each for path in selections for each in read_selection(path, run_id=run.get("id"))]
    wanted = chosen(choices, min_stars=stars)
    source = read_source(root, caption=Caption(run.get("caption")))
    output.note(f"  {len(wanted):,} of {len(source.pictures):,} images were chosen")
    target = target or beside(root, "picked")
    with progress(len(wanted), quiet=output.quiet) as on_image:
        return pick(source, wanted, Request(target=target, placing=Placing(copied=copied), on_image=on_image))
