"""`runpod-comfy describe`, and the verbs that go by what it kept."""

import json

import pytest

from runpod_comfy import _loop
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.local import LOCAL_API_KEY, LocalRunpod

SAVED = {
    "nodes": [
        {"id": 1, "type": "LoadImage", "outputs": [{"type": "IMAGE"}], "widgets_values": ["example.png", "image"]},
        {
            "id": 2,
            "type": "SaveImage",
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "widgets_values": ["saved"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    "version": 0.4,
}


@pytest.fixture
def comfyui():
    """A ComfyUI that runs the nodes it lists and no others, with models."""
    server = ComfyUIStandIn(strict_nodes=True)
    _loop.run_sync(server.start)
    loras = server.folder / "models" / "loras"
    loras.mkdir(parents=True)
    for n in range(14):
        (loras / f"{n:02}.safetensors").touch()
    yield server
    _loop.run_sync(server.stop)


@pytest.fixture
def endpoint(comfyui, monkeypatch):
    """An emulated endpoint `local` whose worker drives that ComfyUI."""
    local = LocalRunpod(comfyui_url=comfyui.url)
    _loop.run_sync(local.start)
    monkeypatch.setenv("RUNPOD_API_KEY", LOCAL_API_KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", local.settings.base_url)
    yield local
    _loop.run_sync(local.stop)


def test_what_an_endpoint_has_is_listed(cli, endpoint):
    done = cli("describe", "--endpoint", "local")
    assert done.code == 0, done.err
    assert done.lines[0] == "ComfyUI 0.3.64"
    assert any(line.startswith("worker ") for line in done.lines)
    assert "14 model files" in done.lines
    [loras] = [line for line in done.lines if line.startswith("  loras: 00.safetensors, ")]
    assert loras.endswith("(14 in all; --json names them)")
    assert "may start a worker" in done.err
    assert "→ next: runpod-comfy template validate TEMPLATE --endpoint local" in done.err
    assert len(endpoint.jobs()) == 1


def test_a_server_is_listed_as_json_with_all_names(cli, comfyui):
    done = cli("describe", "--comfyui", comfyui.url, "--json")
    told = json.loads(done.out)
    assert (told["ok"], told["schema"], told["data"]["worker"]["version"]) == (True, "describe/1", None)
    assert "SaveImage" in told["data"]["node_classes"]
    assert len(told["data"]["models"]["loras"]) == 14


def test_a_stored_profile_is_asked(cli, comfyui):
    assert cli("init", "--profile", "home", "--comfyui", comfyui.url).code == 0
    done = cli("describe", "--profile", "home")
    assert done.code == 0, done.err
    assert f"--comfyui {comfyui.url}" in done.err


def test_a_stand_in_is_not_kept(cli, stand_in):
    assert "nothing is kept" in cli("describe", "--comfyui", stand_in.url).err


def test_without_a_place_it_says_what_to_name(cli):
    done = cli("describe")
    assert done.code == 2
    assert "--endpoint ID, --comfyui URL or --profile NAME" in done.err


def test_after_it_a_workflow_that_the_endpoint_cannot_run_is_refused_before_it_is_sent(cli, endpoint):
    assert cli("describe", "--endpoint", "local").code == 0
    done = cli("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg", "--endpoint", "local")
    assert done.code == 2
    assert "is not installed" in done.err
    assert len(endpoint.jobs()) == 1


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("words", [("create", "w.json", "--dry-run"), ("show", "w.json"), ("validate", "w.json")])
def test_template_verbs_know_an_endpoint_once_it_was_described(cli, words):
    (cli("--version").folder / "w.json").write_text(json.dumps(SAVED))
    before = cli("template", *words, "--endpoint", "local")
    assert before.code == 2
    assert "runpod-comfy describe --endpoint local" in before.err
    assert cli("describe", "--endpoint", "local").code == 0
    after = cli("template", *words, "--endpoint", "local")
    assert after.code == 0, after.err + after.out
    assert "node types: endpoint local, as it was on" in after.err
