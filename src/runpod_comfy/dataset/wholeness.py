"""Which batches of a task are whole, what is left to ask for, and under which number an image is kept.

A batch counts as whole if the manifest says so and all its files are there. Batches need not become whole in their
order: one whose lines were lost on the way is made again behind later ones, and a kill may come in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runpod_comfy.dataset.folder import OutputFolder
    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["SampleNumbers", "batches_in", "missing_stretches", "whole_batches"]


def batches_in(num_samples: int, batch_size: int) -> int:
    """Return how many batches make so many images; the last one is whole too."""
    return -(-num_samples // batch_size)


def whole_batches(record: TaskRecord | None, folder: OutputFolder) -> set[int]:
    """Return the batches whose files are all on disk."""
    if record is None:
        return set()
    return record.whole - {image["batch"] for image in record.images.values() if not folder.is_whole(image)}


def missing_stretches(whole: set[int], batch_count: int) -> Iterator[range]:
    """Yield the batches that are not whole, those that follow each other together: seeds count up within a job.

    >>> list(missing_stretches({1, 2}, 5))
    [range(0, 1), range(3, 5)]
    """
    first: int | None = None
    for batch in range(batch_count + 1):
        is_missing = batch < batch_count and batch not in whole
        if is_missing and first is None:
            first = batch
        elif not is_missing and first is not None:
            yield range(first, batch)
            first = None


class SampleNumbers:
    """Numbers a task's images: one of a batch that is made again gets the number that its place in the batch has had.

    >>> numbers = SampleNumbers(None, batch_size=2)
    >>> [numbers.next_of(batch) for batch in (1, 0, 1, 0, 0)]
    [2, 0, 3, 1, 4]

    Args:
        record: What the manifest says of the task so far.
        batch_size: Images in a batch; a workflow that saves more gets further numbers.
    """

    def __init__(self, record: TaskRecord | None, *, batch_size: int) -> None:
        self._batch_size = batch_size
        self._arrived: dict[int, int] = {}
        self._of_batch: dict[int, list[int]] = {}
        images = record.images if record else {}
        for sample, image in sorted(images.items()):
            self._of_batch.setdefault(image["batch"], []).append(sample)
        self._taken = set(images)

    def next_of(self, batch: int) -> int:
        """Return the number of the next image of a batch."""
        place = self._arrived.get(batch, 0)
        self._arrived[batch] = place + 1
        earlier = self._of_batch.get(batch, ())
        if place < len(earlier):
            return earlier[place]
        number = batch * self._batch_size + place
        if place >= self._batch_size or number in self._taken:
            number = max(self._taken, default=-1) + 1
        self._taken.add(number)
        return number
