"""Checks of this machine: packages, configuration, key, environment, ledger, disk. None of them asks a server."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import stat
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from runpod_comfy._version import __version__
from runpod_comfy.cli.checkup.finding import fault, fine, skipped
from runpod_comfy.errors import ConfigurationError, LedgerError
from runpod_comfy.profiles import config_file, credentials_file, read_key, read_profile
from runpod_comfy.settings import EndpointSettings, ledger_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runpod_comfy.cli.checkup.finding import Finding
    from runpod_comfy.cli.targets import Target

__all__ = ["check_configuration", "check_disk", "check_key", "check_ledger", "check_packages"]

_DISTRIBUTION = "runpod-comfy-client"
_LEAST_FREE_BYTES = 1024**3
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

# Where no metadata is at hand, as in a checkout; the bounds are those of pyproject.toml that matter most.
_NEEDED = ("aiohttp>=3.12", "click>=8.2", "jinja2>=3.1.6", "orjson>=3.10", "pillow>=11", "runpod>=1.10.1")


def check_packages() -> Iterator[Finding]:
    """Look at Python and at the packages that this one needs."""
    python = ".".join(map(str, sys.version_info[:3]))
    try:
        needed = tuple(importlib.metadata.requires(_DISTRIBUTION) or ())
    except importlib.metadata.PackageNotFoundError:
        needed = _NEEDED
    old = [told for line in needed if (told := _too_old(line))]
    if old:
        packages = shlex.join(each.partition(" ")[0] for each in old)
        yield fault("packages", f"too old or missing: {', '.join(old)}", f"pip install --upgrade {packages}")
    else:
        yield fine("packages", f"{_DISTRIBUTION} {__version__}, Python {python}")


def _too_old(requirement: str) -> str | None:
    """Return what is wrong with an installed package, in words; only lower bounds are looked at."""
    found = re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\d.]+)$", requirement.replace(" ", ""))
    if not found:  # one of an extra, or another kind of bound
        return None
    name, least = found[1], found[2]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return f"{name} {version} (needs {least})" if _numbers(version) < _numbers(least) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version)[:3])


def check_configuration(profile: str | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the file of profiles, the profile that counts, and who may read the key beside it."""
    path, keys = config_file(environ), credentials_file(environ)
    named = "--profile" if profile else "RUNPOD_COMFY_PROFILE"
    try:
        found = read_profile(profile, environ)
    except ConfigurationError as exc:
        if "There is no profile" in str(exc):
            name = profile or environ.get("RUNPOD_COMFY_PROFILE", "")
            fix = f"runpod-comfy init --profile {shlex.quote(name)}" + ("" if profile else f"   or: unset {named}")
            yield fault("profile", str(exc).removesuffix(" Or run init."), fix)
        else:
            yield fault("config", str(exc), f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.broken')}")
        return
    place = found.endpoint or found.comfyui
    where = f"profile {found.name}" + (f": {place}" if place else "") if path.exists() else f"no {path}; not needed"
    yield fine("config", where)
    try:
        mode = keys.stat().st_mode
    except OSError:
        return
    if os.name == "posix" and mode & _OTHERS:
        text = f"other users of this machine can read {keys} ({stat.filemode(mode)})"
        yield fault("key file", text, f"chmod 600 {shlex.quote(str(keys))}")
    else:
        yield fine("key file", f"{keys} is readable by its owner alone")


def check_key(target: Target, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look for an API key, where a RunPod endpoint needs one; whether it is accepted, RunPod says."""
    if target.kind != "runpod":
        yield skipped("key", f"{target} needs none")
        return
    try:
        EndpointSettings.resolve(endpoint=target.name, base_url=target.base_url, environ=environ)
    except ConfigurationError as exc:
        if "API key" in str(exc):
            yield fault("key", str(exc).partition(".")[0] + ".", "runpod-comfy init   or: export RUNPOD_API_KEY=<KEY>")
        else:
            yield fault("endpoint", str(exc), "runpod-comfy init --endpoint <ENDPOINT_ID>")
        return
    origin = "RUNPOD_API_KEY" if environ.get("RUNPOD_API_KEY") else "the profile"
    if origin == "the profile" and not read_key(read_profile(environ=environ).name, environ):
        origin = "RunPod's own ~/.runpod/config.toml"
    yield fine("key", f"from {origin}")


def check_ledger(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Open the file in which jobs are written down, and write to it."""
    from runpod_comfy.ledger import Ledger  # noqa: PLC0415 - its database is not needed for `--help`

    path = ledger_path(ledger=True, environ=environ)
    try:
        with closing(Ledger(path or "")) as ledger:
            ledger.beat()
    except (ConfigurationError, LedgerError, OSError) as exc:
        cause = str(exc).partition(" Nothing was sent.")[0]
        yield fault("ledger", cause, "export RUNPOD_COMFY_LEDGER=~/runpod-comfy-jobs.sqlite   (or run --no-ledger)")
        return
    yield fine("ledger", f"{path} can be written")


def check_disk(folder: Path, *, free_bytes: Callable[[Path], int] | None = None) -> Iterator[Finding]:
    """Look at the room for what is made.

    Args:
        folder: Where it would be written.
        free_bytes: Tells the free bytes of a folder, in place of asking the system.
    """
    try:
        free = free_bytes(folder) if free_bytes else shutil.disk_usage(folder).free
    except OSError as exc:
        yield fault("disk", f"{folder}: {exc.strerror or exc}", "cd to a folder that is there, or pass --output-dir")
        return
    if free < _LEAST_FREE_BYTES:
        yield fault(
            "disk",
            f"only {free / 1024**2:,.0f} MB are free in {folder.absolute()}; 400 images of 1024 x 1024 take 700 MB",
            "make room, or name a folder on another disk with --output-dir",
        )
    else:
        yield fine("disk", f"{free / 1024**3:,.0f} GB free")
