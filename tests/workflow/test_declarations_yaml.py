"""A header of variables from somebody else: an error at worst, whatever stands in it."""

import pytest

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.declarations_yaml import read_declarations

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("variables: &v {a: *v}", "alias"),
        (f"{BOMB}variables: {{a: {{default: *u}}}}", "alias"),
        ("variables: {a: {default: !!set {x, y}}}", "no YAML"),
        ("variables: {a: {default: !!binary aGk=}}", "no YAML"),
        ("variables: {a: {default: !!timestamp 2026-01-01}}", "no YAML"),
        ("variables: {a: {default: !!python/object/apply:os.system [ls]}}", "no YAML"),
        ("variables: {a: {default: .inf}}", "JSON lacks"),
        ("variables: {a: {type: choice, choices: [.nan]}}", "JSON lacks"),
        ("variables: {? [1, 2] : x}", "no YAML"),
        (f"variables: {{a: {{default: {'[' * 100_000}}}}}", "nesting"),
        (f"variables: {{a: {{default: {'[' * 60}{']' * 60}}}}}", "nested more than 50 deep"),
        (f"variables: {{a: {{default: {'9' * 5000}}}}}", "no YAML"),
        (f"# {'x' * 2_000_000}\nvariables: {{}}", "are taken"),
    ],
)
def test_what_is_no_json_or_endless_is_a_template_error_at_once(text, words):
    with pytest.raises(TemplateError, match=words):
        read_declarations(text, template="t")


def test_a_date_is_the_text_that_stands_there():
    assert read_declarations("variables: {day: {default: 2026-11-24}}", template="t")["day"].default == "2026-11-24"
