"""What is sent: a rendered workflow, its inputs, its batches and their seeds, as one frozen value.

Everything here is pure: the caller brings encoded images, randomness and ids.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.settings import shown_value
from runpod_comfy.workflow.graph import check_graph
from runpod_comfy.workflow.inputs import InputNames
from runpod_comfy.workflow.seeds import draw_seeds, find_seed_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runpod_comfy.media.inputs import InputImage
    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["DEFAULT_COMFYUI_DIR", "MAX_BATCH_COUNT", "Submission", "batches_needed", "build_submission"]

DEFAULT_COMFYUI_DIR = "/comfyui"
"""ComfyUI's folder in a rendered ``input_images_dir``; the worker puts its own in its place."""

MAX_BATCH_COUNT = 10_000
"""More batches than this in one job are taken for a mistake: RunPod ends a job after 7 days at the latest."""

_MAX_COUNT = 10**9  # more is a slip, and JSON and ComfyUI take no number, however large


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One job's worth of work.

    Attributes:
        workflow: The graph in API format; node ids to nodes.
        images: The input images, each with the subfolder of ComfyUI's input folder it goes to.
        batch_count: How often the workflow runs.
        seeds: The seed of each batch; empty where the worker shall draw them (``randomize_seed``) or keep the
            workflow's own.
        randomize_seed: Whether seeds change from batch to batch.
        submission_id: Our id of it, which travels with the job.
        previews: Whether temporary (preview) images are wanted too.
        extra_data: What nodes may read beside the graph: ``extra_pnginfo`` goes into the files that ComfyUI saves. It
            may hold a key (``api_key_comfy_org``), so it is kept out of ``repr``.
        timeout_s: How long the worker may take for it, in seconds, waiting for its turn included; None sets no limit.
        warnings: What is worth knowing before paying, as sentences.
        first_seed: The template's ``seed``: of a part of a submission it is still that of the whole.
    """

    workflow: dict[str, Any] = field(repr=False)
    images: tuple[InputImage, ...] = ()
    batch_count: int = 1
    seeds: tuple[int, ...] = ()
    randomize_seed: bool = True
    submission_id: str = ""
    previews: bool = False
    extra_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None
    warnings: tuple[str, ...] = ()
    first_seed: int | None = None

    @property
    def subfolders(self) -> tuple[str, ...]:
        """The subfolders of the input images, each once."""
        return tuple(dict.fromkeys(image.subfolder for image in self.images if image.subfolder))


def batches_needed(num_samples: int, batch_size: int) -> int:
    """Return how many batches of ``batch_size`` make at least ``num_samples``.

    Raises:
        ConfigurationError: One of them is not a whole number from 1 to a billion, or there would be too many batches.
    """
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_COUNT:
            raise ConfigurationError(
                f"{name} is {shown_value(value)}; it takes a whole number from 1 to {_MAX_COUNT:,}."
            )
    count = -(-num_samples // batch_size)
    if count > MAX_BATCH_COUNT:
        raise ConfigurationError(
            f"num_samples={num_samples} in batches of {batch_size} is {count:,} batches in one job; "
            f"the limit is {MAX_BATCH_COUNT:,}. Submit several jobs, or raise batch_size."
        )
    return count


def build_submission(  # noqa: D417 - `template` needs no words
    template: WorkflowTemplate,
    *,
    images: Sequence[InputImage] = (),
    num_samples: int = 1,
    batch_size: int = 1,
    variables: Mapping[str, Any] | None = None,
    seed: int | None = None,
    randomize_seed: bool = True,
    previews: bool = False,
    submission_id: str = "",
    seeds: tuple[int, ...] | None = None,
    first_seed: int | None = None,
    rng: random.Random | None = None,
    comfyui_dir: str = DEFAULT_COMFYUI_DIR,
) -> Submission:
    """Render a template for these images and check the graph; nothing is sent.

    Args:
        images: Named input images (see ``media.name_images``), all in one subfolder.
        num_samples: How many images are wanted; the job makes ``ceil(num_samples / batch_size)`` batches.
        batch_size: The template's ``batch_size``.
        variables: The template's further variables.
        seed: The first batch's seed; the next ones count up from it. None draws them.
        randomize_seed: False leaves the workflow's own seeds as they are.
        previews: Ask for temporary (preview) images too.
        submission_id: Our id of the submission.
        seeds: The seed of each batch, where a submission is prepared once more; None draws them.
        first_seed: The template's ``seed``, likewise; None takes the first batch's.
        rng: Where drawn seeds come from.
        comfyui_dir: ComfyUI's folder in ``input_images_dir``. The worker replaces it by its own.

    Raises:
        ConfigurationError: ``num_samples``, ``batch_size`` or ``seed`` is out of range.
        TemplateError: The template cannot be rendered.
        WorkflowGraphError: What it renders is no graph that ComfyUI's API accepts.
    """
    batch_count = batches_needed(num_samples, batch_size)
    if seed is not None and not randomize_seed:
        raise ConfigurationError("seed= and randomize_seed=False exclude each other: give one of them.")
    subfolder = images[0].subfolder if images else ""
    if seeds is None:
        seeds = draw_seeds(batch_count, seed=seed, rng=rng or random.SystemRandom()) if randomize_seed else ()
    if variables and "batch_size" in variables:
        raise ConfigurationError(
            "batch_size is an argument of its own: give batch_size=…, not variables={'batch_size': …}."
        )
    given: dict[str, Any] = {
        "input_images": InputNames(
            f"{image.subfolder}/{image.name}" if image.subfolder else image.name for image in images
        ),
        "batch_size": batch_size,
    }
    if images or "input_images_dir" not in template.declarations:  # without photos a declared folder stays
        given["input_images_dir"] = f"{comfyui_dir}/input/{subfolder}" if subfolder else f"{comfyui_dir}/input"
    if first_seed is None and seeds:
        first_seed = seeds[0]
    if first_seed is not None and template.uses("seed"):
        given["seed"] = first_seed
    workflow = template.render({**given, **(variables or {})})
    graph = check_graph(workflow, source=template.name)
    seed_inputs = find_seed_inputs(workflow)
    return Submission(
        workflow=graph.data,
        images=tuple(images),
        batch_count=batch_count,
        seeds=seeds,
        first_seed=first_seed,
        randomize_seed=randomize_seed,
        submission_id=submission_id,
        previews=previews,
        warnings=tuple(
            _warnings(
                template,
                images=images,
                num_samples=num_samples,
                batch_count=batch_count,
                batch_size=batch_size,
                seed_changes=bool(seed_inputs) and randomize_seed,
            )
        ),
    )


def _warnings(
    template: WorkflowTemplate,
    *,
    images: Sequence[InputImage],
    num_samples: int,
    batch_count: int,
    batch_size: int,
    seed_changes: bool,
) -> list[str]:
    """Say what would be paid for and is probably not meant."""
    found = []
    made = batch_count * batch_size
    if made > num_samples and template.uses("batch_size"):
        found.append(f"{num_samples} sample(s) in batches of {batch_size} make {made} images: batches are whole.")
    if batch_count > 1 and not seed_changes:
        found.append(
            f"{batch_count} batches were asked for and no seed changes between them: ComfyUI would make the same "
            "images again, or none at all. Give the sampler's seed as a literal number in the template."
        )
    if images and not (template.uses("input_images_dir") or template.uses("input_images")):
        found.append(
            f"{len(images)} input image(s) were given, and the template uses neither {{{{ input_images_dir }}}} nor "
            "{{ input_images }}: they will have no effect."
        )
    if not images and template.uses("input_images_dir") and "input_images_dir" not in template.declarations:
        found.append(
            "the template reads {{ input_images_dir }} and no input image was given: its node gets the whole of "
            "ComfyUI's input folder, or refuses it. Name photos."
        )
    if batch_size > 1 and not template.uses("batch_size"):
        found.append(
            f"batch_size is {batch_size} and the template does not use {{{{ batch_size }}}}: each batch makes as many "
            "images as the workflow says, so there may be fewer images than num_samples."
        )
    return found
