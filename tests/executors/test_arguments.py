import re

import pytest

from runpod_comfy import ConfigurationError, InputError, LocalWorkflowExecutor, WorkflowTemplate
from runpod_comfy.executors.request import workflow_request

TEMPLATE = WorkflowTemplate.from_string('{"1": {"class_type": "SaveImage", "inputs": {"n": {{ batch_size }}}}}')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"timeout": "5"}, "timeout is '5'; it takes seconds greater than 0"),
        ({"timeout": 10**400}, "timeout is 1000"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": True}, "timeout is True"),
        ({"num_samples": 10**400}, "num_samples is 1000"),
        ({"num_samples": 10**5000}, "num_samples is a int; it takes a whole number from 1"),
        ({"num_samples": 10**9}, "the limit is 10,000"),
        ({"batch_size": 10**30}, "batch_size is 1000"),
        ({"batch_size": "4"}, "batch_size is '4'"),
        ({"seed": 10**5000}, "seed is a int; it takes a whole number from 0"),
        ({"variables": [1]}, "variables is [1]; it takes a mapping"),
        ({"variables": {1: 2}}, "variables is {1: 2}; it takes a mapping"),
        ({"input_max_pixels": "5"}, "input_max_pixels is '5'; it takes a whole number"),
        ({"output_dir": 5}, "output_dir is 5; it takes the path"),
        ({"workflow_template": {"1": {}}}, "workflow_template is {'1': {}}; it takes"),
    ],
)
def test_an_argument_of_another_kind_is_refused_with_what_it_takes(arguments, words):
    with LocalWorkflowExecutor() as executor, pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        executor.submit_workflow(**{"workflow_template": TEMPLATE, **arguments})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("images", [5, 1.5, object()])
def test_input_images_that_are_none_are_refused_as_a_whole(images):
    with pytest.raises(InputError, match=r"input_images is .*; it takes a list"):
        workflow_request(TEMPLATE, images)


def test_seconds_may_be_whole_or_broken():
    assert workflow_request(TEMPLATE, timeout=5).timeout_s == 5
    assert workflow_request(TEMPLATE, timeout=0.5).timeout_s == 0.5
    assert workflow_request(TEMPLATE).timeout_s is None
