"""The template that a command line names: found before the options are read, since its variables are options."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runpod_comfy.cli.node_types import NodeTypes
    from runpod_comfy.workflow.template import WorkflowTemplate

__all__ = ["find_template_word", "open_template", "refuse_picture_before_template"]

_TEMPLATES = frozenset({".jinja", ".j2", ".json"})


def find_template_word(words: Sequence[str], params: Sequence[click.Parameter]) -> Path | None:
    """Return the file that is the command's template: the first word that no option takes.

    >>> find_template_word(["-n", "4", "--prompt", "a fox", "pyproject.toml"], [])
    """
    takes_value = {
        flag: not each.is_flag
        for each in params
        if isinstance(each, click.Option)
        for flag in (*each.opts, *each.secondary_opts)
    }
    perhaps: Path | None = None
    before, only_words = "", False
    for word in words:
        option, before = before, ""
        if word == "--" and not only_words:
            only_words = True
        elif not only_words and not takes_value.get(option, False) and _is_option(word):
            before = "" if "=" in word else word
        elif takes_value.get(option, False) and not only_words:
            continue
        elif option.startswith("--") and option not in takes_value:
            # A variable of a template that is not known yet, which takes a value; or a flag that there is not.
            if perhaps is None and Path(word).suffix.lower() in _TEMPLATES and Path(word).is_file():
                perhaps = Path(word)
        elif Path(word).is_file():
            return Path(word)
        elif Path(word).suffix.lower() in _TEMPLATES or not word:
            return None
    return perhaps


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def refuse_picture_before_template(path: Path, words: Sequence[str]) -> None:
    """Refuse ``run *.jpg workflow.json``: a picture may carry a workflow, though not beside a template.

    Raises:
        click.UsageError: The template that was found is a picture, and another template follows.
    """
    if path.suffix.lower() in _TEMPLATES:
        return
    from runpod_comfy.workflow.loading import IMAGE_SUFFIXES  # noqa: PLC0415 - `--help` alone needs none of it

    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return
    for before, word in pairwise(words):
        if Path(word).suffix.lower() in _TEMPLATES and not before.startswith("-") and Path(word).is_file():
            raise click.UsageError(f"{path} is a picture; the template comes first: {word} {path} …")


def open_template(path: Path, find_types: Callable[[], NodeTypes | None]) -> WorkflowTemplate:
    """Read a template; a plain workflow becomes one, with what people vary as its variables.

    Args:
        path: A template, or a workflow of any format, or an image that carries one.
        find_types: Gives node types where the workflow cannot be read without them.

    Raises:
        TemplateError: It cannot be read.
        WorkflowGraphError: It cannot be converted.
    """
    from runpod_comfy.workflow.graph import is_saved_format  # noqa: PLC0415 - as above
    from runpod_comfy.workflow.loading import (  # noqa: PLC0415 - as above
        IMAGE_SUFFIXES,
        plain_workflow,
        read_any,
        read_beside,
        read_text,
    )
    from runpod_comfy.workflow.template import WorkflowTemplate  # noqa: PLC0415 - as above

    if path.suffix.lower() not in IMAGE_SUFFIXES:
        text = read_text(path)
        # A template in JSON is what its author made it: expressions stand in it.
        if "{{" in text or "{%" in text or plain_workflow(text) is None or read_beside(path) is not None:
            return WorkflowTemplate(path)
    data = read_any(path)
    types = find_types() if is_saved_format(data) else None
    return WorkflowTemplate.from_workflow(data, object_info=types.info if types else None, name=path.name)
