import pytest

from runpod_comfy.comfyui.failures import execution_failure, nearest_class, node_error_texts, refusal
from runpod_comfy.errors import JobFailed

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}, "_meta": {"title": "My photo"}},
    "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bilinaer"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}
NOT_IN_LIST = {
    "type": "value_not_in_list",
    "message": "Value not in list",
    "details": "upscale_method: 'bilinaer' not in ['nearest-exact', 'bilinear', 'area']",
    "extra_info": {"received_value": "bilinaer", "input_config": [["nearest-exact", "bilinear", "area"], {}]},
}


def body(
    node_errors, *, kind="prompt_outputs_failed_validation", message="Prompt outputs failed validation", details=""
):
    return {"error": {"type": kind, "message": message, "details": details}, "node_errors": node_errors}


def test_refusal_names_the_node_upstream_that_the_top_level_error_is_silent_about():
    error = refusal(body({"2": {"errors": [NOT_IN_LIST], "class_type": "ImageScale"}}), GRAPH)
    assert (error.node_id, error.node_type) == ("2", "ImageScale")
    assert "node 2 (ImageScale): Value not in list: upscale_method: 'bilinaer'" in str(error)
    assert "the nearest there is: 'bilinear'" in str(error)


def test_unknown_class_is_named_with_its_node():
    graph = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    told = body({}, kind="invalid_prompt", message="Cannot execute because node NoSuchNode does not exist.",
                details="Node ID '#1'")  # fmt: skip
    error = refusal(told, graph)
    assert (error.node_id, error.node_type) == ("1", "NoSuchNode")
    assert "node 1 (NoSuchNode): Cannot execute because node NoSuchNode does not exist." in str(error)


def not_in_list(name, value, choices):
    return {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"{name}: '{value}' not in {choices}",
        "extra_info": {"received_value": value, "input_config": [choices, {}]},
    }


INVALID_IMAGE = {
    "type": "custom_validation_failed",
    "message": "Custom validation failed for node",
    "details": "image - Invalid image file: nope.png",
    "extra_info": {"input_name": "image"},
}
MISSING = {"type": "required_input_missing", "message": "Required input is missing", "details": "images"}


@pytest.mark.parametrize(
    ("told", "step"),
    [
        (
            body({"2": {"errors": [not_in_list("ckpt_name", "zzz.safetensors", [])]}}),
            "under ComfyUI's models/, or pass one",
        ),
        (body({"2": {"errors": [NOT_IN_LIST]}}), "Pass a value that this ComfyUI has."),
        (body({"1": {"errors": [INVALID_IMAGE]}}), "Give the picture as an input image"),
        (body({"4": {"errors": [MISSING]}}), "Give that input a value or a link."),
        (body({}, kind="prompt_no_outputs", message="Prompt has no outputs"), "such as SaveImage."),
    ],
)
def test_refusal_ends_with_what_to_do(told, step):
    assert step in str(refusal(told, GRAPH)).partition(". ")[2]


def test_what_to_do_is_said_once():
    told = body({str(number): {"errors": [NOT_IN_LIST]} for number in range(4)})
    assert str(refusal(told, GRAPH)).count("Pass a value") == 1


@pytest.mark.parametrize(("installed", "near"), [(["KSampler", "SaveImage"], "'KSampler'. Install"), ([], "Install")])
def test_class_that_is_missing_is_to_be_installed(installed, near):
    error = nearest_class(JobFailed("It does not exist.", node_id="1", node_type="KSamplerX"), installed)
    assert f"{near} the custom node" in str(error)


def test_refusal_without_node_errors_says_what_comfyui_says():
    error = refusal(body({}), GRAPH)
    assert error.node_id is None
    assert "Prompt outputs failed validation" in str(error)


@pytest.mark.parametrize(
    "told", [{}, {"error": None}, {"error": "text"}, {"node_errors": [1]}, {"node_errors": {"1": 5}}]
)
def test_refusal_of_any_shape_is_a_readable_error(told):
    assert str(refusal(told, GRAPH)).startswith("ComfyUI refused the workflow: ")


def test_nodes_are_called_by_their_titles():
    custom = {"message": "Custom validation failed for node", "details": "image - Invalid image file: nope.png"}
    texts = node_error_texts({"1": {"errors": [custom]}}, GRAPH)
    assert texts == [
        "node 1 (LoadImage, “My photo”): Custom validation failed for node: image - Invalid image file: nope.png"
    ]


def test_long_lists_of_models_and_of_nodes_are_cut():
    endless = {"message": "Value not in list", "details": "x" * 100_000}
    texts = node_error_texts({str(number): {"errors": [endless]} for number in range(100)}, {})
    assert len(" ".join(texts)) < 4000
    assert texts[-1] == "and 95 more nodes"


def test_failure_tells_node_reason_and_traceback():
    told = {
        "node_id": "2",
        "node_type": "ImageScale",
        "exception_type": "builtins.RuntimeError",
        "exception_message": "boom\n",
        "traceback": ["line 1\n", "line 2\n"],
    }
    error = execution_failure(told, GRAPH, where="Batch 2 of 3")
    assert str(error) == "Batch 2 of 3 failed in node 2 (ImageScale): RuntimeError: boom."
    assert (error.node_id, error.node_type, error.traceback) == ("2", "ImageScale", "line 1\nline 2\n")


def test_a_gpu_that_is_too_small_is_told_with_the_remedy():
    told = {"node_id": "2", "exception_type": "torch.OutOfMemoryError", "exception_message": "Allocation failed"}
    assert "smaller batch_size" in str(execution_failure(told, GRAPH, where="Batch 1 of 1"))


def test_failure_without_particulars_is_still_a_sentence():
    assert str(execution_failure({}, GRAPH, where="Batch 1 of 1")) == "Batch 1 of 1 failed in a node: no reason given."
