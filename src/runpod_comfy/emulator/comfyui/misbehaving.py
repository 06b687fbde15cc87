"""What the stand-in can be told to do wrong, as real servers do, so that tests see what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runpod_comfy.emulator.comfyui.computing import NodeFailure

if TYPE_CHECKING:
    from runpod_comfy.emulator.comfyui.execution import Engine

__all__ = ["Misbehaving"]


class Misbehaving:
    """A server that misbehaves on request; a restart ends what the engine was told, and nothing else."""

    _engine: Engine
    _silent = False
    _garbles_history = False
    _late_s = 0.0
    _knows_its_thread = True

    def fail_node(self, class_type: str, message: str, *, exception_type: str = "RuntimeError") -> None:
        """Let every node of a class fail from now on."""
        self._engine.failing[class_type] = NodeFailure(message, kind=exception_type)

    def report_too(self, class_type: str, more: dict[str, Any]) -> None:
        """Let every node of a class that reports something report this as well, be it JSON or not."""
        self._engine.reported_too[class_type] = more

    def garble_history(self) -> None:
        """Answer what is no JSON to each question for the history from now on."""
        self._garbles_history = True

    def answer_prompts_late(self, late_s: float) -> None:
        """Answer to each prompt so many seconds after it was queued."""
        self._late_s = late_s

    def ignore_interrupts(self) -> None:
        """Compute every prompt to its end from now on, as nodes do that do not look for interruptions."""
        self._engine.ignores_interrupts = True

    def lose_files(self) -> None:
        """Let every file vanish that a node saves from now on, before anybody can fetch it."""
        self._engine.loses_files = True

    def stall(self) -> None:
        """Accept prompts from now on and compute none, as a server does whose computing thread has died."""
        self._engine.stalled = True

    def die_computing(self, *, known: bool = True) -> None:
        """Run the next prompt for ever, as a server does whose computing thread a node has ended.

        Args:
            known: This project's nodes are installed and know of it.
        """
        self._engine.dies_computing = True
        self._knows_its_thread = known

    def show_previews(self, image: bytes) -> None:
        """Send this picture with every step from now on."""
        self._engine.preview = image

    def silence(self) -> None:
        """Keep sockets open and say nothing more on them."""
        self._silent = True
