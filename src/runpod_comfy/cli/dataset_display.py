"""How far a dataset is, on stderr: a block of at most eight lines on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

from runpod_comfy.cli.output import printable, write_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from rich.console import RenderableType

    from runpod_comfy.dataset.runner import Tally

__all__ = ["DatasetDisplay", "PlainDatasetDisplay", "block", "choose_dataset_display"]

_LINES_EVERY_S = 30.0
_LINES_AT_MOST = 20


class DatasetDisplay(Protocol):
    """Shows how far a run is while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def update(self, tally: Tally) -> None:
        """Show the tally, which has just changed."""

    def write_line(self, text: str) -> None:
        """Write a line beside what is shown."""


def choose_dataset_display(
    mode: str | None, *, quiet: bool = False, price_per_hour_usd: float | None = None
) -> DatasetDisplay:
    """Return the display for where stderr goes; arguments as of ``progress.choose_display``."""
    if mode is None:
        live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        mode = "rich" if live else "plain"
    if quiet or mode == "none":
        return PlainDatasetDisplay(lines_at_most=0)
    return _LiveDisplay(price_per_hour_usd) if mode == "rich" else PlainDatasetDisplay()


def block(tally: Tally, *, elapsed_s: float, price_per_hour_usd: float | None) -> list[str]:
    """Return the lines that tell how far a run is."""
    counts = (
        f"{tally.tasks_done:,} done   {tally.tasks_failed:,} failed   {tally.running:,} under way   "
        f"{tally.waiting:,} waiting"
    )
    lines = [
        f"  {tally.images:,}/{tally.images_wanted:,} images   {_rate(tally, elapsed_s)}".rstrip(),
        f"  jobs    {counts}",
    ]
    if tally.execution_s:
        cost = f"   cost at least ${tally.cost_usd(price_per_hour_usd):.2f}" if price_per_hour_usd else ""
        lines.append(f"  GPU     {tally.execution_s:,.0f} s of execution{cost}")
    if tally.failures:
        (code, node_type), count = tally.failures.most_common(1)[0]
        lines.append(f"  last    {count} x {code} {node_type}".rstrip())
    if tally.stopped_by:
        lines.append(f"  stopped: {tally.stopped_by}; waiting for what runs")
    return lines


def _rate(tally: Tally, elapsed_s: float) -> str:
    made = tally.images
    if not made or elapsed_s < 1:
        return ""
    per_s = made / elapsed_s
    left = (tally.images_wanted - tally.images) / per_s
    return f"{per_s:.2f}/s   about {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, _ = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"


class PlainDatasetDisplay:
    """A line every half minute, or for every twentieth of the work.

    Args:
        lines_at_most: How many lines tell of progress by work done; 0 writes nothing at all.
        write_line: Writes a line.
        clock: Seconds from any zero.
    """

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
        self._begun_s = self._said_s = clock()
        self._said_images = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def update(self, tally: Tally) -> None:
        """Write a line if this is worth one."""
        if not self._lines_at_most:
            return
        now = self._clock()
        further = tally.images - self._said_images >= max(1, tally.images_wanted / self._lines_at_most)
        if further or now - self._said_s >= _LINES_EVERY_S:
            self._said_s, self._said_images = now, tally.images
            lines = block(tally, elapsed_s=now - self._begun_s, price_per_hour_usd=None)
            self.write_line(printable(lines[0]))


class _LiveDisplay:
    def __init__(self, price_per_hour_usd: float | None) -> None:
        from rich.console import Console  # noqa: PLC0415 - 50 ms, and only a terminal needs it
        from rich.live import Live  # noqa: PLC0415 - likewise

        self._price = price_per_hour_usd
        self._begun_s = time.monotonic()
        self._tally: Tally | None = None
        self._live = Live(
            get_renderable=self._render,
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def update(self, tally: Tally) -> None:
        self._tally = tally

    def write_line(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415 - as above
        from rich.padding import Padding  # noqa: PLC0415 - as above
        from rich.progress_bar import ProgressBar  # noqa: PLC0415 - as above
        from rich.text import Text  # noqa: PLC0415 - as above

        tally = self._tally
        if tally is None:
            return Text("  starting")
        bar = ProgressBar(total=max(1, tally.images_wanted), completed=tally.images, width=40)
        elapsed_s = time.monotonic() - self._begun_s
        lines = block(tally, elapsed_s=elapsed_s, price_per_hour_usd=self._price)
        return Group(
            Padding(bar, (0, 0, 0, 2)), *(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines)
        )
