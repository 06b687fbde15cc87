"""What ``runpod-comfy`` alone says: the next commands for the state that things are in, from a few looks at files."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runpod_comfy.cli.unfinished import continuing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Situation", "look_around", "welcome"]

_INTRODUCTION = "Run ComfyUI workflows on RunPod, on your own ComfyUI, or on nothing at all."
_CLOSING = "runpod-comfy --help lists all commands, runpod-comfy run --help all options."
_EXAMPLE = "portrait/workflow.json.jinja"
_LOOKED_AT = 200  # entries of the folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What was seen.

    Attributes:
        template: A template in this folder, or None.
        workflow: A workflow in this folder that is no template yet, or None.
        place: Where runs go by the environment or the profile, or None.
        unfinished: The command that goes on with a dataset which was begun here and is not complete, or None.
        open_jobs: Jobs of the ledger that nobody has seen the end of.
    """

    template: str | None = None
    workflow: str | None = None
    place: str | None = None
    unfinished: str | None = None
    open_jobs: int = 0


def look_around(folder: Path) -> Situation:
    """Look at the folder, the profile and the ledger; nothing is opened for writing, and no server is asked."""
    templates, workflows, commands = [], [], []
    try:
        entries = sorted(folder.iterdir())[:_LOOKED_AT]
    except OSError:
        entries = []
    for entry in entries:
        if entry.name.endswith((".json.jinja", ".json.j2")):
            templates.append(entry.name)
        elif entry.suffix == ".json":
            workflows.append(entry.name)
        elif (command := continuing(entry)) is not None:
            commands.append(command)
    if not templates and (folder / _EXAMPLE).is_file():
        templates.append(_EXAMPLE)
    return Situation(
        template=templates[0] if templates else None,
        workflow=workflows[0] if workflows else None,
        place=_place(),
        unfinished=commands[0] if commands else None,
        open_jobs=_open_jobs(),
    )


def welcome(seen: Situation) -> str:
    """Return the text: what this is, and the three commands that probably come next.

    >>> "runpod-comfy example" in welcome(Situation()), "runpod-comfy init" in welcome(Situation(place="endpoint x"))
    (True, False)
    """
    steps = _steps(seen)[:3]
    width = max(len(command) for command, _ in steps) + 2
    lines = [f"  {command:{width}}{why}" for command, why in steps]
    return "\n".join([_INTRODUCTION, "", *lines, "", _CLOSING])


def _steps(seen: Situation) -> list[tuple[str, str]]:
    """Return commands and what they do, the most urgent first."""
    steps = []
    if seen.unfinished:
        steps.append((seen.unfinished, "a dataset that is not complete: goes on where it ended"))
    if seen.open_jobs:
        steps.append(("runpod-comfy collect --all", f"{seen.open_jobs} job(s) that nobody has seen the end of"))
    if seen.template:
        template = shlex.quote(seen.template)
        where = f"on {seen.place}" if seen.place else "labelled stand-in pictures: no account, no GPU"
        photos = " portrait" if seen.template == _EXAMPLE else ""
        steps.append((f"runpod-comfy run {template}{photos}", where))
    elif seen.workflow:
        steps.append((f"runpod-comfy template create {shlex.quote(seen.workflow)}", "make that workflow a template"))
    else:
        steps.append(("runpod-comfy example", "a template and two photos, here"))
    if seen.place:
        steps.append(("runpod-comfy doctor", "is everything ready?"))
    else:
        steps.append(("runpod-comfy init", "your RunPod key and endpoint, asked once"))
    if seen.template:
        steps.append((f"runpod-comfy batch {shlex.quote(seen.template)} DATA.csv", "a picture for each row: a dataset"))
    elif seen.workflow:
        steps.append(("runpod-comfy example", "another template and two photos, here"))
    else:
        steps.append(("runpod-comfy template create WORKFLOW.json", "make your workflow a template"))
    return steps


def _place() -> str | None:
    from runpod_comfy.cli.targets import target_of_environment  # noqa: PLC0415 - it costs more than the rest here
    from runpod_comfy.errors import ConfigurationError  # noqa: PLC0415 - likewise

    try:
        target = target_of_environment(comfyui=None, endpoint=None)
    except ConfigurationError as exc:
        return f"nothing yet: {exc}"
    return str(target) if target.asked_for else None


def _open_jobs() -> int:
    from runpod_comfy.cli.completions import ledger_rows  # noqa: PLC0415 - it loads SQLite

    rows = ledger_rows(
        "SELECT count(*), '' FROM submissions WHERE state IN ('SENDING', 'IN_QUEUE', 'IN_PROGRESS', 'UNCERTAIN')"
    )
    return int(rows[0][0]) if rows else 0
