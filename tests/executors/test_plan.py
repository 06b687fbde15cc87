import io
import math

import pytest
from PIL import Image

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.executors.plan import MAX_RESULT_BYTES, plan_jobs
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.submission import Submission


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def submission(batches, *, size=512, batch_size=1, **changed):
    graph = {
        "1": node("EmptyLatentImage", width=size, height=size, batch_size=batch_size),
        "2": node("KSampler", seed=1, latent_image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="a"),
    }
    return Submission(workflow=graph | changed, batch_count=batches, seeds=tuple(range(batches)))


def sizes(plan):
    """Return how many batches each job has, having checked that each batch is in one of them."""
    assert [batch for job in plan.jobs for batch in job] == list(range(plan.jobs[-1].stop))
    return [len(job) for job in plan.jobs]


@pytest.mark.parametrize("worker", [None, "native"])
@pytest.mark.parametrize("size", [64, 8192])
def test_a_worker_that_streams_gets_one_job_whatever_the_size(worker, size):
    plan = plan_jobs(submission(500, size=size), worker=worker)
    assert sizes(plan) == [500]
    assert plan.warnings == ()


@pytest.mark.parametrize("worker", [None, "native", "worker-comfyui"])
def test_the_callers_bound_splits_evenly_and_is_named(worker):
    plan = plan_jobs(submission(10, size=64), worker=worker, max_batches_per_job=4)
    assert sorted(sizes(plan)) == [3, 3, 4]
    assert "max_batches_per_job is 4" in plan.warnings[0]


@pytest.mark.parametrize("most", [10, 11])
def test_a_bound_that_is_not_reached_says_nothing(most):
    assert plan_jobs(submission(10, size=64), worker="native", max_batches_per_job=most).warnings == ()


@pytest.mark.parametrize("size", [256, 512, 768, 1024])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_no_answer_can_be_over_the_limit(size, batch_size):
    plan = plan_jobs(submission(24, size=size, batch_size=batch_size), worker="worker-comfyui")
    noise = size * size * 3 * batch_size * 4 / 3
    assert max(sizes(plan)) * noise <= MAX_RESULT_BYTES
    assert len(plan.jobs) <= math.ceil(24 / (MAX_RESULT_BYTES * 0.98 // noise))


def test_the_result_says_why_it_was_split():
    [warning] = plan_jobs(submission(16, size=1024), worker="worker-comfyui").warnings
    assert warning.startswith("16 batches were split into 8 jobs: ")
    assert "10 MB" in warning
    assert "lost" in warning


def test_with_a_bucket_no_answer_is_too_large():
    assert sizes(plan_jobs(submission(16, size=2048), worker="worker-comfyui", uses_bucket=True)) == [16]


def test_one_prompt_does_not_grow_without_end():
    assert max(sizes(plan_jobs(submission(500, size=8), worker="worker-comfyui"))) <= 64


def test_a_batch_that_may_be_too_large_by_itself_is_warned_of():
    plan = plan_jobs(submission(1, size=1024, batch_size=8), worker="worker-comfyui")
    assert "34 MB" in plan.warnings[0]
    assert "batch_size" in plan.warnings[0]


def test_batches_that_cannot_share_a_prompt_get_a_job_each_and_the_reason():
    plan = plan_jobs(submission(3, size=64, **{"3": node("Image Saver", images=["2", 0])}), worker="worker-comfyui")
    assert sizes(plan) == [1, 1, 1]
    assert "node 3 (Image Saver) has no filename_prefix" in plan.warnings[-1]


def test_images_of_unknown_size_get_a_job_for_each_batch():
    plan = plan_jobs(submission(3, **{"1": node("SomeLatent")}), worker="worker-comfyui")
    assert sizes(plan) == [1, 1, 1]
    assert "does not tell how large" in plan.warnings[-1]


def test_an_input_photos_size_counts():
    data = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(data, "png")
    photo = InputImage("00.png", data.getvalue(), "image/png", "rcc-1")
    graph = submission(1).workflow | {"1": node("LoadImage", image="rcc-1/00.png")}
    sent = Submission(workflow=graph, images=(photo,), batch_count=4, seeds=(1, 2, 3, 4))
    assert sizes(plan_jobs(sent, worker="worker-comfyui")) == [2, 2]


def test_an_old_worker_gets_one_batch_a_job():
    assert sizes(plan_jobs(submission(3, size=64), worker="worker-comfyui-4")) == [1, 1, 1]


def test_an_old_worker_that_would_lose_images_is_refused_before_it_is_paid():
    with pytest.raises(ConfigurationError, match="makes 4 images"):
        plan_jobs(submission(1, batch_size=4), worker="worker-comfyui-4")


def test_previews_that_nobody_returns_are_told():
    sent = Submission(workflow=submission(1).workflow, seeds=(1,), previews=True)
    assert "Preview images" in plan_jobs(sent, worker="worker-comfyui").warnings[0]
