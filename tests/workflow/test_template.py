from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from runpod_comfy.errors import RunpodComfyError, TemplateError
from runpod_comfy.workflow.template import WorkflowTemplate

WITH_TRAILING_COMMA = (
    '{"1": {"inputs": {"directory": "{{ input_images_dir }}", "image_load_cap": 0, "start_index": 0, "load_always": '
    'false}, "class_type": "LoadImagesFromDir", "_meta": {"title": "Load Reference Images"}}, "2": {"inputs": '
    '{"width": 896, "height": 1152, "batch_size": {{ batch_size|int }}}, "class_type": "EmptyLatentImage", "_meta": '
    '{"title": "Empty Latent Image"}},}'
)


def from_string(text, **options):
    return WorkflowTemplate.from_string(text, **options)


def test_exported_text_with_a_trailing_comma_renders():
    template = from_string(WITH_TRAILING_COMMA)
    assert template.variables == {"input_images_dir", "batch_size"}
    graph = template.render(input_images_dir=PurePosixPath("/in/a b"), batch_size="8")
    assert graph["1"]["inputs"] == {
        "directory": "/in/a b",
        "image_load_cap": 0,
        "start_index": 0,
        "load_always": False,
    }
    assert graph["2"]["inputs"] == {"width": 896, "height": 1152, "batch_size": 8}
    assert list(graph) == ["1", "2"]


@pytest.mark.parametrize("kind", [str, Path])
def test_template_is_read_from_a_file(tmp_path, kind):
    file = tmp_path / "workflow.json.jinja"
    file.write_bytes(b'\xef\xbb\xbf{\r\n"1": "\xf0\x9f\xa6\x8a {{ a }}"}')
    template = WorkflowTemplate(kind(file))
    assert (template.name, template.path) == ("workflow.json.jinja", file)
    assert template.source == '{\r\n"1": "🦊 {{ a }}"}'
    assert template.render(a=1) == {"1": "🦊 1"}


def test_template_from_a_string_has_a_name_and_no_path():
    template = from_string('{"a": 1}')
    assert (template.name, template.path, template.source) == ("<string>", None, '{"a": 1}')
    assert from_string("{}", name="mine").name == "mine"
    assert "mine" in repr(from_string("{}", name="mine"))


def test_missing_file_folder_and_bad_name_are_errors_of_our_tree(tmp_path):
    for path, word in [(tmp_path / "no.jinja", "no.jinja"), (tmp_path, "is a folder"), ("a\0b", "cannot be read")]:
        with pytest.raises(TemplateError, match=word):
            WorkflowTemplate(path)


@pytest.mark.parametrize("content", ['{\n"a": "ä"}'.encode("latin-1"), '{\n"a": 1}'.encode("utf-16")])
def test_file_that_is_not_utf8_is_refused(tmp_path, content):
    file = tmp_path / "a.jinja"
    file.write_bytes(content)
    with pytest.raises(TemplateError, match="not UTF-8") as caught:
        WorkflowTemplate(file)
    assert caught.value.template == "a.jinja"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a":\n{% if %}}', 2),
        ('{"a":\n\n{{ }}', 3),
        ('\n{% for x in y %}{"a": 1}', 2),
        ('{"a": {{ x|nosuchfilter }}}', 1),
        ("\n{% nosuchtag %}", 2),
        ("{{ x", 1),
        ("{% block a %}{% endblock %}\n{% block a %}{% endblock %}", 2),
    ],
)
def test_bad_jinja_is_refused_at_once_with_name_and_line(text, line):
    with pytest.raises(TemplateError) as caught:
        from_string(text, name="bad.jinja")
    assert (caught.value.template, caught.value.line) == ("bad.jinja", line)
    assert f"bad.jinja, line {line}" in str(caught.value)


def test_jinja_that_python_cannot_compile_is_an_error_of_our_tree():
    with pytest.raises(TemplateError):
        from_string("{% for x in y %}" * 30 + "{% endfor %}" * 30)
    with pytest.raises(TemplateError):
        from_string("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


def test_all_missing_variables_are_named_at_once_with_near_names():
    template = from_string('{"a": "{{ prompt }}", "b": {{ steps }}, "c": {{ cfg|default(7) }}, "d": {{ batch_size }}}')
    with pytest.raises(TemplateError) as caught:
        template.render(batch_size=1)
    assert caught.value.missing == ("prompt", "steps")
    with pytest.raises(TemplateError) as caught:
        template.render({"promt": "a"}, step=3)
    assert caught.value.missing == ("batch_size", "prompt", "steps")
    assert "prompt (promt was given)" in str(caught.value)
    assert "step (did you mean steps?)" in str(caught.value)


def test_variable_of_a_branch_that_is_not_taken_is_not_missed():
    template = from_string('{"a": {% if style %}"{{ lora }}"{% else %}0{% endif %}}')
    assert template.variables == {"style", "lora"}
    assert template.render(style=False) == {"a": 0}
    with pytest.raises(TemplateError) as caught:
        template.render(style=True)
    assert caught.value.missing == ("lora",)


def test_variable_with_a_default_that_is_used_without_it_is_missed_there():
    template = from_string('{"a": {{ x|default(1) }}, "b": {{ x }}}')
    assert template.variables == frozenset()
    with pytest.raises(TemplateError) as caught:
        template.render()
    assert caught.value.missing == ("x",)
    assert template.render(x=2) == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    "use", ["{{ x }}", '"{{ x }}"', "{{ x|int }}", "{{ [x] }}", '{{ x ~ "" }}', "{{ x|tojson }}", "{{ x.y }}"]
)
def test_missing_variable_is_missed_however_it_is_used(use):
    with pytest.raises(TemplateError) as caught:
        from_string('{"a": ' + use + "}").render()
    assert caught.value.missing == ("x",)


def test_unknown_variable_is_refused_with_near_names():
    template = from_string('{"a": "{{ prompt }}"}')
    with pytest.raises(TemplateError, match=r"promt \(did you mean prompt\?\)") as caught:
        template.render(prompt="a", promt="b")
    assert caught.value.missing == ()


def test_variable_that_the_template_sets_itself_is_unknown():
    with pytest.raises(TemplateError, match="width"):
        from_string('{% set width = 5 %}{"a": {{ width }}}').render(width=6)


def test_what_executors_always_pass_may_be_ignored():
    template = from_string('{"a": 1}')
    assert template.render(input_images_dir="/in", input_images=["a.png"], batch_size=2) == {"a": 1}
    assert not any(map(template.uses, ["input_images_dir", "input_images", "batch_size"]))
    assert from_string('{"a": {{ batch_size|default(1) }}}').uses("batch_size")


def test_optional_variables_are_used_and_not_needed():
    template = from_string(
        '{"a": {{ cfg|default(7) }}, "b": {% if lora is defined %}"{{ lora }}"{% else %}null{% endif %}}'
    )
    assert template.variables == frozenset()
    assert template.optional_variables == {"cfg", "lora"}
    assert template.render() == {"a": 7, "b": None}
    assert template.render(lora="x", cfg=1.5) == {"a": 1.5, "b": "x"}


def test_variables_come_as_mapping_or_keywords_and_keywords_win():
    template = from_string('{"a": {{ variables }}, "self": {{ name }}}')
    assert template.render({"variables": 1, "name": 2}, name=3) == {"a": 1, "self": 3}


def test_variable_names_that_are_not_text_are_refused():
    with pytest.raises(TemplateError):
        from_string('{"a": {{ a }}}').render({1: 2, "a": 1})


def test_loop_outside_a_loop_is_no_variable():
    template = from_string('{"a":\n"{{ loop }}"}')
    assert template.variables == frozenset()
    with pytest.raises(TemplateError, match="'loop' is undefined") as caught:
        template.render()
    assert (caught.value.line, caught.value.missing) == (2, ())


def test_attribute_that_is_not_there_is_an_error_with_its_line():
    with pytest.raises(TemplateError, match="no attribute 'b'") as caught:
        from_string('{"x":\n"{{ a.b }}"}').render(a={})
    assert (caught.value.line, caught.value.missing) == (2, ())


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__",
        "f.__globals__",
        "'{0.__class__}'.format(f)",
        "range(10**9)|list",
        "1 / 0",
        "'a' + 1",
        "'a'|int(none, 99, 3)",
        "[].append(1)",
        "f()",
        "[1]|map('nosuch')|list",
        "xs|sort",
    ],
)
def test_whatever_an_expression_raises_is_an_error_of_our_tree_with_its_line(expression):
    def broken():
        raise KeyError("x" * 1000)

    template = from_string('{"a":\n{{ ' + expression + " }}}")
    given = {"f": broken, "xs": [1, "a"]}
    with pytest.raises(TemplateError) as caught:
        template.render({name: value for name, value in given.items() if template.uses(name)})
    assert caught.value.line == 2
    assert len(str(caught.value)) < 400


def test_endless_macro_is_an_error_of_our_tree():
    with pytest.raises(TemplateError, match="recursion"):
        from_string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").render()


@pytest.mark.parametrize(("text", "kind"), [("[1]", "array"), ('"a"', "string"), ("1", "value")])
def test_what_is_no_object_is_no_workflow(text, kind):
    with pytest.raises(TemplateError, match=f"JSON {kind}"):
        from_string(text).render()


@pytest.mark.parametrize("text", ["", "  \n", "{% if false %}{}{% endif %}", "{# a #}"])
def test_nothing_is_no_workflow(text):
    with pytest.raises(TemplateError, match="nothing"):
        from_string(text).render()


def test_bad_json_is_shown_with_line_column_and_snippet_of_the_rendered_text():
    with pytest.raises(TemplateError) as caught:
        from_string('{% set x = 1 %}{"a": "{{ p }}",\n "b": {{ x }} "c": 2}', name="t.jinja").render(p="secret" * 100)
    assert (caught.value.template, caught.value.line, caught.value.column) == ("t.jinja", 2, 9)
    assert '"b": 1 "c": 2}' in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_that_a_variable_doubles_is_refused():
    with pytest.raises(TemplateError, match="'seed' is there twice"):
        from_string('{"1": {"seed": 1, "{{ k }}": 2}}').render(k="seed")


def test_values_are_not_read_as_jinja():
    assert from_string('{"a": "{{ v }}", "b": {{ v }}}').render(v="{{ 1/0 }}{% if %}") == {
        "a": "{{ 1/0 }}{% if %}",
        "b": "{{ 1/0 }}{% if %}",
    }


def test_large_numbers_survive():
    assert from_string('{"a": {{ s }}, "b": "{{ s }}", "c": 18446744073709551615}').render(s=2**64 - 1) == {
        "a": 2**64 - 1,
        "b": str(2**64 - 1),
        "c": 2**64 - 1,
    }


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "templates"
    (inside / "parts").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / "alias").symlink_to(inside / "parts" / "node")
    (inside / "parts" / "node").write_text('\ufeff"{{ id }}": {"text": "{{ prompt }}"},')
    (inside / "parts" / "macros").write_text("{% macro number(n) %}{{ n }}{% endmacro %}")
    (inside / "latin").write_bytes(b"\xe4")
    (inside / "broken").write_text("\n{% if %}")
    (inside / "failing").write_text("\n\n{{ 1 / 0 }}")
    (inside / "odd").write_text("\n{{ v }}")
    (inside / "hidden").write_text("{% macro m() %}{{ prompt }}{% endmacro %}")
    return inside


def test_includes_and_imports_come_from_the_folder_of_the_template(folder):
    file = folder / "main.jinja"
    file.write_text(
        '{% from "parts/macros" import number %}{ {% for id in ids %}{% include "parts/node" %}{% endfor %}'
        '{% set id = "last" %}{% include "alias" %} "n": {{ number(5) }} }'
    )
    template = WorkflowTemplate(file)
    assert template.variables == {"ids", "prompt"}
    assert template.render(ids=["a", "b"], prompt='"') == {
        "a": {"text": '"'},
        "b": {"text": '"'},
        "last": {"text": '"'},
        "n": 5,
    }


@pytest.mark.parametrize("name", ["../outside", "parts/../../outside", "link", "nowhere", "parts", ""])
def test_includes_stay_inside_the_folder(folder, name):
    template = from_string("\n{% include " + repr(name) + " %}", folder=folder)
    with pytest.raises(TemplateError) as caught:
        template.render()
    assert "secret" not in str(caught.value)
    assert caught.value.line == 2


def test_an_absolute_include_stays_inside_the_folder(folder):
    with pytest.raises(TemplateError, match="no file"):
        from_string("{% include name %}", folder=folder).render(name=str(folder.parent / "outside"))


def test_a_template_from_a_string_has_no_files_unless_it_is_given_a_folder():
    with pytest.raises(TemplateError, match="folder=…"):
        from_string('{% include "a" %}').render()
    assert from_string('{% include "a" ignore missing %}{}').render() == {}


@pytest.mark.parametrize(
    ("text", "template", "line"),
    [
        ('{% include "broken" %}', "broken", 2),
        ('{% include "failing" %}', "failing", 3),
        ('{% include "latin" %}', "latin", None),
        ('{"a": {% include "odd" %}}', "odd", 2),
    ],
)
def test_fault_in_an_included_file_is_told_with_its_name_and_line(folder, text, template, line):
    with pytest.raises(TemplateError) as caught:
        from_string("{% set _ = v %}" + text, folder=folder).render(v=b"")
    assert (caught.value.template, caught.value.line) == (template, line)


def test_import_that_cannot_see_a_given_variable_says_how_to_mend_it(folder):
    text = '{% import "hidden" as h %}{"a": "{{ h.m() }}", "b": "{{ prompt }}"}'
    with pytest.raises(TemplateError, match="with context"):
        from_string(text, folder=folder).render(prompt="a")
    seen = text.replace('"hidden" as h', '"hidden" as h with context')
    assert from_string(seen, folder=folder).render(prompt="a") == {"a": "a", "b": "a"}


def test_template_is_compiled_once(tmp_path):
    file = tmp_path / "a.jinja"
    file.write_text('{"a": 1}')
    template = WorkflowTemplate(file)
    file.unlink()
    assert template.render() == template.render() == {"a": 1}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda template: pickle.loads(pickle.dumps(template))])  # noqa: S301 - our own bytes
def test_copies_and_pickles_render_the_same(folder, duplicate):
    file = folder / "main.jinja"
    file.write_text('{% set id = "1" %}{ {% include "parts/node" %} }')
    for template in (WorkflowTemplate(file), from_string(file.read_text(), name="mine", folder=folder)):
        again = duplicate(template)
        assert again.render(prompt="a") == template.render(prompt="a") == {"1": {"text": "a"}}
        assert (again.name, again.path, again.variables) == (template.name, template.path, template.variables)


def test_threads_do_not_meet_in_a_template(tmp_path):
    (tmp_path / "macros").write_text(
        '{% set comma = joiner(",") %}{% macro item(v) %}{{ comma() }}{{ v }}{% endmacro %}'
    )
    template = from_string(
        '{% import "macros" as m %}{"xs": [{% for x in xs %}{{ m.item(x) }}{% endfor %}], "n": "{{ n }}"}',
        folder=tmp_path,
    )
    start = threading.Barrier(8)

    def render(thread):
        start.wait()
        return [template.render(xs=[thread] * 20, n=number) for number in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for thread, graphs in enumerate(pool.map(render, range(8))):
            assert graphs == [{"xs": [thread] * 20, "n": str(number)} for number in range(20)]


def test_template_error_is_of_our_tree():
    assert issubclass(TemplateError, RunpodComfyError)
