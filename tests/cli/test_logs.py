"""`runpod-comfy logs`, against RunPod's REST API v2 as its document describes it (unconfirmed)."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from runpod_comfy.cli.logs import Window

RUN = ("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg", "--json")


def events(*lines):
    texts = [json.dumps({"ts": at, "source": "container", "line": text}) for at, text in lines]
    return "".join(f"id: {n}\ndata: {text}\n\n" for n, text in enumerate(texts))


def at(offset_s):
    return (datetime.now(UTC) + timedelta(seconds=offset_s)).isoformat()


@pytest.mark.usefixtures("runpod_emulator")
def test_the_lines_of_a_job_are_those_of_its_time(cli, rest):
    job_id = json.loads(cli(*RUN).out)["data"]["job_id"]
    paths = [f"/serverless/local/workers/{worker}/logs" for worker in ("w1", "local-0")]
    told = events((at(-3600), "long before"), (at(0), "loading the model"), (at(3600), "long after"))
    rest.answers.update(dict.fromkeys(paths, told))
    rest.seen.clear()
    done = cli("logs", job_id, "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)["data"]
    assert [line["text"] for line in data["lines"]] == ["loading the model"]
    assert data["job_id"] == job_id
    [request] = [each for each in rest.seen if each.path.endswith("/logs")]
    assert datetime.fromisoformat(request.query["since"]) < datetime.now(UTC)


@pytest.mark.usefixtures("runpod_emulator")
def test_without_a_job_all_workers_are_read(cli, rest):
    rest.answers["/serverless/local/workers/w1/logs"] = events((at(0), "hello \x1b[2J"))
    done = cli("logs")
    [line] = done.lines
    assert line.endswith("w1  hello \N{REPLACEMENT CHARACTER}[2J")


@pytest.mark.usefixtures("runpod_emulator")
@pytest.mark.parametrize("path", ["/serverless/local/workers", "/serverless/local/workers/w1/logs"])
def test_where_the_api_says_no_the_page_with_the_log_is_named(path, cli, rest):
    rest.answers[path] = 403
    done = cli("logs")
    assert done.code == 3
    assert "https://console.runpod.io/serverless/user/endpoint/local?tab=logs" in done.err


@pytest.mark.usefixtures("runpod_emulator")
def test_an_endpoint_elsewhere_has_no_log_at_runpod_and_the_key_goes_nowhere(cli):
    done = cli("logs", "--json")
    assert done.code == 1
    assert json.loads(done.out)["error"]["code"] == "not_found"


def test_a_window_has_a_margin_and_takes_what_has_no_time():
    window = Window(begun_s=1000.0, ended_s=1010.0)
    seen = [window.holds(datetime.fromtimestamp(s, UTC).isoformat()) for s in (994, 996, 1014, 1016)]
    assert seen == [False, True, True, False]
    assert window.holds("")
    assert Window(begun_s=1000.0).holds("2026-11-24T00:00:00Z")
