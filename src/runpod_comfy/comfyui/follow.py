"""Following prompts to their ends: the websocket says when to look, ``/history`` says what a prompt came to.

A socket can be lost, refused by a proxy, or open and silent (ComfyUI forgets the newer of two sockets with one client
id when the older closes). So the ends never hang on it: whenever it has nothing to say, ``/history`` is asked.

ComfyUI answers on one thread and computes on another. Where the second has died (a node that calls ``exit()`` ends it
without a word), the prompt runs for ever as far as ``/queue`` knows, like one in a long computation. Three things tell:

* this project's nodes, where ComfyUI has them, know whether the thread lives;
* a server that has prompts and runs none, twice in a row, has lost it between two prompts;
* else there is only patience: a prompt of ours that runs and of which a socket, once opened anew, has said nothing for
  ``FollowPace.stall_s`` counts as stuck, where somebody has set that.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runpod_comfy.comfyui.failures import ComputingStopped, ServerRestarted
from runpod_comfy.comfyui.messages import Connected, Lost, PromptEnded
from runpod_comfy.comfyui.outputs import HistoryEntry
from runpod_comfy.errors import JobCancelled, ProtocolError, RunpodComfyError, ServerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_comfy.comfyui.client import ComfyUIClient
    from runpod_comfy.comfyui.messages import Message

__all__ = ["FollowPace", "PromptFollower", "is_passing"]

logger = logging.getLogger(__name__)

_HISTORY_TRIES, _HISTORY_RETRY_S = 10, 0.05
_UNREADABLE_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowPace:
    """How patient a follower is, in seconds.

    Attributes:
        silent_s: A socket that has said nothing of our prompts for so long is not relied on.
        alone_s: How often ``/history`` is asked while there is no socket.
        queue_s: How often, at most, the queue is asked whether it still has our prompts: its answer holds every graph.
        give_up_s: No answer at all for so long means that ComfyUI is gone.
        stop_s: How long a run that is given up may take to take its prompts back.
        stall_s: A running prompt without any sign of life for so long will never end; None waits for ever. A node that
            loads a model, or waits for a service, gives no sign either.
    """

    silent_s: float = 3.0
    alone_s: float = 1.0
    queue_s: float = 15.0
    give_up_s: float = 60.0
    stop_s: float = 4.0
    stall_s: float | None = None


class PromptFollower:
    """Learns what prompts came to, in whatever way works.

    Args:
        client: The client that queues the prompts; its websocket is used by this follower alone.
        on_message: Gets each message of the websocket.
        pace: How patient to be.
    """

    def __init__(
        self, client: ComfyUIClient, *, on_message: Callable[[Message], None], pace: FollowPace | None = None
    ) -> None:
        self._client = client
        self._on_message = on_message
        self._pace = pace or FollowPace()
        self._open: dict[str, asyncio.Future[HistoryEntry]] = {}
        # Prompts whose end the websocket has told; one may be here before the answer to its POST.
        self._told: set[str] = set()
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._connected = False
        self._was_lost = False
        self._must_ask = True
        self._listener: asyncio.Task[None] | None = None
        self._now = asyncio.get_running_loop().time
        self._quiet_since = self._now()
        self._failing_since: float | None = None
        self._unreadable = 0
        self._next_queue_check = 0.0
        self._failed: Exception | None = None
        self._runs_none = False
        self._still_since: float | None = None
        self._asked_anew = False

    def follow(self, prompt_id: str) -> asyncio.Future[HistoryEntry]:
        """Return a future of the end of a prompt that ComfyUI has accepted; to be called in the order of the queue.

        Its error is JobCancelled or JobFailed where the prompt is gone without an end, and TransportError or another
        of the client's where ComfyUI no longer answers.
        """
        end = self._open[prompt_id] = asyncio.get_running_loop().create_future()
        # Where nobody is left to wait for it, its error is no message at exit.
        end.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._failed is not None:
            self._settle(prompt_id, self._failed)
        elif prompt_id in self._told:
            self._wake.set()
        return end

    async def ready(self) -> None:
        """Wait until the websocket is open, or could not be opened."""
        await self._ready.wait()

    def fail(self, error: Exception) -> None:
        """End every open prompt with this error, and all that are still to come."""
        self._failed = error
        for prompt_id in list(self._open):
            self._settle(prompt_id, error)

    async def run(self) -> None:
        """Follow until cancelled."""
        self._listener = asyncio.create_task(self._listen())
        try:
            while True:
                is_silent = await self._pause()
                asked_at = self._now()
                try:
                    await self._look(is_silent=is_silent)
                    self._failing_since, self._unreadable = None, 0
                except RunpodComfyError as exc:
                    self._bear(exc, since=asked_at)
        finally:
            await self._stop_listening()

    def _bear(self, error: RunpodComfyError, *, since: float) -> None:
        """Try again for a while, if that may help."""
        logger.info("%s", error)
        self._must_ask = True
        self._failing_since = since if self._failing_since is None else self._failing_since
        # A page of a proxy passes; an answer that cannot be read will not be read next time either.
        self._unreadable += isinstance(error, ProtocolError)
        is_over = self._now() - self._failing_since >= self._pace.give_up_s or self._unreadable >= _UNREADABLE_TRIES
        if is_over or not is_passing(error):
            self.fail(error)

    async def _pause(self) -> bool:
        """Wait until there is reason to look; True where that is the silence."""
        while not self._wake.is_set():
            limit_s = self._pace.silent_s if self._connected else self._pace.alone_s
            left_s = self._quiet_since + limit_s - self._now()
            if left_s <= 0:
                self._quiet_since = self._now()
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
        self._wake.clear()
        return False

    async def _listen(self) -> None:
        async with self._client.events() as messages:
            async for message in messages:
                match message:
                    case Connected():
                        self._connected, self._must_ask, self._next_queue_check = True, True, 0.0
                        self._wake.set()
                        self._ready.set()
                    case Lost():
                        self._was_lost = self._was_lost or self._connected
                        self._connected, self._must_ask = False, True
                        self._wake.set()
                        self._ready.set()
                    case PromptEnded(prompt_id=prompt_id):
                        self._told.add(prompt_id)
                        self._wake.set()
                if getattr(message, "prompt_id", None) is not None:
                    self._quiet_since = self._now()
                    self._still_since = None
                self._on_message(message)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    async def _listen_anew(self) -> None:
        logger.info("%s: the websocket is silent; opening another", self._client.origin)
        self._connected = False
        await self._stop_listening()
        self._listener = asyncio.create_task(self._listen())

    async def _look(self, *, is_silent: bool) -> None:
        """Ask for what has ended, or may have. ComfyUI runs one prompt at a time in the order of its queue."""
        must_ask, self._must_ask = self._must_ask or is_silent, False
        while self._open and (must_ask or not self._told.isdisjoint(self._open)):
            prompt_id = next(iter(self._open))
            entry = await self._history(prompt_id)
            if entry is None:
                # A later one that has ended is known by its own name.
                await self._look_at_told()
                if must_ask:
                    await self._look_at_queue()
                return
            if is_silent and self._connected and prompt_id not in self._told:
                # The socket is open and said nothing of this end. A new one may hear again.
                await self._listen_anew()
            self._settle(prompt_id, entry)

    async def _look_at_told(self) -> None:
        for prompt_id in [each for each in self._open if each in self._told]:
            entry = await self._history(prompt_id)
            self._told.discard(prompt_id)
            if entry is not None:
                self._settle(prompt_id, entry)

    async def _history(self, prompt_id: str) -> HistoryEntry | None:
        """Ask for a prompt's end, a few times where the websocket has told of it."""
        for _ in range(_HISTORY_TRIES if prompt_id in self._told else 1):
            entry = await self._client.history(prompt_id)
            if entry is not None:
                return HistoryEntry(entry)
            await asyncio.sleep(_HISTORY_RETRY_S if prompt_id in self._told else 0)
        return None

    async def _look_at_queue(self) -> None:
        """Find prompts that are gone and have not ended: deleted by somebody, or with a server that died."""
        if self._now() < self._next_queue_check:
            return
        accepted = list(self._open)
        running, pending = await self._client.queue()
        self._next_queue_check = self._now() + self._pace.queue_s
        alive = {*running, *pending}
        for prompt_id in [each for each in accepted if each not in alive]:
            # What leaves the queue is in the history by then.
            entry = await self._history(prompt_id)
            self._settle(prompt_id, entry or self._gone())
        if self._open:
            await self._check_computing(running, pending)

    async def _check_computing(self, running: list[str], pending: list[str]) -> None:
        """Fail where ComfyUI computes no more; the module's text says how that is known."""
        runs_none = not running and not self._open.keys().isdisjoint(pending)
        if await self._client.compute_thread_lives() is False or (runs_none and self._runs_none):
            self.fail(
                ComputingStopped(
                    f"ComfyUI at {self._client.origin} answers, and computes no more: its thread that computes has "
                    "ended. A node that calls exit() does that; ComfyUI's log may say more. Restart ComfyUI."
                )
            )
        self._runs_none = runs_none
        if self._pace.stall_s is not None:
            await self._check_stall(running, self._pace.stall_s)

    async def _check_stall(self, running: list[str], stall_s: float) -> None:
        if not self._connected or self._open.keys().isdisjoint(running):
            self._still_since, self._asked_anew = None, False
            return
        if self._still_since is None:
            self._still_since, self._asked_anew = self._now(), False
        still_s = self._now() - self._still_since
        if still_s >= stall_s:
            self.fail(
                ComputingStopped(
                    f"The prompt that runs in ComfyUI at {self._client.origin} has given no sign of life for "
                    f"{still_s:,.0f} s, and is taken to hang. If a node of yours takes longer without telling its "
                    "progress, raise the limit (WORKER_STALL_S)."
                )
            )
        elif still_s >= stall_s / 2 and not self._asked_anew:
            self._asked_anew = True
            await self._listen_anew()

    def _gone(self) -> RunpodComfyError:
        if self._was_lost or not self._connected:
            return ServerRestarted(
                f"ComfyUI at {self._client.origin} no longer knows the prompt: it was restarted, most likely after a "
                "crash, and its log says why. Run the workflow again."
            )
        return JobCancelled("Somebody removed the prompt from ComfyUI's queue before it had run.")

    def _settle(self, prompt_id: str, end: HistoryEntry | Exception) -> None:
        future = self._open.pop(prompt_id, None)
        self._told.discard(prompt_id)
        if future is None or future.done():
            return
        if isinstance(end, HistoryEntry):
            future.set_result(end)
        else:
            future.set_exception(end)


def is_passing(error: RunpodComfyError) -> bool:
    """Whether repeating a read may help."""
    return isinstance(error, (TransportError, ServerError, ProtocolError))
