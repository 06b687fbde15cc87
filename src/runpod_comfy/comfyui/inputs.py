"""A submission's input images on their way into ComfyUI's input folder, and the graph made to find them there."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from runpod_comfy.workflow.inputs import localise_input_dirs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.media.inputs import InputImage
    from runpod_comfy.submission import Submission

__all__ = ["RELATIVE_INPUT_DIR", "input_dir_of", "prepare_inputs", "with_other_prefixes"]

RELATIVE_INPUT_DIR = "input"
"""What stands for the input folder where nobody knows its path; this project's LoadImagesFromDir understands it."""

_UPLOADS_AT_ONCE = 4


async def prepare_inputs(client: ComfyUIClient, submission: Submission, *, input_dir: str | None) -> dict[str, Any]:
    """Upload the images and return the graph with ComfyUI's own input folder in it.

    Args:
        client: The server.
        submission: The images and the graph.
        input_dir: ComfyUI's input folder; None asks the server's command line.
    """
    turns = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    async def upload(image: InputImage) -> None:
        async with turns:
            if not await client.holds_input(image.name, image.data, subfolder=image.subfolder):
                await client.upload(image.name, image.data, subfolder=image.subfolder)

    try:
        async with asyncio.TaskGroup() as uploads:
            for image in submission.images:
                uploads.create_task(upload(image))
    except ExceptionGroup as group:
        # Any one of them says what is wrong; the group is an implementation detail.
        raise group.exceptions[0] from None
    if not submission.subfolders:
        return submission.workflow
    if input_dir is None:
        input_dir = input_dir_of(await client.system_stats())
    return localise_input_dirs(submission.workflow, submission.subfolders, input_dir=input_dir)


def with_other_prefixes(graph: dict[str, Any], suffix: str) -> dict[str, Any] | None:
    """Return the graph with each literal ``filename_prefix`` lengthened, or None where it has none."""
    changed = {
        node_id: {**node, "inputs": {**node["inputs"], "filename_prefix": node["inputs"]["filename_prefix"] + suffix}}
        for node_id, node in graph.items()
        if isinstance(node["inputs"].get("filename_prefix"), str)
    }
    return {**graph, **changed} if changed else None


def input_dir_of(system_stats: Mapping[str, Any]) -> str:
    """Return the input folder that a server's command line names, or ``RELATIVE_INPUT_DIR``.

    A relative path on the command line starts at a folder that is not known here, so it does not count.
    """
    argv = system_stats.get("system", {}).get("argv")
    arguments = [str(each) for each in argv] if isinstance(argv, list) else []
    if folder := _option(arguments, "--input-directory"):
        return folder
    if base := _option(arguments, "--base-directory"):
        separator = "/" if PurePosixPath(base).is_absolute() else "\\"
        return base.rstrip("/\\") + separator + "input"
    return RELATIVE_INPUT_DIR


def _option(arguments: list[str], name: str) -> str | None:
    found = ""
    for position, argument in enumerate(arguments):
        if argument == name:
            found = next(iter(arguments[position + 1 :]), "")
        elif argument.startswith(f"{name}="):
            found = argument.removeprefix(f"{name}=")
    is_known = PurePosixPath(found).is_absolute() or PureWindowsPath(found).is_absolute()
    return found if is_known else None
