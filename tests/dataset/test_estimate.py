from runpod_comfy.dataset.estimate import bytes_per_image, estimate, seconds_per_image
from runpod_comfy.dataset.manifest import TaskRecord


def record(execution_s, job_id="j", images=2):
    lines = {n: {"job_id": job_id, "size_bytes": 100 * (n + 1)} for n in range(images)}
    return TaskRecord(index=0, images=lines, done=[{"job_id": "j", "execution_s": execution_s}])


def test_nothing_is_guessed_without_an_earlier_job():
    assert estimate(100, []) is None
    assert bytes_per_image([]) is None
    assert not seconds_per_image({"a": record(4.0, job_id="another")})


def test_what_is_left_takes_as_long_as_half_of_the_earlier_jobs_did():
    tasks = {str(n): record(2.0 * n) for n in range(1, 6)}
    assert seconds_per_image(tasks) == [1.0, 2.0, 3.0, 4.0, 5.0]
    found = estimate(3600, seconds_per_image(tasks))
    assert found is not None
    assert (found.low_s, found.high_s, found.job_count) == (5400.0, 16200.0, 5)
    assert found.cost_usd(1.0) == (1.5, 4.5)
    assert bytes_per_image(tasks.values()) == 150


def test_a_few_jobs_give_their_whole_range():
    found = estimate(10, [1.0, 3.0])
    assert found is not None
    assert (found.low_s, found.high_s) == (10.0, 30.0)
