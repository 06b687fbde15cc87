"""Faults on purpose: what a client or a worker of RunPod has to survive, planned per route and per job.

>>> from runpod_comfy.emulator.fault_plan import FaultPlan
>>> from runpod_comfy.emulator.faults import Fault, Reset, Status
>>> plan = FaultPlan(
...     Fault("status", Status(503), times=2),  # the first two reads of /status
...     Fault("run", Reset(processed=True), after=1),  # the second POST /run: the job exists, the answer is lost
... )

A plan belongs to a platform (``Platform(…, faults=plan)``, or ``runpod_emulator.platform.faults`` in a test) and can
grow while it runs. Faults of requests happen in one place of the server; those of pieces and results happen in the
platform, so a worker in the same process meets them too. ``fault_plan.storm``
makes random faults on every route.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from runpod_comfy.errors import ConfigurationError

__all__ = [
    "CLIENT_ROUTES",
    "ROUTES",
    "Action",
    "Answer",
    "ClockJump",
    "Delay",
    "DropPiece",
    "DropReport",
    "DuplicatePiece",
    "Expire",
    "Fault",
    "Html",
    "LateProgress",
    "PieceAction",
    "Redirect",
    "RepeatPieces",
    "ReplaceReport",
    "ReportAction",
    "RequestAction",
    "Reset",
    "Status",
    "Truncate",
    "WorkerDies",
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

# -- requests ----------------------------------------------------------------------------------------------------------


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
class Answer:
    """Answer with a body of your own: what ``/health`` may say, or what no client should meet.

    Attributes:
        body: Bytes as they are, or a value that becomes JSON.
        code: The status.
        processed: Whether the request takes effect before its answer is replaced.
    """

    body: Any = field(repr=False)
    code: int = 200
    processed: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the client elsewhere, where its key must not go.

    Attributes:
        url: Where to.
        code: The status.
    """

    url: str
    code: int = 307
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
class Expire:
    """Forget the job before its request is answered, as at the end of its ``ttl`` or of its result's retention."""


@dataclass(frozen=True, slots=True)
class ClockJump:
    """Let the platform's clock jump ahead before the request is answered: whatever falls due happens.

    Attributes:
        jump_s: How far, in seconds.
    """

    jump_s: float


# -- pieces and results, also of a worker in the same process ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DropPiece:
    """Lose a streamed piece that the worker believes sent, as the SDK does after one connection reset.

    Attributes:
        index: Which piece of the job, counted from 0; None for any.
    """

    index: int | None = None


@dataclass(frozen=True, slots=True)
class DuplicatePiece:
    """Keep a streamed piece twice, as when the worker's request was sent again after its answer was lost.

    Attributes:
        index: Which piece of the job, counted from 0; None for any.
    """

    index: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerDies:
    """Let the worker die instead of sending a piece: its jobs are queued again, or FAILED after too many deaths.

    A worker in the same process is told to stop them, and takes the place of the one that follows.

    Attributes:
        index: At which piece of the job, counted from 0 over all its runs; None for any.
    """

    index: int | None = None


@dataclass(frozen=True, slots=True)
class RepeatPieces:
    """Answer a read of ``/stream`` and keep what it read for the next one as well."""


@dataclass(frozen=True, slots=True)
class DropReport:
    """Lose the job's result, as the SDK does after one connection reset: it stays IN_PROGRESS until it times out."""


@dataclass(frozen=True, slots=True)
class ReplaceReport:
    """Take another result in place of the job's own.

    Attributes:
        report: What the worker's SDK might send: ``{}`` is COMPLETED with no output, ``{"error": "…"}`` FAILED,
            ``{"output": {"status": "success_no_images", "images": []}}`` what RunPod's ComfyUI worker says.
    """

    report: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LateProgress:
    """Let the job's last progress update overtake its result: it stays IN_PROGRESS with the progress as output.

    Seen on RunPod, since each update travels on a thread and a connection of its own (runpod-python#250).
    """


RequestAction: TypeAlias = Status | Html | Answer | Redirect | Reset | Truncate | Delay | Expire | ClockJump
PieceAction: TypeAlias = DropPiece | DuplicatePiece | WorkerDies
ReportAction: TypeAlias = DropReport | ReplaceReport | LateProgress
Action: TypeAlias = RequestAction | PieceAction | ReportAction | RepeatPieces

_HOMES: Final[dict[type, str]] = {
    DropPiece: "job-stream",
    DuplicatePiece: "job-stream",
    WorkerDies: "job-stream",
    RepeatPieces: "stream",
    DropReport: "job-done",
    ReplaceReport: "job-done",
    LateProgress: "job-done",
}
_OF_ONE_JOB: Final = ("status", "status-sync", "stream", "cancel", "retry", "job-done", "job-stream")


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule: on this route, do that.

    Attributes:
        route: A name of ``ROUTES``. Faults of pieces belong to ``job-stream``, those of results to ``job-done``,
            ``RepeatPieces`` to ``stream``, ``Expire`` to a route of one job.
        action: What happens.
        times: How often it happens; None for always.
        after: How many matching requests (or pieces, or results) pass unharmed before.
        job: Only this job's requests; None for any.
        chance: How likely it is to happen each time, from 0 to 1.

    Raises:
        ConfigurationError: There is no such route, or the action cannot happen there.
    """

    route: str
    action: Action
    times: int | None = 1
    after: int = 0
    job: str | None = None
    chance: float = 1.0

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise ConfigurationError(f"No route {self.route!r}; there are: {', '.join(ROUTES)}.")
        home = _HOMES.get(type(self.action), self.route)
        if self.route != home:
            raise ConfigurationError(f"{type(self.action).__name__} happens on {home!r}, not on {self.route!r}.")
        if isinstance(self.action, Expire) and self.route not in _OF_ONE_JOB:
            raise ConfigurationError(f"Expire happens on a route of one job: {', '.join(_OF_ONE_JOB)}.")
