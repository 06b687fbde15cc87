"""``runpod-comfy sheet``: contact sheets."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.options import output_options
from runpod_comfy.cli.verbs import HELP_OPTIONS, Verb
from runpod_comfy.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from runpod_comfy.cli.output import Output
    from runpod_comfy.dataset.tiles import Tile

__all__ = ["command"]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@click.command(
    cls=Verb,
    name="sheet",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy sheet dataset
  runpod-comfy sheet dataset --x sample --y id -o samples.jpg
  runpod-comfy sheet portrait --cell 128

\b
With --x and --y, what else varies (other variables, samples) gives a table of its own; with one of them it is the other
axis. An image that failed or is missing says why in its place. More than fits 64 million pixels goes to further files:
sheet-1.png, sheet-2.png, …""",
)
@click.argument("what", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="OUT|FOLDER|IMAGE...")
@click.option("--x", metavar="NAME", help="The variable whose values are columns; also seed, sample, id or a column.")
@click.option("--y", metavar="NAME", help="The variable whose values are rows.")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    default="sheet.png",
    show_default=True,
    help="The file.",
)
@click.option(
    "--cell", "cell_px", type=click.IntRange(32, 2048), default=256, show_default=True, metavar="N", help="Tiles' size."
)
@click.option("--columns", type=click.IntRange(min=1), metavar="N", help="Tiles side by side, where there are no axes.")
@click.option("--labels/--no-labels", default=True, show_default=True, help="Names below the tiles.")
@output_options("sheet", instead="in place of paths")
def command(*, what: tuple[Path, ...], target: Path, output: Output, **options: Any) -> int:
    """Draw the images of the dataset OUT, or of a FOLDER, or IMAGEs, side by side into one picture."""
    if target.suffix.lower() not in _FORMATS:
        raise click.BadParameter(f"{target} is neither .png, .jpg nor .webp.", param_hint="--output")
    tiles = _tiles(what, target)
    pages = _draw(tiles, target, title=" ".join(path.name or str(path.resolve().name) for path in what[:3]), **options)
    for page in pages:
        output.data(str(page))
    output.note(f"  {sum(bool(tile.paths) for tile in tiles):,} of {len(tiles):,} images on {len(pages)} page(s)")
    return output.succeed({"pages": [str(page) for page in pages], "tiles": len(tiles)})


def _tiles(what: Sequence[Path], target: Path) -> list[Tile]:
    from runpod_comfy.cli.arguments import find_images  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.dataset.tiles import tiles_of_dataset, tiles_of_files  # noqa: PLC0415 - likewise

    tiles: list[Tile] = []
    for path in what:
        if (path / "manifest.jsonl").is_file():
            tiles += tiles_of_dataset(path, num_samples=_num_samples(path))
        else:
            earlier = _earlier_sheets(target) if path.is_dir() else set()
            files = find_images([path])
            if files == [path] and not path.exists():
                raise InputError(f"There is no file {path}. Check the path.")
            tiles += tiles_of_files(each for each in files if each.resolve() not in earlier)
    if target.exists() and any(target.samefile(path) for tile in tiles for path in tile.paths[-1:] if path.exists()):
        raise ConfigurationError(f"{target} is one of the images. Name another file with -o.")
    if not tiles:
        raise ConfigurationError(f"{what[0]} has no images yet.")
    return tiles


def _earlier_sheets(target: Path) -> set[Path]:
    pages = target.parent.glob(f"{glob.escape(target.stem)}-*{target.suffix}") if target.parent.is_dir() else ()
    return {target.resolve(), *(page.resolve() for page in pages)}


def _num_samples(folder: Path) -> int:
    try:
        run = json.loads((folder / "run.json").read_text("utf-8"))
        return 0 if run.get("picked_from") else int(run["num_samples"])  # of what was not chosen, nothing is missing
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 1


def _draw(
    tiles: Sequence[Tile],
    target: Path,
    *,
    title: str,
    x: str | None,
    y: str | None,
    cell_px: int,
    columns: int | None,
    labels: bool,
) -> list[Path]:
    from runpod_comfy.dataset.sheet import SheetStyle, draw_pages  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.dataset.sheet_layout import lay_out, legend_of  # noqa: PLC0415 - likewise

    tables = lay_out(tiles, x=x, y=y, columns=columns)
    style = SheetStyle(title=title, cell_px=cell_px, labels=labels)
    pages: list[Path] = []
    for number, page in enumerate(draw_pages(tables, legend_of(tiles), style), 1):
        pages.append(_save(page, target.with_name(f"{target.stem}-{number}{target.suffix}")))
        del page  # before the next one is drawn: they are large
    if len(pages) == 1:
        return [pages[0].replace(target)]
    return pages


def _save(page: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 90} if path.suffix.lower() != ".png" else {"compress_level": 3}
    page.save(path, _FORMATS[path.suffix.lower()], **options)
    return path
