"""What each node does: real pixels where no model is needed, a proof where a model would have drawn."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from runpod_comfy.emulator.comfyui.media_files import MEDIA_NODES
from runpod_comfy.emulator.comfyui.proof import Proof, draw_proof

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from PIL import Image

    from runpod_comfy.emulator.comfyui.media_files import MediaNode

__all__ = ["Computer", "Latent", "NodeFailure"]

_PROOF_SIDE = 512
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_COUNTER = re.compile(r"_(\d+)_?\.\w+$")

Pictures: TypeAlias = "list[Image.Image]"


class NodeFailure(Exception):
    """A node could not do its work; ``kind`` is the class of exception that ComfyUI names."""

    def __init__(self, message: str, *, kind: str = "RuntimeError") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Latent:
    """So many pictures of a size, not drawn yet."""

    width: int
    height: int
    count: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """What a node that is not known gives: whatever it was given."""

    class_type: str
    inputs: Mapping[str, Any] = field(repr=False)


@dataclass(slots=True)
class Computer:
    """Computes the nodes of one prompt.

    Attributes:
        folder: The base folder, with ``input``, ``output`` and ``temp``.
        graph: The prompt.
        extra_data: What came with it; ``extra_pnginfo`` goes into PNGs.
        values: What the nodes computed so far gave, by node id.
        pause: Called between steps with their number and count; waits, tells, and raises where it is interrupted.
    """

    folder: Path
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    values: dict[str, tuple[Any, ...]]
    pause: Callable[[int, int], None]

    def compute(self, node_id: str) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
        """Return a node's outputs, and what it shows, if anything."""
        node = self.graph[node_id]
        inputs = {name: self._value(value) for name, value in node["inputs"].items()}
        method = getattr(self, f"_do_{node['class_type']}", None)
        if method is not None:
            outcome = method(node_id, inputs)
            return outcome if isinstance(outcome, _Shown) is False else ((), outcome.ui)
        if kind := MEDIA_NODES.get(node["class_type"]):
            return (), self._save_media(node_id, inputs, kind).ui
        if node["class_type"].startswith("Save"):
            return (), self._save(node_id, self._pictures(node_id, inputs), inputs, "output").ui
        if node["class_type"].startswith("Preview"):
            return (), self._save(node_id, self._pictures(node_id, inputs), inputs, "temp").ui
        return (Opaque(node["class_type"], inputs),) * 8, None

    def _value(self, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):  # noqa: PLR2004 - a link
            given = self.values.get(value[0], ())
            return given[value[1]] if value[1] < len(given) else None
        return value

    # -- nodes without a model -------------------------------------------------------------------------------------

    def _do_EmptyImage(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        from PIL import Image  # noqa: PLC0415 - only whoever draws loads Pillow

        colour = int(inputs["color"])
        rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
        size = (int(inputs["width"]), int(inputs["height"]))
        return ([Image.new("RGB", size, rgb) for _ in range(int(inputs["batch_size"]))],), None

    def _do_LoadImage(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        picture = _open(_inside(self.folder / "input", str(inputs["image"])))
        return ([picture], None), None

    def _do_LoadImagesFromDir(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        files = list_pictures(self.folder / "input", inputs)
        if not files:
            raise NodeFailure(f"No images in directory {inputs.get('directory')!r}.")
        pictures = [_open(file) for file in files]
        return (pictures, None, len(pictures)), None

    def _do_ImageScale(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        from PIL import Image, ImageOps  # noqa: PLC0415 - only whoever draws loads Pillow

        size = (int(inputs["width"]), int(inputs["height"]))
        pictures = self._pictures(node_id, inputs)
        if inputs.get("crop") == "center":
            return ([ImageOps.fit(each, size, Image.Resampling.BILINEAR) for each in pictures],), None
        return ([each.resize(size, Image.Resampling.BILINEAR) for each in pictures],), None

    def _do_ImageScaleBy(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        by = float(inputs["scale_by"])
        pictures = self._pictures(node_id, inputs)
        return ([each.resize((round(each.width * by), round(each.height * by))) for each in pictures],), None

    def _do_ImageInvert(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        from PIL import ImageOps  # noqa: PLC0415 - only whoever draws loads Pillow

        return ([ImageOps.invert(each) for each in self._pictures(node_id, inputs)],), None

    def _do_ImageBatch(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        first = self._pictures(node_id, {"images": inputs["image1"]})
        second = self._pictures(node_id, {"images": inputs["image2"]})
        size = first[0].size
        return ([*first, *(each if each.size == size else each.resize(size) for each in second)],), None

    def _do_PrimitiveInt(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        return (inputs["value"],), None

    _do_PrimitiveFloat = _do_PrimitiveString = _do_PrimitiveInt  # noqa: N815 - named after the nodes

    def _do_FixtureSleep(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        steps = int(inputs["steps"])
        for step in range(1, steps + 1):
            time.sleep(float(inputs["seconds"]) / steps)
            self.pause(step, steps)
        return (self._pictures(node_id, inputs),), None

    def _do_FixtureRaise(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        raise NodeFailure(str(inputs.get("message")))

    # -- nodes with a model ----------------------------------------------------------------------------------------

    def _do_EmptyLatentImage(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        return (Latent(int(inputs["width"]), int(inputs["height"]), int(inputs["batch_size"])),), None

    _do_EmptySD3LatentImage = _do_EmptyLatentImage  # noqa: N815 - named after the node

    def _do_RepeatLatentBatch(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        latent = _latent(inputs.get("samples"))
        return (Latent(latent.width, latent.height, latent.count * int(inputs["amount"])),), None

    def _do_VAEEncode(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        pictures = self._pictures(node_id, inputs)
        return (Latent(pictures[0].width, pictures[0].height, len(pictures)),), None

    def _do_KSampler(self, _: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        steps = min(int(inputs.get("steps") or 1), 100)
        for step in range(1, steps + 1):
            self.pause(step, steps)
        return (_latent(inputs.get("latent_image")),), None

    _do_KSamplerAdvanced = _do_KSampler  # noqa: N815 - named after the node

    def _do_VAEDecode(self, node_id: str, inputs: dict[str, Any]) -> Any:  # noqa: N802 - named after the node
        return (self._proofs(node_id, _latent(inputs.get("samples"))),), None

    # -- nodes that end a graph ------------------------------------------------------------------------------------

    def _do_SaveImage(self, node_id: str, inputs: dict[str, Any]) -> _Shown:  # noqa: N802 - named after the node
        return self._save(node_id, self._pictures(node_id, inputs), inputs, "output")

    def _do_PreviewImage(self, node_id: str, inputs: dict[str, Any]) -> _Shown:  # noqa: N802 - named after the node
        return self._save(node_id, self._pictures(node_id, inputs), inputs, "temp")

    def _do_PreviewAny(self, _: str, inputs: dict[str, Any]) -> _Shown:  # noqa: N802 - named after the node
        source = inputs.get("source")
        return _Shown({"text": [source if isinstance(source, str) else repr(source)]})

    def _save_media(self, node_id: str, inputs: dict[str, Any], kind: MediaNode) -> _Shown:
        file = self._next_file(str(inputs.get("filename_prefix") or "ComfyUI"), "output", kind.extension)
        file.write_bytes(kind.content + f" {node_id} {file.name}".encode())
        shown: dict[str, Any] = {kind.key: [self._reported(file, "output")]}
        return _Shown({**shown, "animated": [True]} if kind.animated else shown)

    def _save(self, node_id: str, pictures: Pictures, inputs: dict[str, Any], kind: str) -> _Shown:
        from PIL import PngImagePlugin  # noqa: PLC0415 - only whoever draws loads Pillow

        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", orjson.dumps(self.graph).decode())
        extra = self.extra_data.get("extra_pnginfo")
        for name, value in extra.items() if isinstance(extra, dict) else ():
            info.add_text(name, orjson.dumps(value).decode())
        prefix = str(inputs.get("filename_prefix") or f"{'ComfyUI' if kind == 'output' else f'temp_{node_id}'}")
        prefix = prefix.replace("%width%", str(pictures[0].width)).replace("%height%", str(pictures[0].height))
        reported = []
        for picture in pictures:
            file = self._next_file(prefix, kind, "png")
            picture.save(file, pnginfo=info, compress_level=1)
            reported.append(self._reported(file, kind))
        return _Shown({"images": reported})

    def _next_file(self, prefix: str, kind: str, extension: str) -> Path:
        root = self.folder / kind
        target = _inside(root, prefix, what="Saving image outside the output folder is not allowed.")
        target.parent.mkdir(parents=True, exist_ok=True)
        taken = [
            int(match[1])
            for name in os.listdir(target.parent)  # noqa: PTH208 - names are all that is wanted
            if name.startswith(f"{target.name}_") and (match := _COUNTER.search(name[len(target.name) :]))
        ]
        return target.with_name(f"{target.name}_{max(taken, default=0) + 1:05}_.{extension}")

    def _reported(self, file: Path, kind: str) -> dict[str, str]:
        subfolder = file.parent.relative_to(self.folder / kind).as_posix()
        return {"filename": file.name, "subfolder": "" if subfolder == "." else subfolder, "type": kind}

    # -- proofs ----------------------------------------------------------------------------------------------------

    def _pictures(self, node_id: str, inputs: Mapping[str, Any]) -> Pictures:
        """Return the pictures among a node's inputs; where none was really computed, proofs of what there is.

        What a node that is not known would have made of pictures is a proof too: the pictures that it was given would
        pass for its work.
        """
        queue: list[tuple[Any, str | None]] = [(value, None) for value in inputs.values()]
        latent: Latent | None = None
        maker: str | None = None
        while queue:
            value, unknown = queue.pop(0)
            if isinstance(value, list) and value and hasattr(value[0], "getbands"):
                if unknown is None:
                    return value
                value = Latent(value[0].width, value[0].height, len(value))
            if isinstance(value, Latent) and latent is None:
                latent, maker = value, unknown
            elif isinstance(value, Opaque):
                queue.extend((each, unknown or value.class_type) for each in value.inputs.values())
        return self._proofs(node_id, latent or Latent(_PROOF_SIDE, _PROOF_SIDE, 1), maker=maker)

    def _proofs(self, node_id: str, latent: Latent, *, maker: str | None = None) -> Pictures:
        upstream = self._upstream(node_id)
        seed, texts, photos = None, [], []
        facts = [("stands for", maker)] if maker else []
        for each in upstream:
            node = self.graph[each]
            for name, value in node["inputs"].items():
                if name in {"seed", "noise_seed", "rand_seed"} and seed is None:
                    found = self._value(value)
                    seed = found if isinstance(found, int) else None
            facts += self._facts(node["inputs"])
            texts += self._texts(each)
            photos += self._photos(each)
        facts.append(("size", f"{latent.width} x {latent.height}"))
        return [
            draw_proof(
                Proof(
                    seed=seed,
                    facts=tuple(dict(facts).items()),
                    texts=tuple(texts),
                    photos=tuple(photos),
                    index=index,
                    count=latent.count,
                ),
                latent.width,
                latent.height,
            )
            for index in range(latent.count)
        ]

    def _upstream(self, node_id: str) -> list[str]:
        """Return a node and all that feed it, nearest first."""
        found: dict[str, None] = {}
        queue = [node_id]
        while queue:
            each = queue.pop(0)
            if each in found or each not in self.graph:
                continue
            found[each] = None
            queue += [value[0] for value in self.graph[each]["inputs"].values() if _is_link(value)]
        # Photos that nothing reads are worth showing too: they arrived.
        return [*found, *(each for each in self.graph if each not in found and self._photos(each))]

    def _facts(self, inputs: dict[str, Any]) -> list[tuple[str, str]]:
        names = {
            "steps": "steps",
            "cfg": "cfg",
            "sampler_name": "sampler",
            "scheduler": "scheduler",
            "denoise": "denoise",
            "ckpt_name": "checkpoint",
            "unet_name": "model",
            "lora_name": "lora",
        }
        return [(names[name], str(self._value(value))) for name, value in inputs.items() if name in names]

    def _texts(self, node_id: str) -> list[tuple[str, str]]:
        node = self.graph[node_id]
        text = self._value(node["inputs"].get("text"))
        if not isinstance(text, str):
            return []
        users = [
            name
            for other in self.graph.values()
            for name, value in other["inputs"].items()
            if _is_link(value) and value[0] == node_id
        ]
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        role = next((name for name in users if name in {"positive", "negative"}), None)
        return [(role or title or node["class_type"], text)]

    def _photos(self, node_id: str) -> list[tuple[str, Image.Image]]:
        node = self.graph[node_id]
        if node["class_type"] not in {"LoadImage", "LoadImagesFromDir"} or not self.values.get(node_id):
            return []
        pictures = self.values[node_id][0]
        if node["class_type"] == "LoadImage":
            return [(str(node["inputs"].get("image")).rpartition("/")[2], pictures[0])]
        return [(f"photo {number}", picture) for number, picture in enumerate(pictures, 1)]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What an output node shows."""

    ui: dict[str, Any]


def list_pictures(input_folder: Path, inputs: Mapping[str, Any]) -> list[Path]:
    """Return the files that LoadImagesFromDir loads, in order."""
    name = str(inputs.get("directory") or "")
    folder = _inside(input_folder, name.removeprefix("input/") if not os.path.isabs(name) else name)  # noqa: PTH117 - either kind of path
    if not folder.is_dir():
        raise NodeFailure(f"No directory {name!r} in the input folder.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
    start, cap = int(inputs.get("start_index") or 0), int(inputs.get("image_load_cap") or 0)
    return files[start : start + cap if cap else None]


def _inside(root: Path, name: str, *, what: str = "Only files in the input folder can be loaded.") -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise NodeFailure(what)
    return path


def _open(file: Path) -> Image.Image:
    from PIL import Image, ImageOps  # noqa: PLC0415 - only whoever draws loads Pillow

    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except OSError as exc:
        raise NodeFailure(f"cannot identify image file {file.name!r}") from exc


def _latent(value: Any) -> Latent:
    if isinstance(value, Opaque):
        return next(
            (_latent(each) for each in value.inputs.values() if isinstance(each, (Latent, Opaque))),
            Latent(_PROOF_SIDE, _PROOF_SIDE, 1),
        )
    return value if isinstance(value, Latent) else Latent(_PROOF_SIDE, _PROOF_SIDE, 1)


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)  # noqa: PLR2004 - node id and slot
