import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dialects.lines import MAX_PIECE_BYTES, LineJoiner, cut_line

ascii_lines = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=200)


@pytest.mark.parametrize(
    "line",
    ["", "x", "a" * 999_000, "a" * 999_001, "b" * 3_500_000, '"' * 2_000_000, "\\" * 600_000, 'a"' * 1_200_000],
    ids=["empty", "one", "exactly one piece", "one more", "long", "quotes", "backslashes", "mixed"],
)
def test_a_cut_line_fits_the_limit_and_joins_again(line):
    pieces = list(cut_line(line))
    assert all(len(json.dumps({"output": piece})) <= MAX_PIECE_BYTES for piece in pieces)
    assert [piece.endswith("\n") for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(pieces) == line + "\n"
    joiner = LineJoiner()
    assert [whole for piece in pieces for whole in joiner.feed(piece)] == ([line] if line else [])
    assert not joiner.pending


@given(st.lists(ascii_lines, min_size=1, max_size=6), st.data())
def test_lines_join_wherever_they_were_cut(lines, data):
    text = "".join(line + "\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    joiner = LineJoiner()
    bounds = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    assert [line for piece in pieces for line in joiner.feed(piece)] == lines
    assert not joiner.pending


def test_an_overlong_line_is_given_up_and_the_next_one_is_read():
    joiner = LineJoiner(max_chars=10)
    pieces = ["123456", "789012", "345", "x\n", "short\n"]
    assert [line for piece in pieces for line in joiner.feed(piece)] == ["short"]
    assert joiner.overlong == 1


def test_an_unfinished_line_is_pending():
    joiner = LineJoiner()
    assert list(joiner.feed("half")) == []
    assert joiner.pending
