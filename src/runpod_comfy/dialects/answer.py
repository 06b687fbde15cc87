"""One job's answer, whichever worker gives it: the seam behind which nobody knows which one that is.

This project's worker streams lines; RunPod's worker-comfyui returns one object at the end. So nothing needs to be known
beforehand to read an answer: its shape tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runpod_comfy.dialects.native import NativeReader
from runpod_comfy.dialects.numbered import missing_batches
from runpod_comfy.dialects.worker_comfyui import WorkerComfyuiReader
from runpod_comfy.dialects.worker_comfyui_request import Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runpod_comfy.dialects.base import Heard, WorkerKind
    from runpod_comfy.dialects.native import RemoteError
    from runpod_comfy.dialects.numbered import Line

__all__ = ["AnswerReader"]


class AnswerReader:
    """Reads a job's pieces as they come, and then what its final status holds.

    Args:
        layout: What was sent, as worker-comfyui reads it; None for a job of another process, of which only what the
            answer itself says will be known.
        batch_count: How many batches the whole answer has, where no further job will bring what is missing.
    """

    def __init__(self, layout: Layout | None = None, *, batch_count: int | None = None) -> None:
        self._batch_count = batch_count
        self._native = NativeReader()
        self._official = WorkerComfyuiReader(layout or Layout())

    def resume(self, earlier: Iterable[Line]) -> None:
        """Count numbered lines as here that an earlier reader has put away; before anything is read."""
        self._native = NativeReader(earlier=earlier)

    @property
    def arrived(self) -> list[Line]:
        """The numbered lines that are here, in the order of arrival; it grows."""
        return self._native.arrived

    def missing_batches(self, batch_count: int) -> tuple[int, ...] | None:
        """Return the batches that are not whole; None where lines have no numbers to tell that by.

        Args:
            batch_count: How many the job has; 0 goes by what the worker said.
        """
        native = self._native
        count = batch_count or native.batch_count
        return missing_batches(native.arrived, count) if native.numbered and count and not native.lost else None

    @property
    def has_gap(self) -> bool:
        """Whether a line is missing that came before one that is here, so that it was lost on its way."""
        seqs = {line.seq for line in self.arrived}
        return bool(seqs) and len(seqs) <= max(seqs)

    @property
    def done(self) -> bool:
        """Whether the worker has said its last word, or every batch that it spoke of is here: little can still come."""
        return self._native.done or self.missing_batches(0) == ()

    @property
    def kind(self) -> WorkerKind | None:
        """Who answers, or None while that is not known."""
        return "native" if self._native.lines else self._official.kind

    @property
    def uses_bucket(self) -> bool:
        """Whether the worker puts its outputs into a bucket, so that no limit holds for its answers."""
        return self._official.uses_bucket

    @property
    def complete(self) -> bool:
        """Whether everything is here, whatever RunPod says of the job."""
        return self._native.complete or (self._official.complete and not self._left_out)

    @property
    def outputs(self) -> int:
        """How many outputs arrived whole, or are named with an address."""
        return self._native.outputs + self._official.outputs

    @property
    def gpu_s(self) -> float | None:
        """How long ComfyUI computed for the job, in seconds, or None where the worker does not say."""
        return self._native.gpu_s

    @property
    def numbered(self) -> bool:
        """Whether lines came that only this project's worker writes."""
        return self._native.numbered

    @property
    def description(self) -> dict[str, Any] | None:
        """What the worker said of itself, where it was asked."""
        return self._native.description or self._official.description

    @property
    def error(self) -> RemoteError | None:
        """What the worker said when it failed, or None."""
        return self._native.error or self._official.error

    @property
    def foreign(self) -> str | None:
        """What was streamed that no worker known here streams, where nothing else was."""
        return None if self._native.lines else self._native.foreign

    def describe_loss(self) -> str | None:
        """Say what is missing now that nothing more will come, or None where all is here."""
        return self._native.describe_loss() or self._official.describe_loss() or self._left_out

    @property
    def _left_out(self) -> str | None:
        run = len(self._official.layout.seeds)
        if self._official.kind is None or self._batch_count is None or run >= self._batch_count:
            return None
        return (
            f"the endpoint turned out to run RunPod's worker-comfyui, which has run {run} of {self._batch_count} "
            f"batches. It is known now; from another process pass worker={self._official.kind!r}"
        )

    def feed(self, pieces: list[Any]) -> Iterator[Heard]:
        """Take pieces that the job streamed and yield what they complete.

        Raises:
            ProtocolError: One of them is nothing that a worker known here streams.
        """
        for piece in pieces:
            yield from self._native.feed(piece)

    def finish(self, output: Any, error: str | None) -> Iterator[Heard]:
        """Take what the final status holds and yield what the stream did not bring.

        Raises:
            ProtocolError: As of :meth:`feed`.
        """
        native = self._native
        if isinstance(output, list):
            # All pieces again; a worker keeps them there only when told to.
            if not native.complete and (native.numbered or not native.lines):
                native.start_over()
                yield from self.feed(output)
        elif not native.lines:
            yield from self._official.finish(output, error)
