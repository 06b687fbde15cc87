from runpod_comfy.export.a1111 import parameters_text

FLUX = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux/dev,1.safetensors"}},
    "2": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "ink.safetensors", "strength_model": 0.8, "model": ["1", 0]},
    },
    "3": {"class_type": "Text", "inputs": {"value": "a fox"}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"text": ["3", 0]}},
    "5": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["4", 0]}},
    "6": {"class_type": "BasicGuider", "inputs": {"model": ["2", 0], "conditioning": ["5", 0]}},
    "7": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
    "8": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "res_2s"}},
    "9": {"class_type": "BasicScheduler", "inputs": {"steps": 20, "scheduler": "simple", "denoise": 0.6}},
    "10": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {"noise": ["7", 0], "guider": ["6", 0], "sampler": ["8", 0], "sigmas": ["9", 0]},
    },
    "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0]}},
    "12": {"class_type": "KSampler", "inputs": {"steps": 99, "sampler_name": "euler"}},
}


def test_a_graph_of_small_nodes_is_followed_from_the_node_that_saved():
    assert parameters_text(FLUX, node_id="11", seed=None, size=(64, 32)) == (
        "a fox, <lora:ink:0.8>\n"
        "Steps: 20, Sampler: res_2s, Distilled CFG Scale: 3.5, Seed: 5, Size: 64x32, "
        'Model: "dev,1", Denoising strength: 0.6, Version: ComfyUI'
    )


def test_the_images_own_seed_wins():
    assert "Seed: 18446744073709551615," in (
        parameters_text(FLUX, node_id="11", seed=str(2**64 - 1), size=(1, 1)) or ""
    )


def test_what_has_no_steps_has_no_text():
    assert parameters_text({"1": {"inputs": {}}, "x": 3}, node_id="1", seed=None, size=(None, None)) is None


def test_a_graph_that_feeds_itself_ends():
    graph = {"1": {"inputs": {"a": ["2", 0], "steps": 1, "positive": ["2", 0]}}, "2": {"inputs": {"a": ["1", 0]}}}
    assert parameters_text(graph, node_id="1", seed=None, size=(None, None)) == "\nSteps: 1, Version: ComfyUI"
