"""Files of other kinds than pictures, as the stand-in's nodes save them: the right header, and nothing to play."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Final

__all__ = ["MEDIA_NODES", "MediaNode"]


@dataclass(frozen=True, slots=True)
class MediaNode:
    """How a node reports what it saves.

    Attributes:
        key: The key of the report.
        extension: The file's.
        content: What it begins with; a label that differs from file to file follows.
        animated: Whether the report says ``animated`` too, as ComfyUI's own nodes for moving pictures do.
    """

    key: str
    extension: str
    content: bytes
    animated: bool = False


def _silence() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 800)
    return file.getvalue()


_MP4: Final = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"

MEDIA_NODES: Final = {
    "SaveAudio": MediaNode("audio", "wav", _silence()),
    "SaveVideo": MediaNode("images", "mp4", _MP4, animated=True),
    "VHS_VideoCombine": MediaNode("gifs", "mp4", _MP4),
    "SaveGLB": MediaNode("3d", "glb", b"glTF\2\0\0\0"),
    "SaveLatent": MediaNode("latents", "latent", b"\x40\0\0\0\0\0\0\0{}"),
}
