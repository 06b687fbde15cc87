"""One face for several places: the own server first, and what it has no room for goes to the next."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.failures import ServerRestarted
from runpod_comfy.errors import (
    ApiError,
    ConfigurationError,
    PayloadTooLarge,
    ProtocolError,
    RunpodComfyError,
    TemplateError,
    TransportError,
)
from runpod_comfy.events import BatchFinished, OutputReady, Queued, Started, Warned
from runpod_comfy.executors.base import WorkflowExecutor
from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor
from runpod_comfy.executors.parts import as_of_the_whole, batches_of
from runpod_comfy.executors.places import Place, Places
from runpod_comfy.results import Timings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import WorkflowRequest
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.submission import Submission

__all__ = ["FallbackExecutor"]

logger = logging.getLogger(__name__)

_OWN_SERVERS_LIMIT = 2
"""A ComfyUI server computes one workflow at a time; a second one waits in its queue, so that it never stands idle."""


class FallbackExecutor(WorkflowExecutor):
    """Runs each workflow at the first of several places that has room.

    >>> executor = FallbackExecutor([  # doctest: +SKIP
    ...     ComfyServerWorkflowExecutor("http://127.0.0.1:8188"),
    ...     RunpodComfyWorkflowExecutor("4m7x2k9q", max_concurrent_jobs=20),
    ...     RunpodComfyWorkflowExecutor("8h3n5t1z"),
    ... ])

    Each place gets as many jobs at once as its ``max_concurrent_jobs`` says: a ComfyUI server that says nothing two,
    an endpoint without bound. A place that cannot be reached or refuses is left out and tried again later, after 2 s
    at first and 60 s at most; the job goes to the next. What goes to several places is never done twice for money: a
    job that an endpoint has accepted, or may have, stays its own, whatever comes of it. Only a ComfyUI server's job
    moves on when the server goes away, with the batches that were not delivered yet. ``result.places`` says where it
    ran.

    Args:
        executors: The places, the preferred one first. They stay open when this is closed.
        batch_size: How many images a batch has where a call does not say.

    Raises:
        ConfigurationError: There is none, or one is there twice.
    """

    def __init__(
        self, executors: Iterable[WorkflowExecutor], *, batch_size: int = 1, max_concurrent_jobs: int | None = None
    ) -> None:
        super().__init__(batch_size=batch_size, max_concurrent_jobs=max_concurrent_jobs)
        self.executors = tuple(executors)
        if not self.executors:
            raise ConfigurationError("FallbackExecutor takes at least one executor.")
        if len(set(self.executors)) != len(self.executors):
            raise ConfigurationError(
                "FallbackExecutor was given an executor twice; give it once, with the sum as limit."
            )
        if any(isinstance(each, FallbackExecutor) for each in self.executors):
            raise ConfigurationError("A FallbackExecutor takes no other one: list all its executors in their order.")
        self._state: tuple[asyncio.AbstractEventLoop, Places[WorkflowExecutor]] | None = None

    @property
    def place(self) -> str:
        """The places in their order."""
        return ", ".join(each.place for each in self.executors)

    def __repr__(self) -> str:
        return f"FallbackExecutor([{', '.join(map(repr, self.executors))}], batch_size={self.batch_size})"

    async def _run(
        self, submission: Submission, request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        places, job = self._places(), _Job(submission)
        tried: set[Place[WorkflowExecutor]] = set()
        failures: list[str] = []
        error: RunpodComfyError | None = None
        while (place := await places.take(tried=tried)) is not None:
            tried.add(place)
            try:
                async with aclosing(job.run_at(place, request, shelf)) as run:
                    async for event in run:
                        yield event
            except RunpodComfyError as exc:
                if not job.may_move(place.what, exc):
                    raise
                if not isinstance(exc, (PayloadTooLarge, TemplateError)):
                    places.leave_out(place)
                error = exc
                failures.append(f"{place.name}: {exc}")
            else:
                return
            finally:
                places.give_back(place)
            yield Warned(message=f"{place.name} did not do the job, and it goes to the next place. {error}")
        assert error is not None  # noqa: S101 - there is a place, so one was tried
        raise _as_one(error, failures) from error

    def _places(self) -> Places[WorkflowExecutor]:
        """Return who has how many jobs; a process that forked has none yet."""
        loop = asyncio.get_running_loop()
        if self._state is None or self._state[0] is not loop:
            self._state = (loop, Places([Place(each, each.place, _limit(each)) for each in self.executors]))
        return self._state[1]


class _Job:
    """A submission on its way through places: what of it is still to be done, and what was told already."""

    def __init__(self, submission: Submission) -> None:
        self._submission = submission
        self._finished = 0
        self._accepted = False
        self._told: Counter[int | None] = Counter()

    async def run_at(
        self, place: Place[WorkflowExecutor], request: WorkflowRequest, shelf: Shelf | None
    ) -> AsyncGenerator[Event | Timings]:
        """Run what is left of it there, and yield what was not told yet."""
        first, batch_count = self._finished, self._submission.batch_count
        rest = batches_of(self._submission, range(first, batch_count))
        repeats = self._told.copy()
        self._accepted = False
        run = place.what._run(rest, request, None)  # noqa: SLF001 - a place is one of us
        del rest
        async with place.what._slots.taken(), aclosing(run):  # noqa: SLF001 - likewise
            async for told in run:
                event = as_of_the_whole(told, first=first, batch_count=batch_count)
                match event:
                    case Queued():
                        self._accepted = True
                        place.works()
                        if not isinstance(place.what, ComfyServerWorkflowExecutor):
                            # It stays there, so nobody needs its photos any more.
                            self._submission = replace(self._submission, images=())
                    case Started() if first or repeats:
                        continue
                    case BatchFinished():
                        # Batches end in their order.
                        self._finished = event.batch + 1
                    case OutputReady(output=output):
                        # The same batch with the same seed, from its beginning: what came before is passed over.
                        if repeats[output.origin.batch] > 0:
                            repeats[output.origin.batch] -= 1
                            continue
                        self._told[output.origin.batch] += 1
                if shelf is None or isinstance(event, Timings):
                    yield event
                    continue
                for kept in await asyncio.to_thread(shelf.put_all, (event,)):
                    yield kept

    def may_move(self, executor: WorkflowExecutor, error: RunpodComfyError) -> bool:
        """Whether the rest may be done elsewhere: what was accepted for money, or may have been, stays where it is."""
        if self._accepted:
            # An own server costs nothing: when it is gone, so is the work on it.
            return isinstance(executor, ComfyServerWorkflowExecutor) and isinstance(error, _SERVER_GONE)
        return isinstance(error, (*_NOT_TAKEN, *_DOES_NOT_FIT))


_SERVER_GONE = (TransportError, ApiError, ProtocolError, ServerRestarted)
_NOT_TAKEN = (TransportError, ApiError, ProtocolError)
_DOES_NOT_FIT = (PayloadTooLarge, TemplateError)
"""The place takes other work, though not this: too large, or a variable that it cannot give."""


def _limit(executor: WorkflowExecutor) -> int | None:
    is_server = isinstance(executor, ComfyServerWorkflowExecutor)
    return executor.max_concurrent_jobs or (_OWN_SERVERS_LIMIT if is_server else None)


def _as_one(error: RunpodComfyError, failures: list[str]) -> RunpodComfyError:
    """Return the last place's error, whose kind is for callers to handle, with what all of them said."""
    if len(failures) > 1:
        error.add_note("No place did the job. " + " | ".join(failures))
    return error
