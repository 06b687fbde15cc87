"""Where a command gets node types from: a file, a ComfyUI server, or what was kept for a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runpod_comfy.errors import ConfigurationError, RunpodComfyError

if TYPE_CHECKING:
    from pathlib import Path

    from runpod_comfy.cli.targets import Target
    from runpod_comfy.workflow.object_info import ObjectInfo
    from runpod_comfy.workflow.object_info_cache import KeptObjectInfo

__all__ = ["NodeTypes", "find_node_types"]

_DESCRIBE = (
    "Nothing is known yet of what endpoint {name} has installed. Ask it, once: runpod-comfy describe --endpoint {name} "
    "(a job without GPU work, which may start a worker). Or give a file with its ComfyUI's answer to GET /object_info "
    "(--object-info FILE), or a ComfyUI server with the same nodes (--comfyui URL)."
)


class NodeTypes(NamedTuple):
    """Node types, and where they are from in words."""

    info: ObjectInfo
    origin: str


def find_node_types(target: Target, *, file: Path | None, needed: bool = False) -> NodeTypes | None:
    """Return the node types of a place to run.

    A file weighs most; then a ComfyUI server is asked, and what an endpoint told is looked up. A workflow that cannot
    be read without (``needed``) takes those of the ComfyUI on this machine where there are no others, and no endpoint
    was named with the command.

    Raises:
        ConfigurationError: The file is none, or nothing is known of the endpoint and it is needed.
        TransportError: The server that was named does not answer.
    """
    if file is not None:
        from runpod_comfy.workflow.object_info import ObjectInfo  # noqa: PLC0415 - most runs need no node types

        return NodeTypes(ObjectInfo.load(file), str(file))
    match target.kind:
        case "comfyui" if target.name:
            return _ask(target.name)
        case "runpod" if target.name:
            from runpod_comfy.executors.preflight import object_info_cache  # noqa: PLC0415 - see above
            from runpod_comfy.settings import endpoint_target  # noqa: PLC0415 - see above

            kept = object_info_cache().load(endpoint_target(target.name, target.base_url))
            if kept is not None:
                return NodeTypes(kept.info, f"endpoint {target.name}, as it was on {kept.fetched_at[:10]}")
            if needed and target.variable is None:
                raise ConfigurationError(_DESCRIBE.format(name=target.name))  # its node types were meant, and no others
    if not needed:
        return None
    from runpod_comfy.settings import DEFAULT_COMFYUI_URL  # noqa: PLC0415 - see above

    try:
        return _ask(DEFAULT_COMFYUI_URL)
    except RunpodComfyError as exc:
        if target.kind == "runpod":
            raise ConfigurationError(_DESCRIBE.format(name=target.name)) from exc
        return None


def _ask(url: str) -> NodeTypes:
    """Ask a ComfyUI server, and keep what it says for the runs that follow."""
    from runpod_comfy import _loop  # noqa: PLC0415 - see above
    from runpod_comfy.comfyui.client import ComfyUIClient  # noqa: PLC0415 - see above
    from runpod_comfy.executors.comfyui import keep_node_types  # noqa: PLC0415 - see above
    from runpod_comfy.serverless.connect import http_session  # noqa: PLC0415 - see above
    from runpod_comfy.settings import comfyui_url, shown_url  # noqa: PLC0415 - see above

    target = comfyui_url(url)

    async def ask() -> KeptObjectInfo:
        return await keep_node_types(ComfyUIClient(target, session=await http_session()), target=target)

    kept = _loop.run_sync(ask)
    return NodeTypes(kept.info, f"ComfyUI {kept.version} at {shown_url(target)}")
