"""What a place says of itself, as a value: the answer to ``{"input": {"describe": …}}``, or what a server told."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.errors import ConfigurationError, ProtocolError
from runpod_comfy.media.wire import from_base64
from runpod_comfy.workflow.object_info import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Device", "PlaceDescription", "description_request", "read_description"]

_MAX_OBJECT_INFO_BYTES = 256 * 1024 * 1024
"""The largest that were seen have some 20 MB; a few KB of gzip can stand for gigabytes."""
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What ComfyUI computes on.

    Attributes:
        name: Its name, as PyTorch gives it.
        type: ``cuda``, ``cpu`` …; None where it was not told.
        vram_total_bytes: Its memory; None where it was not told.
        vram_free_bytes: What of it was free.
    """

    name: str
    type: str | None = None
    vram_total_bytes: int | None = None
    vram_free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceDescription:
    """What a RunPod endpoint or a ComfyUI server has, as one worker of it told.

    Attributes:
        place: The endpoint as ``runpod://<ENDPOINT_ID>``, or the server's address.
        worker_version: The version of this project's worker; None for a ComfyUI server.
        slots: How many jobs a worker takes at once; None where it was not told.
        comfyui_version: ComfyUI's version; None where it is too old to tell, as for those that follow.
        python_version: Its Python's.
        pytorch_version: Its PyTorch's.
        devices: What it computes on.
        node_classes: The names of all node classes, sorted.
        custom_nodes: The node classes that custom nodes brought, by their folders.
        failed_custom_nodes: Custom nodes that ComfyUI could not import; None where nobody watched it start.
        models: Model files by folder; None where ComfyUI is too old to tell.
        misplaced_models: Folders of the worker's volume that hold models where ComfyUI never looks.
        object_info: The inputs of all node classes, where they were asked for.
        is_stand_in: Whether a stand-in for ComfyUI answered, which runs nodes that it does not list.
    """

    place: str
    worker_version: str | None = None
    slots: int | None = None
    comfyui_version: str | None = None
    python_version: str | None = None
    pytorch_version: str | None = None
    devices: tuple[Device, ...] = ()
    node_classes: tuple[str, ...] = field(default=(), repr=False)
    custom_nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    failed_custom_nodes: tuple[str, ...] | None = None
    models: Mapping[str, tuple[str, ...]] | None = field(default=None, repr=False)
    misplaced_models: tuple[str, ...] = ()
    object_info: ObjectInfo | None = field(default=None, repr=False)
    is_stand_in: bool = False


def description_request(*, object_info: bool) -> dict[str, Any]:
    """Return the job's ``input`` that asks a worker to describe itself."""
    return {"describe": {"object_info": object_info}}


def read_description(
    about: Mapping[str, Any], *, place: str, object_info: Mapping[str, Any] | None = None
) -> PlaceDescription:
    """Read a description; what is missing or of another type was not told.

    Args:
        about: What the worker said, as its ``describe`` module writes it.
        place: Whose it is.
        object_info: The body of ``GET /object_info``, where it did not come in ``about``, packed.

    Raises:
        ProtocolError: There are no node classes in it, or what was packed is damaged.
    """
    worker, comfyui = _object(about.get("worker")), _object(about.get("comfyui"))
    if not isinstance(about.get("node_classes"), list):
        raise ProtocolError(f"{place} described itself without its node classes. Its worker is broken; deploy it anew.")
    packed = about.get("object_info_gzip")
    info = _unpacked(packed, place) if isinstance(packed, str) else object_info
    models, failed = about.get("models"), about.get("failed_custom_nodes")
    slots = worker.get("slots")
    return PlaceDescription(
        place=place,
        worker_version=_text(worker.get("version")),
        slots=slots if type(slots) is int else None,
        comfyui_version=_text(comfyui.get("version")),
        python_version=_text(comfyui.get("python")),
        pytorch_version=_text(comfyui.get("pytorch")),
        devices=tuple(_device(each) for each in comfyui.get("devices") or () if isinstance(each, dict)),
        node_classes=tuple(sorted(_texts(about["node_classes"]))),
        custom_nodes=_texts_by_name(about.get("custom_nodes")),
        failed_custom_nodes=_texts(failed) if isinstance(failed, list) else None,
        models=_texts_by_name(models) if isinstance(models, dict) else None,
        misplaced_models=_texts(about.get("misplaced_models")),
        object_info=None if info is None else _object_info(info, place),
        is_stand_in=comfyui.get("stand_in") is True,
    )


def _unpacked(packed: str, place: str) -> Any:
    try:
        unpacking = zlib.decompressobj(_GZIP)
        data = unpacking.decompress(from_base64(packed), _MAX_OBJECT_INFO_BYTES)
        if unpacking.eof:
            return orjson.loads(data)
    except (ValueError, zlib.error) as exc:
        raise ProtocolError(f"The node types that {place} told cannot be read: {exc}. Ask again.") from exc
    raise ProtocolError(
        f"The node types that {place} told are cut off, or over {_MAX_OBJECT_INFO_BYTES // 2**20} MiB. Ask again."
    )


def _object_info(data: Any, place: str) -> ObjectInfo:
    try:
        return ObjectInfo(data, source=f"what {place} told")
    except ConfigurationError as exc:
        raise ProtocolError(str(exc)) from exc


def _device(told: Mapping[str, Any]) -> Device:
    total, free = told.get("vram_total"), told.get("vram_free")
    return Device(
        name=_text(told.get("name")) or "unknown",
        type=_text(told.get("type")),
        vram_total_bytes=total if type(total) is int else None,
        vram_free_bytes=free if type(free) is int else None,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _texts_by_name(value: Any) -> dict[str, tuple[str, ...]]:
    return {str(name): _texts(each) for name, each in _object(value).items()}
