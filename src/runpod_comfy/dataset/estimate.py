"""What is left of a dataset will take and cost, by what earlier jobs took. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["Estimate", "bytes_per_image", "estimate", "seconds_per_image"]

_FEW = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A range in which half of the earlier jobs lie.

    Attributes:
        low_s: Seconds of execution, as the quicker jobs took.
        high_s: As the slower ones took.
        job_count: How many jobs that goes by.
    """

    low_s: float
    high_s: float
    job_count: int

    def cost_usd(self, price_per_hour_usd: float) -> tuple[float, float]:
        """Return what the execution alone costs; RunPod also bills a worker's start and its idle time."""
        return self.low_s / 3600 * price_per_hour_usd, self.high_s / 3600 * price_per_hour_usd


def estimate(images: int, seconds: Sequence[float]) -> Estimate | None:
    """Return what so many images take, given what an image took in each earlier job; None where there was none.

    >>> estimate(100, [1.0, 2.0, 3.0, 4.0, 5.0])
    Estimate(low_s=150.0, high_s=450.0, job_count=5)
    """
    if not seconds:
        return None
    low, high = min(seconds), max(seconds)
    if len(seconds) >= _FEW:
        low, _, high = statistics.quantiles(seconds, n=4)
    return Estimate(low_s=images * low, high_s=images * high, job_count=len(seconds))


def seconds_per_image(tasks: Mapping[str, TaskRecord]) -> list[float]:
    """Return how long an image took in each job of a folder that ended well."""
    found = []
    for record in tasks.values():
        for line in record.done:
            seconds = line.get("execution_s") or line.get("gpu_s")
            made = sum(1 for image in record.images.values() if image.get("job_id") == line["job_id"])
            if seconds and made:
                found.append(seconds / made)
    return found


def bytes_per_image(tasks: Iterable[TaskRecord]) -> float | None:
    """Return how large an image is on average, or None where there is none."""
    sizes = [image["size_bytes"] for record in tasks for image in record.images.values()]
    return statistics.fmean(sizes) if sizes else None
