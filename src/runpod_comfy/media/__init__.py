"""Images, paths and bytes on their way to ComfyUI; names and bytes on their way to disk.

``inputs`` (what is sent) over ``pictures`` (Pillow) over ``formats`` (bytes that are not decoded); ``wire`` (base64);
``files`` (names from outside, and writing).
"""
