"""OpenTelemetry spans of a submission, where its API is installed; else nothing, and nothing is imported.

::

    runpod_comfy.workflow          from the call to its end: how many images, and what RunPod measured
    ├── runpod_comfy.submit        photos encoded, template rendered, sent, accepted
    ├── runpod_comfy.queue         accepted, and no worker yet; an event for each reason to wait
    ├── runpod_comfy.run           a worker has it; an event for each batch
    └── runpod_comfy.deliver       from the first output to the last byte

Their parent is the span that is current where the call is made, in the caller's thread or task. Each span has the job's
id. Prompts, photos and keys are in none.
"""

from __future__ import annotations

import asyncio
import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

from runpod_comfy._version import __version__
from runpod_comfy.events import BatchFinished, Finished, OutputReady, Progress, Queued, Started, Waiting, Warned

if TYPE_CHECKING:
    from types import TracebackType

    from runpod_comfy.events import Event
    from runpod_comfy.results import Timings, WorkflowResult

__all__ = ["Trace"]

_NAME: Final = "runpod_comfy"


class Trace:
    """The spans of one submission, opened and closed by its events.

    >>> with Trace("workflow", place="local") as trace:
    ...     trace.add(Queued(job_id="a1"))

    Args:
        what: What the outermost span is called.
        attributes: What it knows from the beginning.
    """

    def __init__(self, what: str, **attributes: Any) -> None:
        self._api = _opentelemetry()
        self._open: dict[str, Any] = {}
        self._job_ids: list[str] = []
        self._context: Any = None
        if self._api is not None:
            root = self._begin(what, kind=self._api.SpanKind.CLIENT, **attributes)
            self._context = self._api.set_span_in_context(root)
            self._root = root
            self._begin("submit")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if self._api is None:
            return
        if isinstance(exc, (asyncio.CancelledError, GeneratorExit)):
            self._root.set_attribute(f"{_NAME}.left_early", True)
        elif exc is not None:
            self._root.record_exception(exc)
            self._root.set_status(self._api.StatusCode.ERROR, f"{type(exc).__name__}: {exc}")
        for name in reversed(list(self._open)):
            self._end(name)

    def add(self, event: Event | Timings) -> None:
        """Note an event."""
        if self._api is None:
            return
        match event:
            case Queued(job_id=job_id):
                self._accepted(job_id)
            case Waiting(reason=reason, message=message):
                self._note("queue", "waiting", reason=reason, message=message)
            case Started() | Progress() | OutputReady():
                self._works(event)
            case BatchFinished(batch=batch, gpu_s=gpu_s):
                self._note("run", "batch finished", batch=batch, gpu_s=gpu_s)
            case Warned(message=message):
                self._root.add_event("warning", {"message": message})
            case Finished(result=result):
                self._tell(result)

    def _accepted(self, job_id: str) -> None:
        self._job_ids.append(job_id)
        self._root.set_attributes({f"{_NAME}.job_id": job_id, f"{_NAME}.job_ids": self._job_ids})
        if "submit" in self._open:
            self._open["submit"].set_attribute(f"{_NAME}.job_id", job_id)
            self._end("submit")
            self._begin("queue")

    def _works(self, event: Started | Progress | OutputReady) -> None:
        if "queue" in self._open:
            self._end("queue")
            self._begin("run", worker_id=event.worker_id if isinstance(event, Started) else None)
        if isinstance(event, OutputReady) and "deliver" not in self._open:
            self._begin("deliver")

    def _tell(self, result: WorkflowResult) -> None:
        timings = result.timings
        told = {
            "submission_id": result.submission_id,
            "images": len(result),
            "files": len(result.files),
            "queue_s": timings.queue_s,
            "execution_s": timings.execution_s,
            "gpu_s": timings.gpu_s,
        }
        self._root.set_attributes({f"{_NAME}.{name}": value for name, value in told.items() if value is not None})

    def _note(self, span: str, name: str, **about: Any) -> None:
        if span in self._open:
            self._open[span].add_event(name, {key: value for key, value in about.items() if value is not None})

    def _begin(self, name: str, **attributes: Any) -> Any:
        kind = attributes.pop("kind", self._api.SpanKind.INTERNAL)
        about = {f"{_NAME}.{key}": value for key, value in attributes.items() if value is not None}
        if self._job_ids:
            about[f"{_NAME}.job_id"] = self._job_ids[-1]
        tracer = self._api.get_tracer(_NAME, __version__)
        span = tracer.start_span(f"{_NAME}.{name}", context=self._context, kind=kind, attributes=about)
        self._open[name] = span
        return span

    def _end(self, name: str) -> None:
        self._open.pop(name).end()


@lru_cache(maxsize=1)
def _opentelemetry() -> Any:
    """Return OpenTelemetry's module of traces, or None where it is not installed."""
    try:
        return importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None
