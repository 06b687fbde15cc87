"""A job followed to its end, and batches of it that were lost run again, with the same seeds, and only those.

Reads of ``/stream`` consume, so what a reset connection or a killed reader had taken is gone. The lines' numbers say
which batches that concerns. They become a submission of their own that names the first; what of them had arrived is
kept, and passed over when it comes again. What is lost of that one too is made again in turn, a few times at most:
a job whose output can never arrive must not be paid for for ever.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from runpod_comfy.dialects.answer import AnswerReader
from runpod_comfy.errors import ConfigurationError, InputError, OutputLost, TemplateError, WorkflowGraphError
from runpod_comfy.events import Queued, Started, Warned
from runpod_comfy.executors.cancelling import ownership
from runpod_comfy.executors.filing import Filing
from runpod_comfy.executors.following import follow_job
from runpod_comfy.executors.pages import digest_of
from runpod_comfy.executors.recording import Record
from runpod_comfy.executors.slots import bodies, estimated_body_bytes
from runpod_comfy.executors.waiting import with_waiting
from runpod_comfy.results import Timings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from runpod_comfy.events import Event
    from runpod_comfy.executors.accepting import Accepted, Desk
    from runpod_comfy.executors.filing import OutputKey
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.serverless.connect import EndpointLink
    from runpod_comfy.submission import Submission

    Again: TypeAlias = Callable[[tuple[int, ...]], Awaitable[Accepted]]

    Prepare: TypeAlias = Callable[..., Awaitable[Submission]]

__all__ = ["Following", "only_batches", "rerunning"]

_MOST_RERUNS = 3  # in one go; what is collected later may be tried again


def only_batches(submission: Submission, batches: tuple[int, ...], *, submission_id: str) -> Submission:
    """Return the part of a submission that makes these batches again, with their seeds.

    Raises:
        ConfigurationError: The seeds are not known, so that the batches would be others.
    """
    if submission.randomize_seed and len(submission.seeds) != submission.batch_count:
        raise ConfigurationError("The seeds of the lost batches are not known, so they cannot be made again.")
    seeds = tuple(submission.seeds[batch] for batch in batches) if submission.seeds else ()
    return replace(submission, batch_count=len(batches), seeds=seeds, submission_id=submission_id, warnings=())


def rerunning(desk: Desk, job: Accepted, *, prepare: Prepare, digest: str = "") -> Again:
    """Return what submits some of a job's batches once more.

    Args:
        desk: Where to, and what was asked for.
        job: The first job.
        prepare: Prepares a submission of a request, with given ``seeds`` and ``first_seed``.
        digest: What the work's digest must be; "" where the request is the very one of the first job.
    """
    request = replace(desk.request, num_samples=max(1, job.terms.batch_count) * desk.batch_size)

    async def again(batches: tuple[int, ...]) -> Accepted:
        async with bodies().lend(estimated_body_bytes(request.input_images)):
            whole = await prepare(request, seeds=job.seeds, first_seed=job.first_seed)
            if digest and await asyncio.to_thread(digest_of, whole) != digest:
                raise ConfigurationError(
                    f"The template {request.template.name} or its input images have changed since, so the lost "
                    "batches would be others."
                )
            own = tuple(job.numbers.index(batch) for batch in batches) if job.numbers else batches
            part = only_batches(whole, own, submission_id=uuid.uuid4().hex)
            del whole
            return await desk.submit(
                part,
                parent_id=job.root_id or job.submission_id,
                batches=batches,
                while_reading=None if job.record is None else job.submission_id,
            )

    return again


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How jobs are followed.

    Attributes:
        link: The endpoint.
        shelf: Where files go, or None to keep them in memory.
        owned: Whether it is our job: then ``Queued`` comes first, and it is cancelled when it is left before its end.
        place: What the endpoint is called in results.
        again: Submits some of the job's batches once more; None leaves a loss an error.
        queue_timeout_s: How long the job may wait for a worker, in seconds, or None.
    """

    link: EndpointLink
    shelf: Shelf | None = None
    owned: bool = True
    place: str | None = None
    again: Again | None = None
    queue_timeout_s: float | None = None

    async def events(self, job: Accepted, reader: AnswerReader | None = None) -> AsyncGenerator[Event | Timings]:
        """Yield what a job does until everything is here, lost batches made again included.

        Args:
            job: The job.
            reader: A fresh reader of its answer; None takes one that knows what was sent.

        Raises:
            JobError: It ended otherwise; the partial result is for the caller to add.
        """
        made = await self._made_before(job)
        # Held until all is made good: others would make again at once what is lost and seems to have no reader.
        async with AsyncExitStack() as held, aclosing(self._until_whole(job, reader, made, held)) as events:
            async for event in events:
                yield event

    async def _until_whole(
        self, job: Accepted, reader: AnswerReader | None, made: Counter[OutputKey], held: AsyncExitStack
    ) -> AsyncGenerator[Event | Timings]:
        """Yield what a job does, and then what those do that make its losses good."""
        filing = Filing(shelf=self.shelf, record=job.record, made=Counter(made), batches=job.numbers)
        announcement: Event | None = Queued(job_id=job.job_id, place=self.place) if self.owned else None
        current = job
        incomplete: list[Accepted] = []
        for rounds_left in reversed(range(_MOST_RERUNS + 1)):
            if current.record is not None:
                held.push_async_callback(current.record.release)
            try:
                async with aclosing(self._one(current, filing, reader, announcement=announcement)) as events:
                    async for event in events:
                        # To the caller it is one job, which begins once.
                        if not (incomplete and isinstance(event, Started)):
                            yield event
                break
            except OutputLost as exc:
                if self.again is None or not exc.missing_batches or not rounds_left:
                    raise
                loss = exc
            batches = tuple(filing.first_number(batch) for batch in loss.missing_batches)
            incomplete.append(current)
            made = made + await asyncio.to_thread(filing.made_so_far)
            current = await self._once_more(batches, loss)
            # Asked only now: a reader that this one took the job over from may have saved something until here.
            made |= await self._made_before(current)
            filing = Filing(
                shelf=self.shelf,
                record=current.record,
                made=Counter(made),
                batches=batches,
                batch_count=job.terms.batch_count,
            )
            reader, announcement = None, Warned(message=_rerun_words(loss, batches, current))
        for before in incomplete:
            if before.record is not None:
                await before.record.done(note=f"What was lost of it was made again by {current.submission_id}.")

    async def _made_before(self, job: Accepted) -> Counter[OutputKey]:
        async with AsyncExitStack() as stack:
            if self.owned:
                # Whoever is interrupted here owns the job already.
                await stack.enter_async_context(ownership(self.link, job.job_id, record=job.record))
            return await asyncio.to_thread(_made_before, job)

    async def _once_more(self, batches: tuple[int, ...], loss: OutputLost) -> Accepted:
        assert self.again is not None  # noqa: S101 - asked by the only caller
        try:
            return await self.again(batches)
        except (ConfigurationError, TemplateError, WorkflowGraphError, InputError) as exc:
            loss.args = (f"{loss} They were not made again: {exc}",)
            raise loss from exc

    async def _one(
        self, job: Accepted, filing: Filing, reader: AnswerReader | None, *, announcement: Event | None
    ) -> AsyncGenerator[Event | Timings]:
        """Follow one job; its page in the ledger says how it stands, and who reads it."""
        reader = reader or AnswerReader(job.layout, batch_count=job.terms.batch_count or None)
        async with AsyncExitStack() as stack:
            if self.owned:
                # Before anything is awaited: a job that was accepted must not be left behind.
                await stack.enter_async_context(ownership(self.link, job.job_id, record=job.record))
            if announcement is not None:
                yield announcement
            followed = follow_job(self.link, job.job_id, reader=reader, filing=filing, terms=job.terms)
            events = with_waiting(self.link, job.job_id, followed, queue_timeout_s=self.queue_timeout_s)
            noted = await stack.enter_async_context(self._noted(job))
            await stack.enter_async_context(aclosing(events))
            async for event in events:
                await noted(event)
                yield event

    @asynccontextmanager
    async def _noted(self, job: Accepted) -> AsyncIterator[Callable[[Event | Timings], Awaitable[None]]]:
        """Give what notes an event in the ledger; at the end it is noted how the job ended."""
        record = job.record
        gpu_s: float | None = None

        async def note(event: Event | Timings) -> None:
            nonlocal gpu_s
            if record is not None and isinstance(event, Started):
                await record.running()
            elif isinstance(event, Timings):
                gpu_s = event.gpu_s

        if record is None:
            yield note
            return
        async with AsyncExitStack() as stack:
            await record.reading()
            stack.push_async_exit(record.ends)
            yield note
            await record.done(gpu_s=gpu_s)


def _made_before(job: Accepted) -> Counter[OutputKey]:
    """Return what the first job and its other reruns have brought of what this one makes again. Blocks."""
    if job.record is None or job.root_id is None:
        return Counter()
    ledger = job.record.ledger
    others = [row.submission_id for row in ledger.reruns_of(job.root_id) if row.submission_id != job.submission_id]
    made: Counter[OutputKey] = Counter()
    for submission_id in (job.root_id, *others):
        made += Record(ledger, submission_id).made()
    return made


def _rerun_words(loss: OutputLost, batches: tuple[int, ...], again: Accepted) -> str:
    named = ", ".join(str(batch + 1) for batch in batches)
    return (
        f"{loss} Batch {named} is made again with the same seeds: job {again.job_id}, submission {again.submission_id}."
    )
