"""How far a dataset is, on stderr: a block of at most eight lines on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from runpod_comfy.cli.live_block import LiveBlock, cut
from runpod_comfy.cli.output import printable, write_text_to_stderr, write_to_stderr
from runpod_comfy.cli.progress import display_mode
from runpod_comfy.cost import usd

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from runpod_comfy.dataset.runner import Tally

__all__ = ["DatasetDisplay", "LiveDatasetDisplay", "Pace", "PlainDatasetDisplay", "block", "choose_dataset_display"]

_LINES_EVERY_S = 30.0
_LINES_AT_MOST = 20
_PACE_OVER_S = 300.0
_BAR_COLUMNS = 60


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
    mode = display_mode(mode, quiet=quiet)
    if mode == "none":
        return PlainDatasetDisplay(lines_at_most=0)
    return LiveDatasetDisplay(price_per_hour_usd) if mode == "rich" else PlainDatasetDisplay()


class Pace:
    """How fast images come: those of the last minutes, for what is there from an earlier run took no time at all."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, images: int) -> None:
        """Take in how many images there are now."""
        if not self._seen or now_s - self._seen[-1][0] >= 1:
            self._seen.append((now_s, images))
        while now_s - self._seen[0][0] > _PACE_OVER_S and len(self._seen) > 2:  # noqa: PLR2004 - two tell a pace
            self._seen.popleft()

    def per_s(self, now_s: float, images: int) -> float | None:
        """Return images a second, or None where that is not known yet."""
        first_s, first = self._seen[0] if self._seen else (now_s, images)
        return (images - first) / (now_s - first_s) if now_s - first_s >= 1 and images > first else None


def block(tally: Tally, *, per_s: float | None, price_per_hour_usd: float | None) -> list[str]:
    """Return the lines that tell how far a run is."""
    pace = ""
    if per_s and tally.images < tally.images_wanted:
        pace = f"   {per_s:.2f}/s   about {_duration((tally.images_wanted - tally.images) / per_s)} left"
    counts = (
        f"{tally.tasks_done:,} done   {tally.tasks_failed:,} failed   {tally.running:,} under way   "
        f"{tally.waiting:,} waiting"
    )
    lines = [f"  {tally.images:,}/{tally.images_wanted:,} images{pace}", f"  jobs      {counts}"]
    if tally.execution_s:
        cost = f"   cost at least {usd(tally.cost_usd(price_per_hour_usd))}" if price_per_hour_usd else ""
        lines.append(f"  GPU       {tally.execution_s:,.0f} s of execution{cost}")
    if tally.failures:
        (code, node_type), count = tally.failures.most_common(1)[0]
        key, message = tally.examples[code, node_type]
        about = " ".join(message.split())
        lines.append(f"  failed    {count:,} x {f'{code} {node_type}'.strip()}, such as row {key}: {about}")
    if tally.stopped_by:
        lines.append(f"  stopped   {tally.stopped_by}; waiting for what runs")
    return lines


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
        self._said_s = clock()
        self._said_images: int | None = None
        self._pace = Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def update(self, tally: Tally) -> None:
        """Write a line if this is worth one."""
        if not self._lines_at_most:
            return
        now = self._clock()
        self._pace.note(now, tally.images)
        if self._said_images is None:
            self._said_images = tally.images
        further = tally.images - self._said_images >= max(1, tally.images_wanted / self._lines_at_most)
        if further or now - self._said_s >= _LINES_EVERY_S:
            self._said_s, self._said_images = now, tally.images
            lines = block(tally, per_s=self._pace.per_s(now, tally.images), price_per_hour_usd=None)
            self.write_line(printable(lines[0]))


class LiveDatasetDisplay:
    """A bar and the block below it.

    Args:
        price_per_hour_usd: What a worker costs, or None.
        write: Writes to the terminal.
        clock: Seconds from any zero.
        width: Gives the terminal's width in columns; None asks it.
    """

    def __init__(
        self,
        price_per_hour_usd: float | None = None,
        *,
        write: Callable[[str], None] = write_text_to_stderr,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] | None = None,
    ) -> None:
        self._price = price_per_hour_usd
        self._clock = clock
        self._pace = Pace()
        self._tally: Tally | None = None
        self._block = LiveBlock(self._lines, write=write, **({"width": width} if width else {}))

    def __enter__(self) -> Self:
        self._block.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._block.__exit__(*exc_info)

    def update(self, tally: Tally) -> None:
        """Take the tally in; it is drawn a moment later."""
        self._tally = tally
        self._pace.note(self._clock(), tally.images)

    def write_line(self, text: str) -> None:
        """Write a line above the block."""
        self._block.write_line(text)

    def _lines(self, width: int) -> list[str]:
        tally = self._tally
        if tally is None:
            return ["  starting"[:width]]
        pace = self._pace.per_s(self._clock(), tally.images)
        lines = block(tally, per_s=pace, price_per_hour_usd=self._price)
        return [_bar(tally, min(_BAR_COLUMNS, width - 2)), *(cut(printable(line), width) for line in lines)]


def _bar(tally: Tally, columns: int) -> str:
    done = round(columns * min(1.0, tally.images / max(1, tally.images_wanted)))
    full, empty = ("━", "━") if _writes("━") and not os.environ.get("NO_COLOR") else ("#", "-")
    if full == empty:
        return f"  \x1b[32m{full * done}\x1b[0m\x1b[2m{empty * (columns - done)}\x1b[0m"
    return f"  {full * done}{empty * (columns - done)}"


def _writes(symbol: str) -> bool:
    try:
        symbol.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
