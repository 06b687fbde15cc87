"""What a worker says of itself: versions, node classes, models; no GPU work, and no job of ComfyUI's.

Asked for by ``{"input": {"describe": true}}``; ``{"describe": {"object_info": true}}`` adds every node's inputs, as
gzip in base64, since they are several megabytes of JSON.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeGuard

import orjson

from runpod_comfy._version import __version__
from runpod_comfy.dialects.native_request import PROTOCOL
from runpod_comfy.errors import ApiError, ProtocolError
from runpod_comfy.media.wire import to_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.comfyui.client import ComfyUIClient

__all__ = ["describe", "describe_comfyui", "wants_description"]

logger = logging.getLogger(__name__)

_MAX_MODELS_SHOWN = 20_000
_NOT_MODELS = frozenset({"custom_nodes", "configs"})


def wants_description(body: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a job's input asks for this instead of a workflow."""
    return isinstance(body, dict) and bool(body.get("describe")) and "workflow" not in body


async def describe(client: ComfyUIClient, body: Mapping[str, Any], *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description as JSON data.

    Args:
        client: The ComfyUI server.
        body: The job's input.
        facts: What the worker knows of itself: under ``worker`` its slots and the like, and further keys; passed on.

    Returns:
        ``worker`` (``version``, ``protocol``, …), ``comfyui`` (``version``, ``python``, ``devices``), ``node_classes``
        (names), ``custom_nodes`` (folder → classes), ``models`` (folder → files; absent from a ComfyUI that does not
        tell), on request ``object_info_gzip``, and the facts' other keys.

    Raises:
        TransportError: ComfyUI does not answer.
    """
    about, info = await describe_comfyui(client)
    about = {**facts, "worker": {"version": __version__, "protocol": PROTOCOL, **facts.get("worker", {})}, **about}
    wanted = body.get("describe")
    if isinstance(wanted, dict) and wanted.get("object_info"):
        about["object_info_gzip"] = await asyncio.to_thread(_packed, info)
    return about


async def describe_comfyui(client: ComfyUIClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ComfyUI's part of a description, and the inputs of all its nodes (``GET /object_info``).

    Raises:
        TransportError: It does not answer.
    """
    stats, info, models = await asyncio.gather(client.system_stats(), client.object_info(), _models(client))
    system = stats["system"]
    about: dict[str, Any] = {
        "comfyui": {
            "version": system.get("comfyui_version"),
            "python": system.get("python_version"),
            "pytorch": system.get("pytorch_version"),
            "devices": [_device(each) for each in stats.get("devices") or () if isinstance(each, dict)],
        },
        "node_classes": sorted(info),
        "custom_nodes": _custom_nodes(info),
    }
    if models is not None:
        about["models"] = models
    if system.get("stand_in"):
        about["comfyui"]["stand_in"] = True
    return about, info


async def _models(client: ComfyUIClient) -> dict[str, list[str]] | None:
    """Return the names of the model files by folder; None where ComfyUI is too old to be asked."""
    try:
        folders = [each for each in await client.models() if each not in _NOT_MODELS]
    except (ApiError, ProtocolError) as exc:
        logger.info("ComfyUI does not tell its models: %s", exc)
        return None
    found: dict[str, list[str]] = {}
    left = _MAX_MODELS_SHOWN
    for folder in folders:
        try:
            files = sorted(await client.models(folder))[:left]
        except (ApiError, ProtocolError):
            continue  # gone since
        if files:
            found[folder] = files
        left -= len(files)
    return found


def _custom_nodes(info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the classes of each folder of custom nodes, which ComfyUI names as ``custom_nodes.<folder>``."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, about in sorted(info.items()):
        module = about.get("python_module") if isinstance(about, dict) else None
        if isinstance(module, str) and module.startswith("custom_nodes."):
            found[module.removeprefix("custom_nodes.")].append(name)
    return dict(found)


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    return {key: device.get(key) for key in ("name", "type", "vram_total", "vram_free")}


def _packed(info: Mapping[str, Any]) -> str:
    return to_base64(gzip.compress(orjson.dumps(info), 6, mtime=0))
