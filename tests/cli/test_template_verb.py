"""Verbs that run a template: which word is the template, and its variables as flags."""

import json
from pathlib import Path

import pytest

from runpod_comfy.cli.batch import command as batch
from runpod_comfy.cli.run import command as run
from runpod_comfy.cli.template_files import find_template_word

TEMPLATE = """{# runpod-comfy:
variables:
  batch_size: {type: int, default: 2}
  color: {type: int, default: 1, min: 0, max: 9}
  prompt: {type: text, default: p}
#}
{"1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": {{ batch_size }},
"color": {{ color }}}},
"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "{{ prompt }}"}}}"""
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 3}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
}


@pytest.fixture(autouse=True)
def _files(folder):
    (folder / "t.json.jinja").write_text(TEMPLATE)
    (folder / "w.json").write_text(json.dumps(WORKFLOW))
    (folder / "info.json").write_text("{}")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("t.json.jinja me.jpg", "t.json.jinja"),
        ("--object-info info.json t.json.jinja", "t.json.jinja"),
        ("--object-info info.json", None),
        ("--object-info=info.json t.json.jinja", "t.json.jinja"),
        ("--output-dir w.json t.json.jinja", "t.json.jinja"),
        ("-n 4 t.json.jinja", "t.json.jinja"),
        ("--workflow w.json t.json.jinja", "t.json.jinja"),  # a variable that is not known yet, and takes a value
        ("--no-check t.json.jinja", "t.json.jinja"),
        ("--unheard-of t.json.jinja", "t.json.jinja"),
        ("--prompt 'a fox' t.json.jinja", "t.json.jinja"),
        ("-- t.json.jinja", "t.json.jinja"),
        ("absent.json t.json.jinja", None),
    ],
)
def test_the_template_is_the_first_word_that_no_option_takes(words, found):
    path = find_template_word(words.replace("'a fox'", "fox").split(), run.params)
    assert (path and path.name) == found


def test_batch_takes_the_templates_variables_as_flags_and_its_batch_size(cli):
    shown = cli("batch", "t.json.jinja", "--help").out
    assert "Variables of t.json.jinja" in shown
    assert "--color N" in shown
    made = cli("batch", "t.json.jinja", "--grid", "prompt=a,b", "-n", 2, "--color", 7, "-o", "out", "--local")
    assert made.code == 0, made.err
    lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    images = [line for line in lines if line["schema"] == "image/1"]
    assert {line["variables"]["color"] for line in images} == {7}
    assert {line["batch"] for line in images} == {0}  # two images in one batch, as the template says
    refused = cli("batch", "t.json.jinja", "--grid", "prompt=a", "--color", 70, "-o", "out2", "--local")
    assert (refused.code, "color" in refused.err) == (2, True)
    twice = cli("batch", "t.json.jinja", "--grid", "prompt=a", "--color", 7, "--var", "color=8", "-o", "out2")
    assert "color is given twice" in twice.err


def test_batch_opens_a_plain_workflow_as_run_does(cli):
    made = cli("batch", "w.json", "--grid", "width=16,32", "-o", "out", "--local", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["data"]["images"] == 2


def test_run_and_batch_name_what_they_share_alike():
    def described(verb):
        return {each.name: each.to_info_dict() for each in verb.params}

    ours, theirs = described(run), described(batch)
    shared = ours.keys() & theirs.keys() - {"template"}
    for name in shared:
        assert ours[name]["opts"] == theirs[name]["opts"] or name == "num_samples"
        assert ours[name]["type"] == theirs[name]["type"]
    assert {"endpoint", "comfyui", "local", "profile", "base_url", "timeout_s", "assignments", "as_json"} <= shared


def test_near_names_are_offered_for_choices_verbs_options_and_variables(cli):
    assert "Did you mean 'rerun'?" in cli("run", "t.json.jinja", "--on-lost", "reru").err
    assert "--color" in cli("run", "t.json.jinja", "--colour", 3).err
    assert "color" in cli("run", "t.json.jinja", "--var", "colour=3", "--local").err
