"""``GET /runpod_comfy/compute_thread``: whether ComfyUI's thread that computes prompts still lives.

ComfyUI answers on one thread and computes on another. A node that calls ``exit()``, as wrapped scripts with a command
line of their own do, ends the second one without a word: Python reports a SystemExit of a thread to nobody, the server
goes on answering, and shows the prompt as running for ever. From outside that looks like a long computation.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

__all__ = ["ROUTE", "ComputeThread", "watch_compute_thread"]

ROUTE = "/runpod_comfy/compute_thread"
_NAME = "prompt_worker"  # the function it runs, of which Python names it: "Thread-8 (prompt_worker)"


class ComputeThread:
    """The thread that computes, once it was seen."""

    def __init__(self) -> None:
        self._seen = False

    def alive(self) -> bool | None:
        """Return whether it lives; None where it was never seen: another ComfyUI may name it otherwise."""
        lives = any(_NAME in thread.name for thread in threading.enumerate())
        self._seen = self._seen or lives
        return lives if self._seen else None


def watch_compute_thread() -> None:
    """Add the route to the ComfyUI that imports this; elsewhere do nothing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    from aiohttp import web  # noqa: PLC0415 - ComfyUI's; this module is also read where there is none

    thread = ComputeThread()

    def look(json_data: Any) -> Any:
        """See the thread before the first prompt can end it; ComfyUI calls this with each prompt that is queued."""
        thread.alive()
        return json_data

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"alive": thread.alive()})

    server.add_on_prompt_handler(look)
    server.routes.get(ROUTE)(answer)
