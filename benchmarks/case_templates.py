"""Templates: rendered, checked, and made of the workflows that ComfyUI's own catalogue has.

The catalogue is PyPI's `comfyui-workflow-templates-json`. `COMFYUI_OBJECT_INFO` names a file with a ComfyUI's answer to
`GET /object_info`; without it, or without the catalogue, those figures are left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.registry import Figure, case
from runpod_comfy.errors import RunpodComfyError
from runpod_comfy.workflow.graph import is_saved_format
from runpod_comfy.workflow.object_info import ObjectInfo
from runpod_comfy.workflow.saved_format.convert import convert_saved
from runpod_comfy.workflow.template import WorkflowTemplate
from runpod_comfy.workflow.validate import validate_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.registry import Options

OBJECT_INFO = "COMFYUI_OBJECT_INFO"
CATALOGUE = "comfyui_workflow_templates_json"
MAX_RENDER_MS, MAX_VALIDATE_MS, NODES = 5, 50, 1000
# The editor's own: they are in no object_info.
EDITOR_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}


def large_graph() -> dict[str, Any]:
    """Return a model, and 200 pictures' worth of text, latent, sampler, decoder and output: 1,000 nodes."""
    graph: dict[str, Any] = {"c": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}}}
    for at in range(0, NODES, 5):
        text, latent, sampler, decoder, output = (str(at + step) for step in range(5))
        words = f'picture {at}: a "noir" portrait, {{{{ literally }}}}\nsoft light'
        graph[text] = {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["c", 1]}}
        size = {"width": 512 + 8 * (at % 64), "height": 512, "batch_size": 1}
        graph[latent] = {"class_type": "EmptyLatentImage", "inputs": size}
        settings = {"seed": at, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        links = {"model": ["c", 0], "positive": [text, 0], "negative": [text, 0], "latent_image": [latent, 0]}
        graph[sampler] = {"class_type": "KSampler", "inputs": {**settings, **links}}
        graph[decoder] = {"class_type": "VAEDecode", "inputs": {"samples": [sampler, 0], "vae": ["c", 2]}}
        graph[output] = {"class_type": "SaveImage", "inputs": {"images": [decoder, 0], "filename_prefix": f"p{at}"}}
    return graph


def median_ms(work: Callable[[], Any], runs: int) -> float:
    """Return how long it takes when it is warm, in milliseconds."""
    work()
    taken = []
    for _ in range(runs):
        started_s = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(taken)


def catalogue() -> list[tuple[str, dict[str, Any]]]:
    """Return the saved workflows of the catalogue, where it is installed, with their names."""
    found = importlib.util.find_spec(CATALOGUE)
    if found is None or not found.submodule_search_locations:
        return []
    files = sorted((Path(found.submodule_search_locations[0]) / "templates").glob("*.json"))
    read = [(file.name, json.loads(file.read_text("utf-8"))) for file in files]
    return [(name, data) for name, data in read if is_saved_format(data)]


def types_in(data: dict[str, Any]) -> set[str]:
    """Return the node types of a saved workflow, those of its subgraphs among them."""
    subgraphs = (data.get("definitions") or {}).get("subgraphs") or []
    names = {each["id"] for each in subgraphs}
    nodes = [*data["nodes"], *(node for each in subgraphs for node in each["nodes"])]
    return {node["type"] for node in nodes} - names - EDITOR_ONLY


@case("templates")
def measure(options: Options) -> Iterator[Figure]:
    """A template of 1,000 nodes rendered and checked; the catalogue's saved workflows made templates."""
    graph = large_graph()
    template = WorkflowTemplate.from_workflow(graph)
    runs = 10 * options.runs
    render_ms = median_ms(template.render, runs)
    yield Figure(
        name=f"render, {NODES} nodes, {len(template.declarations)} variables",
        unit="ms",
        values={"ours": render_ms},
        bar=f"<= {MAX_RENDER_MS} ms",
        held=render_ms <= MAX_RENDER_MS,
    )
    named = os.environ.get(OBJECT_INFO)
    if not named:
        print(f"{OBJECT_INFO} names no file: checking and converting are left out.", file=sys.stderr)
        return
    info = ObjectInfo.load(named)
    validate_ms = median_ms(lambda: validate_workflow(graph, info), runs)
    yield Figure(
        name=f"validate, {NODES} nodes",
        unit="ms",
        values={"ours": validate_ms},
        bar=f"<= {MAX_VALIDATE_MS} ms",
        held=validate_ms <= MAX_VALIDATE_MS,
    )
    yield from measure_catalogue(info)


def measure_catalogue(info: ObjectInfo) -> Iterator[Figure]:
    """Convert the catalogue, make templates of it, and render them with their defaults."""
    files = catalogue()
    if not files:
        print(f"{CATALOGUE} is not installed: converting is left out.", file=sys.stderr)
        return
    known = {name for name, data in files if types_in(data) <= set(info)}
    converted, same, unnamed = set(), 0, 0
    started_s = time.perf_counter()
    for name, data in files:
        try:
            graph = convert_saved(data, info, source=name).graph
            rendered = WorkflowTemplate.from_workflow(graph, object_info=info, name=name).render()
        except RunpodComfyError as exc:
            unnamed += getattr(exc, "node_id", None) is None
            continue
        converted.add(name)
        same += rendered == graph
    each_ms = (time.perf_counter() - started_s) * 1000 / len(files)
    yield Figure(
        name=f"converted, of {len(known)} whose node types are all known",
        unit="files",
        values={"ours": len(known & converted)},
        bar="all",
        held=known <= converted,
    )
    yield Figure(
        name=f"converted, of all {len(files)}; the others name a node",
        unit="files",
        values={"ours": len(converted)},
        bar="every refusal names a node",
        held=not unnamed,
    )
    yield Figure(
        name="rendered with defaults to the same graph",
        unit="files",
        values={"ours": same},
        bar="all that convert",
        held=same == len(converted),
    )
    yield Figure(name="converted, made a template and rendered, each", unit="ms", values={"ours": each_ms})
