"""The executor for a place that is named in one string."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runpod_comfy.executors.base import WorkflowExecutor

__all__ = ["connect"]

_FORMS = "It takes 'runpod://<ENDPOINT_ID>', the http:// or https:// address of a ComfyUI server, or 'local'."


def connect(target: str, options: Mapping[str, Any]) -> WorkflowExecutor:
    """Do what :meth:`WorkflowExecutor.connect` says."""
    scheme, separator, rest = target.strip().partition("://")
    # Each is imported alone: whoever runs on RunPod never loads the emulator.
    match scheme.lower(), bool(separator):
        case "runpod", True if rest.strip("/"):
            from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - see above

            return _made(RunpodComfyWorkflowExecutor, target, options, rest.strip("/"))
        case "http" | "https", True:
            from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor  # noqa: PLC0415 - see above

            return _made(ComfyServerWorkflowExecutor, target, options, target.strip())
        case "local", False:
            from runpod_comfy.executors.local import LocalWorkflowExecutor  # noqa: PLC0415 - see above

            return _made(LocalWorkflowExecutor, target, options)
    # Not shown where it may hold a password.
    shown = "That" if "@" in target else repr(target)
    meant = f" Did you mean 'runpod://{target}'?" if target.isascii() and target.isalnum() else ""
    raise ConfigurationError(f"{shown} names no place to run. {_FORMS}{meant}")


def _made(
    make: Callable[..., WorkflowExecutor], target: str, options: Mapping[str, Any], *named: str
) -> WorkflowExecutor:
    takes = [name for name, each in inspect.signature(make).parameters.items() if each.kind is each.KEYWORD_ONLY]
    if unknown := [name for name in options if name not in takes]:
        scheme = target.partition("://")[0]
        raise ConfigurationError(f"A {scheme} target does not take {', '.join(unknown)}=; it takes {', '.join(takes)}.")
    return make(*named, **options)
