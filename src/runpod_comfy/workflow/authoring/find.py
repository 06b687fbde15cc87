"""What people vary in a workflow: prompts, seeds, sizes, models, photos, and where the pictures go.

Names of classes and inputs decide, since that is all a graph has; where the node types are known, they decide too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.workflow.authoring.places import Place
from runpod_comfy.workflow.graph import as_link
from runpod_comfy.workflow.seeds import find_seed_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runpod_comfy.workflow.authoring.places import Kind
    from runpod_comfy.workflow.object_info import InputType, ObjectInfo

__all__ = ["find_places", "own_title"]

_BY_INPUT: Final[dict[str, tuple[Kind, str]]] = {
    "steps": ("number", "steps"),
    "cfg": ("number", "cfg"),
    "guidance": ("number", "guidance"),
    "denoise": ("number", "denoise"),
    "sampler_name": ("choice", "sampler"),
    "scheduler": ("choice", "scheduler"),
    "ckpt_name": ("model", "checkpoint"),
    "unet_name": ("model", "unet"),
    "lora_name": ("model", "lora"),
    "filename_prefix": ("prefix", "output_prefix"),
}
_SIZES: Final = frozenset({"width", "height", "length", "batch_size"})
_SIZED: Final = re.compile(r"^Empty|Latent|ToVideo|Video.*Sampl")
_TEXT_CLASS: Final = re.compile(r"TextEncode|Prompt", re.IGNORECASE)
_TEXT_INPUTS: Final = frozenset(
    {"text", "prompt", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "llama", "bert", "tags", "lyrics", "positive",
     "negative", "positive_prompt", "negative_prompt", "string", "value"}
)  # fmt: skip
_FOLDER_CLASS: Final = re.compile(r"Load.*(Dir|Path|Folder)|^VHS_LoadImages$")
_FOLDER_INPUTS: Final = frozenset({"directory", "folder", "path", "folder_path", "dir"})
_IMAGE_CLASSES: Final = frozenset({"LoadImage", "LoadImageMask"})
_ROLES: Final = {"positive": "prompt", "negative": "negative_prompt"}
_DEFAULT_TITLE: Final = re.compile(r"CLIP Text Encode.*", re.IGNORECASE)
_ORDER: Final = ("text", "image", "folder", "batch", "seed", "size", "number", "choice", "model", "prefix")


def find_places(graph: Mapping[str, Any], info: ObjectInfo | None) -> list[Place]:
    """Return what people vary in a graph, prompts first."""
    found = list(_Finder(graph, info).places())
    return sorted(found, key=lambda place: _ORDER.index(place.kind))


def own_title(node: Mapping[str, Any], info: ObjectInfo | None) -> str:
    """Return the title that a node's author gave it; "" where it is only the class's name."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if not isinstance(title, str) or _DEFAULT_TITLE.fullmatch(title):
        return ""
    known = info.get(node["class_type"]) if info is not None else None
    # Titles are the class's words with spaces where nobody changed them.
    plain = {node["class_type"].lower(), known.display_name.lower().replace(" ", "") if known is not None else ""}
    return "" if title.lower().replace(" ", "") in plain else title


class _Finder:
    def __init__(self, graph: Mapping[str, Any], info: ObjectInfo | None) -> None:
        self._graph = graph
        self._info = info
        self._fed: dict[str, list[tuple[str, str]]] = {}  # node id to the inputs that it feeds
        for node_id, node in graph.items():
            for name, value in node["inputs"].items():
                if link := as_link(value):
                    self._fed.setdefault(link[0], []).append((node_id, name))

    def places(self) -> Iterator[Place]:
        taken: set[tuple[str, str]] = set()
        for node_id, name in find_seed_inputs(self._graph):
            taken.add((node_id, name))
            yield self._place(node_id, name, "seed", "seed")
        for node_id, node in self._graph.items():
            for name, value in node["inputs"].items():
                if (node_id, name) in taken or isinstance(value, bool | list | dict | None):
                    continue
                if kind := self._kind(node_id, node["class_type"], name, value):
                    yield self._place(node_id, name, *kind)

    def _place(self, node_id: str, name: str, kind: Kind, base: str) -> Place:
        node = self._graph[node_id]
        title = own_title(node, self._info)
        return Place(
            node_id=node_id,
            input_name=name,
            value=node["inputs"][name],
            kind=kind,
            base=base,
            title=title,
            node=f"#{node_id} {title or node['class_type']}",
            input_type=self._type(node["class_type"], name),
        )

    def _type(self, class_type: str, name: str) -> InputType | None:
        known = self._info.get(class_type) if self._info is not None else None
        return known.inputs.get(name) if known is not None else None

    def _kind(self, node_id: str, class_type: str, name: str, value: Any) -> tuple[Kind, str] | None:
        known = self._type(class_type, name)
        if isinstance(value, str):
            if self._is_photo(class_type, name, known):
                return "image", "input_images"
            if name in _FOLDER_INPUTS and _FOLDER_CLASS.search(class_type):
                return "folder", "input_images_dir"
            if self._is_text(node_id, class_type, name, known):
                return "text", self._role(node_id, name)
        elif name in _SIZES and _SIZED.search(class_type):
            return ("batch" if name == "batch_size" else "size"), name
        kind = _BY_INPUT.get(name)
        if kind is not None and isinstance(value, str) == (kind[0] != "number"):
            return kind
        return None

    def _is_photo(self, class_type: str, name: str, known: InputType | None) -> bool:
        return name == "image" and (class_type in _IMAGE_CLASSES or (known is not None and known.is_upload))

    def _is_text(self, node_id: str, class_type: str, name: str, known: InputType | None) -> bool:
        if known is not None and known.type == "STRING" and known.multiline:
            return True
        if name not in _TEXT_INPUTS or (known is not None and known.type != "STRING"):
            return False
        if _TEXT_CLASS.search(class_type):
            return True
        # A node that only holds a text, and feeds one that takes texts.
        return not any(as_link(value) for value in self._graph[node_id]["inputs"].values()) and any(
            input_name in _TEXT_INPUTS and _TEXT_CLASS.search(self._graph[fed]["class_type"])
            for fed, input_name in self._fed.get(node_id, ())
        )

    def _role(self, node_id: str, name: str) -> str:
        """Return what a text is to the sampler that it comes to: its prompt, or what to keep out."""
        if name.removesuffix("_prompt") in _ROLES:
            return _ROLES[name.removesuffix("_prompt")]
        roles: set[str] = set()
        seen, waiting = {node_id}, [node_id]
        while waiting:
            for fed, input_name in self._fed.get(waiting.pop(), ()):
                role = input_name.removesuffix("_prompt")
                if role in _ROLES:
                    roles.add(role)
                elif fed not in seen:
                    seen.add(fed)
                    waiting.append(fed)
        return "negative_prompt" if roles == {"negative"} else "prompt"
