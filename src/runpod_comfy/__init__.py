"""Run ComfyUI workflows on GPUs you don't own."""

from runpod_comfy._version import __version__

__all__ = ["__version__"]
