"""What values become where they stand, for every way in which Jinja puts a template together."""

from __future__ import annotations

import json
import math
from pathlib import PurePath, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.template import WorkflowTemplate

HOSTILE = 'a "b" \\ \n\t\r\b {{ v }} {% if %} {# #} ", "injected": 1, "x": " */ // \u2028 \x00 \x7f 😀'
NASTY_TEXT = st.text() | st.text(alphabet=st.sampled_from('"\\/*,]}[{:\n #%u')) | st.just(HOSTILE)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NASTY_TEXT
    | st.lists(NASTY_TEXT, max_size=3).map(lambda parts: PurePosixPath(*(part.replace("\0", "") for part in parts)))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(NASTY_TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)

FILES = {
    "string.txt": 'at {{ v }}, {{ other|default("-") }}',
    "value.txt": "{{ v }}",
    "macros.txt": "{% macro text(v) %}at {{ v }}, -{% endmacro %}{% macro value(v) %}{{ v }}{% endmacro %}",
    "base.txt": '{"1": {"x": {% block x %}"of the parent"{% endblock %}, "y": 1}, "2": []}',
}
AS_STRING = {
    "print": '"at {{ v }}, -"',
    "if": '"at {% if true %}{{ v }}{% else %}"{% endif %}, -"',
    "split": '{% if true %}"at {% endif %}{{ v }}{% for i in [1] %}, -"{% endfor %}',
    "loop": '"{% for x in [v] %}at {{ x }}, -{% endfor %}"',
    "extended loop": '"{% for x in [v] %}at {{ x }}, {{ "-" if loop.last }}{% endfor %}"',
    "recursive loop": '"{% for x in [[v]] recursive %}{% if loop.depth == 1 %}{{ loop(x) }}{% else %}'
    'at {{ x }}, -{% endif %}{% endfor %}"',
    "with": '"{% with x = v %}at {{ x }}, -{% endwith %}"',
    "set": '{% set x = v %}"at {{ x }}, -"',
    "captured": '{% set x %}at {{ v }}, -{% endset %}"{{ x }}"',
    "captured, printed as value": "{% set x %}at {{ v }}, -{% endset %}{{ x }}",
    "captured, filtered": '{% set x | trim %} at {{ v }}, - {% endset %}"{{ x }}"',
    "captured from a macro": "{% macro m(v) %}{{ v }}, -{% endmacro %}{% set x %}at {{ m(v) }}{% endset %}{{ x }}",
    "captured from an include": '{% set x %}{% include "string.txt" %}{% endset %}{{ x }}',
    "filter": '"{% filter trim %} at {{ v }}, - {% endfilter %}"',
    "filter, printed as value": "{% filter trim %} at {{ v }}, - {% endfilter %}",
    "macro": '{% macro m(v) %}at {{ v }}, -{% endmacro %}"{{ m(v) }}"',
    "macro with its quotes": '{% macro m(v) %}"at {{ v }}, -"{% endmacro %}{{ m(v) }}',
    "macro in a macro": '{% macro m(v) %}{{ v }}{% endmacro %}{% macro n(t) %}"at {{ t }}, -"{% endmacro %}'
    "{{ n(m(v)) }}",
    "macro kept": '{% macro m(v) %}at {{ v }}, -{% endmacro %}{% set x = m(v) %}"{{ x }}"',
    "call": '{% macro m() %}"at {{ caller(v) }}, -"{% endmacro %}{% call(x) m() %}{{ x }}{% endcall %}',
    "import": '{% import "macros.txt" as m %}"{{ m.text(v) }}"',
    "from import": '{% from "macros.txt" import text as m %}"{{ m(v) }}"',
    "include": '"{% include "string.txt" %}"',
    "block": '"{% block b %}at {{ v }}, -{% endblock %}"',
    "self": '{% if false %}{% block b %}at {{ v }}, -{% endblock %}{% endif %}"{{ self.b() }}"',
    "joined": '"{{ "at " ~ v ~ ", -" }}"',
    "joined, as value": '{{ "at " ~ v ~ ", -" }}',
    "after escapes": r'"\u0061t {{ v }}, \u002d"',
    "with comments": '// {{ v }}\n/* {{ v }} "*/ "at {{ v }}, -" /* **{{ v }} */',
}
AS_VALUE = {
    "print": "{{ v }}",
    "tojson": "{{ v|tojson }}",
    "tojson, safe": "{{ v|tojson|safe }}",
    "tojson, indented": "{{ v|tojson(indent=2)|indent(4) }}",
    "if": "{% if true %}{{ v }}{% else %}0{% endif %}",
    "inline if": "{{ v if true else ',' }}",
    "loop": "{% for x in [v] %}{{ x }}{% endfor %}",
    "extended loop": '{% for x in [v] %}{{ x }}{{ "," if not loop.last }}{% endfor %}',
    "recursive loop": "{% for x in [[v]] recursive %}{% if loop.depth == 1 %}{{ loop(x) }}{% else %}"
    "{{ x }}{% endif %}{% endfor %}",
    "with": "{% with x = v %}{{ x }}{% endwith %}",
    "set": "{% set x = v %}{{ x }}",
    "macro": "{% macro m(v) %}{{ v }}{% endmacro %}{{ m(v) }}",
    "macro in a macro": "{% macro m(v) %}{{ v }}{% endmacro %}{% macro n(t) %}{{ t }}{% endmacro %}{{ n(m(v)) }}",
    "call": "{% macro m() %}{{ caller(v) }}{% endmacro %}{% call(x) m() %}{{ x }}{% endcall %}",
    "import": '{% import "macros.txt" as m %}{{ m.value(v) }}',
    "include": '{% include "value.txt" %}',
    "block": "{% block b %}{{ v }}{% endblock %}",
    "default": "{{ nothing|default(v) }}",
    "in a list": "{{ [v] }}",
    "in a dict": '{{ {"key": v} }}',
    "with comments": "/* {{ v }} */ {{ v }} // {{ v }}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("templates")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def plain(value):
    """What JSON makes of a value."""
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def surrounded(position, folder):
    return WorkflowTemplate.from_string('{"1": {"x": ' + position + ', "y": 1}, "2": []}', folder=folder)


@pytest.mark.parametrize("position", AS_STRING)
@settings(max_examples=15, deadline=None)
@example(value=HOSTILE)
@given(value=VALUES)
def test_in_a_string_a_value_is_content_and_changes_nothing_else(folder, position, value):
    graph = surrounded(AS_STRING[position], folder).render(v=value)
    x = graph["1"].pop("x")
    assert graph == {"1": {"y": 1}, "2": []}
    assert x.startswith("at ")
    assert x.endswith(", -")
    content = x.removeprefix("at ").removesuffix(", -")
    expected = plain(value)
    if isinstance(expected, str):
        assert content == expected
    else:
        assert json.loads(content) == expected


@pytest.mark.parametrize("position", AS_VALUE)
@settings(max_examples=15, deadline=None)
@example(value=HOSTILE)
@given(value=VALUES)
def test_outside_strings_a_value_is_json_and_changes_nothing_else(folder, position, value):
    expected = plain(value)
    if position.startswith("in a"):
        expected = [expected] if "list" in position else {"key": expected}
    graph = surrounded(AS_VALUE[position], folder).render(v=value)
    assert graph == {"1": {"x": expected, "y": 1}, "2": []}
    assert type(graph["1"]["x"]) is type(expected)


@settings(deadline=None)
@given(value=VALUES)
def test_a_block_of_a_parent_is_a_place_like_any_other(folder, value):
    child = '{% extends "base.txt" %}{% block x %}[{{ super() }}, {{ v }}]{% endblock %}'
    graph = WorkflowTemplate.from_string(child, folder=folder).render(v=value)
    assert graph == {"1": {"x": ["of the parent", plain(value)], "y": 1}, "2": []}


@settings(deadline=None)
@given(NASTY_TEXT)
def test_text_is_a_key_where_a_key_stands(value):
    template = WorkflowTemplate.from_string('{"1": { {{ k }}: 1, "other": 2}, "-{{ k }}": 3}')
    assert template.render(k=f"={value}") == {"1": {f"={value}": 1, "other": 2}, f"-={value}": 3}


class Writer:
    """Writes a template of nested JSON with `v` anywhere in it, and notes what it says."""

    def __init__(self, draw):
        self.draw = draw
        self.atoms = []

    def put(self, text):
        self.atoms.append(text)
        self.atoms += self.draw(st.sampled_from([[], [], [], [" "], ["/* {{ v }} */"], ["// {{ v }}\n"]]))

    def string(self, prefix=""):
        chunks = st.sampled_from(["a", "VALUE", '"', "\\", "//", "/*", "*/", ","])
        chunks = [prefix, *self.draw(st.lists(chunks, max_size=4))]
        self.atoms.append('"')
        self.atoms += ['{{ "" ~ v }}' if chunk == "VALUE" else json.dumps(chunk)[1:-1] for chunk in chunks]
        self.put('"')
        return chunks

    def node(self, depth):
        leaves = {"{{ v }}": "value", "12": "number"}
        kind = self.draw(st.sampled_from(["string", *leaves, *(["array", "object"] * 2 if depth else [])]))
        if kind in leaves:
            self.put(kind)
            return leaves[kind]
        return self.string() if kind == "string" else (kind, self.items(kind, depth))

    def items(self, kind, depth):
        self.put("[" if kind == "array" else "{ ")  # "{" and a tag's "{%" would read as "{{"
        items = []
        count = self.draw(st.integers(0, 3))
        for index in range(count):
            key = None
            if kind == "object":
                key = self.string(str(index))
                self.put(":")
            items.append((key, self.node(depth - 1)))
            if index < count - 1 or self.draw(st.booleans()):
                self.put(",")
        self.put("]" if kind == "array" else "}")
        return items

    def wrap(self, number):
        """Let control flow begin and end anywhere, in the middle of strings too."""
        start, end = sorted(self.draw(st.tuples(*[st.integers(0, len(self.atoms))] * 2)))
        inner = "".join(self.atoms[start:end])
        wrapped = [
            f"{{% if true %}}{inner}{{% endif %}}",
            f"{{% for _ in [0] %}}{inner}{{% endfor %}}",
            f"{{% macro m{number}() %}}{inner}{{% endmacro %}}{{{{ m{number}() }}}}",
            f"{{% block b{number} %}}{inner}{{% endblock %}}",
        ]
        self.atoms[start:end] = [self.draw(st.sampled_from(wrapped))]


@st.composite
def made_up(draw):
    writer = Writer(draw)
    writer.put('{ "1":')
    tree = writer.node(3)
    writer.put("}")
    for number in range(draw(st.integers(0, 3))):
        writer.wrap(number)
    return "{% if v %}{% endif %}" + "".join(writer.atoms), tree


def said(tree, value):
    if isinstance(tree, list):
        return "".join(value if chunk == "VALUE" else chunk for chunk in tree)
    if isinstance(tree, tuple):
        kind, items = tree
        if kind == "array":
            return [said(item, value) for _, item in items]
        return {said(key, value): said(item, value) for key, item in items}
    return {"value": value, "number": 12}[tree]


@settings(max_examples=300, deadline=None)
@given(made_up(), NASTY_TEXT)
def test_no_text_changes_the_structure_of_any_template(template, value):
    text, tree = template
    assert WorkflowTemplate.from_string(text).render(v=value) == {"1": said(tree, value)}


SCRAPS = [
    '{"1": ', "{", "}", "[", "]", '"', ",", ":", "\\", "//", "/*", "*/", "\n", "1", "{{ v }}", "{{ v|upper }}",
    "{{ v|safe }}", "{{ v.a }}", "{{ v() }}", "{{ w }}", "{{", "}}", "{%", "%}", "{#", "#}", "{% if v %}",
    "{% endif %}",
    "{% for x in v %}", "{% endfor %}", "{{ loop.index }}", "{% macro m(v) %}", "{% endmacro %}", "{{ m(v) }}",
    "{{ m(v)|upper }}", "{% set x %}", "{% endset %}", "{{ x }}", "{% filter upper %}", "{% endfilter %}",
    '{% include "no" %}', "{{ v / 0 }}", "{{ v.__class__.__mro__ }}", "{{ range(10**9) }}",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(SCRAPS), max_size=12).map("".join), VALUES)
def test_any_text_gives_a_graph_or_an_error_of_our_tree(text, value):
    try:
        graph = WorkflowTemplate.from_string("{% set _ = v %}" + text).render(v=value)
    except TemplateError as exc:
        assert str(exc)  # noqa: PT017 - either outcome is right; what must not happen is another exception
    else:
        json.dumps(graph, allow_nan=False)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("{{ true }}", True),
        ("{{ none }}", None),
        ("{{ flag }}", True),
        ("{{ count|int }}", 8),
        ('"{{ true }} {{ none }} {{ 8 }} {{ [1, none] }} {{ {"a": "b"} }}"', 'true null 8 [1, null] {"a": "b"}'),
        ('"{{ path }}"', "in/a"),
        ("{{ path }}", "in/a"),
        ('{{ path ~ "/b.png" }}', "in/a/b.png"),
        ("{{ '\"' }}", '"'),
        ('"{{ \'"\' }}"', '"'),
        ("\"{{ '{{' }} {{ '}}' }} {% raw %}{{ v }}{% endraw %}\"", "{{ }} {{ v }}"),
        ("{{ '{{' }}", "{{"),
        ('"{{ "a" if false }}"', ""),
        ('"{{ path|tojson }}"', '"in/a"'),
        ('[{{ ["a", "b\\""]|map("tojson")|join(", ") }}]', ["a", 'b"']),
        ("[{{ ['a', 'b']|join(', ') }}]", ["a, b"]),
        ("{{ '[1, 2]'|safe }}", [1, 2]),
        ("{{ '\"a\"'|safe }}", "a"),
        ("{{ [3, 1]|sort }}", [1, 3]),
        ('"{{ "a,b".split(",") }}"', '["a", "b"]'),
    ],
)
def test_hand_picked_positions(position, expected):
    template = WorkflowTemplate.from_string('{"x": ' + position + "}")
    given_values = {"flag": True, "count": "8", "path": PurePosixPath("in/a")}
    assert template.render({name: v for name, v in given_values.items() if template.uses(name)}) == {"x": expected}


@pytest.mark.parametrize(
    "separator",
    [
        '{{ "," if not loop.last }}',
        '{{ ",\n" if not loop.last else "" }}',
        '{{ "" if loop.last else "," }}',
        '{{ not loop.last and "," or "" }}',
        "{{ ',' }}",
    ],
)
@pytest.mark.parametrize("names", [[], ["a"], ["a", 'b", "c', "d"]])
def test_a_literal_of_json_punctuation_is_text(separator, names):
    template = WorkflowTemplate.from_string(
        "{ {% for n in names %}{{ n }}: {{ loop.index }}" + separator + "{% endfor %} }"
    )
    assert template.render(names=names) == {name: index for index, name in enumerate(names, 1)}


@pytest.mark.parametrize("joiner", ['joiner(",")', "joiner()", 'joiner(sep=", ")'])
def test_a_joiner_of_json_punctuation_is_text(joiner):
    text = "{% set comma = " + joiner + ' %}{ {% for n in ["a", "b"] %}{{ comma() }}{{ n }}: 1{% endfor %} }'
    template = WorkflowTemplate.from_string(text)
    assert template.render() == {"a": 1, "b": 1}
    assert template.render() == {"a": 1, "b": 1}, "nothing is left of the first rendering"


def test_punctuation_that_is_a_value_stays_a_value():
    text = '{"a": {{ v }}, "b": "{{ "," }}", "c": {{ "," ~ "" }}, "d": {{ w }}, "e": {{ v if true else "," }}}'
    template = WorkflowTemplate.from_string("{% set w = ':' %}" + text)
    assert template.render(v=",") == {"a": ",", "b": ",", "c": ",", "d": ":", "e": ","}


def test_punctuation_in_a_string_is_content():
    assert WorkflowTemplate.from_string('{"a": "{{ ",\n" }}"}').render() == {"a": ",\n"}


def test_what_set_and_filter_capture_is_a_plain_string():
    text = (
        '{% set x %}{"a": "{{ v }}"}{% endset %}'
        '{"text": "{{ x }}", "value": {{ x }}, "length": {{ x|length }}, "json": {{ x|safe }}}'
    )
    graph = WorkflowTemplate.from_string(text).render(v="é")
    assert graph == {"text": '{"a": "é"}', "value": '{"a": "é"}', "length": 10, "json": {"a": "é"}}
    filtered = WorkflowTemplate.from_string('{"a": {% filter upper %}"{{ v }}"{% endfilter %}}')
    assert filtered.render(v='x"') == {"a": '"X""'}


MACRO = '{% macro m(v) %}{"a": "{{ v }}"}{% endmacro %}'


@pytest.mark.parametrize(
    "expression",
    [
        "m(v)|upper",
        "m(v)|tojson",
        "m(v)|safe",
        "m(v)|default('')",
        "m(v)|length",
        "m(v).upper()",
        "m(v) ~ ','",
        "m(v) + ','",
        "m(v)[0]",
        "m(v) == ''",
        "[m(v), m(v)]|join",
        "v|replace('a', m(v))",
        "[m(v)]",
        "self.b()|upper",
        "imported|upper",
        "imported.n()|upper",
    ],
)
def test_a_filter_or_operator_over_template_text_is_refused(expression, tmp_path):
    (tmp_path / "macros.txt").write_text("{% macro n() %}{% endmacro %}")
    head = '{% set _ = v %}{% import "macros.txt" as imported %}' + MACRO
    template = WorkflowTemplate.from_string(
        head + '{"1": "{% block b %}{% endblock %}",\n"2": {{ ' + expression + " }}}", folder=tmp_path
    )
    with pytest.raises(TemplateError) as caught:
        template.render(v="a")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    "text",
    [
        "{% macro m() %}{{ caller()|upper }}{% endmacro %}{% call m() %}a{% endcall %}",
        "{% macro m() %}a{% endmacro %}{% filter replace(m(), '') %}b{% endfilter %}",
        "{% macro m() %}a{% endmacro %}{% if m() == 'a' %}{% endif %}",
        "{% macro m() %}a{% endmacro %}{% for x in m() %}{% endfor %}",
    ],
)
def test_template_text_is_refused_in_statements_too(text):
    with pytest.raises(TemplateError, match="template text"):
        WorkflowTemplate.from_string(text).render()


def test_template_text_is_true_when_it_has_any():
    text = '{% macro m(v) %}{{ v }}{% endmacro %}{"a": {{ 1 if m("") else 0 }}, "b": {{ 1 if m("x") else 0 }}}'
    assert WorkflowTemplate.from_string(text).render() == {"a": 0, "b": 1}


def test_safe_is_template_text_and_moves_on_in_json():
    template = WorkflowTemplate.from_string('{ {{ head|safe }}{{ v }}", "c": {{ v }} }')
    assert template.render(head='"a": 1, "b": "', v='"x') == {"a": 1, "b": '"x', "c": '"x'}


@pytest.mark.parametrize("text", ['"a\\{{ v }}"', '"a\\u00{{ v }}"', '"a\\{% if true %}{{ v }}{% endif %}"'])
def test_a_value_inside_an_escape_sequence_is_refused(text):
    with pytest.raises(TemplateError, match="backslash"):
        WorkflowTemplate.from_string(f'{{"a": {text}}}').render(v="n")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [{"a": -math.inf}], "\ud83d", {"\udc00": 1}, b"a", object(), {1: 2}]
)
@pytest.mark.parametrize(
    "place",
    ['"{{ v }}"', "{{ v }}", "{{ v|tojson }}", "{{ [v] }}", '{{ "a" ~ v }}', "{% filter trim %}{{ v }}{% endfilter %}"],
)
def test_what_json_cannot_say_is_refused_with_its_line(place, value):
    with pytest.raises(TemplateError) as caught:
        WorkflowTemplate.from_string('{"a":\n\n' + place + "}").render(v=value)
    assert caught.value.line == 3


def test_a_list_that_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(TemplateError):
        WorkflowTemplate.from_string('{"a": {{ v }}}').render(v=value)


def test_autoescape_is_refused():
    with pytest.raises(TemplateError, match="JSON by itself"):
        WorkflowTemplate.from_string("{% autoescape true %}{{ v }}{% endautoescape %}")


def test_markup_from_outside_is_a_value_like_any_other():
    class Markup(str):
        __slots__ = ()

        def __html__(self):
            return self

    assert WorkflowTemplate.from_string('{"a": "{{ v }}", "b": {{ v }}}').render(v=Markup('", "c": "')) == {
        "a": '", "c": "',
        "b": '", "c": "',
    }


def test_include_without_context_sees_no_variables_and_is_refused_where_jinja_misplaces_it(tmp_path):
    (tmp_path / "part").write_text('{{ v|default("none") }}')
    plain_include = '{"a": {% include "part" without context %}}'
    assert WorkflowTemplate.from_string(plain_include, folder=tmp_path).render() == {"a": "none"}
    with pytest.raises(TemplateError, match="without context"):
        WorkflowTemplate.from_string('{% set x %}{% include "part" without context %}{% endset %}', folder=tmp_path)
