import json

import pytest

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.workflow.object_info import ObjectInfo, accepts
from runpod_comfy.workflow.object_info_cache import ObjectInfoCache


def test_inputs_keep_the_editors_order_and_know_what_they_take(info):
    sampler = info["KSampler"]
    assert list(sampler.inputs)[:3] == ["model", "seed", "steps"]
    assert [name for name, each in sampler.inputs.items() if each.is_value] == [
        "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise",
    ]  # fmt: skip
    assert (sampler.inputs["steps"].least, sampler.inputs["steps"].most) == (1, 10000)
    assert sampler.inputs["seed"].is_controlled
    assert sampler.inputs["scheduler"].choices == ("normal", "karras")


def test_choices_of_both_schemas_are_read_and_only_the_older_ones_are_comfyuis_own_business(info):
    assert info["LoraLoader"].inputs["lora_name"].choices == ("fox_v1.safetensors", "fox_v2.safetensors")
    assert not info["LoraLoader"].inputs["lora_name"].strict_choices
    assert info["KSampler"].inputs["scheduler"].strict_choices


def test_a_choice_that_brings_inputs_has_them_by_choice(info):
    model = info["Cloud"].inputs["model"]
    assert model.choices == ("small", "large")
    assert [each.name for each in model.branches["large"]] == ["model.shape"]


@pytest.mark.parametrize("data", [[], None, {"A": 1}, {"A": {"output": []}}, {"nodes": []}])
def test_what_is_no_object_info_is_refused(data):
    with pytest.raises(ConfigurationError, match="GET /object_info"):
        ObjectInfo(data)


@pytest.mark.parametrize(
    "spec", [[], "INT", None, [None, None], ["INT", {"min": "a", "max": float("inf")}], [[]], [["a"], "x"]]
)
def test_a_strange_input_of_a_custom_node_hurts_nobody(spec):
    odd = ObjectInfo({"Odd": {"input": {"required": {"x": spec}, "optional": None}, "output": None}})["Odd"]
    assert odd.inputs["x"].least is None


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ObjectInfo.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigurationError, match="no JSON"):
        ObjectInfo.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("wanted", "given", "fits"),
    [("IMAGE", "IMAGE", True), ("*", "MASK", True), ("INT,FLOAT", "FLOAT", True), ("IMAGE", "MASK", False)],
)
def test_one_common_type_is_enough_for_a_link(wanted, given, fits):
    assert accepts(wanted, given) is fits


def test_what_is_kept_for_a_target_is_found_again_and_only_for_it(tmp_path, info):
    cache = ObjectInfoCache(tmp_path / "new")
    assert cache.load("ep1") is None
    cache.store("ep1", dict(info.data), version="1.2", fetched_at="2026-11-24T10:00:00+00:00")
    kept = cache.load("ep1")
    assert (kept.version, kept.fetched_at[:10], "KSampler" in kept.info) == ("1.2", "2026-11-24", True)
    assert cache.load("ep1") is kept
    assert cache.load("../ep1") is None
    cache.store("ep1", {}, version="1.3", fetched_at="2026-11-25T10:00:00+00:00")
    assert cache.load("ep1").version == "1.3"


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"format": 9, "target": "ep1", "object_info": {}})])
def test_a_kept_file_that_is_broken_counts_as_none(tmp_path, content):
    cache = ObjectInfoCache(tmp_path)
    cache.store("ep1", {}, version="", fetched_at="")
    [file] = tmp_path.iterdir()
    file.write_text(content)
    assert ObjectInfoCache(tmp_path).load("ep1") is None


def test_what_is_no_object_info_is_never_kept(tmp_path):
    with pytest.raises(ConfigurationError):
        ObjectInfoCache(tmp_path).store("ep1", {"error": "x"}, version="", fetched_at="")
    assert not list(tmp_path.iterdir())
