"""Small workflows for the stand-in ComfyUI, and a folder to put datasets into."""

import pytest

from runpod_comfy import LocalWorkflowExecutor, WorkflowTemplate

TEXT = """{
  "1": {"class_type": "EmptyImage",
        "inputs": {"width": 16, "height": 16, "batch_size": {{ batch_size }}, "color": {{ color | default(0) }}}},
  "2": {"class_type": "FixtureSleep",
        "inputs": {"image": ["1", 0], "seconds": {{ seconds | default(0) }}, "steps": 1, "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "{{ prompt | default('p') }}"}}
}"""


@pytest.fixture
def template():
    return WorkflowTemplate.from_string(TEXT)


@pytest.fixture
def executor():
    with LocalWorkflowExecutor() as made:
        yield made
