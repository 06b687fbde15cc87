"""One job's request, in the words of the worker that will get it: the other side of ``answer``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runpod_comfy.dialects import native_request, worker_comfyui_request
from runpod_comfy.dialects.worker_comfyui_request import layout_of_first_batch, refuse_directories, without_previews
from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.inputs import name_inputs_flat
from runpod_comfy.workflow.seeds import with_seed

if TYPE_CHECKING:
    from runpod_comfy.dialects.base import WorkerKind
    from runpod_comfy.dialects.worker_comfyui_request import Layout
    from runpod_comfy.submission import Submission

__all__ = ["encode_request"]


def encode_request(submission: Submission, worker: WorkerKind | None) -> tuple[dict[str, Any], Layout]:
    """Return a job's ``input``, and what its answer will be read with.

    Args:
        submission: What to run.
        worker: Who gets it. None makes a request that each of them understands: it asks this project's worker for all
            batches, and worker-comfyui, which knows nothing of batches, for the first one.

    Raises:
        TemplateError: That worker cannot give a variable that the template used.
    """
    if worker == "worker-comfyui-4":
        submission = replace(submission, workflow=without_previews(submission.workflow))
    if worker in {"worker-comfyui", "worker-comfyui-4"}:
        return worker_comfyui_request.encode_request(submission)
    layout = layout_of_first_batch(submission)
    if worker is None:
        submission = _for_any(submission)
    return native_request.encode_request(submission), layout


def _for_any(submission: Submission) -> Submission:
    try:
        refuse_directories(submission)
    except TemplateError:
        return submission  # only this project's worker has a folder for its images
    workflow, images = name_inputs_flat(submission.workflow, submission.images)
    if workflow is submission.workflow:
        images = submission.images  # nothing loads them by name
    if submission.seeds:
        workflow = with_seed(workflow, submission.seeds[0])
    return replace(submission, workflow=workflow, images=images)
