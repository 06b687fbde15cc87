import base64
import gzip
import json

import aiohttp
import pytest
from aiohttp import web

from runpod_comfy import __version__
from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.errors import TransportError
from runpod_comfy.worker.describe import describe, wants_description


async def described(url, body=None, *, facts=None):
    async with aiohttp.ClientSession() as session:
        return await describe(ComfyUIClient(url, session=session), body or {"describe": True}, facts=facts or {})


def test_only_a_request_without_a_workflow_asks_for_a_description():
    assert wants_description({"describe": True})
    assert wants_description({"describe": {"object_info": True}})
    for body in ({"describe": True, "workflow": {}}, {"describe": False}, {}, None, "describe"):
        assert not wants_description(body)


async def test_description_tells_versions_and_node_classes(comfyui_url):
    about = await described(comfyui_url)
    assert about["worker"] == {"version": __version__, "protocol": 1}
    assert about["comfyui"]["version"] == "0.3.64"
    assert {"SaveImage", "LoadImagesFromDir"} <= set(about["node_classes"])
    assert "object_info_gzip" not in about
    assert json.loads(json.dumps(about)) == about


async def test_models_are_told_by_folder_and_custom_nodes_are_not_among_them(stand_in):
    for name in ("checkpoints/sd15.safetensors", "loras/b.safetensors", "loras/a.safetensors", "custom_nodes/x"):
        path = stand_in.folder / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    about = await described(stand_in.url, facts={"worker": {"slots": 3}, "failed_custom_nodes": ["/c/a"]})
    assert about["models"] == {"checkpoints": ["sd15.safetensors"], "loras": ["a.safetensors", "b.safetensors"]}
    assert about["failed_custom_nodes"] == ["/c/a"]
    assert about["worker"] == {"version": __version__, "protocol": 1, "slots": 3}


async def test_inputs_of_all_nodes_come_packed_when_they_are_asked_for(comfyui_url):
    about = await described(comfyui_url, {"describe": {"object_info": True}})
    info = json.loads(gzip.decompress(base64.b64decode(about["object_info_gzip"])))
    assert sorted(info) == about["node_classes"]
    assert "images" in info["SaveImage"]["input"]["required"]


async def test_classes_of_custom_nodes_are_told_by_their_folder_and_an_old_comfyui_is_described_too():
    app = web.Application()

    def answer(path, value):
        async def handler(_):
            return web.json_response(value)

        app.router.add_get(path, handler)

    answer("/system_stats", {"system": {"comfyui_version": "0.2.0"}, "devices": [{"name": "cuda:0", "vram_total": 8}]})
    nodes = {"A": "custom_nodes.pack", "B": "custom_nodes.pack", "C": "custom_nodes.other", "D": "nodes"}
    answer("/object_info", {**{name: {"python_module": module} for name, module in nodes.items()}, "E": None})
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    about = await described(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()
    assert about["custom_nodes"] == {"other": ["C"], "pack": ["A", "B"]}
    assert about["comfyui"]["devices"] == [{"name": "cuda:0", "type": None, "vram_total": 8, "vram_free": None}]
    assert "models" not in about


async def test_comfyui_that_does_not_answer_is_an_error(unused_tcp_port):
    with pytest.raises(TransportError):
        await described(f"http://127.0.0.1:{unused_tcp_port}")
