"""Batches that were lost on their way are made again: once, with the same seeds, and only those."""

import asyncio

import pytest

from runpod_comfy import ConfigurationError, OutputLost, SubmissionUncertain, WorkflowTemplate
from runpod_comfy.emulator.faults import (
    DropPiece,
    DropReport,
    DuplicatePiece,
    Fault,
    RepeatPieces,
    Reset,
    Status,
    Truncate,
    WorkerDies,
)
from runpod_comfy.events import BatchFinished, OutputReady, Queued, Started, Warned

TEMPLATE = WorkflowTemplate.from_string('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}')


def names(result):
    return sorted((image.batch, image.seed, image.sha256) for image in result)


@pytest.fixture
def whole(make_endpoint, painter):
    """What three batches from seed 5 are when nothing is lost."""
    return names(make_endpoint(painter()).executor().submit_workflow(TEMPLATE, num_samples=3, seed=5))


@pytest.mark.parametrize("piece", range(10))
def test_whichever_piece_is_lost_everything_comes_once_and_no_more_is_made_than_needed(
    make_endpoint, painter, whole, piece
):
    requests = []
    endpoint = make_endpoint(painter(requests=requests))
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(piece)))
    result = endpoint.executor().submit_workflow(TEMPLATE, num_samples=3, seed=5)
    assert names(result) == whole
    if piece == 9:  # the line that says no more than that it is the last
        assert len(requests) == 1
        return
    [_, again] = requests
    lost_batch = piece // 3
    assert again["seeds"][0] == 5 + lost_batch
    # The end of a batch and the beginning of the next one cannot be told apart where the end is what is lost.
    assert again["batch_count"] == (2 if piece % 3 == 2 and lost_batch < 2 else 1) or piece % 3 == 0
    assert again["batch_count"] <= 2
    assert again["submission_id"] != requests[0]["submission_id"]


def test_a_rerun_is_announced_and_otherwise_looks_like_one_job(make_endpoint, painter):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(4)))
    events = list(endpoint.executor().watch_workflow(TEMPLATE, num_samples=3, seed=5))
    assert [type(event) for event in events].count(Queued) == 1
    assert [type(event) for event in events].count(Started) == 1
    [warning] = [event.message for event in events if isinstance(event, Warned)]
    first, again = endpoint.jobs()
    assert first.job_id in warning
    assert again.job_id in warning
    assert events[-1].result.job_id == first.job_id
    assert {event.batch for event in events if isinstance(event, BatchFinished)} == {0, 1, 2}


def test_what_is_lost_of_a_rerun_is_made_again_in_turn(make_endpoint, painter, whole):
    requests = []
    endpoint = make_endpoint(painter(requests=requests))
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(4)), Fault("job-stream", DropPiece(1), after=1))
    result = endpoint.executor().submit_workflow(TEMPLATE, num_samples=3, seed=5)
    assert names(result) == whole
    assert [request["seeds"] for request in requests] == [[5, 6, 7], [6], [6]]


def test_what_is_lost_each_time_is_an_error_with_the_rest(make_endpoint, painter):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1), times=None))
    with pytest.raises(OutputLost) as caught:
        endpoint.executor().submit_workflow(TEMPLATE, num_samples=2, seed=5)
    assert len(endpoint.jobs()) == 4
    assert len(caught.value.partial) == 3


def test_a_caller_may_rather_have_the_error(make_endpoint, painter):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    with pytest.raises(OutputLost, match=r"Not whole: batch 1\.") as caught:
        endpoint.executor().submit_workflow(TEMPLATE, num_samples=2, seed=5, on_lost="raise")
    assert caught.value.missing_batches == (0,)
    assert len(caught.value.partial) == 3
    assert len(endpoint.jobs()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("stream", Reset(processed=True)),
        Fault("stream", Status(502, processed=True)),
        Fault("stream", Truncate()),
        Fault("job-stream", WorkerDies(4)),
        Fault("job-stream", DuplicatePiece(), times=None),
        Fault("stream", RepeatPieces(), times=3),
        Fault("job-done", DropReport()),
    ],
    ids=lambda fault: f"{fault.route}-{type(fault.action).__name__}",
)
@pytest.mark.parametrize("aggregate", [False, True], ids=["stream only", "aggregate"])
def test_each_image_comes_exactly_once(make_endpoint, painter, whole, fault, aggregate):
    endpoint = make_endpoint(painter(), aggregate=aggregate)
    endpoint.platform.faults.add(fault)
    assert names(endpoint.executor().submit_workflow(TEMPLATE, num_samples=3, seed=5)) == whole
    assert endpoint.platform.faults.fired(fault)


def test_a_handles_job_is_completed_too(make_endpoint, painter, whole):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    handle = endpoint.executor().start_workflow(TEMPLATE, num_samples=3, seed=5)
    assert names(handle.result(timeout=20)) == whole


def test_files_of_a_rerun_are_written_once(make_endpoint, painter, whole, tmp_path):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    result = endpoint.executor().submit_workflow(TEMPLATE, num_samples=3, seed=5, output_dir=tmp_path)
    assert names(result) == whole
    assert len(list(tmp_path.iterdir())) == 6


def test_leaving_during_a_rerun_cancels_it(make_endpoint, painter):
    async def hold(job, _):
        if job["input"]["batch_count"] == 1:
            await asyncio.sleep(3600)

    endpoint = make_endpoint(painter(hold=hold))
    endpoint.platform.faults.add(Fault("job-stream", DropPiece(1)))
    for event in endpoint.executor().watch_workflow(TEMPLATE, num_samples=3, seed=5):
        if isinstance(event, OutputReady) and len(endpoint.jobs()) == 2:
            break
    assert endpoint.states() == ["COMPLETED", "CANCELLED"]


# -- submissions that may or may not run -------------------------------------------------------------------------------


def test_an_uncertain_submission_is_repeated_only_where_the_caller_says_so(make_endpoint, painter):
    requests = []
    endpoint = make_endpoint(painter(requests=requests))
    endpoint.platform.faults.add(Fault("run", Reset(processed=True)))
    result = endpoint.executor().submit_workflow(TEMPLATE, num_samples=2, seed=5, on_uncertain="resubmit")
    assert len(result) == 4
    assert len(endpoint.jobs()) == 2
    assert result.job_id == endpoint.jobs()[1].job_id


def test_a_submission_is_repeated_twice_and_no_more(make_endpoint, painter):
    endpoint = make_endpoint(painter())
    endpoint.platform.faults.add(Fault("run", Status(500), times=None))
    with pytest.raises(SubmissionUncertain):
        endpoint.executor().submit_workflow(TEMPLATE, on_uncertain="resubmit")
    assert sum(endpoint.platform.faults.counts().values()) == 3


@pytest.mark.parametrize(
    "arguments",
    [{"on_lost": "ignore"}, {"on_uncertain": "rerun"}, {"queue_timeout": 0}, {"queue_timeout": -1}],
    ids=str,
)
def test_bad_choices_are_refused_before_anything_is_sent(make_endpoint, arguments):
    endpoint = make_endpoint()
    with pytest.raises(ConfigurationError):
        endpoint.executor().submit_workflow(TEMPLATE, **arguments)
    assert endpoint.jobs() == []
