"""The stand-in says what a real ComfyUI was recorded to say."""

import asyncio
import io
import json
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from runpod_comfy.emulator.comfyui import ComfyUIStandIn

DATA = Path(__file__).parents[2] / "data" / "comfyui"
# But for model names: no test machine has models, so the stand-in takes any.
VERDICTS = [
    each for each in json.loads((DATA / "verdicts.json").read_text("utf-8")) if each["case"] != "ckpt_not_in_list"
]
EVENTS = json.loads((DATA / "events.json").read_text("utf-8"))

SCALE = {"image": ["1", 0], "upscale_method": "bilinear", "width": 64, "height": 48, "crop": "disabled"}
LOAD_SCALE_INVERT_SAVE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "ImageScale", "inputs": SCALE},
    "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "sub/inverted"}},
}
A_NODE_RAISES = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 16711680}},
    "2": {"class_type": "FixtureRaise", "inputs": {"image": ["1", 0], "message": "boom"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "raise"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "raise_ok"}},
}


def png(size=(32, 24), colour="red"):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
async def stand_in(tmp_path):
    async with ComfyUIStandIn(tmp_path, strict_nodes=True) as running:
        (tmp_path / "input" / "example.png").write_bytes(png())
        yield running


@pytest.fixture
async def session(stand_in):
    async with aiohttp.ClientSession(stand_in.url) as opened:
        yield opened


async def post(session, path, body):
    async with session.post(path, json=body) as response:
        return response.status, await response.json(content_type=None) if response.status < 500 else None


async def run(session, graph):
    """Queue a graph; return the kinds of the messages of its run and its entry in the history."""
    async with session.ws_connect("/ws", params={"clientId": "watcher"}) as socket:
        _, told = await post(session, "/prompt", {"prompt": graph, "client_id": "watcher"})
        kinds = []
        async for frame in socket:
            message = json.loads(frame.data)
            kind = message["type"]
            if kind == "executing" and message["data"]["node"] is None:
                kinds.append("executing null")
                break
            kinds.append(kind)
    async with session.get(f"/history/{told['prompt_id']}") as response:
        entry = (await response.json())[told["prompt_id"]]
    return kinds[kinds.index("execution_start") :], entry


@pytest.mark.parametrize("recorded", VERDICTS, ids=[each["case"] for each in VERDICTS])
async def test_a_graph_is_taken_or_refused_as_recorded(recorded, session):
    status, told = await post(session, "/prompt", {"prompt": recorded["prompt"], "client_id": "someone"})
    assert status == recorded["status"]
    if status == 500:
        return
    error = told.get("error") or {}
    assert error.get("type") == recorded["error"]
    assert (error.get("details") or "").partition(":")[0] == (recorded["details"] or "").partition(":")[0]
    found = {node: [each["type"] for each in about["errors"]] for node, about in (told["node_errors"] or {}).items()}
    assert found == recorded["node_errors"]


async def test_the_messages_of_a_run_come_in_the_recorded_order(session):
    first, _ = await run(session, LOAD_SCALE_INVERT_SAVE)
    again, _ = await run(session, LOAD_SCALE_INVERT_SAVE)
    failed, _ = await run(session, A_NODE_RAISES)
    assert first == EVENTS["load, scale, invert, save"]
    assert again == EVENTS["the same again, all cached"]
    assert failed == EVENTS["a node raises"]


async def test_a_run_served_by_the_cache_names_the_old_file_and_writes_nothing(session, stand_in):
    _, first = await run(session, LOAD_SCALE_INVERT_SAVE)
    _, again = await run(session, LOAD_SCALE_INVERT_SAVE)
    assert again["outputs"] == first["outputs"]
    assert len(list((stand_in.folder / "output" / "sub").iterdir())) == 1


async def test_another_prefix_saves_again_and_computes_nothing(session, stand_in):
    await run(session, LOAD_SCALE_INVERT_SAVE)
    save = {"images": ["3", 0], "filename_prefix": "other"}
    kinds, _ = await run(session, {**LOAD_SCALE_INVERT_SAVE, "4": {"class_type": "SaveImage", "inputs": save}})
    assert kinds.count("executing") == 1
    assert [path.name for path in (stand_in.folder / "output").glob("*.png")] == ["other_00001_.png"]


async def test_a_file_that_is_gone_is_a_success_all_the_same(session, stand_in):
    await run(session, LOAD_SCALE_INVERT_SAVE)
    for path in (stand_in.folder / "output" / "sub").iterdir():
        path.unlink()
    _, entry = await run(session, LOAD_SCALE_INVERT_SAVE)
    [image] = entry["outputs"]["4"]["images"]
    assert entry["status"]["status_str"] == "success"
    async with session.get("/view", params=image) as response:
        assert response.status == 404


async def test_a_failed_prompt_keeps_what_had_been_saved_and_names_the_node(session):
    _, entry = await run(session, A_NODE_RAISES)
    assert entry["status"]["status_str"] == "error"
    assert "4" in entry["outputs"]
    [error] = [about for kind, about in entry["status"]["messages"] if kind == "execution_error"]
    assert (error["node_id"], error["node_type"], error["exception_message"].strip()) == ("2", "FixtureRaise", "boom")


async def test_a_prefix_that_leads_out_of_the_output_folder_fails_when_it_runs(session, stand_in):
    save = {"images": ["1", 0], "filename_prefix": "../../escaped"}
    _, entry = await run(session, {"1": A_NODE_RAISES["1"], "2": {"class_type": "SaveImage", "inputs": save}})
    assert entry["status"]["status_str"] == "error"
    assert not list(stand_in.folder.parent.glob("escaped*"))


@pytest.mark.parametrize("subfolder", ["../..", "/elsewhere", "a/../../.."])
async def test_an_upload_never_leaves_the_input_folder(subfolder, session, stand_in):
    form = aiohttp.FormData({"subfolder": subfolder, "type": "input"})
    form.add_field("image", png(), filename="x.png")
    async with session.post("/upload/image", data=form) as response:
        assert response.status == 400
    assert [path.name for path in stand_in.folder.rglob("*.png")] == ["example.png"]


async def test_interrupting_a_prompt_spares_the_others(session):
    def slow(seed):
        inputs = {"image": ["1", 0], "seconds": 60, "steps": 600, "seed": seed}
        save = {"images": ["2", 0], "filename_prefix": "slow"}
        return {
            "1": A_NODE_RAISES["1"],
            "2": {"class_type": "FixtureSleep", "inputs": inputs},
            "3": {"class_type": "SaveImage", "inputs": save},
        }

    ids = [(await post(session, "/prompt", {"prompt": slow(seed)}))[1]["prompt_id"] for seed in range(2)]
    await post(session, "/interrupt", {"prompt_id": ids[1]})  # it waits, so nothing happens
    await post(session, "/interrupt", {"prompt_id": ids[0]})
    while True:
        async with session.get("/queue") as response:
            queue = await response.json()
        if [item[1] for item in queue["queue_running"]] == [ids[1]]:
            break
        await asyncio.sleep(0.01)
    async with session.get(f"/history/{ids[0]}") as response:
        messages = (await response.json())[ids[0]]["status"]["messages"]
    assert messages[-1][0] == "execution_interrupted"


async def test_what_an_unknown_node_makes_of_pictures_is_a_labelled_proof(tmp_path):
    def photo(color):
        return {"class_type": "EmptyImage", "inputs": {"width": 320, "height": 200, "batch_size": 2, "color": color}}

    blend = {"image1": ["1", 0], "image2": ["2", 0], "blend_factor": 0.5, "blend_mode": "normal"}
    graph = {
        "1": photo(0xFF0000),
        "2": photo(0x0000FF),
        "3": {"class_type": "ImageBlend", "inputs": blend},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "blended"}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "inverted"}},
    }
    pictures = {}
    async with ComfyUIStandIn(tmp_path) as running, aiohttp.ClientSession(running.url) as session:
        _, entry = await run(session, graph)
        for node_id in ("5", "6"):
            for image in entry["outputs"][node_id]["images"]:
                async with session.get("/view", params=image) as response:
                    picture = Image.open(io.BytesIO(await response.read())).convert("RGB")
                pictures.setdefault(node_id, []).append(picture)
    assert [picture.size for picture in pictures["5"]] == [(320, 200)] * 2
    assert all(len(picture.getcolors(1 << 20)) > 20 for picture in pictures["5"])  # a text on a band
    assert all(picture.getcolors() == [(320 * 200, (0, 255, 255))] for picture in pictures["6"])


async def test_a_proof_has_the_size_of_the_latent_and_differs_with_the_seed(session):
    def portrait(seed):
        sampler = {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "seed": seed,
        }
        sampler |= {"steps": 2, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
        return {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["1", 1]}},
            "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 96, "height": 64, "batch_size": 2}},
            "4": {"class_type": "KSampler", "inputs": sampler},
            "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
            "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "proof"}},
        }

    pictures = []
    for seed in (1, 2):
        _, entry = await run(session, portrait(seed))
        for image in entry["outputs"]["6"]["images"]:
            async with session.get("/view", params=image) as response:
                pictures.append(Image.open(io.BytesIO(await response.read())))
    assert [picture.size for picture in pictures] == [(96, 64)] * 4
    assert len({picture.convert("RGB").tobytes() for picture in pictures}) == 4
    assert json.loads(pictures[0].text["prompt"])["4"]["inputs"]["seed"] == 1
