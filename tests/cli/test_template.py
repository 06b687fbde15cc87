"""`runpod-comfy template`, and a template's variables as flags of `run`."""

import json

import pytest
from PIL import Image

from runpod_comfy import _loop
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.preflight import object_info_cache

SAVED = {
    "nodes": [
        {"id": 1, "type": "LoadImage", "outputs": [{"type": "IMAGE"}], "widgets_values": ["example.png", "image"]},
        {
            "id": 2,
            "type": "ImageScale",
            "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
            "outputs": [{"type": "IMAGE"}],
            "widgets_values": ["lanczos", 640, 480, "disabled"],
        },
        {
            "id": 3,
            "type": "SaveImage",
            "title": "$prefix",
            "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
            "widgets_values": ["scaled"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    "version": 0.4,
}
TYPED = """{# runpod-comfy:
variables:
  size: {type: int, default: 64, min: 16, max: 512, help: the side in pixels}
  colour: {type: choice, default: red, choices: [red, green, blue]}
  prefix: {type: text, default: "x"}
#}
{"1": {"class_type": "EmptyImage", "inputs": {"width": {{ size }}, "height": {{ size }}, "batch_size": 1,
  "color": {{ {"red": 16711680, "green": 65280, "blue": 255}[colour] }}}},
 "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "{{ prefix }}"}}}
"""


@pytest.fixture
def comfyui():
    server = ComfyUIStandIn()
    _loop.run_sync(server.start)
    yield server.url
    _loop.run_sync(server.stop)


@pytest.fixture
def saved(folder):
    (folder / "my.flow.json").write_text(json.dumps(SAVED))
    return "my.flow.json"


@pytest.fixture
def typed(folder):
    (folder / "typed.json.jinja").write_text(TYPED)
    return "typed.json.jinja"


def test_a_saved_workflow_runs_with_ones_own_photo_in_two_commands(cli, saved, comfyui):
    created = cli("template", "create", saved, "--comfyui", comfyui)
    assert (created.code, created.lines) == (0, ["my.json.jinja"])
    assert "→ next: runpod-comfy run my.json.jinja" in created.err
    done = cli("run", "my.json.jinja", "portrait/astronaut.jpg", "--prefix", "mine", "--local")
    assert done.code == 0, done.err
    with Image.open(done.lines[0]) as picture:
        graph = json.loads(picture.text["prompt"])
    assert graph["1"]["inputs"]["image"].endswith("00.jpg")
    assert graph["3"]["inputs"]["filename_prefix"] == "mine"


def test_a_saved_workflow_and_a_picture_run_as_they_are(cli, saved, comfyui):
    done = cli("run", saved, "portrait/astronaut.jpg", "--prefix", "one", "--comfyui", comfyui)
    assert done.code == 0, done.err
    again = cli("run", done.lines[0], "portrait/chelsea.jpg", "--prefix", "two", "--local")
    assert again.code == 0, again.err
    assert "two" in again.lines[0]


def test_a_dry_run_shows_the_variables_and_writes_nothing(cli, saved, comfyui):
    done = cli("template", "create", saved, "--comfyui", comfyui, "--dry-run")
    assert done.code == 0
    assert any(line.startswith("prefix ") and '"scaled"' in line and "#3" in line for line in done.lines)
    assert not (done.folder / "my.json.jinja").exists()


def test_a_template_is_never_overwritten_unasked(cli, saved, comfyui):
    (cli("template", "create", saved, "--comfyui", comfyui).folder / "my.json.jinja").write_text("mine")
    done = cli("template", "create", saved, "--comfyui", comfyui)
    assert done.code == 2
    assert "--force" in done.err
    assert (done.folder / "my.json.jinja").read_text() == "mine"
    assert cli("template", "create", saved, "--comfyui", comfyui, "--force").code == 0


def test_what_cannot_be_converted_is_named(cli, folder):
    nodes = [{"id": 7, "type": "Mystery", "widgets_values": [1]}]
    (folder / "odd.json").write_text(json.dumps({"nodes": nodes, "links": []}))
    (folder / "info.json").write_text("{}")
    done = cli("template", "create", "odd.json", "--object-info", "info.json")
    assert done.code == 2
    assert "node 7 (Mystery)" in done.err


def test_a_template_is_not_made_a_template_again(cli, folder):
    (folder / "done.json.jinja").write_text('{# mine #}\n{"1": {"class_type": "A", "inputs": {"x": {{ x }}}}}')
    done = cli("template", "create", "done.json.jinja")
    assert done.code == 2
    assert "is a template already" in done.err


def test_show_lists_name_default_range_and_place(cli, typed):
    done = cli("template", "show", typed)
    assert any(line.split()[:2] == ["size", "64"] and "from 16 to 512" in line for line in done.lines)
    schema = json.loads(cli("template", "show", typed, "--json-schema").out)
    assert schema["properties"]["colour"]["enum"] == ["red", "green", "blue"]
    [line] = cli("template", "show", typed, "--json").lines
    assert [each["name"] for each in json.loads(line)["data"]["variables"]] == ["size", "colour", "prefix"]


def test_show_lists_variables_that_nothing_declares(cli):
    assert any(line.startswith("prompt ") for line in cli("template", "show", "portrait/workflow.json.jinja").lines)


def test_validate_says_file_node_and_input_and_ends_with_2(cli, typed, comfyui):
    fine = cli("template", "validate", typed, "--comfyui", comfyui)
    assert (fine.code, fine.out) == (0, "")
    (fine.folder / "bad.json").write_text(
        json.dumps({"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 1, "batch_size": 1, "color": 0}},
                    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}})
    )  # fmt: skip
    bad = cli("template", "validate", "bad.json", "--comfyui", comfyui)
    assert bad.code == 2
    assert bad.lines == ["bad.json:1:width: error: 0 is out of range; it takes 1 to 16384."]


# -- flags of run ------------------------------------------------------------------------------------------------------


def test_each_variable_is_a_flag_and_help_lists_them_under_the_templates_name(cli, typed):
    shown = cli("run", typed, "--help").out
    assert "Variables of typed.json.jinja:" in shown
    assert "--size N" in shown
    assert "from 16 to 512" in shown
    done = cli("run", typed, "--size", 32, "--colour=blue", "--prefix", "-5 {{ degrees }}", "--local")
    assert done.code == 0, done.err
    with Image.open(done.lines[0]) as picture:
        graph = json.loads(picture.text["prompt"])
    assert graph["1"]["inputs"] == {"width": 32, "height": 32, "batch_size": 1, "color": 255}
    assert graph["2"]["inputs"]["filename_prefix"] == "-5 {{ degrees }}"


def test_a_flag_before_the_template_is_read_as_well(cli, typed):
    assert cli("run", "-n", 1, "--size", 32, typed, "--local").code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--size", "600"], "from 16 to 512"),
        (["--size", "big"], "whole number"),
        (["--colour", "geen"], "Did you mean 'green'"),
        (["--siz", "32"], "--size"),
        (["--var", "size=600"], "from 16 to 512"),
        (["--var", "size=32", "--size", "32"], "given twice"),
    ],
)
def test_a_value_that_is_not_taken_is_refused_with_what_is(args, words, cli, typed):
    done = cli("run", typed, *args, "--local")
    assert done.code == 2
    assert words in done.err


def test_a_text_may_come_from_a_file_or_look_like_a_number(cli, typed):
    (cli("example").folder / "p.txt").write_text("from file")
    done = cli("run", typed, "--prefix", "@p.txt", "--local")
    assert "from file" in done.lines[0]
    assert "17" in cli("run", typed, "--var", "prefix=17", "--local").lines[0]


def test_completion_offers_the_variables_and_their_choices(shell, typed):
    def complete(*words):
        env = {
            "_RUNPOD_COMFY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        out, _ = shell("runpod-comfy", env=env).communicate(timeout=60)
        return out

    assert "--size" in complete("runpod-comfy", "run", typed, "--s")
    assert "green" in complete("runpod-comfy", "run", typed, "--colour", "g")


# -- the check before a run --------------------------------------------------------------------------------------------


def test_a_run_is_checked_against_what_was_kept_and_sent_all_the_same_if_asked(cli, typed, comfyui):
    known = {"EmptyImage": {"input": {}, "output": ["IMAGE"]}, "SaveImage": {"input": {}, "output_node": True}}
    object_info_cache().store(comfyui, known, version="0", fetched_at="2026-11-24")
    assert cli("run", typed, "--comfyui", comfyui).code == 0
    (cli("example").folder / "w.json.jinja").write_text(TYPED.replace('"SaveImage"', '"SaveImages"'))
    refused = cli("run", "w.json.jinja", "--comfyui", comfyui)
    assert refused.code == 2
    assert "w.json.jinja:2" in refused.err
    assert "Did you mean SaveImage?" in refused.err
    assert "--no-check" in refused.err
    assert "would refuse" not in cli("run", "w.json.jinja", "--comfyui", comfyui, "--no-check").err


def test_a_file_of_node_types_is_enough_for_the_check(cli, typed):
    (cli("example").folder / "info.json").write_text('{"SaveImage": {"input": {}, "output": [], "output_node": true}}')
    refused = cli("run", typed, "--object-info", "info.json", "--local")
    assert refused.code == 2
    assert "the node type EmptyImage is not installed" in refused.err
