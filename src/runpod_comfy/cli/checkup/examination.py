"""The checks in their order: what cannot be looked at after a fault is said once and not a second fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runpod_comfy.cli.checkup.finding import Finding, fault, fine, skipped
from runpod_comfy.cli.checkup.here import check_configuration, check_disk, check_key, check_ledger, check_packages
from runpod_comfy.cli.targets import choose_target, make_executor
from runpod_comfy.errors import ConfigurationError, RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runpod_comfy.cli.targets import Target
    from runpod_comfy.dialects.description import PlaceDescription
    from runpod_comfy.serverless.api import EndpointHealth

__all__ = ["Asked", "examine"]

_QUICK_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for; see ``runpod-comfy doctor --help``."""

    endpoint: str | None = None
    comfyui: str | None = None
    local: bool = False
    profile: str | None = None
    base_url: str | None = None
    template: Path | None = None
    end_to_end: bool = False
    timeout_s: float = 900.0


def examine(ctx: click.Context, asked: Asked, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found; a fault never ends it."""
    yield from check_packages()
    configuration = list(check_configuration(asked.profile, environ))
    yield from configuration
    yield from check_ledger(environ)
    yield from check_disk(Path())
    if any(each.state == "fault" and each.check in {"config", "profile"} for each in configuration):
        yield skipped("place", "not asked: the configuration comes first")
        return
    try:
        target = choose_target(
            ctx,
            endpoint=asked.endpoint,
            comfyui=asked.comfyui,
            local=asked.local,
            base_url=asked.base_url,
            profile=asked.profile,
        )
    except click.UsageError as exc:
        if "are both named" not in str(exc) or asked.endpoint is asked.comfyui is None:
            raise
        fix = "unset COMFYUI_URL   or: unset RUNPOD_ENDPOINT_ID"
        yield fault("environment", f"two places are named: {exc.format_message().partition('. ')[0]}", fix)
        yield skipped("place", "not asked: the environment comes first")
        return
    yield fine("environment", f"names {target}")
    yield from _of_place(target, asked, environ)


def _of_place(target: Target, asked: Asked, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found at the place to run."""
    from runpod_comfy.cli.checkup.inside import check_end_to_end  # noqa: PLC0415 - `--help` needs none of it

    health: EndpointHealth | None = None
    faulty = False
    for each in _outside(target, environ):
        if isinstance(each, Finding):
            faulty = faulty or each.state == "fault"
            yield each
        else:
            health = each
    if faulty:
        yield skipped("worker", "not asked: what is in its way comes first")
        return
    executor = make_executor(target, batch_size=1)
    with executor:
        is_up = health is not None and bool(health.workers.get("idle", 0) or health.workers.get("running", 0))
        yield from _installed(target, asked, is_up=is_up)
        if asked.end_to_end:
            yield check_end_to_end(executor, timeout_s=asked.timeout_s)


def _outside(target: Target, environ: Mapping[str, str]) -> Iterator[Finding | EndpointHealth]:
    from runpod_comfy.cli.checkup.place import check_comfyui, check_endpoint  # noqa: PLC0415 - as above
    from runpod_comfy.settings import EndpointSettings  # noqa: PLC0415 - likewise

    match target.kind:
        case "comfyui":
            yield from check_comfyui(target)
        case "local":
            how = "as asked for" if target.asked_for else "no endpoint is named, and init stores one"
            yield skipped("endpoint", f"the local stand-in runs: {how}")
        case "runpod":
            keys = list(check_key(target, environ))
            if keys[0].state == "fault":
                yield from keys
                return
            settings = EndpointSettings.resolve(endpoint=target.name, base_url=target.base_url, environ=environ)
            found = list(check_endpoint(settings, target, environ))
            # One line for the key: the refused one weighs more than the one that was found.
            if not any(isinstance(each, Finding) and each.check == "key" for each in found):
                yield from keys
            yield from found


def _installed(target: Target, asked: Asked, *, is_up: bool) -> Iterator[Finding]:
    """Yield what is known of nodes and models, asking the place where that costs nothing, or was asked for."""
    from runpod_comfy.cli.checkup.inside import check_description, describe_place  # noqa: PLC0415 - as above

    about: PlaceDescription | None = None
    if target.kind == "comfyui" or (target.kind == "runpod" and (is_up or asked.end_to_end)):
        timeout_s = asked.timeout_s if asked.end_to_end else _QUICK_S
        finding, about = describe_place(make_executor(target, batch_size=1), timeout_s=timeout_s)
        yield finding
        if about is not None:
            yield from check_description(about)
    elif target.kind == "runpod":
        yield skipped("worker", "not asked: none is up (--end-to-end starts one)")
    if asked.template is not None:
        yield from _of_template(asked.template, target, about)


def _of_template(path: Path, target: Target, about: PlaceDescription | None) -> Iterator[Finding]:
    from runpod_comfy.cli.check import check_template  # noqa: PLC0415 - as above
    from runpod_comfy.cli.checkup.inside import check_problems  # noqa: PLC0415 - likewise
    from runpod_comfy.cli.node_types import find_node_types  # noqa: PLC0415 - likewise
    from runpod_comfy.cli.template_files import open_template  # noqa: PLC0415 - likewise
    from runpod_comfy.cli.template_verb import template_batch_size  # noqa: PLC0415 - likewise

    try:
        types = find_node_types(target, file=None) if about is None or not about.is_stand_in else None
        template = open_template(path, lambda: types)
        if types is None:
            reason = "a stand-in runs more than it lists" if about is not None else "nothing is known of the place yet"
            yield skipped("template", f"{path.name} can be read; not compared: {reason}")
            return
        problems = check_template(template, types.info, batch_size=template_batch_size(template))
    except RunpodComfyError as exc:
        named = "endpoint" if isinstance(exc, ConfigurationError) else "template"
        fix = "runpod-comfy describe" if named == "endpoint" else f"runpod-comfy template show {path}"
        yield fault("template", f"{exc}", fix)
        return
    yield from check_problems(problems, str(target))
