"""A stand-in for ComfyUI: its API, its rules and its event order, and pictures that show what was sent.

>>> async with ComfyUIStandIn() as comfyui:  # doctest: +SKIP
...     print(comfyui.url)
"""

from __future__ import annotations

from runpod_comfy.emulator.comfyui.server import ComfyUIStandIn

__all__ = ["ComfyUIStandIn"]
