"""What happens to a submission, as small frozen values made for ``match``.

>>> match event:  # doctest: +SKIP
...     case Progress(node_title=title, value=value, maximum=maximum):
...         print(title, value, maximum)
...     case OutputReady(output=WorkflowOutputImage() as image):
...         image.save("out/")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from runpod_comfy.results import Output, WorkflowResult

__all__ = [
    "BatchFinished",
    "Event",
    "Finished",
    "OutputReady",
    "Progress",
    "Queued",
    "Started",
    "Tally",
    "Waiting",
    "Warned",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The job is accepted and waits for a worker.

    Attributes:
        job_id: RunPod's id of the job (on a ComfyUI server: our submission id).
        place: Where it runs, as ``WorkflowExecutor.connect`` takes it, or None where that is not known.
    """

    job_id: str
    place: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The job waits for a worker, and this is why, as far as the endpoint tells.

    Attributes:
        reason: A word for programs: ``busy``, ``starting``, ``throttled``, ``unhealthy``, ``no_workers``,
            ``restarted`` or ``unknown``.
        message: A sentence for people, with what to do where something can be done.
        waited_s: How long the job has waited, in seconds.
    """

    reason: str
    message: str
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A worker has taken the job.

    Attributes:
        worker_id: RunPod's id of the worker, or None where it is not known.
        queue_s: How long the job waited, in seconds, or None.
    """

    worker_id: str | None = None
    queue_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A node of the workflow computes.

    Attributes:
        batch: The batch, counted from 0.
        batch_count: How many batches the job has.
        node_id: The node.
        node_title: The node's title, or its class.
        value: The step it is at; 0 where the node does not count steps.
        maximum: How many steps it has; 0 where the node does not count steps.
        preview: What the picture looks like by now, as a JPEG or PNG file; None unless previews were asked for.
    """

    batch: int
    batch_count: int
    node_id: str | None = None
    node_title: str | None = None
    value: int = 0
    maximum: int = 0
    preview: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReady:
    """One output is here, whole and checked."""

    output: Output


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFinished:
    """All outputs of a batch are here.

    Attributes:
        batch: The batch, counted from 0.
        batch_count: How many batches the job has.
        seed: The batch's seed, or None where the worker does not say.
        gpu_s: How long ComfyUI computed for it, in seconds, or None.
    """

    batch: int
    batch_count: int
    seed: int | None = None
    gpu_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that a careful reader should know, as a sentence."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Everything is here. The last event of every submission that does not raise."""

    result: WorkflowResult


Event: TypeAlias = Queued | Waiting | Started | Progress | OutputReady | BatchFinished | Warned | Finished


@dataclass(slots=True)
class Tally:
    """How far a job is.

    Attributes:
        image_count: How many images are expected.
        batch_count: How many batches the job has.
        images: How many have arrived.
        batches: How many batches are finished.
        stage: What is happening, in words.
        fraction: How much of the work is done, from 0 to 1; it never falls.
    """

    image_count: int
    batch_count: int
    images: int = 0
    batches: int = 0
    stage: str = "submitting"
    fraction: float = 0.0

    def add(self, event: Event) -> None:
        """Note what an event says."""
        match event:
            case Queued():
                at_comfyui = (event.place or "").startswith("http")
                self.stage = "waiting for its turn at ComfyUI" if at_comfyui else "waiting for a worker"
            case Waiting():
                self.stage = f"waiting: {event.reason.replace('_', ' ')}"
            case Started():
                self.stage = "starting"
            case Progress():
                self.batch_count = event.batch_count
                self.stage = f"batch {event.batch + 1} of {event.batch_count}"
                if event.node_title:
                    self.stage += f", {event.node_title}"
                if event.maximum > 1:
                    self.stage += f" {event.value}/{event.maximum}"
                    self._reach(event.batch + event.value / event.maximum)
            case OutputReady():
                self.images += 1
            case BatchFinished():
                self.batch_count = event.batch_count
                self.batches += 1
                self._reach(self.batches)
            case _:
                pass

    def __str__(self) -> str:
        return f"{self.images}/{self.image_count} images, {self.stage}"

    def _reach(self, batches: float) -> None:
        self.fraction = max(self.fraction, min(batches / self.batch_count, 1.0))
