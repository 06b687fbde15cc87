import base64
import json

import pytest

from runpod_comfy.dialects.worker_comfyui_answer import Answer, answer_limit, failure_text, read_input
from runpod_comfy.errors import InputError, JobFailed, TransportError
from runpod_comfy.results import OutputFile, WorkflowOutputImage

WORKFLOW = {"1": {"class_type": "SaveImage", "inputs": {}}}


def picture(name="a_00001_.png", data=b"\x89PNG"):
    return WorkflowOutputImage(name=name, data=data, media_type="image/png")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "Please provide input"),
        ("{no", "Invalid JSON format in input"),
        ({}, "Missing 'workflow' parameter"),
        ({"workflow": None}, "Missing 'workflow' parameter"),
        ("[]", "Missing 'workflow' parameter"),
        *(
            (
                {"workflow": WORKFLOW, "images": images},
                "'images' must be a list of objects with 'name' and 'image' keys",
            )
            for images in ("x", {}, [1], [{"name": "a"}], [{"image": "AAAA"}])
        ),
    ],
)
def test_input_errors_have_the_words_that_clients_know(body, said):
    with pytest.raises(InputError) as failure:
        read_input(body)
    assert str(failure.value) == said


@pytest.mark.parametrize("images", [None, [], [{"name": "a", "image": "AAAA"}], [{"name": "a", "url": "https://h/a"}]])
def test_body_of_the_official_worker_is_accepted_as_an_object_and_as_a_string(images):
    body = {"workflow": WORKFLOW, "images": images}
    assert read_input(body) == read_input(json.dumps(body)) == body


def test_answer_has_the_official_shape_and_nothing_else():
    answer = Answer(1_000_000)
    answer.add_file(picture())
    answer.add_file(picture("b.png"), url="https://b/b.png")
    assert answer.result() == {
        "images": [
            {"filename": "a_00001_.png", "type": "base64", "data": base64.b64encode(b"\x89PNG").decode()},
            {"filename": "b.png", "type": "s3_url", "data": "https://b/b.png"},
        ]
    }


def test_job_without_pictures_and_one_that_failed_have_their_own_shapes():
    assert Answer(1_000_000).result() == {"status": "success_no_images", "images": []}
    assert Answer(1_000_000, errors=["boom"]).result() == {"error": "Job processing failed", "details": ["boom"]}


def test_what_was_made_before_a_failure_is_delivered_with_it():
    answer = Answer(1_000_000)
    answer.add_file(picture())
    answer.errors.append("boom")
    assert [image["filename"] for image in answer.result()["images"]] == ["a_00001_.png"]
    assert answer.result()["errors"] == ["boom"]
    assert "error" not in answer.result()


def test_outputs_that_the_official_worker_drops_come_under_keys_of_their_own():
    answer = Answer(1_000_000)
    answer.add_file(OutputFile(name="a.mp4", data=b"1", kind="gifs", media_type="video/mp4"))
    answer.add_text("a cat \ud800")
    assert answer.result() == {
        "status": "success_no_images",
        "images": [],
        "files": [{"filename": "a.mp4", "type": "base64", "data": "MQ=="}],
        "texts": ["a cat ?"],
    }


def test_files_of_one_name_from_two_folders_can_be_told_apart():
    answer = Answer(1_000_000)
    for _ in range(3):
        answer.add_file(picture())
    assert [each["filename"] for each in answer.result()["images"]] == [
        "a_00001_.png",
        "a_00001__1.png",
        "a_00001__2.png",
    ]


def test_answer_always_fits_and_says_what_does_not():
    answer = Answer(answer_limit("job-1"))
    for number in range(4):
        answer.add_file(picture(f"{number}.png", bytes(3_000_000)))
    answer.add_text("x" * 20_000_000)
    result = answer.result()
    assert len(json.dumps(result)) < 10_000_000
    assert [each["filename"] for each in result["images"]] == ["0.png", "1.png"]
    assert [error.partition(" ")[0] for error in result["errors"]] == ["2.png", "3.png", "A"]
    assert "BUCKET_ENDPOINT_URL" in result["errors"][0]


def test_answer_that_holds_nothing_of_what_was_made_is_a_failure():
    answer = Answer(answer_limit("job-1"))
    answer.add_file(picture(data=bytes(9_000_000)))
    assert answer.result()["error"] == "Job processing failed"


def test_answer_after_runsync_may_be_twice_as_large():
    assert answer_limit("sync-1") > 19_000_000 > answer_limit("job-1") > 9_000_000


def test_errors_are_bounded_in_number_and_length():
    answer = Answer(answer_limit("job-1"), errors=["x" * 100_000] * 1_000)
    assert len(json.dumps(answer.result())) < 100_000
    assert answer.result()["details"][-1] == "and 980 more"


def test_failed_node_is_told_in_the_words_in_which_clients_look_for_it():
    error = JobFailed("boom", node_id="4", node_type="KSampler", traceback="…")
    assert failure_text(error) == "Workflow execution error: Node Type: KSampler, Node ID: 4, Message: boom"
    assert failure_text(TransportError("gone \ud800")) == "gone ?"
