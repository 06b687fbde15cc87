"""Events as lines of JSON for other programs: ``runpod-comfy run --events``; see ``schemas/event.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runpod_comfy.events import BatchFinished, Finished, OutputReady, Progress, Queued, Started, Waiting, Warned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.events import Event

__all__ = ["event_data"]

_NAMES: dict[type, str] = {
    Queued: "queued",
    Waiting: "waiting",
    Started: "started",
    Progress: "progress",
    BatchFinished: "batch_finished",
    Warned: "warned",
}


def event_data(event: Event, *, saved: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what an event says as JSON data, or None for the last one: the envelope has it.

    Args:
        event: The event.
        saved: For an output: what is listed of it, its path among it.
    """
    match event:
        case Finished():
            return None
        case OutputReady():
            return {"schema": "event/1", "event": "output", **(saved or {})}
        case _:
            said = {name: value for name, value in asdict(event).items() if name != "preview"}
            return {"schema": "event/1", "event": _NAMES[type(event)], **said}
