"""Run ComfyUI workflows on GPUs you don't own: on RunPod Serverless, on your own ComfyUI, or on a local stand-in.

>>> from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate  # doctest: +SKIP
>>> executor = RunpodComfyWorkflowExecutor(endpoint="<RUNPOD_ENDPOINT_ID>", batch_size=8)
>>> images = executor.submit_workflow(WorkflowTemplate("workflow.json.jinja"), ["me.jpg"], num_samples=16)
>>> images.save("out")

Public names are imported when they are first used, so importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runpod_comfy._version import __version__

if TYPE_CHECKING:
    from runpod_comfy.errors import *  # noqa: F403 - the whole tree, by its own __all__
    from runpod_comfy.events import (
        BatchFinished,
        Event,
        Finished,
        OutputReady,
        Progress,
        Queued,
        Started,
        Warned,
    )
    from runpod_comfy.executors.base import WorkflowExecutor
    from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor
    from runpod_comfy.executors.handle import WorkflowHandle
    from runpod_comfy.executors.local import LocalWorkflowExecutor
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor
    from runpod_comfy.results import OutputFile, OutputText, Timings, WorkflowOutputImage, WorkflowResult
    from runpod_comfy.workflow.template import WorkflowTemplate

_HOMES = {
    "runpod_comfy.events": (
        "BatchFinished",
        "Event",
        "Finished",
        "OutputReady",
        "Progress",
        "Queued",
        "Started",
        "Warned",
    ),
    "runpod_comfy.executors.base": ("WorkflowExecutor",),
    "runpod_comfy.executors.comfyui": ("ComfyServerWorkflowExecutor",),
    "runpod_comfy.executors.handle": ("WorkflowHandle",),
    "runpod_comfy.executors.local": ("LocalWorkflowExecutor",),
    "runpod_comfy.executors.runpod": ("RunpodComfyWorkflowExecutor",),
    "runpod_comfy.results": ("OutputFile", "OutputText", "Timings", "WorkflowOutputImage", "WorkflowResult"),
    "runpod_comfy.workflow.template": ("WorkflowTemplate",),
    "runpod_comfy.errors": (
        "ApiError",
        "AuthenticationError",
        "ConfigurationError",
        "InputError",
        "JobCancelled",
        "JobError",
        "JobExpired",
        "JobFailed",
        "JobTimedOut",
        "NotFound",
        "OutputLost",
        "PayloadTooLarge",
        "ProtocolError",
        "RateLimited",
        "RunpodComfyError",
        "ServerError",
        "SubmissionUncertain",
        "TemplateError",
        "TransportError",
        "WaitTimeout",
        "WorkflowGraphError",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
