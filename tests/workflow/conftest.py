"""Node types as ComfyUI tells them, written by hand: what the tests of workflows need and no more."""

import pytest

from runpod_comfy.workflow.object_info import ObjectInfo

_SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "heun"]


def node(required=None, optional=None, *, gives=(), **more):
    return {"input": {"required": required or {}, "optional": optional or {}}, "output": list(gives), **more}


DATA = {
    "CheckpointLoaderSimple": node(
        {"ckpt_name": [["sd_xl_base_1.0.safetensors", "v1-5.safetensors"], {"tooltip": "The model. It is loaded."}]},
        gives=("MODEL", "CLIP", "VAE"),
        display_name="Load Checkpoint",
    ),
    "CLIPTextEncode": node(
        {"text": ["STRING", {"multiline": True, "tooltip": "The text to be encoded."}], "clip": ["CLIP", {}]},
        gives=("CONDITIONING",),
        display_name="CLIP Text Encode (Prompt)",
    ),
    "KSampler": node(
        {
            "model": ["MODEL", {}],
            "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}],
            "sampler_name": [_SAMPLERS, {}],
            "scheduler": [["normal", "karras"], {}],
            "positive": ["CONDITIONING", {}],
            "negative": ["CONDITIONING", {}],
            "latent_image": ["LATENT", {}],
            "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}],
        },
        gives=("LATENT",),
    ),
    "EmptyLatentImage": node(
        {
            "width": ["INT", {"default": 512, "min": 16, "max": 16384}],
            "height": ["INT", {"default": 512, "min": 16, "max": 16384}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
        },
        gives=("LATENT",),
    ),
    "EmptyImage": node(
        {
            "width": ["INT", {"default": 512, "min": 1, "max": 16384}],
            "height": ["INT", {"default": 512, "min": 1, "max": 16384}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            "color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF}],
        },
        gives=("IMAGE",),
    ),
    "VAEDecode": node({"samples": ["LATENT", {}], "vae": ["VAE", {}]}, gives=("IMAGE",)),
    "ImageInvert": node({"image": ["IMAGE", {}]}, gives=("IMAGE",), display_name="Invert Image"),
    "ImageScale": node(
        {
            "image": ["IMAGE", {}],
            "upscale_method": [["nearest-exact", "bilinear", "area", "bicubic", "lanczos"], {}],
            "width": ["INT", {"default": 512, "min": 0, "max": 16384}],
            "height": ["INT", {"default": 512, "min": 0, "max": 16384}],
            "crop": [["disabled", "center"], {}],
        },
        gives=("IMAGE",),
    ),
    "LoadImage": node({"image": [["example.png"], {"image_upload": True}]}, gives=("IMAGE", "MASK")),
    "LoadImagesFromDir": node({"directory": ["STRING", {}]}, gives=("IMAGE", "MASK")),
    "SaveImage": node(
        {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}, output_node=True
    ),
    "PreviewImage": node({"images": ["IMAGE", {}]}, output_node=True),
    "LoraLoader": node(
        {
            "model": ["MODEL", {}],
            "clip": ["CLIP", {}],
            "lora_name": ["COMBO", {"options": ["fox_v1.safetensors", "fox_v2.safetensors"]}],
            "strength_model": ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0}],
            "strength_clip": ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0}],
        },
        gives=("MODEL", "CLIP"),
    ),
    "Cloud": node(
        {
            "prompt": ["STRING", {"multiline": True}],
            "model": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "small", "inputs": {"required": {"size": ["INT", {"default": 1, "max": 4}]}}},
                        {"key": "large", "inputs": {"required": {"shape": ["COMBO", {"options": ["1:1", "16:9"]}]}}},
                    ]
                },
            ],
            "points": ["STRING", {}],
        },
        gives=("IMAGE",),
        api_node=True,
    ),
    "Draw": node({"canvas": ["CANVAS", {}], "image": ["IMAGE", {}]}, gives=("IMAGE",)),
}


@pytest.fixture
def info():
    """A small ComfyUI's node types."""
    return ObjectInfo(DATA, source="a test's ComfyUI")
