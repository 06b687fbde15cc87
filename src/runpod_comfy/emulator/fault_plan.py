"""Which of the planned faults happens now; and random faults on every route."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from runpod_comfy.emulator.faults import (
    ROUTES,
    Delay,
    DropPiece,
    DropReport,
    DuplicatePiece,
    Fault,
    Html,
    LateProgress,
    PieceAction,
    RepeatPieces,
    ReportAction,
    RequestAction,
    Reset,
    Status,
    Truncate,
    WorkerDies,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runpod_comfy.emulator.faults import Action

__all__ = ["FaultPlan", "storm"]


class FaultPlan:
    """The faults to come and how often each has happened. Rules are tried in order; the first that applies acts.

    Args:
        faults: The rules.
        rng: Decides about faults that happen by chance; with a seed of its own a plan repeats itself.
    """

    def __init__(self, *faults: Fault, rng: random.Random | None = None) -> None:
        self._faults = list(faults)
        self._rng = rng or random.Random()  # noqa: S311 - decides about faults, not about secrets
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

    def counts(self) -> dict[str, int]:
        """Return how often faults have happened, by route and action, for example ``{"run Reset": 3}``."""
        counts: dict[str, int] = {}
        for index, fired in self._fired.items():
            name = f"{self._faults[index].route} {type(self._faults[index].action).__name__}"
            counts[name] = counts.get(name, 0) + fired
        return counts

    def on_request(self, route: str, job_id: str | None) -> RequestAction | None:
        """Return what happens to this request, and count it."""
        for index, fault in self._of(route):
            action = fault.action
            if isinstance(action, RequestAction) and self._applies(index, fault, job_id):
                return action
        return None

    def on_piece(self, job_id: str, piece_index: int) -> PieceAction | None:
        """Return what happens to this piece, and count it."""
        for index, fault in self._of("job-stream"):
            action = fault.action
            if not isinstance(action, PieceAction) or action.index not in (None, piece_index):
                continue
            if self._applies(index, fault, job_id):
                return action
        return None

    def on_report(self, job_id: str, *, has_progress: bool) -> ReportAction | None:
        """Return what happens to this job's result, and count it.

        Args:
            job_id: The job.
            has_progress: Whether it has sent a progress update, which could overtake the result.
        """
        for index, fault in self._of("job-done"):
            action = fault.action
            if not isinstance(action, ReportAction) or (isinstance(action, LateProgress) and not has_progress):
                continue
            if self._applies(index, fault, job_id):
                return action
        return None

    def repeats_pieces(self, job_id: str) -> bool:
        """Return whether a read of the stream consumes nothing, and count it."""
        return any(
            isinstance(fault.action, RepeatPieces) and self._applies(index, fault, job_id)
            for index, fault in self._of("stream")
        )

    def _of(self, route: str) -> Iterator[tuple[int, Fault]]:
        return ((index, fault) for index, fault in enumerate(self._faults) if fault.route == route)

    def _applies(self, index: int, fault: Fault, job_id: str | None) -> bool:
        if fault.job is not None and fault.job != job_id:
            return False
        seen = self._seen[index] = self._seen.get(index, 0) + 1
        fired = self._fired.get(index, 0)
        if seen <= fault.after or (fault.times is not None and fired >= fault.times):
            return False
        if fault.chance < 1 and self._rng.random() >= fault.chance:
            return False
        self._fired[index] = fired + 1
        return True


def storm(chance: float = 0.05, *, in_process: bool = False) -> tuple[Fault, ...]:
    """Return random faults on every route: each request, piece and result meets one with this probability.

    Args:
        chance: The probability.
        in_process: Whether the workers are in this process: they make no requests, so what happens to pieces and
            results is all that can happen to them, and gets their whole share.

    >>> from runpod_comfy.emulator import Platform
    >>> platform = Platform(faults=FaultPlan(*storm(0.05), rng=random.Random(7)))

    None of them ends a job that a careful client could not bring home: a worker that dies is replaced, and nothing
    expires.
    """
    before_and_after: tuple[Action, ...] = (
        Status(500),
        Status(503, processed=True),
        Status(429, retry_after_s=0.05),
        Html(502),
        Html(524, processed=True),
        Reset(),
        Reset(processed=True),
        Truncate(),
        Delay(0.05),
    )
    actions: dict[str, tuple[Action, ...]] = dict.fromkeys(ROUTES, before_and_after)
    actions["stream"] += (RepeatPieces(),)
    of_requests = () if in_process else before_and_after
    actions["job-stream"] = (*of_requests, DropPiece(), DuplicatePiece(), WorkerDies())
    actions["job-done"] = (*of_requests, DropReport())
    planned = (Fault(route, action, times=None) for route, many in actions.items() for action in many)
    return tuple(replace(fault, chance=chance / len(actions[fault.route])) for fault in planned)
