from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dialects.numbered import Line, missing_batches


@st.composite
def _answers(draw):
    """All lines of an answer, and some of them."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    lines = []
    for batch, outputs in enumerate(sizes):
        for _ in range(outputs):
            lines.append(Line(len(lines), batch))
            if draw(st.booleans()):
                lines.append(Line(len(lines)))  # a warning: it says nothing of a batch
        lines.append(Line(len(lines), batch, ends_batch=True))
    if draw(st.booleans()):
        lines.append(Line(len(lines)))  # the end of the job
    return lines, draw(st.sets(st.sampled_from(lines))), len(sizes)


def test_nothing_is_missing_of_a_whole_answer():
    lines = [Line(0, 0), Line(1, 0, ends_batch=True), Line(2, 1), Line(3, 1, ends_batch=True), Line(4)]
    assert missing_batches(lines, 2) == ()


def test_of_nothing_everything_is_missing():
    assert missing_batches([], 3) == (0, 1, 2)


def test_a_gap_within_a_batch_belongs_to_it_alone():
    lines = [
        Line(0, 0, ends_batch=True),
        Line(1, 1),
        Line(3, 1),
        Line(4, 1, ends_batch=True),
        Line(5, 2, ends_batch=True),
    ]
    assert missing_batches(lines, 3) == (1,)


def test_a_gap_between_two_batches_may_belong_to_either():
    lines = [Line(0, 0), Line(2, 1), Line(3, 1, ends_batch=True), Line(4, 2, ends_batch=True)]
    assert missing_batches(lines, 3) == (0, 1)


def test_what_comes_after_the_last_line_is_missing():
    assert missing_batches([Line(0, 0), Line(1, 0, ends_batch=True)], 3) == (1, 2)


@given(_answers())
def test_a_batch_of_which_a_line_is_lost_is_always_found(answer):
    lines, here, batch_count = answer
    lost = {line.batch for line in lines if line not in here and line.batch is not None}
    assert lost <= set(missing_batches(here, batch_count))


@given(_answers())
def test_batches_between_whole_neighbours_are_not_run_again(answer):
    lines, here, batch_count = answer
    missing = missing_batches(here, batch_count)
    for batch in range(batch_count):
        around = [line for line in lines if line.batch in {batch - 1, batch, batch + 1} or line.batch is None]
        if all(line in here for line in around):
            assert batch not in missing
