"""``README.md`` of an output folder: the dataset card, as Hugging Face reads it. Pure.

Its ``configs`` say which files are data, so ``load_dataset("out")`` takes the images and ``metadata.jsonl`` and nothing
else. The endings are named one by one: with ``images/**`` a caption beside an image would be taken for data too, and
the loader for text would be chosen by counting (seen with datasets 5.2).
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["card_text"]

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


_ABOUT_FOLDER = """
Where the images were made, `manifest.jsonl` tells of each how, and of each row that failed why; `template/` holds the
workflow, `run.json` what was asked for. This text is written anew as images arrive, until somebody edits it.
"""


def card_text(
    rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any], *, title: str, is_exported: bool = False
) -> str:
    """Return the card's text.

    Args:
        rows: The flat lines of ``metadata.jsonl``.
        run: What ``run.json`` says.
        title: The dataset's name.
        is_exported: Whether the folder holds images and metadata only.
    """
    endings = sorted({PurePosixPath(str(row["file_name"])).suffix for row in rows})
    size = next((name for below, name in _SIZES if len(rows) < below), "n>1M")
    paths = ["metadata.jsonl", *(f"images/**/*{ending}" for ending in endings)]
    columns = ", ".join(f"`{name}`" for name in (rows[0] if rows else ()))
    made = f"runpod-comfy-client {run['version']}" if run.get("version") else "runpod-comfy-client"
    lines = [
        "---",
        f"pretty_name: {json.dumps(title)}",
        "tags: [comfyui, synthetic]",
        f"size_categories: [{size}]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path:",
        *(f"    - {json.dumps(path)}" for path in paths),
        "---",
        "",
        f"# {title}",
        "",
        f"{len(rows):,} images, made with ComfyUI by {made}.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'images = load_dataset({json.dumps(title)}, split="train")',
        "```",
        "",
        f"Columns: {columns}.",
        "",
    ]
    return "\n".join([*lines, "" if is_exported else _ABOUT_FOLDER])
