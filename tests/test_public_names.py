import inspect
import json
import pickle
import subprocess
import sys

import pytest

import runpod_comfy
from runpod_comfy import (
    ComfyServerWorkflowExecutor,
    FallbackExecutor,
    LocalWorkflowExecutor,
    RunpodComfyWorkflowExecutor,
    errors,
)
from runpod_comfy.executors.handle import WorkflowHandle
from runpod_comfy.executors.request import workflow_request

EXECUTORS = [ComfyServerWorkflowExecutor, FallbackExecutor, LocalWorkflowExecutor, RunpodComfyWorkflowExecutor]
HEAVY = ["runpod", "aiohttp", "PIL", "jinja2", "orjson", "asyncio", "rich", "click"]


def loaded_by(code):
    """Which heavy packages are loaded in a fresh interpreter after some code."""
    script = f"import sys\n{code}\nimport json\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", script], check=True, text=True, stdout=subprocess.PIPE).stdout
    return json.loads(out.splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import runpod_comfy") == []


def test_using_the_executors_never_loads_runpod_or_pillows_plugins():
    code = "from runpod_comfy import *\nRunpodComfyWorkflowExecutor('e', api_key='k')\nimport PIL"
    assert "runpod" not in loaded_by(code)
    assert (
        "PIL.Image"
        not in subprocess.run(
            [sys.executable, "-c", "import runpod_comfy, sys; print(sorted(sys.modules))"],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        ).stdout
    )


def test_every_public_name_is_there_and_none_is_forgotten():
    for name in runpod_comfy.__all__:
        assert getattr(runpod_comfy, name) is not None
        assert name in dir(runpod_comfy)
    assert set(errors.__all__) <= set(runpod_comfy.__all__)
    assert sorted(runpod_comfy.__all__) == list(runpod_comfy.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = runpod_comfy.nonsense


def test_the_error_tree_is_the_one_that_its_docstring_draws():
    drawn = [line.partition("── ")[2].split()[0] for line in errors.__doc__.splitlines() if "── " in line]
    assert sorted([*drawn, "RunpodComfyError"]) == sorted(errors.__all__)
    assert all(issubclass(getattr(errors, name), errors.RunpodComfyError) for name in errors.__all__)
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.WaitTimeout, TimeoutError)


FACES = (
    [
        (RunpodComfyWorkflowExecutor, name)
        for name in ("submit_workflow", "stream_workflow", "watch_workflow", "start_workflow", "health", "describe")
    ]
    + [(ComfyServerWorkflowExecutor, "describe")]
    + [(WorkflowHandle, name) for name in ("state", "events", "result", "cancel")]
)


@pytest.mark.parametrize(("owner", "name"), FACES, ids=lambda value: getattr(value, "__name__", value))
def test_sync_and_async_faces_take_the_same(owner, name):
    one, other = (inspect.signature(getattr(owner, each)).parameters for each in (name, f"{name}_async"))
    assert list(one.values()) == list(other.values())


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["submit_workflow", "submit_workflow_async", "stream_workflow", "watch_workflow"])
def test_all_executors_describe_a_run_in_the_same_words(executor, name):
    method = getattr(executor, name)
    described = inspect.signature(workflow_request).parameters
    assert list(inspect.signature(method).parameters.values())[1:] == list(described.values())
    assert "num_samples: How many images are wanted" in inspect.getdoc(method)


def test_a_result_is_a_list_that_prints_what_it_holds():
    result = runpod_comfy.WorkflowResult([], job_id="j1")
    assert isinstance(result, list)
    assert repr(result) == "<WorkflowResult 0 images, job_id='j1'>"


def test_errors_survive_pickling_with_their_ids():
    error = runpod_comfy.JobFailed("x", node_id="3", job_id="j")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.node_id, again.job_id) == ("x", "3", "j")
