"""``export kohya``: images and captions side by side in one folder, as kohya's sd-scripts train on them.

They read images of the folder itself and not of folders in it, and a caption's first line (their
``docs/config_README-en.md``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from runpod_comfy.export.placing import new_folder
from runpod_comfy.export.report import Result

if TYPE_CHECKING:
    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Source

__all__ = ["export_kohya"]

_CONFIG: Final = """\
# Images and captions for kohya's sd-scripts: --dataset_config {config}
[general]
caption_extension = ".txt"

[[datasets]]
resolution = {resolution}

  [[datasets.subsets]]
  image_dir = {folder}
  num_repeats = 1
"""


def export_kohya(source: Source, request: Request) -> Result:
    """Write images, captions and a ``dataset.toml`` into a new folder.

    Raises:
        ConfigurationError: The folder exists.
        InputError: An image's metadata cannot be taken out.
        OSError: It cannot be written.
    """
    without = 0
    with new_folder(request.target) as folder:
        for picture in source.pictures:
            path = folder / picture.number_name
            request.placing.place(picture, path)
            caption = " ".join(picture.caption.split())
            without += not caption
            path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8", newline="\n")
            request.on_image()
        sides = [side for picture in source.pictures for side in (picture.row.get("width"), picture.row.get("height"))]
        place = request.target.resolve().as_posix()
        text = _CONFIG.format(
            config=f"{place}/dataset.toml",
            folder=json.dumps(place, ensure_ascii=False),
            resolution=max((side for side in sides if side), default=1024),
        )
        (folder / "dataset.toml").write_text(text, encoding="utf-8", newline="\n")
    warnings = (f"{without:,} images have no caption: pass --caption VARIABLE.",) if without else ()
    return Result(path=request.target, images=len(source.pictures), warnings=warnings)
