"""From a file to a template's text: templates as they are, workflows of every format made templates.

A plain workflow, in API format, as saved by the editor or out of an image, becomes a template that renders to it, with
the variables that its nodes' titles name (``$prompt``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.graph import is_saved_format

if TYPE_CHECKING:
    import os

    from runpod_comfy.workflow.object_info import ObjectInfo

__all__ = ["IMAGE_SUFFIXES", "plain_workflow", "read_any", "read_beside", "read_source", "read_text", "read_workflow"]

IMAGE_SUFFIXES: Final = frozenset({".avif", ".jpeg", ".jpg", ".png", ".webp"})
"""The endings of images that may carry a workflow."""

_TEMPLATE_SUFFIXES: Final = frozenset({".j2", ".jinja", ".jinja2"})

# Without these in it, a file is no workflow that has to be changed.
_MARKS: Final = ('"nodes"', '"$', '"title":"$')


def read_source(file: Path, info: ObjectInfo | None) -> str:
    """Return the text of the template in a file.

    Raises:
        TemplateError: It cannot be read.
        WorkflowGraphError: It is a saved workflow that cannot be converted.
    """
    if file.suffix.lower() in IMAGE_SUFFIXES:
        from runpod_comfy.workflow.embedded import read_embedded  # noqa: PLC0415 - loads Pillow

        return _as_template(read_embedded(file), info, file.name)
    text = read_text(file)
    data = plain_workflow(text) if any(mark in text for mark in _MARKS) else None
    if data is None or not (is_saved_format(data) or _has_titles(data)):
        return text
    return _as_template(data, info, file.name, text=text)


def read_any(file: Path) -> dict[str, Any]:
    """Return the JSON of a workflow in any format, out of a file or an image.

    Raises:
        TemplateError: It cannot be read, or is no workflow.
    """
    if file.suffix.lower() in IMAGE_SUFFIXES:
        from runpod_comfy.workflow.embedded import read_embedded  # noqa: PLC0415 - loads Pillow

        return read_embedded(file)
    from runpod_comfy.workflow.relaxed_json import read_json  # noqa: PLC0415 - templates don't need it here

    text = read_text(file)
    try:
        data = read_json(text, template=file.name)
    except TemplateError as exc:
        if file.suffix.lower() not in _TEMPLATE_SUFFIXES:
            raise
        raise TemplateError(
            f"{file.name} is a template already, and no workflow to make one of: `run` takes it as it is, and "
            "`template show` lists its variables.",
            template=file.name,
        ) from exc
    if not isinstance(data, dict):
        raise TemplateError(f"{file.name} is no workflow: its JSON is no object.", template=file.name)
    return data


def read_workflow(
    source: str | os.PathLike[str] | dict[str, Any], info: ObjectInfo | None, *, name: str
) -> dict[str, Any]:
    """Return a workflow in API format out of a file in any format, or out of its JSON.

    Raises:
        TemplateError: It cannot be read, or is no workflow.
        WorkflowGraphError: It cannot be converted.
    """
    data = source if isinstance(source, dict) else read_any(Path(source))
    return _converted(data, info, name)


def plain_workflow(text: str) -> dict[str, Any] | None:
    """Return the workflow where a text is JSON and nothing else; None for a template."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def read_text(file: Path) -> str:
    """Read a file in UTF-8.

    Raises:
        TemplateError: It is not there, or is something else.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as exc:
        raise TemplateError(f"There is no template {file}.", template=file.name) from exc
    except IsADirectoryError as exc:
        raise TemplateError(f"{file} is a folder; give the template file in it.", template=file.name) from exc
    except UnicodeDecodeError as exc:
        line = file.read_bytes().count(b"\n", 0, exc.start) + 1
        raise TemplateError(
            f"{file} is not UTF-8 (line {line}). Save it as UTF-8.", template=file.name, line=line
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: a null character in the path
        raise TemplateError(f"The template {file} cannot be read: {exc}.", template=file.name) from exc


def read_beside(file: Path) -> str | None:
    """Return the declarations that stand beside a template, in ``<its name>.yaml``."""
    beside = file.with_name(f"{file.name}.yaml")
    return read_text(beside) if beside.is_file() else None


def _as_template(data: dict[str, Any], info: ObjectInfo | None, name: str, *, text: str | None = None) -> str:
    from runpod_comfy.workflow.authoring.draft import titled_template  # noqa: PLC0415 - only for plain workflows
    from runpod_comfy.workflow.authoring.write import template_text  # noqa: PLC0415 - likewise

    graph = _converted(data, info, name)
    titled = titled_template(graph, source=name)
    if titled is not None:
        return titled
    # The file's own text keeps its lines in errors.
    return text if text is not None and graph is data else template_text(graph, {})


def _converted(data: dict[str, Any], info: ObjectInfo | None, name: str) -> dict[str, Any]:
    if not is_saved_format(data):
        return data
    from runpod_comfy.workflow.saved_format.convert import convert_saved  # noqa: PLC0415 - templates don't need it

    return convert_saved(data, info, source=name).graph


def _has_titles(data: dict[str, Any]) -> bool:
    titles = (
        node["_meta"].get("title")
        for node in data.values()
        if isinstance(node, dict) and isinstance(node.get("_meta"), dict)
    )
    return any(isinstance(title, str) and title.startswith("$") for title in titles)
