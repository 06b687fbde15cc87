"""The one background event loop, and the two ways to wait for what runs on it.

All I/O of a process runs on one loop in a daemon thread. Sync callers wait for it; async callers get a task of their
own loop. So both share one connection pool and one rate limiter, a running loop (a notebook) is no obstacle, and big
answers are never parsed on the caller's loop.

What is handed over is always a factory and never a coroutine, so that nothing is left unawaited when the hand-over
fails. Work that is given up is cancelled, and its clean-up is waited for: that is where remote jobs are cancelled.

``background`` is the loop and how others wait for what runs there, ``inside`` what that work may ask of it, ``streams``
generators that are read from outside.
"""

from __future__ import annotations

from runpod_comfy._loop.background import CLEANUP_S, abandon, run_async, run_sync
from runpod_comfy._loop.inside import be_patient, close_shared, farewells_said, lasting, outlive, shared
from runpod_comfy._loop.streams import iterate_async, iterate_sync

__all__ = [
    "CLEANUP_S",
    "abandon",
    "be_patient",
    "close_shared",
    "farewells_said",
    "iterate_async",
    "iterate_sync",
    "lasting",
    "outlive",
    "run_async",
    "run_sync",
    "shared",
]
