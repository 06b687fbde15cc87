"""Every fault of docs/reliability.md: how it is made, and how a call ends under it."""

from dataclasses import dataclass, field
from typing import Any

from runpod_comfy import (
    ApiError,
    AuthenticationError,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobTimedOut,
    NotFound,
    OutputLost,
    ProtocolError,
    SubmissionUncertain,
    WaitTimeout,
)
from runpod_comfy.emulator.faults import (
    Answer,
    ClockJump,
    Delay,
    DropPiece,
    DropReport,
    DuplicatePiece,
    Fault,
    Html,
    LateProgress,
    Redirect,
    RepeatPieces,
    ReplaceReport,
    Reset,
    Status,
    Truncate,
    WorkerDies,
)

IMAGES = 3
"""A call asks for so many, each a batch of its own."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault.

    Attributes:
        faults: What is planned.
        error: How the call ends; None with all images.
        match: What the error's text has.
        partial: How many images the error carries at least; None where it has no place for them.
        jobs: How many jobs there are afterwards.
        worker: ``paints``, ``none``, ``stalls`` (after the first batch), ``fails`` (after it), ``raises``, ``returns``
            or ``progress`` (one update).
        config: The endpoint's.
        call: Arguments of the call.
        by: What somebody else does once the first image is here.
        aggregate: The worker's mode.
    """

    faults: tuple[Fault, ...] = ()
    error: type[Exception] | None = None
    match: str = ""
    partial: int | None = None
    jobs: int = 1
    worker: str = "paints"
    config: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    by: str | None = None
    aggregate: bool = False


def _run(action, **more):
    return Case(faults=(Fault("run", action),), **more)


def _uncertain(action, jobs):
    return _run(action, error=SubmissionUncertain, match="may or may not", jobs=jobs)


def _read(route, action, times=1, **more):
    return Case(faults=(Fault(route, action, times=times),), **more)


def _piece(action, times=1, **more):
    return Case(faults=(Fault("job-stream", action, times=times),), **more)


_NO_LONG_POLL = {"status_sync": False}

CASES = {
    # -- the submission
    "run: 429": _run(Status(429, retry_after_s=0.1)),
    "run: answered late": _run(Delay(0.3)),
    "run: reset before the work": _uncertain(Reset(), 0),
    "run: reset after the work": _uncertain(Reset(processed=True), 1),
    "run: 500 before the work": _uncertain(Status(500), 0),
    "run: 502 page after the work": _uncertain(Html(502, processed=True), 1),
    "run: 524 page after the work": _uncertain(Html(524, processed=True), 1),
    "run: truncated answer": _uncertain(Truncate(), 1),
    "run: an answer without an id": _uncertain(Answer({"ok": True}, processed=True), 1),
    "run: resubmitted where the caller wants that": _run(
        Reset(processed=True), jobs=2, call={"on_uncertain": "resubmit"}
    ),
    "run: 400": _run(Status(400), error=ApiError, match="does not accept", jobs=0),
    "run: 401": _run(Status(401), error=AuthenticationError, match="API key", jobs=0),
    "run: 404": _run(Status(404), error=NotFound, match="no endpoint", jobs=0),
    "run: redirect": _run(Redirect("http://127.0.0.1:9/"), error=ApiError, match="redirect", jobs=0),
    # -- the state
    "status-sync: 404": Case(config=_NO_LONG_POLL),
    "status-sync: 405": _read("status-sync", Status(405)),
    "status-sync: 408": _read("status-sync", Status(408)),
    "status-sync: 429": _read("status-sync", Status(429, retry_after_s=0.1)),
    "status-sync: 500": _read("status-sync", Status(500), times=2),
    "status-sync: 502 page": _read("status-sync", Html(502)),
    "status-sync: 524 page": _read("status-sync", Html(524)),
    "status-sync: reset": _read("status-sync", Reset()),
    "status-sync: truncated answer": _read("status-sync", Truncate()),
    "status-sync: a page with status 200": _read("status-sync", Html(200)),
    "status-sync: answers at once": _read("status-sync", Answer({"id": "x", "status": "IN_PROGRESS"}), times=3),
    "status-sync: an unknown state": _read("status-sync", Answer({"id": "x", "status": "PONDERING"})),
    "status: 503": Case(faults=(Fault("status", Status(503), times=2),), config=_NO_LONG_POLL),
    "status: 404 in the first seconds": Case(faults=(Fault("status", Status(404)),), config=_NO_LONG_POLL),
    "status: never again": Case(
        faults=(Fault("status", Status(503), times=None), Fault("status-sync", Status(503), times=None))
    ),
    # -- the stream
    "stream: 429": _read("stream", Status(429, retry_after_s=0.1)),
    "stream: 500 before the work": _read("stream", Status(500)),
    "stream: reset before the work": _read("stream", Reset()),
    "stream: reset after the work": _read("stream", Reset(processed=True), jobs=2),
    "stream: 502 page after the work": _read("stream", Html(502, processed=True), jobs=2),
    "stream: truncated answer": _read("stream", Truncate(), jobs=2),
    "stream: an answer of another shape": _read("stream", Answer({"stream": "none"})),
    "stream: 404, aggregate": _read("stream", Status(404), times=None, aggregate=True),
    "stream: pieces come again": _read("stream", RepeatPieces(), times=2),
    # -- pieces and workers
    "piece: lost": _piece(DropPiece(2), jobs=2),
    "piece: lost, aggregate": _piece(DropPiece(2), aggregate=True),
    "piece: lost twice": _piece(DropPiece(0), times=2, jobs=3),
    "piece: lost each time": _piece(
        DropPiece(0), times=None, jobs=4, error=OutputLost, match="Not whole: batch 1", partial=IMAGES - 1
    ),
    "piece: lost, and not to be made again": _piece(
        DropPiece(2), call={"on_lost": "raise"}, error=OutputLost, match="Not whole: batch 2", partial=IMAGES - 1
    ),
    "piece: doubled": _piece(DuplicatePiece(), times=None),
    "worker: dies": _piece(WorkerDies(3)),
    "worker: dies each time": Case(
        faults=(Fault("job-stream", WorkerDies(), after=2, times=None),),
        error=JobFailed,
        match="worker died",
        partial=1,
    ),
    "worker: reports an error": Case(worker="fails", error=JobFailed, match="out of memory", partial=1),
    "worker: raises": Case(worker="raises", error=JobFailed, match="no such model", partial=0),
    # -- results
    "result: lost": Case(faults=(Fault("job-done", DropReport()),)),
    "result: lost, and lines with it, until RunPod ends the job": Case(
        faults=(Fault("job-done", DropReport()), Fault("job-stream", DropPiece(2)), Fault("job-stream", DropPiece(6))),
        config={"default_execution_timeout_s": 1},
        jobs=2,
    ),
    "result: overtaken by a progress update": Case(faults=(Fault("job-done", LateProgress()),), worker="progress"),
    "result: over RunPod's limit": Case(config={"run_output_limit_bytes": 1000}, aggregate=True),
    "result: none, and no pieces": Case(
        faults=(Fault("job-stream", DropPiece(), times=None), Fault("job-done", ReplaceReport({}))),
        error=OutputLost,
        match="COMPLETED and has no output",
        partial=0,
    ),
    "result: of a model that draws nothing": Case(
        worker="returns", error=ProtocolError, match=r"another|no ComfyUI worker|something else"
    ),
    # -- the job's end
    "job: expires": Case(worker="stalls", by="expire", error=JobExpired, match="30 minutes", partial=1),
    "job: purged from the queue": Case(worker="none", by="purge", error=JobExpired, match="purges", partial=0),
    "job: over its executionTimeout": Case(
        worker="stalls", by="skip 700 s", error=JobTimedOut, match="executionTimeout", partial=1
    ),
    "job: waits longer than its ttl": Case(worker="none", by="skip 25 h", error=JobExpired, match="ttl", partial=0),
    "job: cancelled by somebody": Case(worker="stalls", by="cancel", error=JobCancelled, match="cancelled", partial=1),
    "job: the clock jumps": Case(faults=(Fault("stream", ClockJump(300.0)),)),
    "job: no worker in time": Case(
        worker="none", call={"queue_timeout": 0.5}, error=WaitTimeout, match="queue_timeout", partial=0
    ),
    "job: not done in time": Case(
        worker="stalls", call={"timeout": 2.0}, error=WaitTimeout, match="timeout of this call", partial=1
    ),
    "cancel: reset": Case(
        faults=(Fault("cancel", Reset()),),
        worker="stalls",
        call={"timeout": 2.0},
        error=WaitTimeout,
        match="timeout of this call",
        partial=1,
    ),
    "health: 500 while the job waits": Case(faults=(Fault("health", Status(500), times=None),)),
}
