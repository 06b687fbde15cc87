import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.declarations import ABSENT, Declaration, json_schema
from runpod_comfy.workflow.declarations_yaml import declarations_text, read_declarations
from runpod_comfy.workflow.template import WorkflowTemplate

HEADER = """{# runpod-comfy:
variables:
  prompt: {type: text, default: "a fox"}
  steps: {type: int, default: 20, min: 1, max: 30}
  sampler: {default: euler, choices: [euler, heun]}
  flag: {type: bool, default: true}
#}
"""
TEXT = HEADER + '{"text": "{{ prompt }}", "steps": {{ steps }}, "sampler": "{{ sampler }}", "flag": {{ flag }}}'
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.one_of(texts, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())


def test_defaults_fill_what_is_not_given():
    template = WorkflowTemplate.from_string(TEXT)
    assert template.variables == frozenset()
    assert template.optional_variables == {"prompt", "steps", "sampler", "flag"}
    assert template.render(steps=3) == {"text": "a fox", "steps": 3, "sampler": "euler", "flag": True}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("steps", 31, "from 1 to 30"),
        ("steps", 0, "from 1 to 30"),
        ("steps", "20", "a whole number"),
        ("steps", 2.5, "a whole number"),
        ("steps", True, "a whole number"),
        ("prompt", True, "a text"),
        ("prompt", None, "a text"),
        ("sampler", "eular", "one of euler, heun"),
        ("flag", 1, "true or false"),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused_with_what_is_taken(name, value, allowed):
    with pytest.raises(TemplateError, match=f"{name}: .*{allowed}"):
        WorkflowTemplate.from_string(TEXT).render({name: value})


def test_all_values_that_are_refused_are_named_at_once():
    with pytest.raises(TemplateError, match=r"prompt.*steps"):
        WorkflowTemplate.from_string(TEXT).render(prompt=None, steps=0)


def test_a_whole_number_may_be_written_as_a_fraction_and_a_fraction_as_a_whole_number():
    assert WorkflowTemplate.from_string(TEXT).render(steps=3.0)["steps"] == 3
    assert Declaration(name="x", type="float").check(3) == 3


def test_a_number_may_stand_where_a_text_is_wanted():
    assert WorkflowTemplate.from_string(TEXT).render(prompt=1999)["text"] == "1999"


def test_declarations_may_stand_beside_the_template_but_not_twice(tmp_path):
    (tmp_path / "t.json.jinja").write_text('{"x": {{ steps }}}')
    beside = tmp_path / "t.json.jinja.yaml"
    beside.write_text("variables:\n  steps: {type: int, default: 7}\n")
    assert WorkflowTemplate(tmp_path / "t.json.jinja").render() == {"x": 7}
    (tmp_path / "t.json.jinja").write_text(TEXT)
    with pytest.raises(TemplateError, match="Keep one"):
        WorkflowTemplate(tmp_path / "t.json.jinja")


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("variables: [", "no YAML"),
        ("- 1", "mapping"),
        ("variables:\n  2x: {}", "letters"),
        ("variables:\n  x: 5", "takes a mapping"),
        ("variables:\n  x: {typ: int}", "not known here: typ"),
        ("variables:\n  x: {type: integer}", "there are text, int"),
        ("variables:\n  x: {type: choice}", "list of choices"),
        ("variables:\n  x: {type: text, choices: [a]}", "list of choices"),
        ("variables:\n  x: {type: text, min: 1}", "has a min"),
        ("variables:\n  x: {type: int, max: a}", "has a max"),
        ("variables:\n  x: {type: int, default: a}", "default that it would refuse"),
        ("variables:\n  x: {type: int, default: 5, max: 4}", "at most 4"),
        ("variables:\n  x: !!python/object/apply:os.system [ls]", "no YAML"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(yaml, words):
    with pytest.raises(TemplateError, match=words):
        read_declarations(yaml, template="t")


def test_bad_yaml_is_reported_with_the_templates_line():
    with pytest.raises(TemplateError, match="line 3") as caught:
        WorkflowTemplate.from_string("{# runpod-comfy:\nvariables:\n  x: {type: [int}\n#}\n{}")
    assert caught.value.line == 3


def test_a_declared_variable_that_nothing_uses_is_a_misspelling():
    with pytest.raises(TemplateError, match=r"promt \(did you mean prompt"):
        WorkflowTemplate.from_string('{# runpod-comfy:\nvariables:\n  promt: {}\n#}\n{"x": "{{ prompt }}"}')


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), values), texts)
def test_declarations_are_read_as_they_were_written(defaults, help_):
    declared = {name: Declaration(name=name, default=value, help=help_) for name, value in defaults.items()}
    places = ",".join(f'"{name}": {{{{ {name} }}}}' for name in declared)
    source = "{# runpod-comfy:\n" + declarations_text(declared) + "#}\n{" + places + "}"
    template = WorkflowTemplate.from_string(source)
    read = dict(template.declarations)
    assert read == declared
    assert [type(each.default) for each in read.values()] == [type(each.default) for each in declared.values()]
    assert template.render() == defaults


def test_the_schema_says_the_same():
    schema = json_schema(WorkflowTemplate.from_string(TEXT).declarations, title="t")
    assert schema["properties"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 30, "default": 20}
    assert schema["properties"]["sampler"]["enum"] == ["euler", "heun"]
    assert schema["required"] == []
    assert json_schema({"x": Declaration(name="x", default=ABSENT)}, title="t")["required"] == ["x"]
    json.dumps(schema)


def test_a_header_of_another_kind_is_only_a_comment():
    assert WorkflowTemplate.from_string('{# a note: variables #}{"x": 1}').render() == {"x": 1}
