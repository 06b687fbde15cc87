"""Checks of what a place has installed, against a template; and one small picture made from end to end."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from runpod_comfy._version import __version__
from runpod_comfy.cli.checkup.finding import fault, fine, skipped
from runpod_comfy.errors import JobError, ProtocolError, RunpodComfyError, WaitTimeout
from runpod_comfy.workflow.template import WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runpod_comfy.cli.checkup.finding import Finding
    from runpod_comfy.dialects.description import PlaceDescription
    from runpod_comfy.executors.base import WorkflowExecutor
    from runpod_comfy.results import WorkflowResult
    from runpod_comfy.workflow.validate import Problem

__all__ = ["check_description", "check_end_to_end", "check_problems", "describe_place"]

_SMALLEST = """{"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "doctor"}}}"""
_KINDS = {"unknown_node_type": "nodes", "missing_model": "models"}
_SHOWN = 3


def describe_place(executor: WorkflowExecutor, *, timeout_s: float) -> tuple[Finding, PlaceDescription | None]:
    """Ask a place what it has; on an endpoint that is a job without GPU work."""
    from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor  # noqa: PLC0415 - only where it is asked
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - likewise

    try:
        match executor:
            case ComfyServerWorkflowExecutor():
                about = executor.describe()
                return fine("worker", f"ComfyUI {about.comfyui_version or '(version unknown)'}"), about
            case RunpodComfyWorkflowExecutor():
                about = executor.describe(timeout=timeout_s)
            case _:
                return skipped("worker", "nothing to ask"), None
    except ProtocolError:
        # RunPod's own worker answers so, and runs workflows all the same.
        return fine("worker", "not this project's (RunPod's worker-comfyui?): it cannot tell what it has"), None
    except WaitTimeout:
        return skipped("worker", f"it has not answered within {timeout_s:.0f} s"), None
    except (JobError, RunpodComfyError) as exc:
        return fault("worker", f"it does not answer: {exc}", "runpod-comfy logs"), None
    text = f"native, {about.worker_version or '(version unknown)'} on ComfyUI {about.comfyui_version or '?'}"
    if about.worker_version and _release(about.worker_version) < _release(__version__):
        text += f" (this command is {__version__})"
    return fine("worker", text), about


def _release(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def check_description(about: PlaceDescription) -> Iterator[Finding]:
    """Look for what is wrong with a place by its own account: custom nodes that failed, models where nobody looks."""
    if about.failed_custom_nodes:
        names = ", ".join(about.failed_custom_nodes)
        yield fault("custom nodes", f"failed to import there: {names}", "runpod-comfy logs   says why")
    elif about.failed_custom_nodes is not None:
        yield fine("custom nodes", f"{len(about.custom_nodes)} loaded")
    if about.misplaced_models:
        folders = ", ".join(about.misplaced_models)
        first = about.misplaced_models[0].rpartition("/")
        yield fault(
            "volume",
            f"models lie in {folders}, where ComfyUI does not look",
            f"mkdir -p {first[0]}/models && mv {first[0]}/{first[2]} {first[0]}/models/{first[2]}"
            "   (on a pod the volume is /workspace)",
        )


def check_problems(problems: Iterable[Problem], place: str) -> Iterator[Finding]:
    """Say what of a template its place cannot run: one line for nodes, one for models, one for the rest."""
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.severity == "error":
            by_kind.setdefault(_KINDS.get(problem.code, "template"), []).append(problem)
    fixes = {
        "nodes": f"install the custom nodes that bring them at {place}, then: runpod-comfy describe",
        "models": "put them on the volume below models/ (serverless: /runpod-volume/models/…, a pod: "
        "/workspace/models/…)",
        "template": "runpod-comfy template validate TEMPLATE",
    }
    for kind, found in by_kind.items():
        shown = "; ".join(problem.message.partition(". ")[0].rstrip(".") for problem in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield fault(kind, f"{shown}{more}", fixes[kind])
    if not by_kind:
        yield fine("template", "every node and model that it names is there")


def check_end_to_end(executor: WorkflowExecutor, *, timeout_s: float) -> Finding:
    """Make one picture of 64 x 64 without any model, and say how long each part took."""
    template = WorkflowTemplate.from_string(_SMALLEST, name="doctor")
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = executor.submit_workflow(template, (), 1, timeout=timeout_s, output_dir=folder)
    except RunpodComfyError as exc:
        return fault("end to end", f"{exc}", "runpod-comfy logs" + (f" {exc.job_id}" if exc.job_id else ""))
    return fine("end to end", f"one image{_times(result)}")


def _times(result: WorkflowResult) -> str:
    timings = result.timings
    parts = [("queue", timings.queue_s), ("run", timings.execution_s)]
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts if seconds is not None)
    total = f" in {timings.total_s:.1f} s" if timings.total_s is not None else ""
    return total + (f" ({told})" if told else "")
