"""Pre-flight: the same verdicts as a real ComfyUI's, and the rest of what is worth knowing."""

import json
from pathlib import Path

import pytest

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.workflow.validate import refuse_faulty, validate_workflow

VERDICTS = json.loads((Path(__file__).parents[1] / "data" / "comfyui" / "verdicts.json").read_text("utf-8"))
# ComfyUI runs the good half of a workflow and leaves the other out in silence; here that is an error.
PARTIAL = "partial_two_outputs_one_bad"
# It says nothing of the node, or says it of the whole; here the node is named.
NO_NODE = {"cycle", "unknown_class_type", "missing_class_type", "node_is_null", "no_outputs", "empty_prompt"}

EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}


def errors_of(graph, info, **more):
    return [each for each in validate_workflow(graph, info, **more) if each.severity == "error"]


def warnings_of(graph, info, **more):
    return [(each.code, each.node_id) for each in validate_workflow(graph, info, **more) if each.severity == "warning"]


@pytest.mark.parametrize("recorded", VERDICTS, ids=lambda each: each["case"])
def test_the_verdict_is_a_real_comfyuis(recorded, info):
    faults = errors_of(recorded["prompt"], info)
    accepted = recorded["status"] == 200 and recorded["case"] != PARTIAL
    assert (not faults) == accepted
    if recorded["node_errors"] and recorded["case"] not in NO_NODE:
        assert {fault.node_id for fault in faults} == set(recorded["node_errors"])


def test_a_problem_says_where_it_is_as_file_node_and_input(info):
    [fault] = errors_of({"1": EMPTY | {"inputs": EMPTY["inputs"] | {"width": 0}}, "2": SAVE}, info, source="w.json")
    assert fault.where == "w.json:1:width"
    assert str(fault) == "w.json:1:width: error: 0 is out of range; it takes 1 to 16384."


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("SD_XL_base_1.0.ckpt", ("sd_xl_base_1.0.safetensors",)), ("unheard-of.safetensors", ())],
)
def test_a_missing_model_comes_with_the_nearest_installed(name, nearest, info):
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    [fault] = errors_of(graph, info)
    assert (fault.code, fault.node_id, fault.nearest) == ("missing_model", "1", nearest)


def test_every_unknown_node_type_is_named_with_the_nearest(info):
    graph = {"1": EMPTY | {"class_type": "EmptyImg"}, "2": SAVE | {"class_type": "SavImage"}, "3": SAVE}
    assert [(each.node_id, each.nearest) for each in errors_of(graph, info)] == [
        ("1", ("EmptyImage",)),
        ("2", ("SaveImage",)),
    ]


def test_photos_of_the_job_are_there_and_others_must_be_in_the_input_folder(info):
    def graph(name):
        return {"1": {"class_type": "LoadImage", "inputs": {"image": name}}, "2": SAVE}

    assert not errors_of(graph("example.png"), info)
    assert not errors_of(graph("rcc-1/00.png"), info, input_images=["rcc-1/00.png"])
    [fault] = errors_of(graph("mine.png"), info)
    assert fault.code == "missing_file"


def test_a_photo_that_no_node_reads_is_named(info):
    names = ["rcc-1/00.png", "rcc-1/01.png"]
    by_name = {"1": {"class_type": "LoadImage", "inputs": {"image": names[0]}}, "2": SAVE}
    assert [code for code, _ in warnings_of(by_name, info, input_images=names)] == ["unused_image"]
    by_folder = {"1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "/comfyui/input/rcc-1"}}, "2": SAVE}
    assert not warnings_of(by_folder, info, input_images=names)


def test_choices_that_only_the_node_minds_are_a_warning(info):
    lora = {"class_type": "Cloud", "inputs": {"prompt": "x", "model": "huge", "points": ""}}
    assert ("not_a_choice", "1") in warnings_of({"1": lora, "2": SAVE}, info)


def test_inputs_that_a_choice_brings_are_checked(info):
    def cloud(**inputs):
        return {"1": {"class_type": "Cloud", "inputs": {"prompt": "x", "points": "", **inputs}}, "2": SAVE}

    assert [each.where for each in errors_of(cloud(model="small"), info)] == ["workflow:1:model.size"]
    assert not errors_of(cloud(model="small", **{"model.size": 4}), info)
    assert [each.code for each in errors_of(cloud(model="small", **{"model.size": 9}), info)] == ["out_of_range"]


def test_nodes_that_call_a_paid_service_are_named(info):
    cloud = {"class_type": "Cloud", "inputs": {"prompt": "x", "model": "small", "model.size": 1, "points": ""}}
    assert ("needs_api_key", "1") in warnings_of({"1": cloud, "2": SAVE}, info)


def test_a_node_that_leads_nowhere_is_a_warning_and_its_faults_are_none(info):
    idle = {"class_type": "EmptyImage", "inputs": {}}
    assert warnings_of({"1": EMPTY, "2": SAVE, "3": idle}, info) == [("idle_node", "3")]
    assert not errors_of({"1": EMPTY, "2": SAVE, "3": idle}, info)


def test_a_request_over_the_limit_is_an_error(info):
    graph = {"1": EMPTY, "2": SAVE}
    assert not errors_of(graph, info, body_bytes=10, limit_bytes=10)
    assert [each.code for each in errors_of(graph, info, body_bytes=11, limit_bytes=10)] == ["too_large"]


def test_all_errors_are_raised_as_one_that_lists_them_and_warnings_raise_nothing(info):
    problems = validate_workflow({"1": EMPTY | {"inputs": {"width": 0}}, "2": SAVE}, info)
    with pytest.raises(WorkflowGraphError) as caught:
        refuse_faulty(problems, target="ep1")
    assert caught.value.node_id == "1"
    assert all(f"workflow:1:{name}" in str(caught.value) for name in ("width", "height", "batch_size", "color"))
    refuse_faulty([each for each in problems if each.severity == "warning"], target="ep1")
