"""``runpod-comfy gallery``: a dataset's page written anew, with the thumbnails that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.output import Output
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["command"]

_TOLD_EVERY = 1000


@click.command(
    cls=Verb,
    name="gallery",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy gallery dataset
  runpod-comfy gallery dataset --open
  runpod-comfy gallery dataset --single-file

\b
The page is OUT/gallery.html; it opens from disk, without a server or a network. `batch` writes it too, from its start
on. --single-file writes OUT/gallery-single.html, with small pictures inside, to send to somebody.""",
)
@click.argument("root", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--single-file", is_flag=True, help="Put small pictures into the page itself; at most 30 MB.")
@click.option("--open", "is_opened", is_flag=True, help="Open the page in a browser.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object to stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def command(*, root: Path, single_file: bool, is_opened: bool, as_json: bool, quiet: bool) -> int:
    """Write the page of the dataset OUT, to look through its images, compare and choose; its path goes to stdout."""
    output = Output(command="gallery", as_json=as_json, quiet=quiet)
    try:
        page, images, made = _write(root, output, single_file=single_file)
    except (RunpodComfyError, OSError) as exc:
        return output.fail(describe(exc))
    if is_opened:
        import webbrowser  # noqa: PLC0415 - few want it

        if not webbrowser.open(page.resolve().as_uri()):
            output.warn(f"no browser could be started; open {page} yourself.")
    output.data(str(page))
    output.next_step(f"{COMMAND_NAME} pick {root} selection.json      # what you choose and export there")
    return output.succeed({"page": str(page), "images": images, "thumbs_made": made})


def _write(root: Path, output: Output, *, single_file: bool) -> tuple[Path, int, int]:
    """Write the page and return its path, how many images there are, and how many thumbnails were made."""
    from runpod_comfy.dataset.folder import is_held  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.dataset.manifest import read_manifest  # noqa: PLC0415 - likewise
    from runpod_comfy.dataset.thumbs import make_thumbs, missing_thumbs  # noqa: PLC0415 - likewise
    from runpod_comfy.gallery.page import PAGE_NAME, Gallery, run_of  # noqa: PLC0415 - likewise
    from runpod_comfy.gallery.single import write_single_page  # noqa: PLC0415 - likewise

    tasks = read_manifest(root / "manifest.jsonl")
    gallery = Gallery(root=root, shown_as=str(root), run=run_of(root))
    wanted = missing_thumbs(root, tasks)
    if wanted:
        output.note(f"  {len(wanted):,} thumbnails are missing")
    made = make_thumbs(root, wanted, on_thumb=_teller(output, len(wanted)))
    if made < len(wanted):
        output.warn(f"{len(wanted) - made} images cannot be made small; the page shows them as they are.")
    if single_file:
        return write_single_page(gallery, tasks), _images(tasks), made
    if is_held(root):
        output.note("  a batch writes there and keeps the page up to date itself")
        return root / PAGE_NAME, _images(tasks), made
    return gallery.write(tasks), _images(tasks), made


def _images(tasks: Mapping[str, TaskRecord]) -> int:
    return sum(len(record.images) for record in tasks.values())


def _teller(output: Output, wanted: int) -> Callable[[int], None]:
    def tell(done: int) -> None:
        if done % _TOLD_EVERY == 0:
            output.note(f"  {done:,} of {wanted:,} thumbnails")

    return tell
