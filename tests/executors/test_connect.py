import pytest

from runpod_comfy import (
    ComfyServerWorkflowExecutor,
    ConfigurationError,
    LocalWorkflowExecutor,
    RunpodComfyWorkflowExecutor,
)
from runpod_comfy.executors.base import WorkflowExecutor


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("RUNPOD_API_KEY", "a-key")


@pytest.mark.parametrize(
    ("target", "kind", "place"),
    [
        ("runpod://4m7x2k9q", RunpodComfyWorkflowExecutor, "runpod://4m7x2k9q"),
        (" RunPod://4m7x2k9q/ ", RunpodComfyWorkflowExecutor, "runpod://4m7x2k9q"),
        ("http://127.0.0.1:8188/", ComfyServerWorkflowExecutor, "http://127.0.0.1:8188"),
        ("https://me:pw@comfy.example/ui", ComfyServerWorkflowExecutor, "https://comfy.example/ui"),
        ("local", LocalWorkflowExecutor, "local"),
    ],
)
def test_a_place_is_named_in_one_string_and_names_itself_so(target, kind, place):
    executor = WorkflowExecutor.connect(target, batch_size=3)
    assert type(executor) is kind
    assert (executor.place, executor.batch_size) == (place, 3)
    if "@" not in target:
        assert type(WorkflowExecutor.connect(executor.place)) is kind


def test_each_kind_takes_its_own_options():
    assert WorkflowExecutor.connect("runpod://e", max_concurrent_jobs=5, worker="native").max_concurrent_jobs == 5
    with pytest.raises(ConfigurationError, match="does not take token="):
        WorkflowExecutor.connect("runpod://e", token="t")
    with pytest.raises(ConfigurationError, match="it takes batch_size"):
        WorkflowExecutor.connect("local", endpoint="e")


@pytest.mark.parametrize("target", ["", "runpod://", "ftp://h", "localhost:8188", "Local://", "local://x"])
def test_anything_else_is_refused_with_the_forms(target):
    with pytest.raises(ConfigurationError, match="runpod://<ENDPOINT_ID>"):
        WorkflowExecutor.connect(target)


def test_an_endpoint_id_alone_is_recognised():
    with pytest.raises(ConfigurationError, match="Did you mean 'runpod://4m7x2k9q'"):
        WorkflowExecutor.connect("4m7x2k9q")


def test_a_password_in_what_is_refused_is_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        WorkflowExecutor.connect("ftp://me:s3cret@h")
    assert "s3cret" not in str(caught.value)
