"""``runpod-comfy init``: a key and a place to run at, asked once, checked and stored."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.failures import MissingKey
from runpod_comfy.cli.options import output_options
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb
from runpod_comfy.errors import RunpodComfyError
from runpod_comfy.profiles import DEFAULT_PROFILE, Profile, read_key, read_profile, store_key, store_profile

if TYPE_CHECKING:
    from runpod_comfy.cli.output import Output
    from runpod_comfy.serverless.api import EndpointHealth

__all__ = ["command"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What shall be stored; a key only where a new one was given."""

    profile: Profile
    key: str | None = None


@click.command(
    cls=Verb,
    name="init",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy init
  runpod-comfy init --endpoint 4m7x2k9q --key-stdin < key.txt
  runpod-comfy init --profile home --comfyui http://127.0.0.1:8188

The key is never an option: other users of the machine see a command's words.""",
)
@click.option("--profile", "name", default=DEFAULT_PROFILE, show_default=True, metavar="NAME", help="Which profile.")
@click.option("--endpoint", metavar="ID", help="The RunPod endpoint to run on.")
@click.option("--comfyui", metavar="URL", help="A ComfyUI server to run on, in place of an endpoint.")
@click.option("--base-url", metavar="URL", help="Another address of RunPod's API.")
@click.option("--key-stdin", is_flag=True, help="Read RunPod's API key from stdin, without asking anything.")
@click.option("--no-check", is_flag=True, help="Store without asking RunPod whether key and endpoint are right.")
@output_options("init", quiet=False)
def command(
    *,
    name: str,
    endpoint: str | None,
    comfyui: str | None,
    base_url: str | None,
    key_stdin: bool,
    no_check: bool,
    output: Output,
) -> int:
    """Store where to run and the key for it, so that later commands need neither.

    Asks for what no option gives: the key (hidden) and the endpoint. Each can be skipped.
    """
    if endpoint and comfyui:
        raise click.UsageError("--endpoint and --comfyui are two places; give one, or two profiles one each.")
    before = _stored(name)
    profile = replace(
        before,
        name=name,
        # One place a profile: a new one takes the old one's.
        endpoint=endpoint or (None if comfyui else before.endpoint),
        comfyui=comfyui or (None if endpoint else before.comfyui),
        base_url=base_url or before.base_url,
    )
    wanted = _ask(_Wanted(profile=profile), key_stdin=key_stdin, ask_endpoint=not (endpoint or comfyui))
    health = None if no_check else _check(wanted)
    return _store(wanted, health, output)


def _stored(name: str) -> Profile:
    try:
        return read_profile(name)
    except RunpodComfyError:
        if name == DEFAULT_PROFILE:
            raise
        return Profile(name=name)


def _ask(wanted: _Wanted, *, key_stdin: bool, ask_endpoint: bool) -> _Wanted:
    """Ask for what is not known yet; where nobody can be asked, that is an error that names the options."""
    profile = wanted.profile
    if key_stdin:
        return replace(wanted, key=sys.stdin.readline().strip() or None)
    if profile.comfyui and not profile.endpoint:
        return wanted
    has_key = bool(read_key(profile.name) or os.environ.get("RUNPOD_API_KEY"))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if has_key and not ask_endpoint:
            return wanted
        raise click.UsageError("There is no terminal to ask at: give --endpoint ID and --key-stdin, or --comfyui URL.")
    hint = "keep the present one" if has_key else "skip"
    key = click.prompt(f"RunPod API key (hidden) [{hint}]", default="", hide_input=True, show_default=False, err=True)
    if ask_endpoint:
        hint = profile.endpoint or "skip"
        endpoint = click.prompt(f"Endpoint id [{hint}]", default="", show_default=False, err=True)
        profile = replace(profile, endpoint=endpoint.strip() or profile.endpoint)
    return replace(wanted, profile=profile, key=key.strip() or None)


def _check(wanted: _Wanted) -> EndpointHealth | None:
    """Ask RunPod for the endpoint's health, which costs nothing, or ComfyUI for its version.

    Raises:
        RunpodComfyError: The key or the endpoint is wrong, or RunPod does not answer.
    """
    profile = wanted.profile
    if profile.comfyui:
        from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor  # noqa: PLC0415 - not for `--help`

        ComfyServerWorkflowExecutor(profile.comfyui).version()
        return None
    key = wanted.key or read_key(profile.name) or os.environ.get("RUNPOD_API_KEY")
    if not profile.endpoint:
        return None
    if not key:
        raise MissingKey("The endpoint needs an API key: give --key-stdin, or set RUNPOD_API_KEY.")
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - not for `--help`

    return RunpodComfyWorkflowExecutor(profile.endpoint, api_key=key, base_url=profile.base_url).health()


def _store(wanted: _Wanted, health: EndpointHealth | None, output: Output) -> int:
    profile = wanted.profile
    stored: dict[str, Any] = {"profile": profile.name, "endpoint": profile.endpoint, "comfyui": profile.comfyui}
    if health is not None:
        workers = ", ".join(f"{count} {state}" for state, count in health.workers.items() if count) or "no workers now"
        output.note(f"  ✓ key accepted, endpoint {profile.endpoint}: {workers}")
    try:
        stored["file"] = str(store_profile(profile))
        if wanted.key:
            stored["key_in"] = store_key(profile.name, wanted.key)
    except OSError as exc:
        raise click.UsageError(f"{exc.filename or 'The profile'}: {exc.strerror or exc}.") from exc
    output.note(f"  ✓ profile {profile.name} is in {stored['file']}")
    if "key_in" in stored:
        output.note(f"  ✓ the key is in {stored['key_in']}")
    chosen = "" if profile.name == DEFAULT_PROFILE else f" --profile {profile.name}"
    output.next_step(f"{COMMAND_NAME} run TEMPLATE PHOTOS…{chosen}    (runs there now; --local for the stand-in)")
    return output.succeed(stored)
