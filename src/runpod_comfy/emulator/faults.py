"""Faults on purpose: what a client or a worker of RunPod has to survive, planned per route.

>>> from runpod_comfy.emulator.faults import Fault, FaultPlan, Reset, Status
>>> plan = FaultPlan(
...     Fault("status", Status(503), times=2),  # the first two reads of /status
...     Fault("run", Reset(processed=True), after=1),  # the second POST /run: the job exists, the answer is lost
... )

A plan belongs to a platform (``Platform(…, faults=plan)``) and can grow while it runs. Requests meet it in one place
of the server; ``DropPiece`` and ``LateProgress`` act in the platform, so a worker in the same process meets them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from runpod_comfy.errors import ConfigurationError

__all__ = [
    "ROUTES",
    "Action",
    "Delay",
    "DropPiece",
    "Fault",
    "FaultPlan",
    "Html",
    "LateProgress",
    "RequestAction",
    "Reset",
    "Status",
    "Truncate",
]

CLIENT_ROUTES: Final = (
    "run",
    "runsync",
    "status",
    "status-sync",
    "stream",
    "cancel",
    "retry",
    "purge-queue",
    "health",
    "requests",
)
WORKER_ROUTES: Final = ("job-take", "job-take-batch", "job-done", "job-stream", "job-stop", "ping")
ROUTES: Final = CLIENT_ROUTES + WORKER_ROUTES


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with an HTTP status and a JSON body.

    Attributes:
        code: The status.
        processed: Whether the request takes effect before its answer is replaced.
        retry_after_s: The ``Retry-After`` header, in seconds, or None.
    """

    code: int
    processed: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Html:
    """Answer with an error page as the proxy in front of RunPod does.

    Attributes:
        code: The status: 502 and 524 are the proxy's own.
        processed: Whether the request takes effect before its answer is replaced.
    """

    code: int = 502
    processed: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection instead of answering.

    Attributes:
        processed: Whether the request takes effect before. With ``/run`` the job then exists and nobody knows its
            id; with ``/stream`` the pieces are gone.
    """

    processed: bool = False


@dataclass(frozen=True, slots=True)
class Truncate:
    """Send half of the answer's body and close the connection; the request takes effect."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer late.

    Attributes:
        delay_s: How long to wait, in seconds, before the request takes effect.
    """

    delay_s: float


@dataclass(frozen=True, slots=True)
class DropPiece:
    """Lose a streamed piece that the worker believes sent, as the SDK does after one connection reset.

    Attributes:
        index: Which piece of the job, counted from 0.
    """

    index: int


@dataclass(frozen=True, slots=True)
class LateProgress:
    """Let the job's last progress update overtake its result: it stays IN_PROGRESS with the progress as output.

    Seen on RunPod, since each update travels on a thread and a connection of its own (runpod-python#250).
    """


RequestAction: TypeAlias = Status | Html | Reset | Truncate | Delay
Action: TypeAlias = RequestAction | DropPiece | LateProgress


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule: on this route, do that.

    Attributes:
        route: A name of ``ROUTES``. ``DropPiece`` belongs to ``job-stream``, ``LateProgress`` to ``job-done``.
        action: What happens.
        times: How often it happens; None for always.
        after: How many matching requests (or pieces, or results) pass unharmed before.
        job: Only this job's requests; None for any.

    Raises:
        ConfigurationError: There is no such route, or the action cannot happen there.
    """

    route: str
    action: Action
    times: int | None = 1
    after: int = 0
    job: str | None = None

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise ConfigurationError(f"No route {self.route!r}; there are: {', '.join(ROUTES)}.")
        home = {DropPiece: "job-stream", LateProgress: "job-done"}.get(type(self.action), self.route)
        if self.route != home:
            raise ConfigurationError(f"{type(self.action).__name__} happens on {home!r}, not on {self.route!r}.")


class FaultPlan:
    """The faults to come and how often each has happened. Rules are tried in order; the first that applies acts."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = list(faults)
        self._seen: dict[int, int] = {}
        self._fired: dict[int, int] = {}

    def add(self, *faults: Fault) -> None:
        """Plan more faults."""
        self._faults += faults

    def clear(self) -> None:
        """Forget every fault and every count."""
        self._faults.clear()
        self._seen.clear()
        self._fired.clear()

    def fired(self, fault: Fault) -> int:
        """Return how often this very rule has acted: a test that plans a fault wants to know that it happened."""
        return sum(self._fired.get(index, 0) for index, planned in enumerate(self._faults) if planned is fault)

    def on_request(self, route: str, job_id: str | None) -> RequestAction | None:
        """Return what happens to this request, and count it."""
        for index, fault in enumerate(self._faults):
            action = fault.action
            if isinstance(action, DropPiece | LateProgress):
                continue
            if fault.route == route and self._applies(index, fault, job_id):
                return action
        return None

    def drops_piece(self, job_id: str, piece_index: int) -> bool:
        """Return whether this piece is lost, and count it."""
        return any(
            isinstance(fault.action, DropPiece)
            and fault.action.index == piece_index
            and self._applies(index, fault, job_id)
            for index, fault in enumerate(self._faults)
        )

    def overtakes_result(self, job_id: str) -> bool:
        """Return whether a progress update overtakes this job's result, and count it."""
        return any(
            isinstance(fault.action, LateProgress) and self._applies(index, fault, job_id)
            for index, fault in enumerate(self._faults)
        )

    def _applies(self, index: int, fault: Fault, job_id: str | None) -> bool:
        if fault.job is not None and fault.job != job_id:
            return False
        seen = self._seen[index] = self._seen.get(index, 0) + 1
        fired = self._fired.get(index, 0)
        if seen <= fault.after or (fault.times is not None and fired >= fault.times):
            return False
        self._fired[index] = fired + 1
        return True
