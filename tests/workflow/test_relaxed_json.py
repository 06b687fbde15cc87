from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.relaxed_json import read_json

NASTY_TEXT = st.text() | st.text(alphabet=st.sampled_from('"\\/*,]}[{:\n #u'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NASTY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY_TEXT, inner, max_size=4),
    max_leaves=12,
)
FILLING = st.sampled_from(["", " ", "\n", '// a "comment", ]}\n', '/* a, } " */', "/**/", "/* // */ \n\t", "//\n"])


def read(text):
    return read_json(text, template="t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{"a": 1, /* last */ }', {"a": 1}),
        ('{"a": 1, // last\n}', {"a": 1}),
        ('// first\n{"a": 1} // last', {"a": 1}),
        ('{"a": "http://b//c", "d": "/* e */", "f": ",]",}', {"a": "http://b//c", "d": "/* e */", "f": ",]"}),
        (r'{"a": "\\", "b": "\" // c",}', {"a": "\\", "b": '" // c'}),
        ('{"seed": 18446744073709551615, "cfg": 1E2, "x": -1.5e-3}', {"seed": 2**64 - 1, "cfg": 100.0, "x": -0.0015}),
        (r'{"a": "\ud83d\ude00 \\ud83d"}', {"a": "😀 \\ud83d"}),
    ],
)
def test_comments_and_trailing_commas_are_accepted(text, expected):
    assert read(text) == expected


@settings(deadline=None)
@given(st.data(), JSON)
def test_any_json_reads_the_same_with_comments_and_trailing_commas(data, value):
    def filling():
        return data.draw(FILLING)

    def write(node):
        if isinstance(node, list):
            text = "[" + ",".join(write(item) for item in node)
        elif isinstance(node, dict):
            pairs = (f"{filling()}{json.dumps(key)}{filling()}:{write(item)}" for key, item in node.items())
            text = "{" + ",".join(pairs)
        else:
            return filling() + json.dumps(node, ensure_ascii=data.draw(st.booleans())) + filling()
        end = "]" if isinstance(node, list) else "}"
        return (
            filling()
            + text
            + filling()
            + ("," if node and data.draw(st.booleans()) else "")
            + filling()
            + end
            + filling()
        )

    assert read(write(value)) == value


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ('{"a": 1\n "b": 2}', 2, 2, "Expecting ','"),
        ('{\n  "a": [1,,]}', 2, 11, "Expecting value"),
        ('{"a": [,]}', 1, 8, "Expecting value"),
        ("{,}", 1, 2, "Expecting property name"),
        ("{'a': 1}", 1, 2, "double quotes"),
        ('{"a": True}', 1, 7, "true, false and null"),
        ('{"a": None,}', 1, 7, "true, false and null"),
        ('{"a": "b\nc"}', 1, 9, "line break"),
        ('{"a": /* b }', 1, 7, "never ends"),
        ('{"a": 1} {', 1, 10, "Extra data"),
        ('{"a": "b', 1, 7, "Unterminated string"),
        ('{"a": "\\x"}', 1, 8, "escape"),
        ('{"a": NaN}', 1, 7, "NaN"),
        ('{"b": "NaN", // NaN\n "a": [-Infinity]}', 2, 8, "-Infinity"),
        ('{"a": 1e999}', 1, 7, "1e999"),
        ('{"a": 1, "b": 2, "a": 3}', 1, 18, "'a' is there twice"),
        ('{"a": {"b": [{"c": 1}, {"c": 1}],\n"b": 2},}', 2, 1, "'b' is there twice"),
        ('{"a": 1, "\\u0061": 2}', 1, 10, "'a' is there twice"),
        ('{"a": "\\ud83d"}', 1, 8, "surrogate"),
        ('{"a": "\\ude00\\ud83d"}', 1, 8, "surrogate"),
        ('{"a": "\ud83d"}', 1, 8, "surrogate"),
    ],
)
def test_fault_is_shown_with_its_place(text, line, column, word):
    with pytest.raises(TemplateError, match=word) as caught:
        read(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.template == "t"


@pytest.mark.parametrize("text", ["", " \n", "// nothing\n", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"])
def test_text_that_holds_no_usable_value_is_refused(text):
    with pytest.raises(TemplateError):
        read(text)


def test_keys_may_repeat_in_different_objects():
    assert read('{"a": {"a": [{"a": 1}, {"a": "a"}]}, "b": {"a": 2},}')["b"] == {"a": 2}


def test_snippet_points_at_the_fault_and_cuts_long_values():
    with pytest.raises(TemplateError) as caught:
        read('{"image": "' + "A" * 5000 + '" "' + "B" * 5000 + '"}')
    text, snippet, pointer = str(caught.value).split("\n")
    assert len(snippet) < 100
    assert snippet[pointer.index("^")] == '"'
    assert "…AAA" in snippet
    assert "BBB…" in snippet
    assert "rendered text" in text


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from('{}[]",:1eN\\/* \n'), max_size=30))
def test_any_text_gives_a_value_or_an_error_of_our_tree(text):
    try:
        value = read(text)
    except TemplateError:
        return
    json.dumps(value, allow_nan=False)
