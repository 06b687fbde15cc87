"""Why jobs of an endpoint wait, told from ``/health`` and from how long jobs have waited before.

RunPod does not tell a job's place in the queue. What it tells is how many workers there are and in which state; asked
rarely, and once for all jobs of an endpoint.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from runpod_comfy.serverless.api import EndpointApi, EndpointHealth

__all__ = ["Queueing", "Reason", "explain"]

logger = logging.getLogger(__name__)

_FRESH_S = 10.0
_SLOW_START_S = 30.0  # an endpoint that scales from zero shows no worker for its first seconds
_REMEMBERED = 20
_WORTH_A_WARNING = frozenset({"throttled", "unhealthy", "no_workers"})


class Reason(NamedTuple):
    """Why a job waits: a word for programs and a sentence for people."""

    word: str
    sentence: str


def explain(  # noqa: PLR0911 - a table of states
    health: EndpointHealth, *, waited_s: float, usual_s: float | None
) -> Reason:
    """Return why a job waits.

    Args:
        health: What the endpoint says of itself.
        waited_s: How long the job has waited, in seconds.
        usual_s: How long jobs of this endpoint usually wait, in seconds, or None.
    """
    count = health.workers.get
    running, idle, starting = count("running", 0), count("idle", 0), count("initializing", 0)
    throttled, unhealthy = count("throttled", 0), count("unhealthy", 0)
    usual = "" if usual_s is None else f" Jobs of this endpoint waited {usual_s:.0f} s of late."
    if starting:
        return Reason("starting", f"{_workers(starting)} starting (a cold start).{usual}")
    if running and not idle:
        queued = max(health.jobs.get("inQueue", 1), 1)
        return Reason("busy", f"All {running} running worker(s) are busy, and {queued} job(s) wait.{usual}")
    if idle:
        return Reason("unknown", f"{_workers(idle)} idle; the job should start at any moment.{usual}")
    if unhealthy:
        return Reason(
            "unhealthy",
            f"{_workers(unhealthy)} unhealthy and none works. The endpoint's logs in RunPod's console say why; a "
            "worker that fails again and again costs money.",
        )
    if throttled:
        return Reason(
            "throttled",
            f"{_workers(throttled)} throttled: RunPod has no free GPU of the endpoint's types. Allow more GPU types or "
            "more data centres in its settings.",
        )
    if waited_s < _SLOW_START_S:
        return Reason("starting", f"No worker yet; RunPod starts one when a job comes.{usual}")
    return Reason(
        "no_workers",
        f"The endpoint has no worker, and none starts after {waited_s:.0f} s. RunPod sets an endpoint's max workers to "
        "0 after a week without requests, and leaves it there: raise it in the console (Edit endpoint, Max workers).",
    )


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'} {'is' if count == 1 else 'are'}"


@dataclass(slots=True)
class Queueing:
    """What is known of an endpoint's queue, shared by all its jobs.

    Attributes:
        waits_s: How long the latest jobs waited for a worker, in seconds.
    """

    waits_s: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _asked_s: float = -math.inf
    _health: EndpointHealth | None = None
    _logged: str = ""

    def started(self, waited_s: float | None) -> None:
        """Remember how long a job waited."""
        if waited_s is not None:
            self.waits_s.append(waited_s)
        self._logged = ""

    async def reason(self, api: EndpointApi, *, waited_s: float, now_s: float) -> Reason | None:
        """Return why a job waits, or None where the endpoint does not say; logged once for each change.

        Args:
            api: The endpoint.
            waited_s: How long the job has waited, in seconds.
            now_s: The time, in seconds from any zero.
        """
        if now_s - self._asked_s >= _FRESH_S:
            self._asked_s = now_s  # before the answer: the other jobs do not ask meanwhile
            try:
                self._health = await api.health()
            except RunpodComfyError as exc:
                logger.debug("endpoint %s does not say how it is: %s", api.endpoint_id, exc)
        if self._health is None:
            return None
        usual_s = statistics.median(self.waits_s) if self.waits_s else None
        reason = explain(self._health, waited_s=waited_s, usual_s=usual_s)
        if reason.word != self._logged:
            self._logged = reason.word
            level = logging.WARNING if reason.word in _WORTH_A_WARNING else logging.INFO
            logger.log(level, "endpoint %s: jobs wait. %s", api.endpoint_id, reason.sentence)
        return reason
