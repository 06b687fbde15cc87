"""Where a run takes place: on a RunPod endpoint, on a ComfyUI server, or on the local stand-in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import click
from click.core import ParameterSource

from runpod_comfy.cli.failures import MissingKey
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.profiles import read_profile
from runpod_comfy.settings import shown_url

if TYPE_CHECKING:
    from runpod_comfy.executors.base import WorkflowExecutor

__all__ = ["Target", "TargetKind", "choose_target", "make_executor", "target_of_environment"]

TargetKind: TypeAlias = Literal["runpod", "comfyui", "local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place to run.

    Attributes:
        kind: What it is.
        name: The endpoint's id or the server's address; None for the local stand-in.
        base_url: Another address of RunPod's API.
        variable: The environment variable or the profile that named it, or None.
        asked_for: Whether anything named it; else it is what is left.
    """

    kind: TargetKind
    name: str | None = None
    base_url: str | None = None
    variable: str | None = None
    asked_for: bool = True

    def __str__(self) -> str:
        what = {"runpod": "RunPod endpoint", "comfyui": "ComfyUI at", "local": "the local stand-in"}[self.kind]
        named_by = f" ({self.variable})" if self.variable else ""
        name = shown_url(self.name) if self.name and self.kind == "comfyui" else self.name
        return " ".join(part for part in (what, name) if part) + named_by


def choose_target(
    ctx: click.Context,
    *,
    endpoint: str | None,
    comfyui: str | None,
    local: bool,
    base_url: str | None,
    profile: str | None = None,
) -> Target:
    """Return where to run; a flag weighs more than the environment, and that more than a stored profile.

    Raises:
        click.UsageError: Two places are named, or ``--base-url`` and no endpoint.
    """

    def target(kind: TargetKind, name: str | None, variable: str) -> Target | None:
        if not name:
            return None
        typed = ctx.get_parameter_source(kind if kind == "comfyui" else "endpoint") is ParameterSource.COMMANDLINE
        return Target(kind=kind, name=name, base_url=base_url, variable=None if typed else variable)

    if profile:
        # Whatever reads settings later reads the same profile.
        os.environ["RUNPOD_COMFY_PROFILE"] = profile
        if endpoint and ctx.get_parameter_source("endpoint") is not ParameterSource.COMMANDLINE:
            endpoint = None
        if comfyui and ctx.get_parameter_source("comfyui") is not ParameterSource.COMMANDLINE:
            comfyui = None
    named = [
        target("runpod", endpoint, "RUNPOD_ENDPOINT_ID"),
        target("comfyui", comfyui, "COMFYUI_URL"),
        Target(kind="local") if local else None,
    ]
    found = [each for each in named if each]
    found = [each for each in found if not each.variable] or found
    if len(found) > 1:
        names = " and ".join(map(str, found))
        raise click.UsageError(f"{names} are both named. Give one of --endpoint ID, --comfyui URL and --local.", ctx)
    chosen = found[0] if found else _from_profile(base_url)
    if base_url and chosen.kind != "runpod":
        raise click.UsageError("--base-url is an address of RunPod's API: name an endpoint with --endpoint ID.", ctx)
    return chosen


def target_of_environment(*, endpoint: str | None, comfyui: str | None) -> Target:
    """Return where to run, by what was typed, the environment and the profile, where the options are not read yet."""
    if comfyui or endpoint:
        return Target(kind="comfyui" if comfyui else "runpod", name=comfyui or endpoint)
    if url := os.environ.get("COMFYUI_URL"):
        return Target(kind="comfyui", name=url, variable="COMFYUI_URL")
    if endpoint_id := os.environ.get("RUNPOD_ENDPOINT_ID"):
        return Target(kind="runpod", name=endpoint_id, variable="RUNPOD_ENDPOINT_ID")
    return _from_profile(None)


def _from_profile(base_url: str | None) -> Target:
    profile = read_profile()
    named_by = f"profile {profile.name}"
    if profile.endpoint:
        base_url = base_url or profile.base_url
        return Target(kind="runpod", name=profile.endpoint, base_url=base_url, variable=named_by)
    if profile.comfyui:
        return Target(kind="comfyui", name=profile.comfyui, variable=named_by)
    return Target(kind="local", asked_for=False)


def make_executor(target: Target, *, batch_size: int, ledger: bool = False) -> WorkflowExecutor:
    """Return the executor for a target.

    Args:
        target: Where to run.
        batch_size: How many images a batch has.
        ledger: Whether jobs on RunPod are written down.

    Raises:
        MissingKey: There is no usable API key.
        ConfigurationError: The endpoint or an address cannot be right.
    """
    # Each is imported alone: whoever runs on RunPod never loads the emulator.
    match target.kind:
        case "comfyui":
            from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor  # noqa: PLC0415 - see above

            return ComfyServerWorkflowExecutor(target.name, batch_size=batch_size)
        case "local":
            from runpod_comfy.executors.local import LocalWorkflowExecutor  # noqa: PLC0415 - see above

            return LocalWorkflowExecutor(batch_size=batch_size)
        case "runpod":
            from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - see above
            from runpod_comfy.settings import EndpointSettings  # noqa: PLC0415 - see above

            # With a key in place, whatever is wrong is something else; what is wrong without it is the key.
            EndpointSettings.resolve(endpoint=target.name, base_url=target.base_url, api_key="any")
            try:
                return RunpodComfyWorkflowExecutor(
                    target.name, batch_size=batch_size, base_url=target.base_url, ledger=ledger
                )
            except ConfigurationError as exc:
                raise MissingKey(str(exc)) from exc
