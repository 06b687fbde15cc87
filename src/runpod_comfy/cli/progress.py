"""What a job is doing, shown on stderr: a live line on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

from runpod_comfy.cli.output import printable, write_to_stderr
from runpod_comfy.events import BatchFinished, Queued, Started, Tally, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from runpod_comfy.events import Event

__all__ = ["Display", "PlainDisplay", "Tally", "choose_display", "display_mode"]

_LINES_EVERY_S = 30.0
_LINES_AT_MOST = 20


class Display(Protocol):
    """Shows how far a job is while it is entered.

    Attributes:
        is_live: Whether it draws over what it has drawn before.
    """

    is_live: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def update(self, tally: Tally, event: Event) -> None:
        """Show the tally, which the event has just changed."""

    def write_line(self, text: str) -> None:
        """Write a line beside what is shown."""


def choose_display(mode: str | None, *, quiet: bool = False) -> Display:
    """Return the display for where stderr goes.

    Args:
        mode: ``rich``, ``plain`` or ``none``; None chooses by the terminal, ``CI`` and ``TERM``.
        quiet: Show nothing.
    """
    match display_mode(mode, quiet=quiet):
        case "rich":
            return _RichDisplay()
        case "none":
            return PlainDisplay(lines_at_most=0)
        case _:
            return PlainDisplay()


def display_mode(mode: str | None, *, quiet: bool) -> str:
    """Return ``rich``, ``plain`` or ``none``; arguments as of ``choose_display``."""
    if quiet:
        return "none"
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
    return mode or ("rich" if live else "plain")


class PlainDisplay:
    """A line for each step that matters, and never many: logs are read by people too.

    Args:
        lines_at_most: How many lines tell of finished batches; 0 writes nothing at all.
        write_line: Writes a line.
        clock: Seconds from any zero.
    """

    is_live = False

    def __init__(
        self,
        *,
        lines_at_most: int = _LINES_AT_MOST,
        write_line: Callable[[str], None] = write_to_stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.write_line = write_line
        self._lines_at_most = lines_at_most
        self._clock = clock
        self._said_s = clock()
        self._said_fraction = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def update(self, tally: Tally, event: Event) -> None:
        """Write a line if this is worth one."""
        if not self._lines_at_most:
            return
        further = tally.fraction - self._said_fraction >= 1 / self._lines_at_most
        waited = self._clock() - self._said_s >= _LINES_EVERY_S
        match event:
            case Queued():
                self._say(f"job {event.job_id}: {tally.stage}", tally)
            case Waiting():
                self._say(f"waiting: {event.message}", tally)
            case Started():
                after = f" after {event.queue_s:.1f} s" if event.queue_s is not None else ""
                self._say(f"started{after}", tally)
            case BatchFinished() if further or waited:
                done = f"batch {tally.batches} of {tally.batch_count} done"
                self._say(f"{tally.images}/{tally.image_count} images, {done}", tally)
            case _ if waited:
                self._say(str(tally), tally)
            case _:
                pass

    def _say(self, text: str, tally: Tally) -> None:
        self._said_s, self._said_fraction = self._clock(), tally.fraction
        self.write_line(printable(f"  {text}"))


class _RichDisplay:
    """One line that is drawn again and again, and goes away at the end."""

    is_live = True

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - 50 ms, and only a terminal needs it
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - likewise
        from rich.progress import Progress as LiveProgress  # noqa: PLC0415 - likewise

        self._progress = LiveProgress(
            TextColumn(" "),
            BarColumn(bar_width=25),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            # stdout is data, and may go elsewhere than this terminal.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("submitting", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def update(self, tally: Tally, event: Event) -> None:
        if isinstance(event, Waiting):
            self.write_line(printable(f"  waiting: {event.message}"))
        self._progress.update(self._task, completed=tally.fraction, description=printable(str(tally)))

    def write_line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
