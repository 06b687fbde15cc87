"""How far a workflow is, in a notebook: one output that is drawn again and again.

>>> from runpod_comfy import LocalWorkflowExecutor, show_progress  # doctest: +SKIP
>>> result = show_progress(LocalWorkflowExecutor().watch_workflow("workflow.json.jinja", num_samples=8))

It needs no widgets, and IPython only where it is loaded already: in a script, in a test or in a terminal nothing is
shown, and the result is the same.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Self

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.events import BatchFinished, Finished, Queued, Started, Tally, Waiting, Warned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from runpod_comfy.events import Event
    from runpod_comfy.results import WorkflowResult

__all__ = ["show_progress", "show_progress_async"]

_EVERY_S = 0.25
_SHOWN_WARNINGS = 3
_NO_RESULT = "The events ended without Finished: were they read before? Give what watch_workflow or a handle returns."


def show_progress(events: Iterator[Event]) -> WorkflowResult:
    """Read a workflow's events to their end, show how far it is where this is a notebook, and return the result.

    Interrupting the cell cancels the job, as everywhere.

    Args:
        events: What ``watch_workflow`` or a handle's ``events`` returns.

    Raises:
        ConfigurationError: They ended without a result.
    """
    try:
        with _Progress() as progress:
            for event in events:
                progress.add(event)
                if isinstance(event, Finished):
                    return event.result
    finally:
        # An interrupt may come while this draws, and then the generator knows nothing of it.
        if (close := getattr(events, "close", None)) is not None:
            close()
    raise ConfigurationError(_NO_RESULT)


async def show_progress_async(events: AsyncIterator[Event]) -> WorkflowResult:
    """Read a workflow's events to their end, show how far it is where this is a notebook, and return the result.

    Cancelling the task cancels the job.

    Args:
        events: What ``watch_workflow_async`` or a handle's ``events_async`` returns.

    Raises:
        ConfigurationError: They ended without a result.
    """
    try:
        with _Progress() as progress:
            async for event in events:
                progress.add(event)
                if isinstance(event, Finished):
                    return event.result
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
    raise ConfigurationError(_NO_RESULT)


class _Progress:
    """What is shown, and when it is drawn again."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_s = clock()
        self._drawn_s = float("-inf")
        self._tally = Tally(image_count=0, batch_count=1)
        self._job_id: str | None = None
        self._warnings: list[str] = []
        self._ended: str | None = None
        self._handle: Any = None
        self._display = _notebook_display()

    def __enter__(self) -> Self:
        if self._display is not None:
            self._handle = self._display(self, display_id=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self._ended = f"stopped: {exc or kind.__name__}"
            self._draw()

    def add(self, event: Event) -> None:
        """Note an event; draw if it is one that people wait for, or the last time is a while ago."""
        self._tally.add(event)
        match event:
            case Queued(job_id=job_id):
                self._job_id = job_id
            case Warned(message=message):
                self._warnings.append(message)
            case Finished():
                self._ended = "done"
            case _:
                pass
        matters = isinstance(event, Queued | Waiting | Started | BatchFinished | Warned | Finished)
        if matters or self._clock() - self._drawn_s >= _EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = self._clock()
        if self._handle is not None:
            with suppress(Exception):  # a kernel that is going away; the work matters, the picture of it does not
                self._handle.update(self)

    def __repr__(self) -> str:
        images = f"{self._tally.images} image{'' if self._tally.images == 1 else 's'}"
        seconds = f"{self._clock() - self._begun_s:.0f} s"
        job = f" · job {self._job_id}" if self._job_id else ""
        return f"{images} · {self._ended or self._tally.stage} · {seconds}{job}"

    def _repr_html_(self) -> str:
        fraction = 1.0 if self._ended == "done" else self._tally.fraction
        bar = f'<progress value="{fraction:.3f}" max="1" style="width:240px;vertical-align:middle"></progress>'
        more = len(self._warnings) - _SHOWN_WARNINGS
        warnings = [*self._warnings[:_SHOWN_WARNINGS], *([f"and {more} more warnings"] if more > 0 else [])]
        lines = "".join(f"<br>{escape(each)}" for each in warnings)
        return f'<div style="font:13px sans-serif">{bar} {escape(repr(self))}{lines}</div>'


def _notebook_display() -> Any:
    """Return IPython's ``display`` where a notebook's kernel runs this, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None  # a terminal would print each state
    from IPython.display import display  # noqa: PLC0415 - loaded already

    return display
