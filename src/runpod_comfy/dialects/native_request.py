"""The native request: what a client asks of the worker, and how the worker reads it.

::

    {"input": {"workflow": {...}, "batch_count": 2, "randomize_seed": true,
               "images": [{"name": "00.png", "image": "<base64>", "subfolder": "rcc-…"}],
               "protocol": 1, "seeds": [7, 8], "previews": false, "submission_id": "…",
               "extra_pnginfo": {"workflow": {...}}, "comfy_org_api_key": "…", "timeout_s": 600}}

The first two lines of keys are the wire format of existing clients and workers and never change; the others are ours,
and either side does without them. An image may have a ``url`` in place of ``image``, which the worker then fetches. A
body of RunPod's official ComfyUI worker (``workflow``, ``images``, ``comfy_org_api_key``) is read too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runpod_comfy.errors import InputError
from runpod_comfy.media.files import check_relative_name
from runpod_comfy.media.formats import media_type_of
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.media.wire import from_base64, to_base64
from runpod_comfy.submission import MAX_BATCH_COUNT, Submission
from runpod_comfy.workflow.graph import check_graph

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROTOCOL", "encode_request", "input_urls_of", "parse_request"]

PROTOCOL = 1

_MAX_SEED = 2**64 - 1

# The request's keys for what ComfyUI takes as `extra_data`; the second one is the official worker's.
_EXTRA_DATA = {"extra_pnginfo": "extra_pnginfo", "comfy_org_api_key": "api_key_comfy_org"}


def encode_request(submission: Submission) -> dict[str, Any]:
    """Return the body's ``input`` as plain JSON data."""
    request: dict[str, Any] = {
        "workflow": submission.workflow,
        "batch_count": submission.batch_count,
        "randomize_seed": submission.randomize_seed,
        "images": [
            {"name": image.name, "image": to_base64(image.data), "subfolder": image.subfolder}
            for image in submission.images
        ],
        "protocol": PROTOCOL,
        "submission_id": submission.submission_id,
    }
    if submission.seeds:
        request["seeds"] = list(submission.seeds)
    if submission.previews:
        request["previews"] = True
    if submission.timeout_s is not None:
        request["timeout_s"] = submission.timeout_s
    return request | {
        key: submission.extra_data[name] for key, name in _EXTRA_DATA.items() if name in submission.extra_data
    }


def parse_request(body: object) -> Submission:
    """Read a job's ``input``; unknown keys are ignored. Images that came as URLs have no bytes yet.

    Raises:
        InputError: A part of it cannot be used; the text names the part and what it takes.
        WorkflowGraphError: The workflow is no graph that ComfyUI's API accepts.
    """
    if not isinstance(body, dict):
        raise InputError(f"The job's input is {_kind(body)}; it takes an object with the key 'workflow'.")
    batch_count = _batch_count(body.get("batch_count", 1))
    # Who asks for several batches and says nothing of seeds does not want the same images again; who names seeds
    # wants them.
    randomize_seed = body.get("randomize_seed", batch_count > 1 or body.get("seeds") is not None)
    if not isinstance(randomize_seed, bool):
        raise InputError(f"'randomize_seed' is {_kind(randomize_seed)}; it takes true or false.")
    return Submission(
        workflow=check_graph(_workflow(body)).data,
        images=_images(body.get("images")),
        batch_count=batch_count,
        seeds=_seeds(body.get("seeds"), batch_count) if randomize_seed else (),
        randomize_seed=randomize_seed,
        submission_id=str(body.get("submission_id") or ""),
        previews=body.get("previews") is True,
        extra_data=_extra_data(body),
        timeout_s=_timeout_s(body.get("timeout_s")),
    )


def input_urls_of(body: object) -> dict[int, str]:
    """Return the URLs among the images of a body that :func:`parse_request` accepts, by their positions."""
    images = body.get("images") if isinstance(body, dict) else None
    return {
        index: image["url"]
        for index, image in enumerate(images or ())
        if isinstance(image, dict) and "image" not in image and isinstance(image.get("url"), str)
    }


def _workflow(body: Mapping[str, Any]) -> object:
    if "workflow" not in body:
        raise InputError("The job's input has no 'workflow'. Put the workflow in API format under that key.")
    workflow = body["workflow"]
    if isinstance(workflow, str):
        try:
            return orjson.loads(workflow)
        except orjson.JSONDecodeError as exc:
            raise InputError(f"'workflow' is a string and not JSON: {exc}.") from exc
    return workflow


def _batch_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_BATCH_COUNT:
        shown = value if isinstance(value, (int, float)) else _kind(value)
        raise InputError(f"'batch_count' is {shown}; it takes a whole number from 1 to {MAX_BATCH_COUNT:,}.")
    return value


def _seeds(value: object, batch_count: int) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) != batch_count:
        raise InputError(f"'seeds' takes a list of one seed for each of the {batch_count} batches.")
    for seed in value:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MAX_SEED:
            raise InputError(f"'seeds' takes whole numbers from 0 to {_MAX_SEED}.")
    return tuple(value)


def _extra_data(body: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: body[key] for key, name in _EXTRA_DATA.items() if body.get(key)}
    for key, kind in (("extra_pnginfo", dict), ("comfy_org_api_key", str)):
        value = found.get(_EXTRA_DATA[key])
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{key!r} is {_kind(value)}; it takes {'an object' if kind is dict else 'a string'}.")
    return found


def _timeout_s(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InputError("'timeout_s' takes a number of seconds above 0.")
    return float(value)


def _images(value: object) -> tuple[InputImage, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError("'images' takes a list of objects with the keys 'name' and 'image'.")
    images = tuple(_image(index, each) for index, each in enumerate(value))
    places = [(image.subfolder, image.name) for image in images]
    if len(set(places)) != len(places):
        raise InputError("Two of 'images' have the same name and subfolder; one would overwrite the other.")
    return images


def _image(index: int, value: object) -> InputImage:
    where = f"'images[{index}]'"
    key = "url" if isinstance(value, dict) and "image" not in value and "url" in value else "image"
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not isinstance(value.get(key), str):
        raise InputError(f"{where} takes an object with the strings 'name' and 'image' (base64), or 'name' and 'url'.")
    subfolder = value.get("subfolder") or ""
    if not isinstance(subfolder, str):
        raise InputError(f"{where}: 'subfolder' is {_kind(subfolder)}; it takes a string.")
    check_relative_name(value["name"])
    if subfolder:
        check_relative_name(subfolder)
    if key == "url":
        return InputImage(name=value["name"], data=b"", media_type="", subfolder=subfolder)
    try:
        data = from_base64(value["image"], allow_data_uri=True)
    except ValueError as exc:
        raise InputError(f"{where} ({value['name']}): 'image' is not base64. Encode the file's bytes.") from exc
    # ComfyUI's upload takes any file; what cannot be read is for the node that loads it to say.
    media_type = media_type_of(data) or "application/octet-stream"
    return InputImage(name=value["name"], data=data, media_type=media_type, subfolder=subfolder)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
