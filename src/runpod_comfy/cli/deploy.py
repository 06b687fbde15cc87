"""``runpod-comfy deploy --print``: what to type into RunPod's forms, and where each model of a template has to be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from runpod_comfy._version import __version__
from runpod_comfy.cli.options import output_options, variables_option
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runpod_comfy.cli.output import Output
    from runpod_comfy.workflow.model_files import ModelFile

__all__ = ["command"]

_IMAGE = f"<REGISTRY>/runpod-comfy-worker:{__version__}"
# Pools of 24 GB, which is enough for SDXL and for Flux in 8 bits; the same as in `.runpod/hub.json`.
_POOLS = "ADA_24,AMPERE_24"


class _Field(NamedTuple):
    """One field of a form."""

    name: str
    value: str
    reason: str = ""


@click.command(
    cls=Verb,
    name="deploy",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy deploy --print
  runpod-comfy deploy --print portrait/workflow.json.jinja
  runpod-comfy deploy --print workflow.json.jinja --volume --max-workers 5 --image ghcr.io/me/comfy:1

It needs no key and asks nobody. The fields are called as in RunPod's documentation.""",
)
@click.argument("template", required=False, type=click.Path(path_type=Path))
@click.option("--print", "prints", is_flag=True, help="Print what to type into RunPod's forms.")
@click.option("--image", default=_IMAGE, metavar="NAME", help=f"The container image.  [default: {_IMAGE}]")
@click.option("--gpu", "pools", default=_POOLS, show_default=True, metavar="POOLS", help="GPU pools, best first.")
@click.option(
    "--max-workers", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Workers at once."
)
@click.option(
    "--idle-timeout",
    "idle_timeout_s",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker stays warm, and is paid for.",
)
@click.option("--volume", is_flag=True, help="The models are on a network volume, not in the image.")
@variables_option("A variable of the template.")
@output_options("deploy", quiet=False)
def command(
    *,
    template: Path | None,
    prints: bool,
    image: str,
    pools: str,
    max_workers: int,
    idle_timeout_s: int,
    volume: bool,
    assignments: tuple[str, ...],
    output: Output,
) -> int:
    """Print what to type into RunPod's forms for a template and an endpoint.

    With TEMPLATE, also which model files it names and where each has to be.
    """
    if not prints:
        raise click.UsageError("deploy prints what to type into RunPod's forms, and creates nothing: pass --print.")
    models = _models_of(template, assignments) if template else ()
    template_form = _template_form(image)
    endpoint_form = _endpoint_form(pools, max_workers, idle_timeout_s, volume=volume)
    output.data("Template (Serverless, Templates, New template)")
    _print_fields(template_form, output)
    output.data("")
    output.data("Endpoint (Serverless, New endpoint)")
    _print_fields(endpoint_form, output)
    output.data("")
    if template:
        output.data(f"Models that {template.name} names")
        _print_fields([_model_field(each, volume=volume) for each in models], output)
        if volume:
            output.data("  The same volume is /workspace on a pod: fill it from there, in the same folders.")
    output.next_step(f"{COMMAND_NAME} init --endpoint <ENDPOINT_ID>     (the id is on the endpoint's page)")
    return output.succeed(
        {
            "template_form": {field.name: field.value for field in template_form},
            "endpoint_form": {field.name: field.value for field in endpoint_form},
            "models": [asdict(each) for each in models],
        }
    )


def _template_form(image: str) -> list[_Field]:
    return [
        _Field("Container image", image),
        _Field("Container start command", "(empty)", "the image has its own"),
        _Field("Container disk", "30 GB", "more for long videos"),
        _Field("Environment variables", "(none)", "see the worker's settings in the docs; keys as RunPod secrets"),
    ]


def _endpoint_form(pools: str, max_workers: int, idle_timeout_s: int, *, volume: bool) -> list[_Field]:
    return [
        _Field("Endpoint type", "Queue", "a load balancer has no jobs"),
        _Field("GPU", pools, "24 GB; larger models need 48 GB: ADA_48_PRO,AMPERE_48"),
        _Field("Allowed CUDA versions", "12.8 and above", "under Advanced"),
        _Field("Active workers", "0", "each one more is paid for day and night"),
        _Field("Max workers", str(max_workers), "so many are paid for at once, at most"),
        _Field("Idle timeout", f"{idle_timeout_s} s", "paid for; RunPod's 5 s mean a cold start between two runs"),
        _Field("Execution timeout", "1800 s", "above your longest job, its wait on the worker included"),
        _Field("FlashBoot", "on"),
        _Field("Network volume", "the one with models/" if volume else "(none)", "pins the data centre" * volume),
    ]


def _models_of(template: Path, assignments: Sequence[str]) -> tuple[ModelFile, ...]:
    from runpod_comfy.cli.template_files import open_template  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.cli.variables import parse_assignments  # noqa: PLC0415 - likewise
    from runpod_comfy.submission import build_submission  # noqa: PLC0415 - likewise
    from runpod_comfy.workflow.model_files import model_files  # noqa: PLC0415 - likewise

    opened = open_template(template, lambda: None)
    variables: dict[str, Any] = parse_assignments(assignments, opened.declarations)
    # The photos of a real run: which models are loaded does not depend on them.
    if opened.uses("input_images"):
        variables.setdefault("input_images", [f"photos/{number:02d}.png" for number in range(16)])
    return model_files(build_submission(opened, variables=variables).workflow)


def _model_field(model: ModelFile, *, volume: bool) -> _Field:
    root = "/runpod-volume" if volume else "/comfyui"
    place = f"{root}/models/{model.folder or '?'}/{model.name}"
    reason = "" if model.folder else f"the folder is what {model.node_type} reads; see its documentation"
    return _Field(f"{model.node_type} #{model.node_id}", place, reason)


def _print_fields(fields: Sequence[_Field], output: Output) -> None:
    if not fields:
        output.data("  (none)")
        return
    names, values = max(len(each.name) for each in fields), max(len(each.value) for each in fields)
    for each in fields:
        output.data(f"  {each.name:<{names}}  {each.value:<{values}}  {each.reason}".rstrip())
