"""``runpod-comfy example``: the repository's examples, written to where somebody wants to try them."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.options import output_options
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from runpod_comfy.cli.output import Output

__all__ = ["command"]

_NAME = "portrait"
_TEMPLATE = "workflow.json.jinja"


@click.command(
    cls=Verb,
    name="example",
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  runpod-comfy example\n  runpod-comfy example ~/pictures",
)
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@output_options("example", instead="in place of paths")
def command(*, folder: Path, output: Output) -> int:
    """Write a portrait workflow and two photos into FOLDER (here, if none is given), to try things with.

    Files that exist are left as they are.
    """
    target = folder / _NAME
    written: list[str] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for source in sorted(_example_folder().iterdir(), key=lambda file: file.name != _TEMPLATE):
            path = target / source.name
            if not _write_missing(path, source.read_bytes()):
                output.warn(f"{path} exists and is another one; it is left as it is.")
            written.append(os.fspath(path))
            output.data(os.fspath(path))
    except OSError as exc:
        raise click.UsageError(f"{exc.filename or target}: {exc.strerror or exc}") from exc
    output.next_step(f"{COMMAND_NAME} run {target / _TEMPLATE} {target} -n 4")
    return output.succeed({"files": written})


def _write_missing(path: Path, data: bytes) -> bool:
    """Write a file where there is none; return whether it now is this one."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return path.read_bytes() == data
    return True


def _example_folder() -> Traversable:
    """Return the example's folder: in the wheel it is beside this module, in a checkout where people look for it."""
    packaged = resources.files("runpod_comfy.cli") / "_examples" / _NAME
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples" / _NAME
