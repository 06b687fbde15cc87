"""``runpod-comfy describe``: what an endpoint or a ComfyUI server has installed, and kept for the checks to come."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from runpod_comfy.cli.options import output_options, target_options, timeout_option
from runpod_comfy.cli.output import printable
from runpod_comfy.cli.targets import make_executor
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb
from runpod_comfy.settings import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.dialects.description import PlaceDescription

__all__ = ["command"]

_SHOWN_MODELS = 12  # of one folder
_TIMEOUT_S = 900.0


@click.command(
    cls=Verb,
    name="describe",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy describe --endpoint 4m7x2k9q
  runpod-comfy describe --comfyui http://127.0.0.1:8188
  runpod-comfy describe --profile work --json

On an endpoint it is a job without work for the GPU. It may start a worker, and RunPod bills a worker's start.""",
)
@target_options(local=False)
@timeout_option("How long to wait for an endpoint's worker, its start included.", default=_TIMEOUT_S)
@output_options("describe", quiet=False, instead="with all names")
@click.pass_context
def command(ctx: click.Context, /, *, target: Target, output: Output, timeout_s: float) -> int:
    """Ask an endpoint or a ComfyUI server for versions, nodes and models, and keep the answer.

    From then on `run` checks workflows for that place before anything is sent, and `template` knows its nodes. Ask
    again when nodes or models have changed.
    """
    if target.kind == "local":
        raise click.UsageError("Name what to ask: --endpoint ID, --comfyui URL or --profile NAME.", ctx)
    typed = ctx.params["profile"] is not None
    about = _ask(target, timeout_s, output)
    for line in _lines(about):
        output.data(printable(line))
    if about.is_stand_in:
        output.warn("This is a stand-in for ComfyUI; it runs more nodes than it lists, so nothing is kept.")
    else:
        output.note("  kept: workflows for this place are checked before they are sent")
    output.next_step(f"{COMMAND_NAME} template validate TEMPLATE{_named_again(target, typed=typed)}")
    return output.succeed(_as_data(about))


def _ask(target: Target, timeout_s: float, output: Output) -> PlaceDescription:
    from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor  # noqa: PLC0415 - `--help` needs none of it
    from runpod_comfy.executors.runpod import RunpodComfyWorkflowExecutor  # noqa: PLC0415 - likewise

    match make_executor(target, batch_size=1):
        case RunpodComfyWorkflowExecutor() as executor:
            output.note(f"  asking {target}: a job without GPU work, which may start a worker (Ctrl-C cancels it)")
            return executor.describe(timeout=timeout_s)
        case ComfyServerWorkflowExecutor() as executor:
            return executor.describe()
    raise click.UsageError(f"{target} cannot be described.")


def _named_again(target: Target, *, typed: bool) -> str:
    """Return the option of ``template`` that names the same place, where nothing else does."""
    if target.variable and not typed:
        return ""
    return f" --endpoint {target.name}" if target.kind == "runpod" else f" --comfyui {shown_url(target.name or '')}"


def _lines(about: PlaceDescription) -> Iterator[str]:
    versions = (("Python", about.python_version), ("PyTorch", about.pytorch_version))
    beside = ", ".join(f"{name} {version.split()[0]}" for name, version in versions if version)
    yield f"ComfyUI {about.comfyui_version or '(version unknown)'}" + (f" ({beside})" if beside else "")
    if about.worker_version:
        slots = f", {about.slots} job(s) at once" if about.slots else ""
        yield f"worker {about.worker_version}{slots}"
    for device in about.devices:
        memory = f", {device.vram_total_bytes / 2**30:.1f} GiB" if device.vram_total_bytes else ""
        yield f"device {device.name}{memory}"
    custom = sum(map(len, about.custom_nodes.values()))
    yield f"{len(about.node_classes):,} node classes, {custom:,} of them from {len(about.custom_nodes)} custom nodes"
    for folder, classes in sorted(about.custom_nodes.items()):
        yield f"  {folder}: {len(classes)}"
    for folder in about.failed_custom_nodes or ():
        yield f"failed to import: {folder}"
    if about.models is None:
        yield "models: unknown (this ComfyUI is too old to tell)"
        return
    yield f"{sum(map(len, about.models.values())):,} model files"
    for folder, names in sorted(about.models.items()):
        more = f", … ({len(names):,} in all; --json names them)" if len(names) > _SHOWN_MODELS else ""
        yield f"  {folder}: {', '.join(names[:_SHOWN_MODELS])}{more}"


def _as_data(about: PlaceDescription) -> dict[str, Any]:
    return {
        "place": about.place,
        "worker": {"version": about.worker_version, "slots": about.slots},
        "comfyui": {
            "version": about.comfyui_version,
            "python": about.python_version,
            "pytorch": about.pytorch_version,
            "devices": [asdict(each) for each in about.devices],
            "stand_in": about.is_stand_in,
        },
        "node_classes": list(about.node_classes),
        "custom_nodes": about.custom_nodes,
        "failed_custom_nodes": about.failed_custom_nodes,
        "models": about.models,
    }
