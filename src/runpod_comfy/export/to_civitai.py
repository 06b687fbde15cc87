"""``export civitai``: PNGs that Civitai reads generation data from, beside what ComfyUI wrote into them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runpod_comfy.export.a1111 import parameters_text
from runpod_comfy.export.placing import new_folder
from runpod_comfy.export.png import SIGNATURE, read_texts, with_text
from runpod_comfy.export.report import Result

if TYPE_CHECKING:
    from runpod_comfy.export.report import Request
    from runpod_comfy.export.source import Picture, Source

__all__ = ["export_civitai"]


def export_civitai(source: Source, request: Request) -> Result:
    """Write each image with a text ``parameters`` into a new folder; pixels and other texts stay as they are.

    Raises:
        ConfigurationError: The folder exists.
        InputError: An image's metadata cannot be taken out.
        OSError: It cannot be written.
    """
    without = 0
    with new_folder(request.target) as folder:
        for picture in source.pictures:
            text = _parameters(picture)
            data = request.placing.data(picture)
            without += text is None
            path = folder / picture.number_name
            path.write_bytes(data if text is None else with_text(data, "parameters", text))
            request.on_image()
    warnings = (
        (f"{without:,} images are no PNG of ComfyUI's, or were made without a sampler: they have no generation data.",)
        if without
        else ()
    )
    return Result(path=request.target, images=len(source.pictures), warnings=warnings)


def _parameters(picture: Picture) -> str | None:
    data = picture.path.read_bytes()
    if not data.startswith(SIGNATURE):
        return None
    try:
        graph = json.loads(read_texts(data).get("prompt", ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(graph, dict):
        return None
    line = picture.line
    return parameters_text(
        graph,
        node_id=(line.get("node") or {}).get("id"),
        seed=line.get("seed"),
        size=(line.get("width"), line.get("height")),
    )
