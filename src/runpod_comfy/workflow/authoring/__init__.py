"""Workflows made templates.

``find`` tells what people vary, ``names`` what it is called, ``titles`` reads variables that ComfyUI's users wrote down
as ``$prompt``, ``write`` makes the text, and ``draft`` puts the parts together.
"""
