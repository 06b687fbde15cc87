from __future__ import annotations

import array
import enum
import fractions
import json
import re
from collections import OrderedDict
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.json_text import State, advance, json_text, plain_text, string_content


def named(value):
    """A test's name that is the same in every process: no address in it."""
    return re.sub(r" object at 0x\w+| at 0x\w+", "", repr(value))


class Scalar:
    """As numpy's scalars are: no subclass of Python's numbers."""

    def __init__(self, value):
        self._value = value

    def tolist(self):
        return self._value


class Index:
    def __index__(self):
        return 7


class FsPath:
    def __init__(self, path):
        self._path = path

    def __fspath__(self):
        return self._path


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", '"a"'),
        (Colour.RED, '"red"'),
        (True, "true"),
        (None, "null"),
        (2**64 - 1, "18446744073709551615"),
        (Level.HIGH, "3"),
        (1e300, "1e+300"),
        (-0.5, "-0.5"),
        (fractions.Fraction(1, 2), "0.5"),
        ((1, [2, {"a": None}]), '[1, [2, {"a": null}]]'),
        (OrderedDict(b=1, a=2), '{"b": 1, "a": 2}'),
        (MappingProxyType({"a": 1}), '{"a": 1}'),
        (range(3), "[0, 1, 2]"),
        (array.array("i", [1, 2]), "[1, 2]"),
        (Scalar(True), "true"),
        (Scalar([[1.5]]), "[[1.5]]"),
        (Index(), "7"),
        (PurePosixPath("a/b"), '"a/b"'),
        (PureWindowsPath(r"C:\a\b"), '"C:/a/b"'),
        ([PureWindowsPath(r"a\b")], '["a/b"]'),
        (FsPath("a/b"), '"a/b"'),
        (FsPath(PurePosixPath("a/b").as_posix()), '"a/b"'),
    ],
    ids=named,
)
def test_value_becomes_json(value, expected):
    assert json_text(value) == expected


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (float("nan"), "NaN"),
        ([float("inf")], "infinite"),
        ({"a": float("-inf")}, "infinite"),
        (Scalar(float("nan")), "NaN"),
        ("a\ud83d", "surrogate"),
        ({"\udc00": 1}, "surrogate"),
        (b"a", "bytes"),
        (bytearray(b"a"), "bytearray"),
        (FsPath(b"a"), "bytes"),
        (object(), "object"),
        ({1, 2}, "set"),
        ((x for x in "ab"), "generator"),
        ({1: "a"}, "int"),
        (1 + 2j, "complex"),
    ],
    ids=named,
)
def test_what_json_cannot_say_is_refused_by_type(value, word):
    with pytest.raises(TemplateError, match=word):
        json_text(value)


def test_error_does_not_quote_the_value():
    with pytest.raises(TemplateError) as caught:
        json_text("secret\ud83d")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('a "b"\n', 'a "b"\n'),
        (PurePath("a/b"), "a/b"),
        (None, "null"),
        (False, "false"),
        (8, "8"),
        (["é", None], '["é", null]'),
    ],
    ids=named,
)
def test_in_a_string_text_and_paths_read_as_they_are_and_the_rest_as_json(value, expected):
    assert plain_text(value) == expected


@settings(deadline=None)
@given(st.text())
def test_string_content_reads_back(text):
    assert json.loads(f'"{string_content(text)}"') == text


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", State.OUTSIDE),
        ('{"a": ', State.OUTSIDE),
        ('{"a', State.STRING),
        ('"a\\"', State.STRING),
        ('"a\\\\"', State.OUTSIDE),
        ('"a\\', State.ESCAPE),
        ('"a\\u00', State.UNICODE_2),
        ('"a\\u0041', State.STRING),
        ('"a\\u00"', State.OUTSIDE),
        ("/", State.SLASH),
        ('/"', State.STRING),
        ('// "', State.LINE_COMMENT),
        ('// "\n', State.OUTSIDE),
        ('/* "', State.BLOCK_COMMENT),
        ("/* *", State.STAR),
        ("/* **", State.STAR),
        ("/* **/", State.OUTSIDE),
        ("/*/", State.BLOCK_COMMENT),
        ('"// /*', State.STRING),
        ('"// /*"', State.OUTSIDE),
    ],
    ids=named,
)
def test_state_follows_json_with_comments(text, state):
    assert advance(text, State.OUTSIDE) is state


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from('"\\/*\nu0a {')), st.integers(0, 40))
def test_state_does_not_depend_on_where_the_text_is_cut(text, cut):
    assert advance(text[cut:], advance(text[:cut], State.OUTSIDE)) is advance(text, State.OUTSIDE)


@settings(deadline=None)
@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_every_json_text_ends_outside(value):
    assert advance(json.dumps(value, ensure_ascii=False), State.OUTSIDE) is State.OUTSIDE
    assert advance(json.dumps(value), State.OUTSIDE) is State.OUTSIDE
