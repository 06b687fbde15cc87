"""``runpod-comfy rerun``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.arguments import find_images, spread_option
from runpod_comfy.cli.options import output_options, progress_option, target_options, timeout_option
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target

__all__ = ["command"]


class _RerunVerb(Verb):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread_option(args, "--image"))


@click.command(
    cls=_RerunVerb,
    name="rerun",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy rerun dataset#000001
  runpod-comfy rerun dataset#000001_0 --var prompt='a "noir" portrait'
  runpod-comfy rerun out/portrait_00001_.png --var cfg=9 --image portrait/*.jpg

\b
ComfyUI draws the noise of a whole batch at once, so the batch is made again and the image taken out of it. With nothing
changed, the pixels are compared. What cannot be restored is said: photos that are gone, a template that has changed,
and always the GPU and the versions of models and nodes.
Exit codes: as of run; 1 also where an image could not be made again.""",
)
@click.argument("what", nargs=-1, required=True, metavar="IMAGE|OUT#ROW|OUT#ROW_SAMPLE|OUT...")
@click.option(
    "--var", "assignments", multiple=True, metavar="NAME=VALUE", help="Change this; as of run. seed is one of them."
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Input images, in place of those that the dataset knows.",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    default="rerun",
    show_default=True,
    help="Folder for what is made; nothing in it is overwritten.",
)
@click.option("-y", "--yes", is_flag=True, help="Start more than 200 images without asking.")
@click.option("--all", "keep_all", is_flag=True, help="Keep the other images of a batch too.")
@target_options()
@timeout_option("Give up and cancel after.")
@output_options("rerun", instead="in place of paths")
@progress_option
def command(*, target: Target, output: Output, images: tuple[Path, ...], **options: Any) -> int:
    """Make images again: the same ones, or with one thing changed.

    IMAGE is a file that ComfyUI saved: it carries its workflow. OUT#ROW is a row of a dataset that `batch` made, by the
    number in its files' names, and OUT#ROW_SAMPLE one image of it; OUT is all of them, such as those chosen by `pick`.
    """
    # Loads what a run needs: `--help` and typing errors don't wait for it.
    from runpod_comfy.cli.remaking import Remaking, RerunOptions  # noqa: PLC0415 - see above

    asked = RerunOptions(target=target, images=tuple(find_images(images)) if images else None, **options)
    return Remaking(asked, output).carry_out()
