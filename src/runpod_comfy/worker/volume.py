"""A network volume's models and custom nodes, made known to ComfyUI by an ``extra_model_paths`` file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_model_paths", "misplaced_models", "write_model_paths"]

# People fill a volume from a pod, where ComfyUI's own folder lies on it.
_BASES = ("", "ComfyUI", "comfyui")
_USUAL_FOLDERS = frozenset(
    {"checkpoints", "clip", "clip_vision", "controlnet", "diffusion_models", "embeddings", "loras", "style_models"}
    | {"text_encoders", "unet", "upscale_models", "vae"}
)
_MODEL_SUFFIXES = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf"})


def find_model_paths(volume: Path) -> dict[str, dict[str, str]]:
    """Return what ComfyUI's ``extra_model_paths.yaml`` says of a volume; empty where there is none.

    Each folder below ``models`` counts under its own name, so those of custom nodes do as well as ComfyUI's.
    """
    sections: dict[str, dict[str, str]] = {}
    seen = set()
    for name in _BASES:
        base = volume / name
        if not base.is_dir() or base.resolve() in seen:  # a file system may not tell upper case from lower
            continue
        seen.add(base.resolve())
        folders = dict(_model_folders(base))
        if (base / "custom_nodes").is_dir():
            folders["custom_nodes"] = "custom_nodes"
        if folders:
            sections[f"volume_{len(sections)}"] = {"base_path": str(base), **folders}
    return sections


def write_model_paths(volume: Path) -> Path | None:
    """Write the file and return its path, or None where the volume has nothing for ComfyUI."""
    sections = find_model_paths(volume)
    if not sections:
        return None
    with tempfile.NamedTemporaryFile(prefix="extra_model_paths-", suffix=".yaml", delete=False) as file:
        file.write(orjson.dumps(sections))  # JSON is YAML, and quotes whatever a folder is called
    return Path(file.name)


def misplaced_models(volume: Path) -> list[str]:
    """Return folders that hold models and that ComfyUI never looks into: those beside ``models`` instead of below it.

    The classic: ``/runpod-volume/checkpoints`` in place of ``/runpod-volume/models/checkpoints``.
    """
    bases = [volume / name for name in _BASES if (volume / name).is_dir()]
    return sorted({str(base / name) for base in bases for name in _USUAL_FOLDERS if _holds_files(base / name)})


def _holds_files(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(each.suffix in _MODEL_SUFFIXES for each in folder.iterdir())
    except OSError:  # a volume is a network's, and nobody needs this answer
        return False


def _model_folders(base: Path) -> Iterator[tuple[str, str]]:
    models = base / "models"
    if models.is_dir():
        for folder in sorted(models.iterdir()):
            if folder.is_dir() and not folder.name.startswith(".") and "\n" not in folder.name:
                yield folder.name, f"models/{folder.name}"
