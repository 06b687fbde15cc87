import base64
import gzip
import json

import pytest

from runpod_comfy.dialects.description import description_request, read_description
from runpod_comfy.errors import ProtocolError

INFO = {"Save": {"input": {"required": {}}, "output_node": True}}
ABOUT = {
    "worker": {"version": "0.3", "protocol": 1, "slots": 3},
    "comfyui": {"version": "0.3.64", "python": "3.12.3", "devices": [{"name": "cuda:0", "vram_total": 8}]},
    "node_classes": ["Save", "Load"],
    "custom_nodes": {"pack": ["Load"]},
    "failed_custom_nodes": ["/c/broken"],
    "models": {"loras": ["a.safetensors"]},
}


def packed(data):
    return {**ABOUT, "object_info_gzip": base64.b64encode(data).decode()}


def test_a_description_is_read_whole():
    about = read_description(packed(gzip.compress(json.dumps(INFO).encode())), place="runpod://e")
    assert (about.place, about.worker_version, about.slots) == ("runpod://e", "0.3", 3)
    assert (about.comfyui_version, about.python_version, about.pytorch_version) == ("0.3.64", "3.12.3", None)
    assert (about.devices[0].name, about.devices[0].vram_total_bytes) == ("cuda:0", 8)
    assert (about.node_classes, about.custom_nodes) == (("Load", "Save"), {"pack": ("Load",)})
    assert (about.failed_custom_nodes, about.models) == (("/c/broken",), {"loras": ("a.safetensors",)})
    assert about.object_info.data == INFO
    assert not about.is_stand_in


def test_what_was_not_told_is_none():
    about = read_description({"node_classes": []}, place="runpod://e")
    assert (about.comfyui_version, about.models, about.failed_custom_nodes, about.object_info) == (None,) * 4


def test_values_of_other_types_are_passed_over():
    nonsense = dict.fromkeys(ABOUT, 7) | {"node_classes": ["A", None], "comfyui": {"devices": [1, {"name": 2}]}}
    about = read_description(nonsense, place="runpod://e")
    assert about.node_classes == ("A",)
    assert [each.name for each in about.devices] == ["unknown"]


def test_without_node_classes_it_is_no_description():
    with pytest.raises(ProtocolError, match="runpod://e described itself without its node classes"):
        read_description({}, place="runpod://e")


@pytest.mark.parametrize(
    "data",
    [
        b"no gzip",
        gzip.compress(b"no json"),
        gzip.compress(b"[]"),
        gzip.compress(json.dumps(INFO).encode())[:-9],
        gzip.compress(bytes(2**28 + 1), 1),  # one byte more than is unpacked
    ],
    ids=["no gzip", "no json", "no object_info", "cut off", "a bomb"],
)
def test_damaged_node_types_are_an_error(data):
    with pytest.raises(ProtocolError, match="runpod://e told"):
        read_description(packed(data), place="runpod://e")


def test_the_request_names_no_workflow():
    assert description_request(object_info=True) == {"describe": {"object_info": True}}
