"""Custom nodes for ComfyUI: copy or link this folder into ComfyUI's ``custom_nodes``.

It brings the node ``LoadImagesFromDir``, and a route by which the worker knows whether ComfyUI still computes.
It stands alone: nothing here imports the rest of the package, and torch is imported only when a node runs.
"""

from __future__ import annotations

from .compute_thread import watch_compute_thread
from .load_images_from_dir import LoadImagesFromDir

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

NODE_CLASS_MAPPINGS = {"LoadImagesFromDir": LoadImagesFromDir}
NODE_DISPLAY_NAME_MAPPINGS = {"LoadImagesFromDir": "Load Images from Directory"}

watch_compute_thread()
