"""What a caller asks for, as one value; and the one place where its arguments are named."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar, get_args

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.executors.arguments import (
    check_folder,
    check_images,
    check_pixels,
    check_seconds,
    check_variables,
)
from runpod_comfy.settings import shown_value
from runpod_comfy.submission import batches_needed
from runpod_comfy.workflow.template import WorkflowTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runpod_comfy.media.inputs import ImageSource

__all__ = ["OnLost", "OnUncertain", "WorkflowRequest", "request_method", "workflow_request"]

OnUncertain: TypeAlias = Literal["raise", "resubmit"]
OnLost: TypeAlias = Literal["rerun", "raise"]
_ON_UNCERTAIN = get_args(OnUncertain)
_ON_LOST = get_args(OnLost)

_P = ParamSpec("_P")
_Self = TypeVar("_Self")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRequest:
    """The arguments of one call; see :func:`workflow_request` for their meaning."""

    template: WorkflowTemplate
    input_images: tuple[ImageSource, ...] = field(default=(), repr=False)
    num_samples: int = 1
    batch_size: int | None = None
    seed: int | None = None
    randomize_seed: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    previews: bool = False
    input_max_pixels: int | None = None
    timeout_s: float | None = None
    output_dir: Path | None = None
    queue_timeout_s: float | None = None
    on_uncertain: OnUncertain = "raise"
    on_lost: OnLost = "rerun"


def workflow_request(
    workflow_template: WorkflowTemplate | str | os.PathLike[str],
    input_images: Iterable[ImageSource] | ImageSource | None = None,
    num_samples: int = 1,
    *,
    batch_size: int | None = None,
    seed: int | None = None,
    randomize_seed: bool = True,
    variables: Mapping[str, Any] | None = None,
    previews: bool = False,
    input_max_pixels: int | None = None,
    timeout: float | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    queue_timeout: float | None = None,
    on_uncertain: OnUncertain = "raise",
    on_lost: OnLost = "rerun",
    **more_variables: Any,
) -> WorkflowRequest:
    """Describe one run of a workflow; the arguments of all ``…_workflow`` methods.

    Args:
        workflow_template: The workflow, or the path of its template.
        input_images: PIL images, paths or bytes, in the order in which the template sees them.
        num_samples: How many images are wanted. The job runs ``ceil(num_samples / batch_size)`` batches.
        batch_size: Images in one batch (the template's ``batch_size``); None takes the executor's.
        seed: The first batch's seed, from 0 to 2**64 - 1; the next batches count up. None draws new ones.
        randomize_seed: False leaves the seeds as the workflow has them.
        variables: Further variables of the template; here also those whose names are arguments above.
        previews: Also return temporary images (PreviewImage nodes).
        input_max_pixels: Scale input images down to at most so many pixels (width x height).
        timeout: Seconds after which the job is cancelled and ``WaitTimeout`` is raised.
        output_dir: A folder to which files are written as they arrive, as the worker's original bytes; nothing there
            is overwritten. They then leave memory: ``.path`` says where each is, ``.data`` and ``.item`` read it.
        queue_timeout: Seconds after which a job that no worker has taken is cancelled and ``WaitTimeout`` is raised.
        on_uncertain: What happens where a submission was sent and never answered, so that it may or may not run:
            ``"raise"`` raises ``SubmissionUncertain``; ``"resubmit"`` sends it once more, which may pay for it twice.
        on_lost: What happens where batches of a job that ended well were lost on their way: ``"rerun"`` makes those
            again with the same seeds, in a job of their own; ``"raise"`` raises ``OutputLost``.
        more_variables: Further variables of the template, as keywords.

    Raises:
        ConfigurationError: An argument is out of range, or a variable is given twice.
        InputError: ``input_images`` is neither images nor an image.
        TemplateError: ``workflow_template`` is a path that cannot be read.
    """
    if not isinstance(workflow_template, WorkflowTemplate):
        if not isinstance(workflow_template, (str, os.PathLike)):
            raise ConfigurationError(
                f"workflow_template is {shown_value(workflow_template)}; it takes a WorkflowTemplate or the path of "
                "a file (WorkflowTemplate.from_workflow takes a graph)."
            )
        workflow_template = WorkflowTemplate(workflow_template)
    given = check_variables(variables)
    twice = sorted(given.keys() & more_variables.keys())
    if twice:
        raise ConfigurationError(f"Given twice, in variables= and as a keyword: {', '.join(twice)}.")
    batches_needed(num_samples, 1 if batch_size is None else batch_size)
    for name, value, choices in (("on_uncertain", on_uncertain, _ON_UNCERTAIN), ("on_lost", on_lost, _ON_LOST)):
        if value not in choices:
            raise ConfigurationError(f"{name} is {shown_value(value)}; it takes {' or '.join(map(repr, choices))}.")
    return WorkflowRequest(
        template=workflow_template,
        input_images=check_images(input_images),
        num_samples=num_samples,
        batch_size=batch_size,
        seed=seed,
        randomize_seed=randomize_seed,
        variables={**given, **more_variables},
        previews=previews,
        input_max_pixels=check_pixels("input_max_pixels", input_max_pixels),
        timeout_s=check_seconds("timeout", timeout),
        output_dir=check_folder("output_dir", output_dir),
        queue_timeout_s=check_seconds("queue_timeout", queue_timeout),
        on_uncertain=on_uncertain,
        on_lost=on_lost,
    )


def request_method(
    of: Callable[_P, WorkflowRequest],
) -> Callable[[Callable[[_Self, WorkflowRequest], _R]], Callable[Concatenate[_Self, _P], _R]]:
    """Give a method that takes a request the arguments that describe one.

    The arguments are thus named, documented and checked once, and no two methods can differ in them.
    """

    def decorate(method: Callable[[_Self, WorkflowRequest], _R]) -> Callable[Concatenate[_Self, _P], _R]:
        def call(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            return method(self, of(*args, **kwargs))

        functools.update_wrapper(call, method)

        described = inspect.signature(of)
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        returns = inspect.signature(method).return_annotation
        call.__signature__ = described.replace(  # type: ignore[attr-defined]  # functions have it, their type does not
            parameters=[own, *described.parameters.values()], return_annotation=returns
        )
        arguments = (inspect.getdoc(of) or "").partition("\n\n")[2]
        call.__doc__ = f"{inspect.getdoc(method)}\n\n{arguments}"
        return call

    return decorate
