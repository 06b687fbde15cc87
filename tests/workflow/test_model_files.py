"""Which model files a graph names, and where each has to be."""

import pytest

from runpod_comfy.workflow.model_files import model_files


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize(
    ("class_type", "inputs", "folder"),
    [
        ("CheckpointLoaderSimple", {"ckpt_name": "xl.safetensors"}, "checkpoints"),
        ("LoraLoader", {"lora_name": "styles/fox.safetensors", "model": ["1", 0]}, "loras"),
        ("UNETLoader", {"unet_name": "flux.safetensors", "weight_dtype": "default"}, "diffusion_models"),
        ("CLIPLoader", {"clip_name": "t5.safetensors", "type": "sd3"}, "text_encoders"),
        ("CLIPVisionLoader", {"clip_name": "vision.safetensors"}, "clip_vision"),
        ("UpscaleModelLoader", {"model_name": "4x.PTH"}, "upscale_models"),
    ],
)
def test_comfyuis_own_loaders_tell_the_folder(class_type, inputs, folder):
    [found] = model_files({"7": node(class_type, **inputs)})
    assert (found.folder, found.node_id, found.name) == (folder, "7", next(iter(inputs.values())))


def test_a_file_of_an_unknown_node_has_no_folder_rather_than_a_guessed_one():
    [found] = model_files({"1": node("SomebodysLoader", weights="face.onnx", threshold=0.5)})
    assert found.folder is None


def test_each_file_is_named_once_and_text_is_no_file():
    graph = {
        "1": node("DualCLIPLoader", clip_name1="l.safetensors", clip_name2="t5.safetensors"),
        "2": node("CLIPLoader", clip_name="t5.safetensors"),
        "3": node("CLIPTextEncode", text="a checkpoint of safetensors"),
    }
    assert [each.name for each in model_files(graph)] == ["l.safetensors", "t5.safetensors"]
