"""What a run writes is what the published schemas say."""

import json
from importlib.resources import files

import jsonschema
import pytest


def validator(name):
    schema = json.loads((files("runpod_comfy") / "schemas" / f"{name}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "image/9"},
        {"seed": 18446744073709551615},
        {"file": "../../etc/passwd"},
        {"sha256": "x"},
        {"task": None},
    ],
)
def test_what_a_line_must_not_say(wrong):
    line = {"schema": "image/1", "task": "a", "index": 0, "row_id": "a", "sample": 0, "batch": 0}
    line |= {"file": "images/000/000000_0.png", "name": "a_00001_.png", "kind": "images", "sha256": "0" * 64}
    line |= {"size_bytes": 1, "media_type": "image/png", "variables": {}, "columns": {}, "seed": "1"}
    line |= {"node": {"id": "9", "title": None}}
    lines = validator("manifest-line")
    assert lines.is_valid(line)
    assert not lines.is_valid(line | wrong)


def test_a_selection_names_tasks_and_samples():
    selections = validator("selection")
    image = {"file": "images/000/000123_2.png", "task": "a", "sample": 2, "stars": 3, "rejected": False}
    assert selections.is_valid({"schema": "selection/1", "run": None, "images": [image]})
    assert not selections.is_valid({"schema": "selection/1", "run": None, "images": [image | {"stars": 6}]})
    assert not selections.is_valid({"schema": "selection/1", "run": None, "images": [{"file": "a.png"}]})
