"""Which model files a graph names, and in which of ComfyUI's folders each is looked for.

>>> graph = {"3": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl.safetensors"}}}
>>> model_files(graph)
(ModelFile(name='xl.safetensors', folder='checkpoints', node_id='3', node_type='CheckpointLoaderSimple'),)

The folders are those of ComfyUI 0.3.64's own loaders. Where somebody else's node names a file, its folder is not known:
only that node's documentation says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.workflow.validate import MODEL_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ModelFile", "model_files"]

_FOLDER_OF_INPUT: Final = {
    "ckpt_name": "checkpoints",
    "control_net_name": "controlnet",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "lora_name": "loras",
    "photomaker_model_name": "photomaker",
    "style_model_name": "style_models",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
}
# Inputs whose name does not tell: by the node's class.
_FOLDER_OF_CLASS: Final = {
    "CLIPLoader": "text_encoders",
    "CLIPVisionLoader": "clip_vision",
    "DualCLIPLoader": "text_encoders",
    "QuadrupleCLIPLoader": "text_encoders",
    "TripleCLIPLoader": "text_encoders",
    "UpscaleModelLoader": "upscale_models",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model that a node loads.

    Attributes:
        name: The file's name as the node has it; it may lie in a subfolder, ``sdxl/fox.safetensors``.
        folder: The folder below ComfyUI's ``models`` that it is looked for in, or None where that is not known.
        node_id: The node.
        node_type: Its class.
    """

    name: str
    folder: str | None
    node_id: str
    node_type: str


def model_files(graph: Mapping[str, Mapping[str, Any]]) -> tuple[ModelFile, ...]:
    """Return the model files that the nodes of a graph name, each once, in the order of the nodes."""
    found: dict[tuple[str | None, str], ModelFile] = {}
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            if isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES):
                class_type = node["class_type"]
                folder = _FOLDER_OF_CLASS.get(class_type) or _FOLDER_OF_INPUT.get(input_name)
                each = ModelFile(name=value, folder=folder, node_id=node_id, node_type=class_type)
                found.setdefault((folder, value), each)
    return tuple(found.values())
