"""`runpod-comfy cost`: always a lower bound, with its parts, and a price with its date."""

import json
from pathlib import Path

import pytest

from runpod_comfy.cli.prices import catalogue_price
from runpod_comfy.cost import GpuTime, Price, cost_text, usd
from runpod_comfy.executors.local import LOCAL_API_KEY
from runpod_comfy.profiles import Profile, store_profile
from runpod_comfy.serverless.rest import EndpointFacts, GpuPrice

RUN = ("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg", "-n", 2, "-b", 2)
PRICE = Price(per_hour_usd=1.2, source="from --price", as_of="2026-11-24")


@pytest.mark.usefixtures("runpod_emulator")
def test_jobs_of_the_ledger_cost_at_least_what_they_computed(cli):
    cli(*RUN)
    done = cli("cost", "--price", "3600", "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)["data"]
    [job] = data["jobs"]
    assert (job["images"], job["state"], job["endpoint_id"]) == (2, "DONE", "local")
    assert job["execution_s"] > 0
    assert job["waited_s"] is not None
    assert data["at_least_usd"] == pytest.approx(job["execution_s"])
    assert data["price"]["source"] == "from --price"
    table = cli("cost", "--price", "3600")
    assert table.lines[0].split() == ["JOB", "STATE", "IMAGES", "EXECUTION", "WAITED", "AT", "LEAST"]
    assert "1 jobs, 2 images: at least $" in table.lines[-1]
    assert "start ≤ $" in table.lines[-1]


@pytest.mark.usefixtures("runpod_emulator")
def test_without_a_price_it_says_how_to_give_one(cli, rest):
    del rest.answers["/catalog/gpus"]
    cli(*RUN)
    done = cli("cost")
    assert "s of GPU time" in done.lines[-1]
    assert "pass --price USD" in done.err


@pytest.mark.usefixtures("runpod_emulator")
def test_the_catalogues_price_comes_with_its_date_and_the_bill_beside_it(cli, rest):
    cli(*RUN)
    done = cli("cost")
    told = done.lines[-2:]
    assert "price $1.10/h RTX 4090 in RunPod's catalogue (unconfirmed), 20" in told[0]
    assert "idle ≤ $0.0092 a worker" in told[0]
    assert told[1] == (
        "billed by RunPod for the endpoint, all of its jobs, 2026-11-24 to 2026-11-25: $8.90 "
        "(gpu $7.50, disk $0.40, fee $1.00)"
    )
    assert {request.headers["Authorization"] for request in rest.seen} == {f"Bearer {LOCAL_API_KEY}"}


@pytest.mark.usefixtures("runpod_emulator")
def test_an_api_that_says_no_is_said_and_no_more(cli, rest):
    rest.answers["/serverless/local"] = 403
    cli(*RUN)
    done = cli("cost", "--price", "1")
    assert done.code == 0
    assert "not told by RunPod" in done.err
    assert "403" in done.err


@pytest.mark.usefixtures("runpod_emulator")
def test_a_run_says_its_cost_in_the_same_words_where_the_profile_has_a_price(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "config.toml"))
    store_profile(Profile(price_per_hour_usd=1.1, price_as_of="2026-11-20"))
    done = cli(*RUN)
    [said] = [line for line in done.err.splitlines() if line.startswith("  cost at least $")]
    assert said.endswith("an image · price $1.10/h from profile default, 2026-11-20")


def test_a_datasets_jobs_are_read_from_its_manifest(cli):
    folder = Path("dataset")
    folder.mkdir()
    lines = [
        {"schema": "job/1", "task": "a", "index": 0, "job_id": "j1"},
        {"schema": "image/1", "task": "a", "index": 0, "sample": 0, "job_id": "j1"},
        {"schema": "image/1", "task": "a", "index": 0, "sample": 1, "job_id": "j1"},
        {"schema": "done/1", "task": "a", "index": 0, "job_id": "j1", "execution_s": 7.5, "queue_s": 1.0, "gpu_s": 7.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(text + '{"schema": "image')
    done = cli("cost", "dataset", "--price", "1.2", "--json")
    data = json.loads(done.out)["data"]
    assert (data["images"], data["execution_s"], data["waited_s"]) == (2, 7.5, 1.0)
    assert data["at_least_usd"] == pytest.approx(0.0025)


def test_what_is_no_job_and_no_time_is_refused(cli):
    assert "has no job nothing" in cli("cost", "nothing").err
    assert "no time such as 12h" in cli("cost", "--since", "soon").err
    assert cli("cost").lines == [
        "0 jobs, 0 images: at least 0 s of GPU time (execution 0 s + start unknown + idle unknown)"
    ]


def test_the_parts_are_named_and_never_called_a_total():
    text = cost_text(GpuTime(execution_s=3600, waited_s=600, idle_s=30, images=1000), PRICE)
    assert text == (
        "at least $1.20 (execution $1.20 + start ≤ $0.20 + idle ≤ $0.0100 a worker) · $0.0012 an image · "
        "price $1.20/h from --price, 2026-11-24"
    )
    assert "total" not in text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "$0.00"), (0.00312, "$0.0031"), (0.5, "$0.50"), (1234.5, "$1,234.50")]
)
def test_small_amounts_keep_their_digits(amount, text):
    assert usd(amount) == text


def test_the_price_is_that_of_the_cheapest_gpu_that_a_worker_may_get():
    facts = EndpointFacts(pools=("ADA_24", "AMPERE_48"), gpu_count=2)
    prices = [
        GpuPrice(name="A6000", pool="AMPERE_48", per_hour_usd=1.3),
        GpuPrice(name="RTX 4090", pool="ADA_24", per_hour_usd=1.1),
        GpuPrice(name="A4000", pool="AMPERE_16", per_hour_usd=0.5),
    ]
    price = catalogue_price(facts, prices, as_of="2026-11-24")
    assert (price.per_hour_usd, price.as_of) == (2.2, "2026-11-24")
    assert "2 x RTX 4090" in price.source
    assert catalogue_price(EndpointFacts(pools=("NEW",)), prices, as_of="") is None
