"""The ledger and the watcher together, under hypothesis, on a clock that the test moves.

Nothing waits: the loop's time jumps to the next timer whenever nothing else is to do, so hours pass in milliseconds.
The endpoint is the emulator's platform without HTTP; between the two, answers are lost before or after the work.
"""

import asyncio
import contextlib
import hashlib
import random
import selectors
import tempfile
from collections import Counter
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.platform import Platform
from runpod_comfy.errors import JobError, JobInUse, NotFound, TransportError
from runpod_comfy.events import BatchFinished, OutputReady
from runpod_comfy.executors.accepting import Accepted
from runpod_comfy.executors.outcome import JobTerms
from runpod_comfy.executors.recording import Record
from runpod_comfy.executors.rerun import Following
from runpod_comfy.executors.shelf import Shelf
from runpod_comfy.ledger import ENDED, Entry, Ledger, State
from runpod_comfy.results import Origin, WorkflowOutputImage
from runpod_comfy.serverless.api import FINAL_STATES, JobStatus, StreamAnswer
from runpod_comfy.serverless.connect import EndpointLink
from runpod_comfy.serverless.habits import EndpointHabits

pytestmark = pytest.mark.one_python

BATCHES = 3


class VirtualSelector(selectors.SelectSelector):
    """Waits for nothing; what the loop would have waited passes at once."""

    def __init__(self):
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout=None):
        found = super().select(0)
        if not found and timeout:
            self.now_s += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is the selector's, and which does in place what others give to threads."""

    def __init__(self):
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self):
        return self._virtual.now_s

    def run_in_executor(self, _executor, work, *args):
        done = self.create_future()
        try:
            done.set_result(work(*args))
        except BaseException as exc:  # noqa: BLE001 - it is the caller's
            done.set_exception(exc)
        return done


def picture(seed):
    return b"\x89PNG\r\n\x1a\n" + hashlib.shake_128(str(seed).encode()).digest(30)


def answer(seeds):
    """The pieces of a worker's answer, as JSON: a picture and a batch's end for each seed, then the job's end."""
    writer = LineWriter()
    for batch, seed in enumerate(seeds):
        origin = Origin(batch=batch, seed=seed, node_id="9")
        image = WorkflowOutputImage(name="a.png", data=picture(seed), media_type="image/png", origin=origin)
        for told in (OutputReady(output=image), BatchFinished(batch=batch, batch_count=len(seeds), seed=seed)):
            yield from map(orjson.dumps, writer.event(told))
    yield from map(orjson.dumps, writer.done(gpu_s=1.0))


class Api:
    """What `EndpointApi` does, straight on the platform; `troubles` says what befalls the next requests."""

    endpoint_id = "e"

    def __init__(self, platform, troubles):
        self._platform = platform
        self._troubles = troubles

    async def _answer(self, work):
        await asyncio.sleep(0.01)
        trouble = self._troubles.pop(0) if self._troubles else None
        if trouble == "before":
            raise TransportError("reset")
        found = work()
        if trouble == "after":
            raise TransportError("reset")
        return found

    def _status(self, job_id):
        found = self._platform.status("e", job_id)
        return JobStatus(job_id=job_id, state=str(found.state), output=found.output, error=found.error)

    async def status(self, job_id):
        return await self._answer(lambda: self._status(job_id))

    async def status_sync(self, job_id, *, wait_s):
        until_s = asyncio.get_running_loop().time() + wait_s
        while (status := await self.status(job_id)).state not in FINAL_STATES:
            if asyncio.get_running_loop().time() >= until_s:
                break
            await asyncio.sleep(1.0)
        return status

    async def stream(self, job_id, take):
        def read():
            found = self._platform.read_stream("e", job_id)
            outputs = [orjson.loads(piece) for piece in found.pieces]
            return StreamAnswer(str(found.state), [take(outputs)] if outputs else [])

        return await self._answer(read)

    async def health(self):
        raise TransportError("it does not say")


async def ended(*tasks):
    await asyncio.gather(*tasks, return_exceptions=True)


def nothing_is_written(*_args, **_more):
    return [], None


class LedgerAndWatcher(RuleBasedStateMachine):
    """Jobs run, readers read and are killed, answers and pieces are lost, hours pass."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = Path(self.folder.name) / "out"
        self.loop = VirtualLoop()
        self.platform = Platform(EndpointConfig(endpoint_id="e", default_execution_timeout_s=600), clock=self.loop.time)
        self.platform.ping("e", "w", lasting=True)
        self.dead = set()
        self.ledgers = []
        self.troubles = []
        self.readers = {}  # submission: its task and its ledger
        self.pieces = {}  # job: what its worker has not sent yet
        self.jobs = {}  # submission: its job
        self.reruns = Counter()
        self.ends = {}
        self.submitted = 0
        self.book = self.process()
        self.somebody_submits_and_dies()

    def process(self):
        """A ledger as another process opens it."""
        ledger = Ledger(
            Path(self.folder.name) / "jobs.sqlite",
            clock=self.loop.time,
            alive=lambda holder, _: holder.holder_id not in self.dead,
        )
        self.ledgers.append(ledger)
        return ledger

    def let_pass(self, pause_s):
        self.loop.run_until_complete(asyncio.sleep(pause_s))
        self.platform.tick()

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        for row in self.book.submissions():
            event(f"{'a rerun' if row.entry.batches else 'a job'} is {row.state}")
        tasks = [task for task, _ in self.readers.values()]
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(ended(*tasks))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        for ledger in self.ledgers:
            ledger.close()
        self.folder.cleanup()

    def send(self, ledger, submission_id, seeds, **of_a_rerun):
        ledger.begin(
            Entry(
                submission_id=submission_id,
                endpoint_id="e",
                base_url="b",
                seeds=seeds,
                batch_count=len(seeds),
                output_dir=str(self.out),
                **of_a_rerun,
            )
        )
        job_id = self.platform.submit("e", b'{"input": {}}').job_id
        ledger.accepted(submission_id, job_id)
        self.jobs[submission_id] = job_id
        self.pieces[job_id] = list(answer(seeds))
        return job_id

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule()
    def somebody_submits_and_dies(self):
        if self.submitted == 3:
            return
        number = self.submitted
        self.submitted += 1
        self.send(self.book, f"s{number}", tuple(10 * number + batch for batch in range(BATCHES)))
        self.book.release(f"s{number}")

    @rule(
        count=st.integers(1, 12), lost=st.sets(st.integers(0, 11), max_size=2), pause_s=st.sampled_from([0.0, 1.0, 5.0])
    )
    def the_worker_works(self, count, lost, pause_s):
        self.platform.take("e", "w", limit=5)
        for job_id, pieces in self.pieces.items():
            for index in range(min(count, len(pieces))):
                piece = pieces.pop(0)
                if index not in lost:
                    self.platform.add_piece("e", "w", job_id, piece)
            if not pieces:
                self.platform.report("e", "w", job_id, b'{"output": []}')
        self.let_pass(pause_s)

    @rule(troubles=st.lists(st.sampled_from(["before", "after", None]), max_size=4))
    def the_network_has_a_bad_moment(self, troubles):
        self.troubles += troubles

    @rule(which=st.integers(0, 5), pause_s=st.sampled_from([0.0, 0.3, 2.0]))
    def somebody_begins_to_read(self, which, pause_s):
        free = [each for each in self.jobs if self.book.find(each).state not in ENDED]
        if not free:
            return
        submission_id = free[which % len(free)]
        ledger = self.process()
        held = self.book.held_elsewhere(submission_id)
        try:
            ledger.acquire(submission_id)
        except JobInUse:
            assert held
            return
        assert not held
        self.readers[submission_id] = (self.loop.create_task(self.read(submission_id, ledger)), ledger)
        self.let_pass(pause_s)

    async def read(self, submission_id, ledger):
        row = ledger.find(submission_id)
        root = ledger.find(row.entry.parent_id or submission_id)
        job = Accepted(
            job_id=row.job_id,
            submission_id=submission_id,
            seeds=row.entry.seeds,
            terms=JobTerms(batch_count=row.entry.batch_count, read_before=row.reads > 0),
            record=Record(ledger, submission_id),
            root_id=row.entry.parent_id,
            numbers=row.entry.batches,
        )

        async def again(batches):
            self.reruns[root.submission_id] += 1
            name = f"{root.submission_id}-again-{self.reruns[root.submission_id]}"
            seeds = tuple(root.entry.seeds[batch] for batch in batches)
            job_id = self.send(ledger, name, seeds, parent_id=root.submission_id, batches=batches)
            terms = JobTerms(batch_count=len(seeds))
            return Accepted(job_id=job_id, submission_id=name, seeds=seeds, terms=terms, record=Record(ledger, name))

        link = EndpointLink(Api(self.platform, self.troubles), EndpointHabits(rng=random.Random(0)))
        following = Following(link=link, shelf=Shelf.open(self.out), owned=False, again=again)
        with contextlib.suppress(JobError):
            async with contextlib.aclosing(following.events(job)) as events:
                async for _ in events:
                    pass

    @rule(
        which=st.integers(0, 5), lost=st.sets(st.integers(0, 6), max_size=2), first_s=st.sampled_from([0.0, 0.1, 0.35])
    )
    def a_reader_is_killed_while_a_job_ends(self, which, lost, first_s):
        self.the_worker_works(count=12, lost=lost, pause_s=0.0)
        self.somebody_begins_to_read(which=which, pause_s=first_s)
        self.a_reader_is_killed(which=which)

    @rule(which=st.integers(0, 5), lost=st.sets(st.integers(0, 6), max_size=1))
    def a_job_is_read_to_its_end(self, which, lost):
        self.somebody_begins_to_read(which=which, pause_s=0.3)
        self.the_worker_works(count=12, lost=lost, pause_s=5.0)
        self.the_worker_works(count=12, lost=set(), pause_s=5.0)

    @rule(which=st.integers(0, 5))
    def a_reader_is_killed(self, which):
        alive = [name for name, (task, _) in self.readers.items() if not task.done()]
        if not alive:
            return
        task, ledger = self.readers.pop(alive[which % len(alive)])
        # What is dead writes nothing any more, not even that it ends.
        self.dead.add(ledger.holder.holder_id)
        for method in ("now_is", "release", "keep", "placed", "reading", "accepted"):
            setattr(ledger, method, nothing_is_written)
        task.cancel()
        self.loop.run_until_complete(ended(task))

    @rule(pause_s=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
    def time_passes(self, pause_s):
        self.let_pass(pause_s)

    @rule(which=st.integers(0, 20))
    def a_job_expires(self, which):
        if which < len(self.jobs):  # seldom, or nothing else would happen
            with contextlib.suppress(NotFound):
                self.platform.expire("e", list(self.jobs.values())[which])

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def a_reader_ends_only_in_ways_that_callers_know(self):
        for task, _ in getattr(self, "readers", {}).values():
            assert not task.done() or task.cancelled() or task.exception() is None

    @invariant()
    def an_end_is_final(self):
        for submission_id in getattr(self, "jobs", ()):
            state = self.book.find(submission_id).state
            before = self.ends.get(submission_id)
            assert before in {None, state} or (before, state) == (State.INCOMPLETE, State.DONE)
            if state in ENDED:
                self.ends[submission_id] = state

    @invariant()
    def no_image_is_on_disk_twice_and_none_is_half(self):
        if not hasattr(self, "out") or not self.out.exists():
            return
        there = [path.read_bytes() for path in self.out.iterdir() if not path.name.startswith(".")]
        assert len(there) == len(set(there))
        assert set(there) <= {picture(seed) for row in self.book.submissions() for seed in row.entry.seeds}

    @invariant()
    def what_is_done_is_on_disk(self):
        for submission_id in getattr(self, "jobs", ()):
            row = self.book.find(submission_id)
            if row.state is State.DONE:
                there = {path.read_bytes() for path in self.out.iterdir()}
                assert {picture(seed) for seed in row.entry.seeds} <= there

    @invariant()
    def a_rerun_has_the_seeds_of_its_first(self):
        for row in self.book.submissions() if hasattr(self, "book") else ():
            if row.entry.batches is not None:
                first = self.book.find(row.entry.parent_id)
                assert row.entry.seeds == tuple(first.entry.seeds[batch] for batch in row.entry.batches)


LedgerAndWatcher.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestLedgerAndWatcher = LedgerAndWatcher.TestCase
