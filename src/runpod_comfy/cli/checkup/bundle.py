"""A report for somebody else to look at: what doctor found, versions, settings, jobs; no key, no picture, no prompt."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import sys
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError, RunpodComfyError
from runpod_comfy.profiles import config_file, read_key, read_profile
from runpod_comfy.settings import stored_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["redacted", "write_bundle"]

_TOLD = re.compile(r"(?i)^(RUNPOD_|COMFYUI_|BUCKET_|WORKER_|CI$|TERM$|NO_COLOR$|LC_ALL$|LANG$|(https?|all|no)_proxy$)")
_SECRET_NAME = re.compile(r"(?i)(key|token|secret|password|auth)")
_SECRET_TEXT = re.compile(r"(?i)\brpa_[A-Za-z0-9]+|\b(?:bearer|basic)\s+[\w.~+/=-]+|(?<=://)[^/@\s\"']+@")
_SECRET_IN_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:key|token|secret|password|auth|signature)[\w.-]*=)[^&#\s\"']+")
_JOBS = 50


def write_bundle(path: Path, report: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Write the report as a zip file.

    Raises:
        ConfigurationError: There is a file of that name, or it cannot be written.
    """
    secrets = _secrets(environ)
    parts = {
        "doctor.json": json.dumps(report, indent=1),
        "machine.json": json.dumps(_machine(), indent=1),
        "environment.json": json.dumps(_environment(environ), indent=1),
        "config.toml": _config(environ),
        "jobs.json": json.dumps(_jobs(), indent=1),
    }
    try:
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as file:
            for name, text in parts.items():
                file.writestr(name, redacted(text, secrets))
    except OSError as exc:
        raise ConfigurationError(f"--bundle {path}: {exc.strerror or exc}. Name another file.") from exc


def redacted(text: str, secrets: set[str]) -> str:
    """Return a text without keys, whether they are known or only look like one.

    >>> redacted('{"a": "http://me:pw@host", "b": "k123"}', {"k123"})
    '{"a": "http://<removed>host", "b": "<removed>"}'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "<removed>")
    return _SECRET_IN_QUERY.sub(r"\1<removed>", _SECRET_TEXT.sub("<removed>", text))


def _secrets(environ: Mapping[str, str]) -> set[str]:
    found = {value for name, value in environ.items() if _TOLD.match(name) and _SECRET_NAME.search(name)}
    found.add(stored_key(environ) or "")
    with suppress(ConfigurationError):  # a broken file, which is in the report
        found.add(read_key(read_profile(environ=environ).name, environ) or "")
    return {each.strip() for each in found if each.strip()}


def _machine() -> dict[str, Any]:
    packages = {each.name: each.version for each in importlib.metadata.distributions() if each.name}
    return {"python": sys.version, "platform": platform.platform(), "packages": dict(sorted(packages.items()))}


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    told = {name: value for name, value in environ.items() if _TOLD.match(name)}
    return {name: "<set>" if _SECRET_NAME.search(name) else value for name, value in sorted(told.items())}


def _config(environ: Mapping[str, str]) -> str:
    try:
        text = config_file(environ).read_text("utf-8", errors="replace")
    except OSError as exc:
        return f"# {exc.strerror or exc}\n"
    # A key does not belong there; where one stands there all the same, it is not sent on.
    return re.sub(r"(?im)^(\s*[\w-]*(?:key|token|secret)[\w-]*\s*=).*$", r"\1 '<removed>'", text)


def _jobs() -> list[dict[str, Any]]:
    from runpod_comfy.cli.jobs import open_own_ledger  # noqa: PLC0415 - not for `--help`

    try:
        ledger = open_own_ledger()
    except RunpodComfyError:
        return []
    try:
        return [
            {
                "job_id": row.job_id,
                "endpoint_id": row.entry.endpoint_id,
                "state": row.state,
                "note": row.note,
                "template": os.path.basename(row.entry.template_name),  # noqa: PTH119 - a name, not a path here
                "batches": row.entry.batch_count,
                "created_s": row.created_s,
                "changed_s": row.changed_s,
                "gpu_s": row.gpu_s,
            }
            for row in ledger.submissions(limit=_JOBS)
        ]
    finally:
        ledger.close()
