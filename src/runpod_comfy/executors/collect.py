"""Events become a result: the list that a caller receives, or the partial one that an error carries."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from runpod_comfy.events import BatchFinished, OutputReady, Queued, Started, Warned
from runpod_comfy.results import OutputFile, OutputText, Timings, WorkflowOutputImage, WorkflowResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runpod_comfy.events import Event

__all__ = ["Collector"]

_T = TypeVar("_T", bound=OutputFile | OutputText)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Collector:
    """Takes each event of a submission in turn and can give the result so far at any time."""

    submission_id: str = ""
    images: list[WorkflowOutputImage] = field(default_factory=list)
    files: list[OutputFile] = field(default_factory=list)
    texts: list[OutputText] = field(default_factory=list)
    seeds: dict[int, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    job_id: str | None = None
    job_ids: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)

    def add(self, event: Event | Timings) -> None:
        """Note what an event says."""
        match event:
            case OutputReady(output=output):
                self._add_output(output)
            case Queued(job_id=job_id, place=place):
                self.job_id = job_id
                self.job_ids.append(job_id)
                if place is not None and place not in self.places:
                    self.places.append(place)
            case Started(queue_s=float(queue_s)):
                self.timings = replace(self.timings, queue_s=queue_s)
            case BatchFinished(batch=batch, seed=seed, gpu_s=gpu_s):
                if seed is not None:
                    self.seeds[batch] = seed
                if gpu_s is not None:
                    self.timings = replace(self.timings, gpu_s=(self.timings.gpu_s or 0.0) + gpu_s)
            case Warned(message=message):
                self.warnings.append(message)
                logger.warning("job %s: %s", self.job_id, message, extra={"job_id": self.job_id})
            case Timings():
                self.timings = _merged(self.timings, event)

    @property
    def empty(self) -> bool:
        """Whether no output has arrived."""
        return not (self.images or self.files or self.texts)

    def result(self, *, total_s: float | None = None) -> WorkflowResult:
        """Return what has arrived so far."""
        return WorkflowResult(
            _by_batch(self.images),
            files=_by_batch(self.files),
            texts=_by_batch(self.texts),
            job_id=self.job_id,
            job_ids=self.job_ids,
            places=self.places,
            submission_id=self.submission_id,
            seeds=[seed for _, seed in sorted(self.seeds.items())],
            timings=replace(self.timings, total_s=total_s),
            warnings=self.warnings,
        )

    def _add_output(self, output: OutputFile | OutputText) -> None:
        match output:
            case WorkflowOutputImage():
                self.images.append(output)
            case OutputFile():
                self.files.append(output)
            case OutputText():
                self.texts.append(output)


def _by_batch(outputs: list[_T]) -> list[_T]:
    """Sort by batch, as far as workers say: several jobs' outputs come as each is done."""
    if any(output.origin.batch is None for output in outputs):
        return outputs
    return sorted(outputs, key=lambda output: output.origin.batch or 0)


def _merged(old: Timings, new: Timings) -> Timings:
    def pick(values: Iterable[float | None]) -> float | None:
        return next((value for value in values if value is not None), None)

    return Timings(
        queue_s=pick((new.queue_s, old.queue_s)),
        execution_s=pick((new.execution_s, old.execution_s)),
        gpu_s=pick((new.gpu_s, old.gpu_s)),
        total_s=pick((new.total_s, old.total_s)),
    )
