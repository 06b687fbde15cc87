"""What a shell is offered for a word: profiles, endpoints, jobs, templates. Nothing is asked of a server for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

__all__ = ["complete_endpoint", "complete_job", "complete_profile", "complete_template", "ledger_rows"]

_JOBS = 50
_TEMPLATES = ("*.json.jinja", "*.jinja", "*.j2", "*.json")


def complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the profiles of the user's file, with the place that each names."""
    del ctx, param
    return _beginning(incomplete, ((name, _place(values)) for name, values in _profiles().items()))


def complete_endpoint(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the endpoints that profiles name, and those that jobs of the ledger ran on."""
    del ctx, param
    named = {str(each["endpoint"]): f"profile {name}" for name, each in _profiles().items() if each.get("endpoint")}
    for endpoint, _ in ledger_rows("SELECT DISTINCT endpoint_id, '' FROM submissions LIMIT 50"):
        named.setdefault(endpoint, "in the ledger")
    return _beginning(incomplete, named.items())


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the newest jobs of the ledger, with their states."""
    del ctx, param
    rows = ledger_rows(
        f"SELECT coalesce(job_id, submission_id), state || ', ' || template_name FROM submissions"  # noqa: S608 - a number
        f" ORDER BY created_s DESC LIMIT {_JOBS}"
    )
    return _beginning(incomplete, rows)


def complete_template(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return templates and workflows in the folder that is being typed, and folders."""
    del ctx, param
    from pathlib import Path  # noqa: PLC0415 - few words complete to a file

    folder, _, begun = incomplete.rpartition("/")
    base = Path(f"{folder}/" if folder or incomplete.startswith("/") else ".").expanduser()
    prefix = f"{folder}/" if "/" in incomplete else ""
    try:
        entries = sorted(base.iterdir())
    except OSError:
        return []
    shown = [each for each in entries if each.name.startswith(begun) and (begun or not each.name.startswith("."))]
    shown = [each for each in shown if each.name.isprintable()]
    files = [each.name for each in shown if any(map(each.match, _TEMPLATES)) and each.is_file()]
    folders = [f"{each.name}/" for each in shown if each.is_dir()]
    if not files:
        # The shell's own way with folders is the better one: it adds no space behind them.
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(prefix + name) for name in (*files, *folders)]


def _beginning(incomplete: str, pairs: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    # Names of files that others wrote: what is no word would break the shell's lines.
    fitting = [(name, text) for name, text in pairs if name.startswith(incomplete) and name.isprintable()]
    return [CompletionItem(name, help=" ".join(text.split())) for name, text in fitting]


def _profiles() -> dict[str, dict[str, Any]]:
    import tomllib  # noqa: PLC0415 - only while completing

    from runpod_comfy.profiles import config_file  # noqa: PLC0415 - likewise

    try:
        found = tomllib.loads(config_file().read_text("utf-8")).get("profiles", {})
    except (OSError, ValueError):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def _place(values: dict[str, Any]) -> str:
    return str(values.get("endpoint") or values.get("comfyui") or "")


def ledger_rows(query: str) -> list[tuple[str, str]]:
    """Read the ledger without opening it for writing, which would make it, and tidy it up."""
    import sqlite3  # noqa: PLC0415 - only while completing
    from contextlib import closing  # noqa: PLC0415 - likewise
    from pathlib import Path  # noqa: PLC0415 - likewise

    from runpod_comfy.settings import ledger_path  # noqa: PLC0415 - likewise

    path = Path(ledger_path(ledger=True) or "")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.1)) as db:
            return list(db.execute(query))
    except sqlite3.Error:
        return []
