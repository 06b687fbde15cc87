"""Options that several verbs have, each written once; what they say together reaches the verb as one value.

>>> @click.command()
... @target_options()
... @output_options("demo")
... def demo(*, target, output): ...
>>> [each.name for each in demo.params]
['endpoint', 'comfyui', 'local', 'profile', 'base_url', 'as_json', 'quiet']
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from runpod_comfy.cli.completions import complete_endpoint, complete_profile
from runpod_comfy.cli.output import Output
from runpod_comfy.cli.targets import choose_target
from runpod_comfy.near import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Choice",
    "batch_size_option",
    "endpoint_options",
    "object_info_option",
    "output_options",
    "progress_option",
    "raw_target_options",
    "target_options",
    "timeout_option",
    "variables_option",
]

_Verb: TypeAlias = "Callable[..., Any]"
_Decorator: TypeAlias = "Callable[[Callable[..., Any]], Callable[..., Any]]"

_NO_ENDPOINT = "No endpoint is named: pass --endpoint ID, or store one with init."


class Choice(click.Choice[str]):
    """One of some words; for another one the nearest of them is named."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the error's text."""
        near = nearest(value, self.choices)
        return super().get_invalid_choice_message(value, ctx) + (f" Did you mean {near[0]!r}?" if near else "")


def target_options(*, local: bool = True) -> _Decorator:
    """Give a verb the options that say where; it gets them as ``target``.

    Args:
        local: Whether the local stand-in is such a place.
    """
    return _asked_for(_target_options(local=local), runpod_only=False)


def raw_target_options() -> _Decorator:
    """Give a verb the options of :func:`target_options` as they were typed: ``endpoint``, ``comfyui`` and so on."""
    return lambda function: _with(function, _target_options(local=True))


def endpoint_options() -> _Decorator:
    """Give a verb the options that name a RunPod endpoint; it gets them as ``target``, and is refused without one."""
    options = [_endpoint("The RunPod endpoint."), _profile("The endpoint of this profile of `init`."), _base_url()]
    return _asked_for(options, runpod_only=True)


def output_options(command: str, *, quiet: bool = True, events: bool = False, instead: str = "") -> _Decorator:
    """Give a verb the options that say what is written; it gets them as ``output``.

    Args:
        command: The verb, as the envelope names it.
        quiet: Whether it says enough for ``--quiet``.
        events: Whether it has events to write.
        instead: What ``--json`` replaces, or adds, as the help says it.
    """

    def decorate(function: _Verb) -> _Verb:
        @functools.wraps(function)
        def verb(*args: Any, as_json: bool, quiet: bool = False, events: bool = False, **others: Any) -> Any:
            output = Output(command=command, as_json=as_json, quiet=quiet, events=events)
            return function(*args, output=output, **others)

        text = f"Write one JSON object to stdout{instead and f' {instead}'}."
        options = [click.option("--json", "as_json", is_flag=True, help=text)]
        if events:
            text = "Write each event as a line of JSON to stdout as it happens, and that object last."
            options.append(click.option("--events", is_flag=True, help=text))
        if quiet:
            options.append(click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr."))
        return _with(verb, options)

    return decorate


def progress_option(function: _Verb) -> _Verb:
    """Give a verb ``--progress``."""
    return click.option(
        "--progress", type=Choice(["rich", "plain", "none"]), help="How to show progress, if not by terminal."
    )(function)


def timeout_option(text: str, *, default: float | None = None) -> _Decorator:
    """Give a verb ``--timeout``; it gets it as ``timeout_s``."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, min_open=True),
        default=default,
        show_default=default is not None,
        metavar="SECONDS",
        help=text,
    )


def variables_option(text: str) -> _Decorator:
    """Give a verb ``--var``; it gets the pairs as ``assignments``."""
    return click.option("--var", "assignments", multiple=True, metavar="NAME=VALUE", help=text)


def batch_size_option(function: _Verb) -> _Verb:
    """Give a verb ``--batch-size``; None is what the template says."""
    return click.option(
        "-b",
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Images in a batch.  [default: the template's, or 1]",
    )(function)


def object_info_option(text: str) -> _Decorator:
    """Give a verb ``--object-info``."""
    return click.option("--object-info", type=click.Path(path_type=Path), metavar="FILE", help=text)


def _target_options(*, local: bool) -> list[_Decorator]:
    return [
        _endpoint("Run on this RunPod endpoint." if local else "This RunPod endpoint."),
        _comfyui("Run on this ComfyUI server." if local else "This ComfyUI server."),
        *([_LOCAL] if local else []),
        _profile("Run where this profile of `init` says, whatever the environment says."),
        _base_url(),
    ]


def _asked_for(options: Sequence[_Decorator], *, runpod_only: bool) -> _Decorator:
    def decorate(function: _Verb) -> _Verb:
        @functools.wraps(function)
        def verb(
            *args: Any,
            endpoint: str | None,
            profile: str | None,
            base_url: str | None,
            comfyui: str | None = None,
            local: bool = False,
            **others: Any,
        ) -> Any:
            ctx = click.get_current_context()
            target = choose_target(
                ctx, endpoint=endpoint, comfyui=comfyui, local=local, base_url=base_url, profile=profile
            )
            if runpod_only and target.kind != "runpod":
                raise click.UsageError(_NO_ENDPOINT, ctx)
            return function(*args, target=target, **others)

        return _with(verb, options)

    return decorate


def _with(function: _Verb, options: Sequence[_Decorator]) -> _Verb:
    for option in reversed(options):
        function = option(function)
    return function


def _endpoint(text: str) -> _Decorator:
    return click.option(
        "--endpoint",
        envvar="RUNPOD_ENDPOINT_ID",
        show_envvar=True,
        metavar="ID",
        help=text,
        shell_complete=complete_endpoint,
    )


def _comfyui(text: str) -> _Decorator:
    return click.option("--comfyui", envvar="COMFYUI_URL", show_envvar=True, metavar="URL", help=text)


def _profile(text: str) -> _Decorator:
    return click.option("--profile", metavar="NAME", help=text, shell_complete=complete_profile)


def _base_url() -> _Decorator:
    return click.option(
        "--base-url", metavar="URL", help="Another address of RunPod's API (or set RUNPOD_ENDPOINT_BASE_URL)."
    )


_LOCAL = click.option("--local", is_flag=True, help="Run on the local stand-in, whatever the environment says.")
