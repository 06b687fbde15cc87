"""Run ComfyUI workflows on GPUs you don't own: on RunPod Serverless, on your own ComfyUI, or on a local stand-in.

>>> from runpod_comfy import RunpodComfyWorkflowExecutor, WorkflowTemplate  # doctest: +SKIP
>>> executor = RunpodComfyWorkflowExecutor(endpoint="<RUNPOD_ENDPOINT_ID>", batch_size=8)
>>> images = executor.submit_workflow(WorkflowTemplate("workflow.json.jinja"), ["me.jpg"], num_samples=16)
>>> images.save("out")

All but the errors is imported when it is first used, so importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runpod_comfy._version import __version__
from runpod_comfy.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InputError,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobInUse,
    JobTimedOut,
    LedgerError,
    NotFound,
    OutputLost,
    PayloadTooLarge,
    ProtocolError,
    RateLimited,
    RunpodComfyError,
    ServerError,
    SubmissionUncertain,
    TemplateError,
    TransportError,
    WaitTimeout,
    WorkflowGraphError,
)

if TYPE_CHECKING:
    from runpod_comfy.dialects.description import PlaceDescription
    from runpod_comfy.events import (
        BatchFinished,
        Event,
        Finished,
        OutputReady,
        Progress,
        Queued,
        Started,
        Waiting,
        Warned,
    )
    from runpod_comfy.executors.base import WorkflowExecutor
    from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor
    from runpod_comfy.executors.fallback import FallbackExecutor
    from runpod_comfy.executors.handle import WorkflowHandle
    from runpod_comfy.executors.local import LocalWorkflowExecutor
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor
    from runpod_comfy.notebook import show_progress, show_progress_async
    from runpod_comfy.results import OutputFile, OutputText, Timings, WorkflowOutputImage, WorkflowResult
    from runpod_comfy.workflow.object_info import ObjectInfo
    from runpod_comfy.workflow.template import WorkflowTemplate
    from runpod_comfy.workflow.validate import Problem, validate_workflow

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BatchFinished",
    "ComfyServerWorkflowExecutor",
    "ConfigurationError",
    "Event",
    "FallbackExecutor",
    "Finished",
    "InputError",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobInUse",
    "JobTimedOut",
    "LedgerError",
    "LocalWorkflowExecutor",
    "NotFound",
    "ObjectInfo",
    "OutputFile",
    "OutputLost",
    "OutputReady",
    "OutputText",
    "PayloadTooLarge",
    "PlaceDescription",
    "Problem",
    "Progress",
    "ProtocolError",
    "Queued",
    "RateLimited",
    "RunpodComfyError",
    "RunpodComfyWorkflowExecutor",
    "ServerError",
    "Started",
    "SubmissionUncertain",
    "TemplateError",
    "Timings",
    "TransportError",
    "WaitTimeout",
    "Waiting",
    "Warned",
    "WorkflowExecutor",
    "WorkflowGraphError",
    "WorkflowHandle",
    "WorkflowOutputImage",
    "WorkflowResult",
    "WorkflowTemplate",
    "__version__",
    "show_progress",
    "show_progress_async",
    "validate_workflow",
]

_HOME_OF = {
    "PlaceDescription": "runpod_comfy.dialects.description",
    "BatchFinished": "runpod_comfy.events",
    "Event": "runpod_comfy.events",
    "Finished": "runpod_comfy.events",
    "OutputReady": "runpod_comfy.events",
    "Progress": "runpod_comfy.events",
    "Queued": "runpod_comfy.events",
    "Started": "runpod_comfy.events",
    "Waiting": "runpod_comfy.events",
    "Warned": "runpod_comfy.events",
    "WorkflowExecutor": "runpod_comfy.executors.base",
    "ComfyServerWorkflowExecutor": "runpod_comfy.executors.comfyui",
    "FallbackExecutor": "runpod_comfy.executors.fallback",
    "WorkflowHandle": "runpod_comfy.executors.handle",
    "LocalWorkflowExecutor": "runpod_comfy.executors.local",
    "RunpodComfyWorkflowExecutor": "runpod_comfy.executors.runpod",
    "show_progress": "runpod_comfy.notebook",
    "show_progress_async": "runpod_comfy.notebook",
    "OutputFile": "runpod_comfy.results",
    "OutputText": "runpod_comfy.results",
    "Timings": "runpod_comfy.results",
    "WorkflowOutputImage": "runpod_comfy.results",
    "WorkflowResult": "runpod_comfy.results",
    "WorkflowTemplate": "runpod_comfy.workflow.template",
    "ObjectInfo": "runpod_comfy.workflow.object_info",
    "Problem": "runpod_comfy.workflow.validate",
    "validate_workflow": "runpod_comfy.workflow.validate",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
