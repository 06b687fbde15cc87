"""``runpod-comfy export``: a dataset in the format of another program."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.options import output_options
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runpod_comfy.cli.output import Output
    from runpod_comfy.export.report import Request, Result
    from runpod_comfy.export.source import Source

__all__ = ["command", "progress", "show_result"]

FORMATS = ("hf", "parquet", "webdataset", "kohya", "civitai", "csv")


@click.command(
    cls=Verb,
    name="export",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy export hf dataset --caption prompt
  runpod-comfy export kohya dataset --to train --caption "prompt ~ ', studio light'"
  runpod-comfy export webdataset dataset --to shards
  runpod-comfy export csv dataset --to for-the-client --strip-metadata --strip-inputs

\b
hf          images, metadata.jsonl and a card; without --to it brings the folder's own up to date
parquet     images within the table, as Hugging Face's hub stores them
webdataset  00000.tar with .png, .txt and .json, and 00000.parquet; a thousand images each
kohya       images and captions side by side in one folder, and a dataset.toml
civitai     PNGs with generation data that Civitai reads
csv         a table for spreadsheets, and the images

Files are hard links to the dataset's where nothing in them changes and the disk is the same: they cost no space.""",
)
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="DIR", help="The folder to make.")
@click.option("--caption", metavar="VARIABLE|EXPRESSION", help="What is written beside an image; else its prompt.")
@click.option("--strip-metadata", is_flag=True, help="Take workflow, prompt and all other metadata out of the files.")
@click.option("--strip-inputs", is_flag=True, help="Leave out the rows' ids and the columns that are no variables.")
@click.option("--copy", "copied", is_flag=True, help="Copy files in place of linking, for programs that change them.")
@output_options("export")
def command(*, form: str, source: Path, target: Path | None, output: Output, **options: Any) -> int:
    """Write the dataset in SOURCE, a folder that batch or pick made, in FORMAT; what has failed is left out."""
    if form == "hf" and target is None and (options["strip_metadata"] or options["strip_inputs"] or options["copied"]):
        raise click.UsageError("--strip-metadata, --strip-inputs and --copy need --to: the dataset itself stays whole.")
    try:
        return show_result(_export(form, source, target, output, **options), output)
    except (RunpodComfyError, OSError) as exc:
        return output.fail(describe(exc))


def _export(
    form: str,
    root: Path,
    target: Path | None,
    output: Output,
    *,
    caption: str | None,
    strip_metadata: bool,
    strip_inputs: bool,
    copied: bool,
) -> Result:
    from runpod_comfy.dataset.captions import Caption  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.export.placing import Placing, beside  # noqa: PLC0415 - likewise
    from runpod_comfy.export.report import Request  # noqa: PLC0415 - likewise
    from runpod_comfy.export.source import read_run, read_source  # noqa: PLC0415 - likewise

    made = Caption(caption or read_run(root).get("caption"))
    source = read_source(root, caption=made, strip_inputs=strip_inputs)
    if source.missing:
        output.warn(f"{source.missing:,} image(s) of the manifest are not on disk; batch makes them again.")
    if source.failed:
        output.note(f"  {source.failed:,} task(s) failed and have no image")
    if form == "hf" and target is None:
        from runpod_comfy.export.to_hf import refresh_in_place  # noqa: PLC0415 - likewise

        return refresh_in_place(source, caption=caption)
    with progress(len(source.pictures), quiet=output.quiet) as on_image:
        request = Request(
            target=target or beside(root, form),
            placing=Placing(copied=copied, stripped=strip_metadata),
            strip_inputs=strip_inputs,
            on_image=on_image,
        )
        return _exporter(form)(source, request)


def _exporter(form: str) -> Callable[[Source, Request], Result]:
    match form:
        case "hf":
            from runpod_comfy.export.to_hf import export_hf as export  # noqa: PLC0415 - one of them is needed
        case "parquet":
            from runpod_comfy.export.to_parquet import export_parquet as export  # noqa: PLC0415 - likewise
        case "webdataset":
            from runpod_comfy.export.to_webdataset import export_webdataset as export  # noqa: PLC0415 - likewise
        case "kohya":
            from runpod_comfy.export.to_kohya import export_kohya as export  # noqa: PLC0415 - likewise
        case "civitai":
            from runpod_comfy.export.to_civitai import export_civitai as export  # noqa: PLC0415 - likewise
        case _:
            from runpod_comfy.export.to_csv import export_csv as export  # noqa: PLC0415 - likewise
    return export


@contextmanager
def progress(images: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal while images are written; gives what to call after each."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=images, file=sys.stderr, label="  images", show_pos=True) as bar:
        yield lambda: bar.update(1)


def show_result(result: Result, output: Output) -> int:
    """Tell what was made; returns the exit code."""
    output.note(f"  {result.images:,} images in {result.path}")
    for warning in result.warnings:
        output.warn(warning)
    output.data(str(result.path))
    if result.next_step:
        output.next_step(result.next_step)
    return output.succeed({"path": str(result.path), "images": result.images, "warnings": list(result.warnings)})
