"""The node types that the stand-in knows: what they take, what they give, and whether they end a graph.

Workflows bring custom nodes and models that no test machine has, so a type that is not here is taken as it comes, and
any model name is accepted. Limits are those of ComfyUI 0.3.64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runpod_comfy.emulator.comfyui.media_files import MEDIA_NODES

__all__ = ["ANY", "NODE_TYPES", "Input", "NodeType", "node_type"]

ANY = "*"
_MAX_SIZE = 16384


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node type: a link of some type, or a value."""

    type: str
    required: bool = True
    default: Any = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def described(self) -> list[Any]:
        """Return it as ``/object_info`` does."""
        about = {"default": self.default, "min": self.least, "max": self.most}
        return [list(self.choices) if self.choices else self.type, {k: v for k, v in about.items() if v is not None}]


@dataclass(frozen=True, slots=True)
class NodeType:
    """One class of nodes."""

    inputs: dict[str, Input] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    known: bool = True

    def described(self, name: str) -> dict[str, Any]:
        """Return it as ``/object_info`` does."""
        required = {key: each.described() for key, each in self.inputs.items() if each.required}
        optional = {key: each.described() for key, each in self.inputs.items() if not each.required}
        return {
            "input": {"required": required, "optional": optional},
            "output": list(self.outputs),
            "output_name": list(self.outputs),
            "output_node": self.output_node,
            "name": name,
            "display_name": name,
            "category": "stand-in",
        }


def _whole(default: int = 0, least: int = 0, most: int = 2**64 - 1) -> Input:
    return Input("INT", default=default, least=least, most=most)


def _number(default: float, least: float, most: float) -> Input:
    return Input("FLOAT", default=default, least=least, most=most)


def _link(kind: str, *, required: bool = True) -> Input:
    return Input(kind, required=required)


_TEXT = Input("STRING", default="")
_NAME = Input("STRING")
_YES_NO = Input("BOOLEAN", default=False)
_SIDE = _whole(512, 1, _MAX_SIZE)
_LATENT_SIDE = _whole(512, 16, _MAX_SIZE)
_COUNT = _whole(1, 1, 4096)
_UPSCALE = Input("COMBO", choices=("nearest-exact", "bilinear", "area", "bicubic", "lanczos"))
_CROP = Input("COMBO", choices=("disabled", "center"))
_SAMPLING = {
    "model": _link("MODEL"),
    "steps": _whole(20, 1, 10000),
    "cfg": _number(8.0, 0.0, 100.0),
    "sampler_name": _NAME,
    "scheduler": _NAME,
    "positive": _link("CONDITIONING"),
    "negative": _link("CONDITIONING"),
    "latent_image": _link("LATENT"),
}

NODE_TYPES: dict[str, NodeType] = {
    "CheckpointLoaderSimple": NodeType({"ckpt_name": _NAME}, ("MODEL", "CLIP", "VAE")),
    "VAELoader": NodeType({"vae_name": _NAME}, ("VAE",)),
    "UNETLoader": NodeType({"unet_name": _NAME, "weight_dtype": _NAME}, ("MODEL",)),
    "LoraLoader": NodeType(
        {
            "model": _link("MODEL"),
            "clip": _link("CLIP"),
            "lora_name": _NAME,
            "strength_model": _number(1.0, -100.0, 100.0),
            "strength_clip": _number(1.0, -100.0, 100.0),
        },
        ("MODEL", "CLIP"),
    ),
    "CLIPTextEncode": NodeType({"text": _TEXT, "clip": _link("CLIP")}, ("CONDITIONING",)),
    "EmptyLatentImage": NodeType({"width": _LATENT_SIDE, "height": _LATENT_SIDE, "batch_size": _COUNT}, ("LATENT",)),
    "EmptySD3LatentImage": NodeType({"width": _LATENT_SIDE, "height": _LATENT_SIDE, "batch_size": _COUNT}, ("LATENT",)),
    "RepeatLatentBatch": NodeType({"samples": _link("LATENT"), "amount": _whole(1, 1, 64)}, ("LATENT",)),
    "KSampler": NodeType(
        # In ComfyUI's own order: saved workflows have values without names.
        {"model": _link("MODEL"), "seed": _whole(), **_SAMPLING, "denoise": _number(1.0, 0.0, 1.0)},
        ("LATENT",),
    ),
    "KSamplerAdvanced": NodeType({**_SAMPLING, "noise_seed": _whole()}, ("LATENT",)),
    "VAEDecode": NodeType({"samples": _link("LATENT"), "vae": _link("VAE")}, ("IMAGE",)),
    "VAEEncode": NodeType({"pixels": _link("IMAGE"), "vae": _link("VAE")}, ("LATENT",)),
    "EmptyImage": NodeType(
        {"width": _SIDE, "height": _SIDE, "batch_size": _COUNT, "color": _whole(0, 0, 0xFFFFFF)}, ("IMAGE",)
    ),
    "LoadImage": NodeType({"image": _NAME}, ("IMAGE", "MASK")),
    "LoadImagesFromDir": NodeType(
        {
            "directory": _TEXT,
            "image_load_cap": Input("INT", required=False, default=0, least=0),
            "start_index": Input("INT", required=False, default=0, least=0),
            "load_always": Input("BOOLEAN", required=False, default=False),
        },
        ("IMAGE", "MASK", "INT"),
    ),
    "ImageScale": NodeType(
        {
            "image": _link("IMAGE"),
            "upscale_method": _UPSCALE,
            "width": _whole(512, 0, _MAX_SIZE),
            "height": _whole(512, 0, _MAX_SIZE),
            "crop": _CROP,
        },
        ("IMAGE",),
    ),
    "ImageScaleBy": NodeType(
        {"image": _link("IMAGE"), "upscale_method": _UPSCALE, "scale_by": _number(1.0, 0.01, 8.0)}, ("IMAGE",)
    ),
    "ImageInvert": NodeType({"image": _link("IMAGE")}, ("IMAGE",)),
    "ImageBatch": NodeType({"image1": _link("IMAGE"), "image2": _link("IMAGE")}, ("IMAGE",)),
    "PrimitiveInt": NodeType({"value": Input("INT", least=-(2**63), most=2**63 - 1)}, ("INT",)),
    "PrimitiveFloat": NodeType({"value": Input("FLOAT")}, ("FLOAT",)),
    "PrimitiveString": NodeType({"value": _TEXT}, ("STRING",)),
    "FixtureSleep": NodeType(
        {
            "image": _link("IMAGE"),
            "seconds": _number(1.0, 0.0, 3600.0),
            "steps": _whole(10, 1, 10000),
            "seed": Input("INT", required=False, least=0, most=2**64 - 1),
        },
        ("IMAGE",),
    ),
    "FixtureRaise": NodeType({"image": _link("IMAGE"), "message": _TEXT}, ("IMAGE",)),
    "SaveImage": NodeType({"images": _link("IMAGE"), "filename_prefix": _TEXT}, (), output_node=True),
    "PreviewImage": NodeType({"images": _link("IMAGE")}, (), output_node=True),
    "PreviewAny": NodeType({"source": _link(ANY)}, (), output_node=True),
    "SaveAudio": NodeType({"audio": _link(ANY), "filename_prefix": _TEXT}, (), output_node=True),
    "EmptyLatentAudio": NodeType({"seconds": _number(1.0, 0.1, 1000.0)}, ("LATENT",)),
    "VAEDecodeAudio": NodeType({"samples": _link("LATENT"), "vae": _link("VAE", required=False)}, ("AUDIO",)),
}


def node_type(class_type: str) -> NodeType:
    """Return a node type; one that is not known takes anything, and is an output node if its name says so."""
    known = NODE_TYPES.get(class_type)
    ends = class_type in MEDIA_NODES or class_type.startswith(("Save", "Preview"))
    return known or NodeType(output_node=ends, known=False)
