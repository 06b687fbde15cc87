"""The files that one run makes on ComfyUI's machine: in a folder of its own, and gone when the run has ended.

ComfyUI's save nodes list their folder for each file, which takes 29 ms at 21,000 files, so a folder for each job also
keeps them fast. It is the literal ``filename_prefix`` of a node that leads there. Nobody sees it: the subfolder
reported is the workflow's own, and files keep the workflow's own prompt.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runpod_comfy.comfyui.folders import Folders
    from runpod_comfy.comfyui.outputs import FileRef

__all__ = ["JobFiles", "with_fresh_saves", "with_metadata"]

_PREFIX = "filename_prefix"
_CLOCK_SLACK_S = 2.0  # some file systems keep times in steps of two seconds

_KEPT = frozenset(
    {
        "CheckpointSave",
        "CLIPSave",
        "VAESave",
        "ModelSave",
        "SaveLoRA",
        "LoraSave",
        "SaveLoRANode",
        "ImageOnlyCheckpointSave",
    }
)
"""Nodes whose file is no output of the job but a model for later ones; nothing reports them, so nothing sends them."""


class JobFiles:
    """One run's files.

    Args:
        folders: ComfyUI's folders; None where they cannot be reached, so that files stay where they are.
    """

    def __init__(self, folders: Folders | None) -> None:
        self.folders = folders
        self._folder = f"rcc-{uuid.uuid4().hex[:12]}"
        self._reported: set[FileRef] = set()
        self._begun_at = time.time()

    def placed(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Return the graph with every literal ``filename_prefix`` below the job's folder.

        A prefix that leads out of the output folder is left alone, so that ComfyUI refuses it as it always does.
        """
        if self.folders is None:
            return graph
        changed = {
            node_id: _with_inputs(node, **{_PREFIX: f"{self._folder}/{prefix}"})
            for node_id, node in graph.items()
            if _stays_inside(prefix := node["inputs"].get(_PREFIX)) and node["class_type"] not in _KEPT
        }
        return {**graph, **changed} if changed else graph

    def subfolder_of(self, ref: FileRef) -> str:
        """Return the subfolder as the workflow knows it."""
        parts = ref.subfolder.replace("\\", "/").split("/")
        return "/".join(parts[1:]) if parts[0] == self._folder else ref.subfolder

    def note(self, refs: Iterable[FileRef]) -> None:
        """Remember files that the run made."""
        self._reported.update(refs)

    async def remove(self) -> set[Path]:
        """Remove everything that the run made; return the folders that it made it in, besides the job's own."""
        if self.folders is None:
            return set()
        reported = [ref for ref in self._reported if self.subfolder_of(ref) == ref.subfolder]
        not_before = self._begun_at - _CLOCK_SLACK_S
        return await asyncio.to_thread(self.folders.remove, self._folder, reported, not_before=not_before)


def with_fresh_saves(graph: dict[str, Any], node_ids: Iterable[str], suffix: str) -> dict[str, Any]:
    """Return the graph with these nodes changed so that ComfyUI runs them again, whatever it has cached.

    A literal ``filename_prefix`` is lengthened. Any other node gets an input that it does not know: ComfyUI's cache
    goes by all inputs, and hands a node only those that it declares (seen in 0.3.64).
    """
    changed = {}
    for node_id in node_ids:
        node = graph.get(node_id)
        if node is not None:
            prefix = node["inputs"].get(_PREFIX)
            fresh = {_PREFIX: f"{prefix}-{suffix}"} if isinstance(prefix, str) else {"_runpod_comfy": suffix}
            changed[node_id] = _with_inputs(node, **fresh)
    return {**graph, **changed}


def with_metadata(
    extra_data: Mapping[str, Any], *, prompt: dict[str, Any] | None, workflow: dict[str, Any] | None
) -> dict[str, Any]:
    """Return ``extra_data`` that makes files show these; the caller's own ``workflow`` wins.

    Save nodes write their hidden ``prompt`` first and then each entry of ``extra_pnginfo``; where a PNG has a keyword
    twice, readers (Pillow, ComfyUI's own) take the last.

    Args:
        extra_data: What the caller gives.
        prompt: The graph to show in place of the one that ComfyUI computes, or None.
        workflow: The same as ComfyUI's editor has it, or None.
    """
    given = extra_data.get("extra_pnginfo")
    ours = {"workflow": workflow, "prompt": prompt}
    shown = {
        **{name: value for name, value in ours.items() if value is not None},
        **(given if isinstance(given, dict) else {}),
    }
    return {**extra_data, "extra_pnginfo": shown} if shown else dict(extra_data)


def _stays_inside(prefix: object) -> bool:
    if not isinstance(prefix, str) or not prefix or "\0" in prefix:
        return False
    plain = posixpath.normpath(prefix.replace("\\", "/"))
    return plain not in {".", ".."} and not plain.startswith("../") and not os.path.isabs(plain) and ":" not in plain  # noqa: PTH117 - a string of another machine


def _with_inputs(node: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {**node, "inputs": {**node["inputs"], **inputs}}
