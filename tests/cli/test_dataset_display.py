import io
import re

import pytest

from runpod_comfy.cli.dataset_display import LiveDatasetDisplay, Pace, PlainDatasetDisplay, block
from runpod_comfy.cli.live_block import LiveBlock, columns_of, cut
from runpod_comfy.dataset.runner import Tally


def tally(images=1200, **more):
    return Tally(images_wanted=8000, images=images, tasks_done=300, running=20, waiting=1680, **more)


class Terminal:
    """What a terminal that wraps anew when it is resized shows, as far as the block uses it."""

    def __init__(self, width):
        self.width = width
        self.lines = [""]

    def rows(self):
        return [
            row
            for line in self.lines
            for row in (re.findall(rf".{{1,{self.width}}}", re.sub(r"\x1b\[\d+m", "", line)) or [""])
        ]

    def write(self, text):
        for part in re.split(r"(\x1b\[\d+A|\r\x1b\[J)", text):
            if up := re.fullmatch(r"\x1b\[(\d+)A", part):
                self.lines = [*self.rows()[: -1 - int(up[1])], ""]
            elif part != "\r\x1b[J":
                first, *rest = part.split("\n")
                self.lines[-1] += first
                self.lines += rest


@pytest.mark.parametrize("widths", [(100, 30, 100), (40, 20, 10, 100), (100, 100)])
def test_a_terminal_that_is_resized_shows_the_block_once(widths):
    terminal = Terminal(widths[0])
    shown = LiveBlock(
        lambda width: [cut(f"line {number} " + "x" * 60, width) for number in range(3)],
        write=terminal.write,
        width=lambda: terminal.width,
    )
    terminal.write("before\n")
    for width in widths:
        terminal.width = width
        shown.draw()
        assert [row[:6] for row in terminal.rows()] == ["before", "line 0", "line 1", "line 2", ""]
    shown.write_line("a warning")
    assert [row[:6] for row in terminal.rows()] == ["before", "a warn", "line 0", "line 1", "line 2", ""]


def test_the_block_leaves_nothing_behind():
    terminal = Terminal(80)
    display = LiveDatasetDisplay(1.1, write=terminal.write, clock=lambda: 0.0, width=lambda: terminal.width)
    with display:
        display.update(tally(failures={}))
        display.write_line("kept")
    assert terminal.rows() == ["kept", ""]


@pytest.mark.parametrize("width", [20, 60, 200])
def test_the_block_has_at_most_eight_lines_and_each_fits(width):
    whole = tally(tasks_failed=2, execution_s=10_420.0, stopped_by="$12 are spent")
    whole.failures["job_failed", "KSampler"] = 2
    whole.examples["job_failed", "KSampler"] = ("88-412", "out of\nmemory \x1b[31m " + "日本" * 200)
    out = io.StringIO()
    display = LiveDatasetDisplay(1.1, write=out.write, clock=lambda: 0.0, width=lambda: width)
    display.update(whole)
    lines = display._lines(width)
    assert len(lines) <= 8
    assert all(columns_of(line) <= width for line in lines)
    assert "\x1b[31m" not in "".join(lines[1:])


def test_the_block_tells_pace_cost_and_the_most_common_failure():
    whole = tally(tasks_failed=2, execution_s=3600.0)
    whole.failures["job_failed", "KSampler"] = 2
    whole.examples["job_failed", "KSampler"] = ("88-412", "out of memory")
    assert block(whole, per_s=2.0, price_per_hour_usd=1.1) == [
        "  1,200/8,000 images   2.00/s   about 56 min left",
        "  jobs      300 done   2 failed   20 under way   1,680 waiting",
        "  GPU       3,600 s of execution   cost at least $1.10",
        "  failed    2 x job_failed KSampler, such as row 88-412: out of memory",
    ]


def test_images_of_an_earlier_run_are_not_taken_for_speed():
    pace = Pace()
    pace.note(0, 2836)
    assert pace.per_s(0.5, 2837) is None
    pace.note(10, 2846)
    assert pace.per_s(10, 2846) == 1.0
    for second in range(11, 1000):
        pace.note(second, 2846 + 3 * (second - 10))
    assert pace.per_s(999, 2846 + 3 * 989) == 3.0


def test_a_continued_run_writes_no_line_for_what_was_there():
    lines = []
    display = PlainDatasetDisplay(write_line=lines.append, clock=lambda: 0.0)
    display.update(tally(images=4000))
    assert not lines
    display.update(tally(images=4400))
    assert lines == ["  4,400/8,000 images"]


def test_colours_take_no_columns_and_wide_characters_two():
    assert columns_of("\x1b[32mab\x1b[0m日") == 4
    assert cut("日本日本", 6) == "日..."
    assert cut("abc", 2) == ".."
