"""Where input images lie: the client's idea of ComfyUI's input folder, replaced by the real one.

A client cannot know the folder of the ComfyUI that will run its workflow. It renders ``input_images_dir`` as
``<some folder>/input/<subfolder>``; whoever runs the workflow puts its own input folder in front.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runpod_comfy.media.inputs import InputImage

__all__ = ["InputNames", "localise_input_dirs", "name_inputs_flat"]


class InputNames(list[str]):
    """The names of a submission's photos; a template that asks for one too many is told how many there are."""

    def counted(self) -> str:
        """Return their number as words that a verb follows: ``1 input image was``."""
        return f"{len(self)} input image{' was' if len(self) == 1 else 's were'}"


def localise_input_dirs(workflow: dict[str, Any], subfolders: Sequence[str], *, input_dir: str) -> dict[str, Any]:
    """Return the workflow with ``<anything>/input/<subfolder>`` at the start of a string input made ``input_dir``'s.

    Nodes that need no change are shared with the original, which is never modified.

    Args:
        workflow: The graph in API format.
        subfolders: The subfolders that this submission's images go to; other paths are left alone.
        input_dir: ComfyUI's input folder, for example ``/comfyui/input``.
    """
    names = "|".join(re.escape(name) for name in subfolders if name)
    if not names:
        return workflow
    pattern = re.compile(rf"^(?:[^\n]*?[/\\])?input[/\\](?=(?:{names})(?:[/\\]|$))")
    replacement = input_dir.rstrip("/\\") + "/"

    def localised(value: Any) -> Any:
        return pattern.sub(lambda _: replacement, value, count=1) if isinstance(value, str) else value

    return _with_inputs(workflow, localised)


def name_inputs_flat(
    workflow: dict[str, Any], images: Sequence[InputImage]
) -> tuple[dict[str, Any], tuple[InputImage, ...]]:
    """Return the workflow and its images with ``<subfolder>-<name>`` for each ``<subfolder>/<name>``.

    That is for who cannot put an image into a subfolder. A subfolder's own name stands for its content, so the new
    name cannot be another image's.
    """
    moved = {f"{image.subfolder}/{image.name}": image for image in images if image.subfolder}
    if not moved:
        return workflow, tuple(images)
    # The longest first: one name may begin another.
    pattern = re.compile("|".join(re.escape(each) for each in sorted(moved, key=len, reverse=True)))

    def flat(value: Any) -> Any:
        return pattern.sub(lambda found: found[0].replace("/", "-"), value) if isinstance(value, str) else value

    renamed = tuple(
        replace(image, name=f"{image.subfolder}-{image.name}".replace("/", "-"), subfolder="") for image in images
    )
    return _with_inputs(workflow, flat), renamed


def _with_inputs(workflow: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the workflow with each input changed; nodes that need no change are shared with the original."""
    changed: dict[str, Any] = {}
    for node_id, node in workflow.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict):
            new_inputs = {name: change(value) for name, value in inputs.items()}
            if new_inputs != inputs:
                changed[node_id] = {**node, "inputs": new_inputs}
    return {**workflow, **changed} if changed else workflow
