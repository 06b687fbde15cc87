import json

import pytest

from runpod_comfy.cli.health import verdict
from runpod_comfy.serverless.api import EndpointHealth


@pytest.mark.usefixtures("runpod_emulator")
def test_workers_and_jobs_are_listed_with_what_they_mean(cli):
    done = cli("health")
    assert done.code == 0
    assert [line.split()[0] for line in done.lines] == ["workers", "jobs"]
    assert "1 idle" in done.lines[0]
    assert "A worker is idle" in done.err
    assert json.loads(cli("health", "--json").out)["data"]["workers"]["idle"] == 1


@pytest.mark.parametrize(
    ("workers", "jobs", "words"),
    [
        ({"idle": 1}, {}, "starts at once"),
        ({"running": 2, "ready": 2}, {"inQueue": 7}, "7 job(s) wait"),
        ({"initializing": 1}, {}, "is starting"),
        ({"unhealthy": 2}, {"inQueue": 1}, "fail as they start"),
        ({"throttled": 3}, {}, "no free GPU"),
        ({}, {}, "maximum is 0"),
    ],
)
def test_what_a_job_would_meet_is_said_in_one_sentence(workers, jobs, words):
    assert words in verdict(EndpointHealth(jobs=jobs, workers=workers))


def test_without_an_endpoint_it_says_how_to_name_one(cli):
    done = cli("health")
    assert done.code == 2
    assert "--endpoint ID" in done.err
