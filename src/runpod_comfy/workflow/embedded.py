"""The workflow that an image carries: ComfyUI writes it into what it saves.

A PNG has text chunks ``prompt`` (the graph that ran, in API format) and ``workflow`` (as the editor saves it). WebP,
JPEG and AVIF have the same in EXIF strings that begin with ``prompt:`` and ``workflow:``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from runpod_comfy.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["changed_inputs", "read_embedded"]

_KEYS: Final = ("prompt", "workflow")
_SHOWN: Final = 60  # characters of a value in a sentence


def read_embedded(path: Path) -> dict[str, Any]:
    """Return the workflow that an image carries: the graph that ran where it is there, else the editor's.

    Raises:
        TemplateError: It cannot be read, or carries none.
    """
    try:
        with Image.open(path) as image:
            texts = dict(_texts(image))
    except FileNotFoundError as exc:
        raise TemplateError(f"There is no file {path}.", template=path.name) from exc
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise TemplateError(f"The image {path} cannot be read: {exc}.", template=path.name) from exc
    for key in _KEYS:
        workflow = _parsed(texts.get(key, ""))
        if workflow:
            return _without_changes(workflow) if key == "prompt" else workflow
    raise TemplateError(
        f"{path.name} carries no workflow. ComfyUI writes one into what it saves, unless it was told not to "
        "(--disable-metadata) or a program on the way dropped it, as most chats and web sites do.",
        template=path.name,
    )


def changed_inputs(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what one graph has otherwise than another, as words: ``3 KSampler.steps: 20 → 25``."""
    for node_id in sorted(before.keys() | now.keys()):
        old, new = before.get(node_id), now.get(node_id)
        if not isinstance(old, dict) or not isinstance(new, dict):
            yield f"node {node_id} is {'new' if old is None else 'gone'}"
            continue
        title = f"{node_id} {new.get('class_type')}"
        if old.get("class_type") != new.get("class_type"):
            yield f"node {node_id}: {old.get('class_type')} → {new.get('class_type')}"
        inputs, others = old.get("inputs") or {}, new.get("inputs") or {}
        for name in sorted(inputs.keys() | others.keys()):
            if inputs.get(name) != others.get(name):
                yield f"{title}.{name}: {_short(inputs.get(name))} → {_short(others.get(name))}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    for key in _KEYS:
        if isinstance(text := image.info.get(key), str):
            yield key, text
    for value in image.getexif().values():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        key, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        if colon and key.lower() in _KEYS:
            yield key.lower(), rest.rstrip("\0")


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        # NaN stands in graphs of older versions, under a key that is dropped below.
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _without_changes(graph: dict[str, Any]) -> dict[str, Any]:
    """Return a graph that ran without what ComfyUI noted down in it while running."""
    return {
        node_id: {key: value for key, value in node.items() if key != "is_changed"} if isinstance(node, dict) else node
        for node_id, node in graph.items()
    }
