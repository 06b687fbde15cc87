"""A template checked as a run would send it, without sending it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.media.inputs import encode_image, name_images
from runpod_comfy.submission import build_submission
from runpod_comfy.workflow.validate import validate_workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runpod_comfy.workflow.object_info import ObjectInfo
    from runpod_comfy.workflow.template import WorkflowTemplate
    from runpod_comfy.workflow.validate import Problem

__all__ = ["check_template"]


def check_template(
    template: WorkflowTemplate,
    info: ObjectInfo,
    *,
    images: Sequence[Path] = (),
    variables: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    limit_bytes: int | None = None,
) -> tuple[Problem, ...]:
    """Return what is wrong with a template, for these photos and values; see ``validate_workflow``.

    Raises:
        InputError: A photo cannot be read.
        TemplateError: It cannot be rendered.
        WorkflowGraphError: What it renders is no graph.
    """
    named = name_images([encode_image(path, label=path.name) for path in images]) if images else ()
    submission = build_submission(template, images=named, variables=variables, batch_size=batch_size)
    # In base64, as they travel.
    body_bytes = len(orjson.dumps(submission.workflow)) + sum(-(-len(image.data) // 3) * 4 for image in named)
    return validate_workflow(
        submission.workflow,
        info,
        source=template.name,
        input_images=[f"{image.subfolder}/{image.name}" for image in named],
        body_bytes=body_bytes,
        limit_bytes=limit_bytes,
    )
