"""Which workers there are, and what reading the answer of any of them brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from runpod_comfy.events import Event
    from runpod_comfy.results import OutputElsewhere

__all__ = ["Heard", "WorkerKind"]

WorkerKind: TypeAlias = Literal["native", "worker-comfyui", "worker-comfyui-4"]
"""Who answers: this project's worker (or another of its wire format), RunPod's worker-comfyui from 4.1 on, or an older
one, which returns one image a job."""

Heard: TypeAlias = "Event | OutputElsewhere"
"""An event, or an output that is elsewhere and still to be fetched."""
