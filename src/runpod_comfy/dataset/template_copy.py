"""``template/`` of an output folder: the workflow as it was, so that images can be made again when it has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from runpod_comfy.dataset.naming import split_word_in
from runpod_comfy.media.files import check_relative_name
from runpod_comfy.workflow.loading import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["copy_template", "template_sha256"]

_FOLDER = "template"
# Loaders leave folders out that are named like this.
_HIDDEN_FOLDER = "__as_named__"


def copy_template(template: WorkflowTemplate, graph: Mapping[str, Any], root: Path) -> str:
    """Write a template, what it includes, and the first graph that it gives; return the template's path below ``root``.

    ::

        template/
        ├── workflow.json.jinja   and workflow.json.jinja.yaml, where its variables are declared beside it
        ├── parts/sampler.jinja   what it includes, under the names by which it does
        └── graph.json

    Raises:
        InputError: An include's name leads out of the folder.
        OSError: It cannot be written.
    """
    files = _files(template)
    for name in files:
        check_relative_name(name)
    below = PurePosixPath(_FOLDER)
    if any(split_word_in(name) for name in files):
        below /= _HIDDEN_FOLDER
    for name, text in files.items():
        path = root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    named = next(iter(files))
    place = root / _FOLDER / "graph.json"
    place.write_text(json.dumps(graph, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="surrogatepass")
    return str(below / named)


def template_sha256(template: WorkflowTemplate) -> str:
    """Return a hash of the template and of all that it includes."""
    content = json.dumps(list(_files(template).items()))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _files(template: WorkflowTemplate) -> dict[str, str]:
    name = Path(template.name).name
    if Path(name).suffix.lower() in IMAGE_SUFFIXES:
        name += ".json"  # the workflow that was in the image
    if name == "graph.json":
        name = "graph.template.json"
    beside = {f"{name}.yaml": template.declarations_beside} if template.declarations_beside is not None else {}
    return {name: template.source, **beside, **template.included}
