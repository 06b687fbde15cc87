"""The same questions put to a real ComfyUI, where there is one: what we convert and refuse, it takes and refuses."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from runpod_comfy.workflow.object_info import ObjectInfo
from runpod_comfy.workflow.saved_format.convert import convert_saved
from runpod_comfy.workflow.validate import validate_workflow

DATA = Path(__file__).parents[1] / "data"
VERDICTS = json.loads((DATA / "comfyui" / "verdicts.json").read_text("utf-8"))
pytestmark = pytest.mark.real_comfyui


@pytest.fixture
def ask(real_comfyui_url):
    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{real_comfyui_url}/{path}", data, {"Content-Type": "application/json"})  # noqa: S310 - COMFYUI_URL
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310 - likewise
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as exc:
            text = exc.read()
            return exc.code, json.loads(text) if text.startswith(b"{") else {}

    return ask


def test_a_saved_workflow_is_refused_for_what_is_missing_there_and_for_nothing_else(ask):
    info = ObjectInfo(ask("object_info")[1])
    saved = json.loads((DATA / "saved_workflow.json").read_text("utf-8"))
    graph = convert_saved(saved, info).graph
    _, answer = ask("prompt", {"prompt": graph})
    said = {
        (node_id, fault["type"])
        for node_id, about in (answer.get("node_errors") or {}).items()
        for fault in about["errors"]
    }
    assert {kind for _, kind in said} <= {"value_not_in_list", "custom_validation_failed"}
    ours = {each.node_id for each in validate_workflow(graph, info) if each.severity == "error"}
    assert ours == {node_id for node_id, _ in said}
    ask("queue", {"clear": True})


@pytest.mark.parametrize("case", [each for each in VERDICTS if each["status"] != 200], ids=lambda each: each["case"])
def test_what_it_refuses_we_refuse(case, ask):
    status, _ = ask("prompt", {"prompt": case["prompt"]})
    info = ObjectInfo(ask("object_info")[1])
    assert status != 200
    assert any(each.severity == "error" for each in validate_workflow(case["prompt"], info))
