"""A submission's graph made to find its images in this ComfyUI's input folder."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runpod_comfy.comfyui.folders import option
from runpod_comfy.workflow.inputs import localise_input_dirs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.submission import Submission

__all__ = ["RELATIVE_INPUT_DIR", "input_dir_of", "localised_graph"]

RELATIVE_INPUT_DIR = "input"
"""What stands for the input folder where nobody knows its path; this project's LoadImagesFromDir understands it."""


async def localised_graph(client: ComfyUIClient, submission: Submission, *, input_dir: str | None) -> dict[str, Any]:
    """Return the graph with ComfyUI's own input folder in it.

    Args:
        client: The server.
        submission: The graph, and the subfolders of the images.
        input_dir: ComfyUI's input folder; None asks the server's command line.
    """
    if not submission.subfolders:
        return submission.workflow
    if input_dir is None:
        input_dir = input_dir_of(await client.system_stats())
    return localise_input_dirs(submission.workflow, submission.subfolders, input_dir=input_dir)


def input_dir_of(system_stats: Mapping[str, Any]) -> str:
    """Return the input folder that a server's command line names, or ``RELATIVE_INPUT_DIR``."""
    argv = system_stats.get("system", {}).get("argv")
    arguments = [str(each) for each in argv] if isinstance(argv, list) else []
    if folder := option(arguments, "--input-directory"):
        return folder
    if base := option(arguments, "--base-directory"):
        separator = "/" if PurePosixPath(base).is_absolute() else "\\"
        return base.rstrip("/\\") + separator + "input"
    return RELATIVE_INPUT_DIR
