"""``LoadImagesFromDir``: the images of one folder below ComfyUI's input folder, as one batch."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

__all__ = ["LoadImagesFromDir", "list_images", "load_fitted", "resolve_directory"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class LoadImagesFromDir:
    """A ComfyUI node. A workflow reaches any number of photos through it, without a node for each."""

    RETURN_TYPES = ("IMAGE", "MASK", "INT")
    RETURN_NAMES = ("images", "masks", "count")
    FUNCTION = "load"
    CATEGORY = "image"
    DESCRIPTION = (
        "Loads the images of a folder below ComfyUI's input folder, in the order of their names. Images of other "
        "sizes are scaled and centre-cropped to the first. Masks are 1 where an image is transparent."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the name that ComfyUI asks for
        """Describe the inputs to ComfyUI."""
        return {
            "required": {
                "directory": ("STRING", {"default": "", "tooltip": "A folder below ComfyUI's input folder."}),
            },
            "optional": {
                "image_load_cap": (
                    "INT",
                    {"default": 0, "min": 0, "max": 1_000_000, "tooltip": "At most so many images; 0 loads all."},
                ),
                "start_index": ("INT", {"default": 0, "min": 0, "max": 1_000_000, "tooltip": "Skip so many images."}),
                "load_always": ("BOOLEAN", {"default": False, "tooltip": "Load even where nothing has changed."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(  # noqa: N802 - the name that ComfyUI asks for
        cls, directory: str | None = None, image_load_cap: int | None = None, start_index: int | None = None
    ) -> bool | str:
        """Return True, or what is wrong; ComfyUI asks before it queues, and gives None for what another node feeds."""
        if directory is None:
            return True
        try:
            _selected(directory, image_load_cap or 0, start_index or 0)
        except ValueError as exc:
            return str(exc)
        return True

    @classmethod
    def IS_CHANGED(  # noqa: N802 - the name that ComfyUI asks for
        cls, directory: str, image_load_cap: int = 0, start_index: int = 0, *, load_always: bool = False
    ) -> str | float:
        """Return a hash of the images' contents: equal images are served from ComfyUI's cache, whoever sent them."""
        if load_always:
            return float("nan")  # differs from everything, itself included
        digest = hashlib.sha256()
        for path in _selected(directory, image_load_cap, start_index):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def load(
        self, directory: str, image_load_cap: int = 0, start_index: int = 0, *, load_always: bool = False
    ) -> tuple[Any, Any, int]:
        """Load the images.

        Returns:
            Images ``[n, height, width, 3]`` and masks ``[n, height, width]``, both float32 from 0 to 1, and ``n``.
        """
        import torch  # noqa: PLC0415 - ComfyUI's; this module is also read where there is none

        del load_always  # it is for IS_CHANGED
        images, masks = [], []
        size: tuple[int, int] | None = None
        for path in _selected(directory, image_load_cap, start_index):
            picture, alpha = load_fitted(path, size)
            size = picture.size
            width, height = size
            pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            images.append(pixels.reshape(height, width, 3).to(torch.float32) / 255.0)
            if alpha is None:
                masks.append(torch.zeros((height, width), dtype=torch.float32))
            else:
                opaque = torch.frombuffer(bytearray(alpha.tobytes()), dtype=torch.uint8)
                masks.append(1.0 - opaque.reshape(height, width).to(torch.float32) / 255.0)
        return torch.stack(images), torch.stack(masks), len(images)


def resolve_directory(directory: str, input_dir: str | os.PathLike[str]) -> Path:
    """Return the folder that ``directory`` names.

    Args:
        directory: ``photos``, ``input/photos``, or an absolute path.
        input_dir: ComfyUI's input folder.

    Raises:
        ValueError: There is no such folder, or it is not below the input folder, also not through a symlink.
    """
    root = Path(os.path.realpath(input_dir))
    name = directory.strip().replace("\\", "/") if os.sep == "/" else directory.strip()
    if "\0" in name:
        raise ValueError("The directory's name holds a NUL.")
    if not Path(name).is_absolute():
        name = re.sub(r"^(?:\./)*input(?:/+|$)", "", name)
    folder = Path(os.path.realpath(root / name))
    if not folder.is_relative_to(root):
        raise ValueError(f"{directory!r} is not below ComfyUI's input folder. Put the images into a folder there.")
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {directory!r} below ComfyUI's input folder. Upload the images there first."
        )
    return folder


def list_images(folder: Path, *, cap: int = 0, start: int = 0) -> list[Path]:
    """Return a folder's image files in the natural order of their names (``2.png`` before ``10.png``).

    Args:
        folder: The folder; its subfolders are not looked into.
        cap: At most so many; 0 for all.
        start: Skip so many.

    Raises:
        ValueError: None are left.
    """
    found = sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ),
        key=lambda path: _natural(path.name),
    )
    if not found:
        raise ValueError(f"The folder {folder.name!r} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    if start >= len(found):
        raise ValueError(f"start_index is {start} and the folder {folder.name!r} has {len(found)} image(s).")
    return found[start : start + cap if cap else None]


def load_fitted(path: Path, size: tuple[int, int] | None) -> tuple[Image.Image, Image.Image | None]:
    """Load an image upright as RGB, with its alpha channel where it has one.

    Args:
        path: The file; of an animation the first frame is taken.
        size: Scale and centre-crop to this width and height; None keeps the image's own.

    Raises:
        ValueError: It is damaged, or no image.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - ComfyUI has it; listing files needs none

    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise ValueError(f"The image {path.name!r} cannot be read ({exc}). Save it again as PNG or JPEG.") from exc
    if image.mode.startswith("I"):  # 16 bits, which convert("RGB") would clip
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    # Colours and alpha apart: Pillow would darken the colours of what is transparent.
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    picture = image.convert("RGB")
    if size is None or picture.size == size:
        return picture, alpha
    method = Image.Resampling.LANCZOS
    return ImageOps.fit(picture, size, method), None if alpha is None else ImageOps.fit(alpha, size, method)


def _selected(directory: str, cap: int, start: int) -> Sequence[Path]:
    import folder_paths  # noqa: PLC0415 - ComfyUI's own module

    return list_images(resolve_directory(directory, folder_paths.get_input_directory()), cap=cap, start=start)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", name.lower())
    # Every odd part is a number, so like is always compared with like.
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)], name
