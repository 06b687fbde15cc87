from __future__ import annotations

import pytest

from runpod_comfy.workflow.template import WorkflowTemplate

FILES = {
    "part": "{{ image }} {{ width }}",
    "guarded": "{{ strength|default(1) }}",
    "macros": "{% macro m(x) %}{{ x }} {{ hidden }}{% endmacro %}",
    "base": "{% set size = 5 %}{{ title }}{% block a %}{{ in_base }}{% endblock %}"
    "{% block b %}{{ kept }}{% endblock %}{{ of_child }}",
    "itself": '{{ v }}{% if v %}{% include "itself" %}{% endif %}',
    "broken": "{% if %}",
}


@pytest.fixture
def variables(tmp_path):
    def find(text):
        for name, content in FILES.items():
            (tmp_path / name).write_text(content)
        template = WorkflowTemplate.from_string(text, folder=tmp_path)
        return " ".join(sorted(template.variables)), " ".join(sorted(template.optional_variables))

    return find


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("{{ a }} {{ b.c }} {{ d[e] }} {{ f(g) }} {{ h|upper }} {{ i|replace(j, 'k') }}", "a b d e f g h i j"),
        ("{% if a %}{{ b }}{% elif c %}{{ d }}{% else %}{{ e }}{% endif %}", "a b c d e"),
        ("{{ a if b else c }}", "a b c"),
        ("{{ range(3) }} {{ joiner(',')() }} {{ namespace(a=1).a }} {{ dict(a=b) }}", "b"),
        # loops
        ("{% for x in xs if x.y > z %}{{ x }} {{ loop.index }}{% else %}{{ e }}{% endfor %}", "e xs z"),
        ("{% for k, v in d.items() recursive %}{{ loop(v) }}{{ k }}{% endfor %}", "d"),
        ("{% for x in xs %}{% endfor %}{{ x }}", "x xs"),
        ("{% for x in xs %}{% set y = x %}{{ y }}{% endfor %}{{ y }}", "xs y"),
        # set
        ("{% set a = 1 %}{{ a }}", ""),
        ("{{ a }}{% set a = 1 %}", "a"),
        ('{% set prompt = prompt ~ ", art" %}{{ prompt }}', "prompt"),
        ("{% set a, b = c %}{{ a }}{{ b }}", "c"),
        ("{% set a %}{{ b }}{% set c = 1 %}{{ c }}{% endset %}{{ a }}{{ c }}", "b c"),
        ("{{ b }}{% set a | replace(b, 'c') %}{{ d }}{% endset %}{{ a }}", "b d"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + step %}{{ ns.n }}", "step"),
        ("{% if a %}{% set b = 1 %}{% else %}{% set b = 2 %}{% endif %}{{ b }}", "a"),
        ("{% with a = b, c = 1 %}{{ a }}{{ c }}{% endwith %}{{ a }}", "a b"),
        ("{% filter replace(a, b) %}{{ c }}{% endfilter %}", "a b c"),
        # macros and calls
        (
            "{% macro m(x, y=z) %}{{ x }}{{ y }}{{ varargs }}{{ kwargs }}{{ caller() }}{{ w }}{% endmacro %}{{ m(v) }}",
            "v w z",
        ),
        (
            "{% macro m() %}{{ n() }}{{ m() }}{{ late }}{% endmacro %}{% macro n() %}{% endmacro %}{% set late = 1 %}",
            "",
        ),
        ("{% call(x) m(y) %}{{ x }}{{ z }}{% endcall %}{% macro m(a) %}{% endmacro %}", "m y z"),
        # files
        ('{% for image in images %}{% include "part" %}{% endfor %}', "images width"),
        ('{% set width = 1 %}{% include ["no", "part"] %}', "image"),
        ('{% include "part" without context %}', ""),
        ('{% include "no" ignore missing %}', ""),
        ('{% include "itself" %}', "v"),
        ('{% import "macros" as m %}{{ m.m(a) }}', "a"),
        ('{% import "macros" as m with context %}{{ m.m(a) }}', "a hidden"),
        ('{% from "macros" import m, n as o %}{{ m(a) }}{{ o }}', "a"),
        (
            '{% extends "base" %}{% set of_child = 1 %}{% block a %}{{ x }}{{ size }}{{ of_child }}{% endblock %}',
            "kept title x",
        ),
        ('{% extends "base" %}{% set of_child = 1 %}{% block a %}{{ super() }}{% endblock %}', "in_base kept title"),
        ("{% for x in xs %}{% block b scoped %}{{ x }}{% endblock %}{% endfor %}", "xs"),
        ("{% for x in xs %}{% block b %}{{ x }}{% endblock %}{% endfor %}", "x xs"),
        ("{% set x = 1 %}{% block b %}{{ x }}{{ self.b() }}{% endblock %}", ""),
    ],
)
def test_needed_are_the_names_that_nothing_binds(variables, text, needed):
    assert variables(text) == (needed, "")


@pytest.mark.parametrize(
    ("text", "needed", "optional"),
    [
        ("{{ a|default(b) }} {{ c|d }}", "b", "a c"),
        ("{{ a }}{{ a|default(1) }}", "", "a"),
        ("{% if a is defined %}{{ a }}{% endif %}", "", "a"),
        ("{% if a is not defined %}{% set a = 1 %}{% endif %}{{ a }}", "", "a"),
        ("{{ 1 if a is undefined else a.b }}", "", "a"),
        ("{% set a = a|default(1) %}{{ a }}", "", "a"),
        ("{{ a.b|default(1) }}", "a", ""),
        ("{% if a is none %}{% endif %}", "a", ""),
        ("{% if a %}{% set b = 1 %}{% endif %}{{ b }}", "a", "b"),
        ("{% set a = 1 %}{{ a|default(2) }}", "", ""),
        ("{{ range }}", "", "range"),
        ('{% include "guarded" %}{{ strength }}', "", "strength"),
    ],
)
def test_optional_are_names_with_a_default_or_a_test(variables, text, needed, optional):
    assert variables(text) == (needed, optional)


def test_an_include_whose_name_is_a_variable_leaves_the_list_open(tmp_path):
    (tmp_path / "part").write_text('{"a": {{ w }}}')
    template = WorkflowTemplate.from_string("{% include name %}", folder=tmp_path)
    assert template.variables == {"name"}
    assert template.uses("anything")
    assert template.render(name="part", w=1) == {"a": 1}
