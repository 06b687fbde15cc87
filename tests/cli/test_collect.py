"""`runpod-comfy jobs` and `runpod-comfy collect`."""

import json
import os
import re
import signal
import time

import pytest

from runpod_comfy import _loop
from runpod_comfy.emulator.faults import Fault, Reset
from runpod_comfy.executors.local import LocalRunpod
from runpod_comfy.ledger import Ledger, State

TEMPLATE = "portrait/workflow.json.jinja"
SLOW = """{
  "1": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
  "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 2, "steps": 20, "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}}
}"""


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def runpod(monkeypatch):
    """RunPod on this machine, as the environment names it."""
    local = LocalRunpod()
    _loop.run_sync(local.start)
    monkeypatch.setenv("RUNPOD_API_KEY", "a-key")
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", local.settings.endpoint_id)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", local.settings.base_url)
    yield local
    _loop.run_sync(local.stop)


def ledger():
    return Ledger(os.environ["RUNPOD_COMFY_LEDGER"])


def killed_run(shell, runpod, folder):
    """Start a run that takes some seconds, kill it while the job runs, and return the job's id."""
    (folder / "slow.json").write_text(SLOW)
    run = shell("exec runpod-comfy run slow.json portrait/chelsea.jpg -n 2 --progress plain")
    wait_until(lambda: [str(job.state) for job in runpod.jobs()] == ["IN_PROGRESS"])
    time.sleep(0.3)  # it reads by now
    run.send_signal(signal.SIGKILL)
    run.communicate()
    return runpod.jobs()[0].job_id


def test_a_run_is_listed(cli, runpod):
    assert cli("jobs").err.startswith("No jobs.")
    assert cli("run", TEMPLATE, "portrait", "-n", 2, "-b", 2, "--var", "prompt=a fox").code == 0
    done = cli("jobs")
    [header, line] = done.lines
    assert re.match(r"JOB\s+AGE\s+STATE\s+SAVED\s+TEMPLATE", header)
    assert re.match(rf"{runpod.jobs()[0].job_id}\s+\d+ s\s+DONE\s+2\s+workflow\.json\.jinja", line)
    [job] = json.loads(cli("jobs", "--json").out)["data"]["jobs"]
    assert (job["state"], job["variables"]) == ("DONE", {"prompt": "a fox"})
    assert cli("jobs", "--open").lines == []
    assert cli("jobs", "--state", "nope").code == 2


def test_a_run_may_go_unlisted(cli, runpod):
    assert cli("run", TEMPLATE, "portrait", "--no-ledger").code == 0
    assert len(runpod.jobs()) == 1
    assert cli("jobs").lines == []


def test_what_a_killed_run_left_is_collected(cli, shell, runpod, folder):
    job_id = killed_run(shell, runpod, folder)
    assert "collect --all" in cli("jobs").err
    running = cli("collect", "--all")
    assert (running.code, running.lines) == (0, [])
    assert "still run" in running.err
    done = cli("collect", job_id, "--wait")
    assert done.code == 0
    assert sorted(done.lines) == sorted(os.fspath(path) for path in (folder / "out").iterdir())
    assert len(done.lines) == 2
    assert ledger().find(job_id).state is State.DONE
    assert cli("collect", "--all").lines == []


def test_a_job_that_is_being_read_is_left_alone_until_it_is_taken_over(cli, shell, runpod, folder):
    (folder / "slow.json").write_text(SLOW.replace('"seconds": 2', '"seconds": 60'))
    run = shell("exec runpod-comfy run slow.json portrait/chelsea.jpg --progress plain")
    wait_until(lambda: [str(job.state) for job in runpod.jobs()] == ["IN_PROGRESS"])
    job_id = runpod.jobs()[0].job_id
    done = cli("collect", job_id, "--wait")
    assert done.code == 0
    assert "left alone" in done.err
    assert f"process {run.pid} on" in cli("jobs").out
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=30) == 130
    assert ledger().find(job_id).state is State.CANCELLED
    run.communicate()


def test_an_uncertain_submission_is_listed_and_never_sent_again(cli, runpod):
    runpod.platform.faults.add(Fault("run", Reset(processed=True)))
    run = cli("run", TEMPLATE, "portrait")
    assert run.code == 1
    assert len(runpod.jobs()) == 1
    assert "UNCERTAIN" in cli("jobs").out
    done = cli("collect", "--all", "--json")
    [uncertain] = json.loads(done.out)["data"]["uncertain"]
    assert uncertain["state"] == "UNCERTAIN"
    assert len(runpod.jobs()) == 1


def test_a_key_goes_to_the_configured_address_and_not_to_one_in_the_file(cli, shell, runpod, folder, monkeypatch):
    job_id = killed_run(shell, runpod, folder)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", "http://127.0.0.1:9/v2")
    done = cli("collect", job_id)
    assert done.code == 1
    assert f"pass --base-url {runpod.settings.base_url}" in done.err


@pytest.mark.parametrize("words", [(), ("a-job", "--all"), ("unknown",)], ids=["nothing", "both", "unknown"])
def test_what_to_collect_must_be_clear(cli, words):
    assert cli("collect", *words).code == 2


def test_a_ledger_that_cannot_be_opened_is_said_before_anything_is_sent(cli, runpod, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNPOD_COMFY_LEDGER", str(tmp_path))
    run = cli("run", TEMPLATE, "portrait")
    assert run.code == 2
    assert "--no-ledger" in run.err
    assert runpod.jobs() == []
    assert cli("jobs").code == 2
