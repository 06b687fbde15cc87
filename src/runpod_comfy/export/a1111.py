"""How an image was made, as A1111 writes it and Civitai reads it: found by following a graph's links. Pure.

::

    a red mug, <lora:ink:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 1024x1024, Model: sdxl

Without the word ``Steps`` Civitai takes the text for no generation data (its stored source, ``automatic.metadata.ts``).
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["parameters_text"]

_Graph = dict[str, Any]

_SAMPLERS: Final = {
    "ddim": "DDIM",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpm_adaptive": "DPM adaptive",
    "dpm_fast": "DPM fast",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "lms": "LMS",
    "plms": "PLMS",
    "uni_pc": "UniPC",
}
_SCHEDULES: Final = {"karras": " Karras", "exponential": " Exponential"}
_TEXTS: Final = ("text", "text_g", "t5xxl", "prompt", "string", "value", "text_l", "clip_l")
_GUIDED: Final = ("positive", "conditioning", "cond1")


def parameters_text(
    graph: Mapping[str, Any], *, node_id: str | None, seed: str | None, size: tuple[int | None, int | None]
) -> str | None:
    """Return the text for an image, or None where its graph has no sampler with steps.

    Args:
        graph: The graph that ran, as ComfyUI writes it into what it saves.
        node_id: The node that saved the image; None looks at all of the graph.
        seed: The image's seed, which wins over the graph's.
        size: Its width and height.
    """
    nodes = {
        key: node for key, node in graph.items() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    reached = dict(_upstream(nodes, node_id)) if node_id in nodes else nodes
    steps = _first(reached, "steps")
    if steps is None:
        return None
    positive = _prompt(nodes, reached, _GUIDED)
    negative = _prompt(nodes, reached, ("negative",))
    sampler = _first(reached, "sampler_name")
    model = _first(reached, "ckpt_name") or _first(reached, "unet_name")
    facts = {
        "Steps": steps,
        "Sampler": _sampler(sampler, _first(reached, "scheduler")) if sampler else None,
        "CFG scale": _first(reached, "cfg"),
        "Distilled CFG Scale": _first(reached, "guidance"),
        "Seed": seed or _first(reached, "seed") or _first(reached, "noise_seed"),
        "Size": f"{size[0]}x{size[1]}" if all(size) else None,
        "Model": PurePosixPath(str(model).replace("\\", "/")).stem if model else None,
        "Denoising strength": denoise if (denoise := _first(reached, "denoise")) not in {None, 1} else None,
        "Version": "ComfyUI",
    }
    words = "".join(f", <lora:{name}:{weight}>" for name, weight in _loras(reached))
    lines = [positive + words if positive else words.removeprefix(", ")]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in facts.items() if value is not None))
    return "\n".join(lines)


def _upstream(nodes: Mapping[str, _Graph], start: str | None) -> Iterator[tuple[str, _Graph]]:
    """Yield a node and all that feed it, nearest first."""
    waiting, seen = deque([start]), {start}
    while waiting:
        node_id = waiting.popleft()
        node = nodes.get(node_id or "")
        if node_id is None or node is None:
            continue
        yield node_id, node
        for link in map(as_link, node["inputs"].values()):
            if link is not None and link[0] not in seen:
                seen.add(link[0])
                waiting.append(link[0])


def _first(nodes: Mapping[str, _Graph], name: str) -> Any:
    """Return the value of the nearest input of this name that is a number or a text."""
    values = (node["inputs"].get(name) for node in nodes.values())
    return next(
        (value for value in values if isinstance(value, (int, float, str)) and not isinstance(value, bool)), None
    )


def _prompt(nodes: Mapping[str, _Graph], reached: Mapping[str, _Graph], names: tuple[str, ...]) -> str:
    """Return the text behind the nearest input of these names."""
    for node in reached.values():
        for name in names:
            link = as_link(node["inputs"].get(name))
            if link is None:
                continue
            for _, source in _upstream(nodes, link[0]):
                text = next(
                    (source["inputs"][each] for each in _TEXTS if isinstance(source["inputs"].get(each), str)), ""
                )
                if text.strip():
                    return str(text).strip()
            return ""
    return ""


def _loras(nodes: Mapping[str, _Graph]) -> Iterator[tuple[str, Any]]:
    for node in nodes.values():
        name = node["inputs"].get("lora_name")
        if isinstance(name, str):
            yield PurePosixPath(name.replace("\\", "/")).stem, node["inputs"].get("strength_model", 1)


def _sampler(name: Any, schedule: Any) -> str:
    return _SAMPLERS.get(str(name), str(name)) + _SCHEDULES.get(str(schedule), "")


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(char in text for char in ',:\n"') else text
