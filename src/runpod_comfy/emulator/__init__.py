"""RunPod Serverless and ComfyUI on this machine: servers, not mocks, with the real ones' sharp edges.

RunPod's half is made of small modules: ``jobs`` (values), ``bodies`` (what arrives, checked), ``platform`` over
``lifecycle`` (jobs and clock, pure), ``faults`` and
``fault_plan`` (planned faults), ``limits`` (published rate limits), ``changes``
(waiting for the platform), ``client_routes`` and ``worker_routes`` (HTTP), ``api`` (the server), ``inprocess`` (a
worker without the SDK).

>>> import asyncio
>>> from runpod_comfy.emulator import EmulatorServer
>>> async def main() -> bool:
...     async with EmulatorServer() as server:
...         return server.base_url.endswith("/v2")
>>> asyncio.run(main())
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runpod_comfy.emulator.api import EmulatorServer, EmulatorThread
    from runpod_comfy.emulator.fault_plan import FaultPlan
    from runpod_comfy.emulator.faults import Fault
    from runpod_comfy.emulator.inprocess import InProcessWorker
    from runpod_comfy.emulator.jobs import EndpointConfig, JobState, JobStatus
    from runpod_comfy.emulator.platform import Platform

__all__ = [
    "EmulatorServer",
    "EmulatorThread",
    "EndpointConfig",
    "Fault",
    "FaultPlan",
    "InProcessWorker",
    "JobState",
    "JobStatus",
    "Platform",
]

_HOMES = {
    "EmulatorServer": "api",
    "EmulatorThread": "api",
    "EndpointConfig": "jobs",
    "Fault": "faults",
    "FaultPlan": "fault_plan",
    "InProcessWorker": "inprocess",
    "JobState": "jobs",
    "JobStatus": "jobs",
    "Platform": "platform",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
