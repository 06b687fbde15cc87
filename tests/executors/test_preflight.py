"""The check before anything is sent."""

import pytest

from runpod_comfy import ComfyServerWorkflowExecutor, RunpodComfyWorkflowExecutor, WorkflowGraphError, _loop
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.preflight import object_info_cache
from runpod_comfy.settings import endpoint_target
from runpod_comfy.workflow.template import WorkflowTemplate

TEMPLATE = WorkflowTemplate.from_string(
    """{"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}""",
    name="w.json",
)
SAVE = {"SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True}}
ALL = SAVE | {
    "EmptyImage": {"input": {"required": {"width": ["INT", {"min": 1}]}}, "output": ["IMAGE"], "api_node": True}
}


def keep(target, node_types):
    object_info_cache().store(target, node_types, version="1", fetched_at="2026-11-24T00:00:00+00:00")


def test_what_the_endpoint_would_refuse_is_never_sent(runpod_emulator):
    with RunpodComfyWorkflowExecutor() as executor:
        keep(endpoint_target(executor.endpoint_id), SAVE)
        with pytest.raises(WorkflowGraphError, match=r"w\.json:1: the node type EmptyImage is not installed") as caught:
            executor.submit_workflow(TEMPLATE)
        assert caught.value.node_id == "1"
        assert not runpod_emulator.jobs()
        executor.preflight = False
        assert len(executor.submit_workflow(TEMPLATE)) == 1


def test_without_anything_known_of_the_endpoint_everything_is_sent(runpod_emulator):
    with RunpodComfyWorkflowExecutor() as executor:
        assert len(executor.submit_workflow(TEMPLATE)) == 1
    assert len(runpod_emulator.jobs()) == 1


@pytest.mark.usefixtures("runpod_emulator")
def test_what_is_worth_knowing_comes_as_a_warning():
    with RunpodComfyWorkflowExecutor() as executor:
        keep(endpoint_target(executor.endpoint_id), ALL)
        assert any("paid service" in warning for warning in executor.submit_workflow(TEMPLATE).warnings)


def test_a_server_is_asked_anew_before_it_is_believed_to_refuse():
    server = ComfyUIStandIn()
    _loop.run_sync(server.start)
    try:
        with ComfyServerWorkflowExecutor(server.url) as executor:
            keep(executor.url, SAVE)  # as it was before EmptyImage came
            assert len(executor.submit_workflow(TEMPLATE)) == 1
    finally:
        _loop.run_sync(server.stop)
