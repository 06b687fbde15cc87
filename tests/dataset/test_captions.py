import pytest

from runpod_comfy.dataset.captions import Caption
from runpod_comfy.errors import ConfigurationError

IMAGE = {
    "file": "images/000/000001_0.png",
    "index": 1,
    "seed": "18446744073709551615",
    "variables": {"prompt": "a {{ mug }}", "cfg": 7},
    "columns": {"sku": "88"},
}


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (None, "a {{ mug }}"),
        ("sku", "88"),
        ("prompt ~ ', cfg ' ~ cfg", "a {{ mug }}, cfg 7"),
        ("{{ prompt | upper }}!", "A {{ MUG }}!"),
        ("seed", "18446744073709551615"),
    ],
)
def test_a_caption_is_a_variable_an_expression_or_a_template(text, caption):
    assert Caption(text).of(IMAGE) == caption


def test_without_a_prompt_the_default_is_nothing():
    assert Caption().of({"variables": {}}) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("style", "There are: cfg, "),
        ("cfg / 0", "ZeroDivisionError"),
        ("prompt.__class__.__mro__", "unsafe|undefined|SecurityError"),
        ("prompt ~", "is no Jinja"),
    ],
)
def test_a_caption_that_cannot_be_made_says_why(text, words):
    with pytest.raises(ConfigurationError, match=words):
        Caption(text).of(IMAGE)
