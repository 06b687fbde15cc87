import pytest

from runpod_comfy import BatchFinished, Progress, Queued, Started
from runpod_comfy.cli.progress import PlainDisplay, Tally, choose_display
from runpod_comfy.events import OutputReady
from runpod_comfy.results import WorkflowOutputImage

IMAGE = OutputReady(output=WorkflowOutputImage(name="a.png", data=b""))


def story(batches, steps=10):
    yield Queued(job_id="j")
    yield Started(queue_s=2.0)
    for batch in range(batches):
        for step in range(steps):
            yield Progress(batch=batch, batch_count=batches, node_title="KSampler", value=step + 1, maximum=steps)
        yield IMAGE
        yield BatchFinished(batch=batch, batch_count=batches)


def test_the_fraction_never_falls_and_ends_at_one():
    tally = Tally(image_count=4, batch_count=4)
    seen = []
    for event in story(4):
        tally.add(event)
        seen.append(tally.fraction)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert tally.images == 4


def test_the_tally_says_batch_node_and_step():
    tally = Tally(image_count=2, batch_count=2)
    tally.add(Progress(batch=1, batch_count=2, node_title="KSampler", value=3, maximum=20))
    assert str(tally) == "0/2 images, batch 2 of 2, KSampler 3/20"


@pytest.mark.parametrize(
    ("place", "words"), [("runpod://a", "waiting for a worker"), ("http://127.0.0.1:8188", "turn at ComfyUI")]
)
def test_a_worker_is_waited_for_only_where_there_are_workers(place, words):
    lines = []
    tally = Tally(image_count=1, batch_count=1)
    event = Queued(job_id="j", place=place)
    tally.add(event)
    PlainDisplay(write_line=lines.append).update(tally, event)
    assert words in str(tally)
    assert words in lines[0]


@pytest.mark.parametrize("batches", [1, 3, 5000])
def test_a_log_gets_few_lines_whatever_the_size(batches):
    lines = []
    display = PlainDisplay(write_line=lines.append, clock=lambda: 0.0)
    tally = Tally(image_count=batches, batch_count=batches)
    for event in story(batches, steps=2):
        tally.add(event)
        display.update(tally, event)
    assert 3 <= len(lines) <= 25
    assert lines[0] == "  job j: waiting for a worker"


def test_a_long_wait_is_told_of_now_and_then():
    now, lines = [0.0], []
    display = PlainDisplay(write_line=lines.append, clock=lambda: now[0])
    tally = Tally(image_count=1, batch_count=1)
    progress = Progress(batch=0, batch_count=1, node_title="KSampler", value=1, maximum=100)
    for now[0] in range(100):
        tally.add(progress)
        display.update(tally, progress)
    assert len(lines) == 3


def test_what_a_node_is_called_cannot_steer_the_terminal():
    lines = []
    display = PlainDisplay(write_line=lines.append, clock=iter(range(0, 1000, 100)).__next__)
    tally = Tally(image_count=1, batch_count=1)
    progress = Progress(batch=0, batch_count=1, node_title="\x1b]0;owned\x07")
    tally.add(progress)
    display.update(tally, progress)
    assert "owned" in lines[0]
    assert not any(ord(char) < 32 for char in lines[0])


def test_no_display_is_live_where_nobody_looks(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for name, value in (("CI", "true"), ("TERM", "dumb")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            assert not choose_display(None).is_live
