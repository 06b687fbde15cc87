"""`runpod-comfy doctor`: each planted fault is found by its name, in exactly one line; then the verdict."""

import inspect
import json
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from runpod_comfy import _loop
from runpod_comfy.cli.check import check_template
from runpod_comfy.cli.checkup.bundle import redacted
from runpod_comfy.cli.checkup.here import check_disk
from runpod_comfy.cli.checkup.inside import check_description, check_problems
from runpod_comfy.cli.checkup.place import check_clock
from runpod_comfy.dialects.description import read_description
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.emulator.faults import Fault, Status
from runpod_comfy.executors.local import LOCAL_API_KEY, LocalRunpod
from runpod_comfy.workflow.object_info import ObjectInfo
from runpod_comfy.workflow.template import WorkflowTemplate

KEY = "rpa_SECRET0123456789"
TEMPLATE = """{"1": {"class_type": "%s", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}}"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A folder for the profile and its key."""
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "config" / "config.toml"))
    (tmp_path / "config").mkdir()
    return tmp_path / "config"


@pytest.fixture
def runpod(monkeypatch):
    """RunPod at the seam: an endpoint `local` that says of its health, and the time, what a test wants."""
    planted = SimpleNamespace(health={"jobs": {}, "workers": {"idle": 1}}, headers={}, status=[200])

    async def answer(request):
        if request.path.endswith("/health"):
            return web.json_response(planted.health, headers=planted.headers, status=planted.status[0])
        return web.json_response({}, status=500)

    async def start():
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = _loop.run_sync(start)
    port = runner.addresses[0][1]
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "local")
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", f"http://127.0.0.1:{port}/v2")
    yield planted
    _loop.run_sync(runner.cleanup)


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint whose worker drives a ComfyUI that runs the nodes it lists and no others."""
    comfyui = ComfyUIStandIn(strict_nodes=True)
    _loop.run_sync(comfyui.start)
    local = LocalRunpod(comfyui_url=comfyui.url)
    _loop.run_sync(local.start)
    monkeypatch.setenv("RUNPOD_API_KEY", LOCAL_API_KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "local")
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", local.settings.base_url)
    yield local
    _loop.run_sync(local.stop)
    _loop.run_sync(comfyui.stop)


def faults(done):
    """The names of the faults that a report shows, after looking at its form."""
    assert "Traceback" not in done.err
    shown = [line.split("✗ ")[1] for line in done.lines if "✗" in line]
    ready = "Everything is ready."
    wanted = f"{len(shown)} thing{'' if len(shown) == 1 else 's'} to fix. Everything else is ready." if shown else ready
    assert done.lines[-1] == wanted
    assert done.code == bool(shown)
    return [next(name for name in NAMES if line.startswith(name)) for line in shown]


NAMES = (
    "config", "profile", "key file", "key", "endpoint", "rate limit", "workers", "clock", "ledger", "comfyui", "nodes",
    "environment", "proxy", "base url", "models", "packages", "template",
)  # fmt: skip


def test_a_healthy_place_is_one_verdict(cli, endpoint):
    done = cli("doctor")
    assert faults(done) == []
    assert "checks: packages, config, ledger, disk, environment, key, endpoint" in done.lines[0]
    assert len(done.lines) == 2
    [job] = endpoint.jobs()  # a worker is up, and was asked what it has
    assert str(job.state) == "COMPLETED"


def test_where_nothing_is_named_the_stand_in_is_ready(cli):
    done = cli("doctor")
    assert faults(done) == []
    assert "the local stand-in runs" in done.out


def plant_broken_config(config):
    (config / "config.toml").write_text("[profiles.default\nendpoint = 1")


def plant_unknown_profile(monkeypatch):
    monkeypatch.setenv("RUNPOD_COMFY_PROFILE", "hme")


def plant_open_key_file(config):
    keys = config / "credentials.toml"
    keys.write_text(f'[default]\napi_key = "{KEY}"\n')
    keys.chmod(0o644)


def plant_no_key(monkeypatch):
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "local")


def plant_refused_key(runpod):
    runpod.status[0] = 401


def plant_unknown_endpoint(endpoint, monkeypatch):
    assert endpoint
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "nowhere")


def plant_rate_limit(endpoint):
    endpoint.platform.faults.add(Fault("health", Status(429)))


def plant_unhealthy_workers(runpod):
    runpod.health["workers"] = {"unhealthy": 2}


def plant_throttled_workers(runpod):
    runpod.health["workers"] = {"throttled": 2}


def plant_no_workers(runpod):
    runpod.health.update(workers={}, jobs={"inQueue": 4})


def plant_maximum_of_no_workers(runpod, rest):
    runpod.health["workers"] = {}
    rest.answers["/serverless/local"]["workers"]["max"] = 0


def plant_wrong_clock(runpod):
    runpod.health["workers"] = {"initializing": 1}
    runpod.headers["Date"] = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)


def plant_ledger_that_is_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNPOD_COMFY_LEDGER", str(tmp_path))


def plant_absent_comfyui(monkeypatch):
    monkeypatch.setenv("COMFYUI_URL", "http://127.0.0.1:9")


def plant_two_places(monkeypatch):
    monkeypatch.setenv("COMFYUI_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "abc")


def plant_socks_proxy(monkeypatch):
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "abc")
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("https_proxy", "socks5://me:secret@proxy:1080")


def plant_absent_emulator(monkeypatch):
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "abc")
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", "http://127.0.0.1:9/v2")


def plant_old_package(monkeypatch, tmp_path):
    info = tmp_path / "site" / "aiohttp-3.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aiohttp\nVersion: 3.1\n")
    monkeypatch.syspath_prepend(str(info.parent))


@pytest.mark.parametrize(
    ("name", "plant", "fix"),
    [
        ("config", plant_broken_config, "mv "),
        ("profile", plant_unknown_profile, "runpod-comfy init --profile hme"),
        ("key file", plant_open_key_file, "chmod 600"),
        ("key", plant_no_key, "runpod-comfy init"),
        ("key", plant_refused_key, "export RUNPOD_API_KEY"),
        ("endpoint", plant_unknown_endpoint, "export RUNPOD_ENDPOINT_ID"),
        ("rate limit", plant_rate_limit, "wait a minute"),
        ("workers", plant_unhealthy_workers, "runpod-comfy logs"),
        ("workers", plant_throttled_workers, "allow more GPU kinds"),
        ("workers", plant_no_workers, "set max workers"),
        ("workers", plant_maximum_of_no_workers, "set max workers"),
        ("clock", plant_wrong_clock, "sudo timedatectl"),
        ("ledger", plant_ledger_that_is_a_folder, "export RUNPOD_COMFY_LEDGER"),
        ("comfyui", plant_absent_comfyui, "python main.py --listen --port 9"),
        ("environment", plant_two_places, "unset COMFYUI_URL"),
        ("proxy", plant_socks_proxy, "unset HTTPS_PROXY"),
        ("base url", plant_absent_emulator, "unset RUNPOD_ENDPOINT_BASE_URL"),
        ("packages", plant_old_package, "pip install --upgrade aiohttp"),
    ],
)
def test_a_planted_fault_is_found_by_name_in_one_line(name, plant, fix, cli, request):
    plant(**{each: request.getfixturevalue(each) for each in inspect.signature(plant).parameters})
    done = cli("doctor")
    assert faults(done) == [name]
    mended_by = next(after for line, after in zip(done.lines, done.lines[1:], strict=False) if "✗" in line)
    assert mended_by.strip().startswith(fix)
    assert KEY not in done.out + done.err
    assert "secret" not in done.out + done.err


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(("node", "name"), [("EmptyImage", []), ("EmptyImag", ["nodes"])])
def test_the_nodes_of_a_template_are_compared_with_those_that_are_there(node, name, cli):
    Path("t.json").write_text(TEMPLATE % node)
    assert faults(cli("doctor", "--template", "t.json")) == name


def test_a_missing_model_is_named_with_where_models_belong():
    one_lora = {"input": {"required": {"lora_name": [["a.safetensors"]]}}, "output": ["MODEL"], "output_node": True}
    template = WorkflowTemplate.from_workflow({"1": {"class_type": "Lora", "inputs": {"lora_name": "b.safetensors"}}})
    [found] = check_problems(check_template(template, ObjectInfo({"Lora": one_lora}, source="there")), "there")
    assert (found.check, found.state) == ("models", "fault")
    assert "b.safetensors" in found.text
    assert "/runpod-volume/models/" in found.fix


def test_a_full_disk_is_a_fault(tmp_path):
    [found] = check_disk(tmp_path, free_bytes=lambda _: 300 * 1024**2)
    assert (found.check, found.state) == ("disk", "fault")
    assert "only 300 MB are free" in found.text


def test_models_in_the_wrong_folder_of_a_volume_are_named_with_the_move():
    told = {"node_classes": [], "misplaced_models": ["/runpod-volume/checkpoints"], "failed_custom_nodes": ["broken"]}
    nodes, volume = check_description(read_description(told, place="here"))
    assert (nodes.state, volume.state) == ("fault", "fault")
    assert "mv /runpod-volume/checkpoints /runpod-volume/models/checkpoints" in volume.fix


def test_a_clock_is_right_within_minutes_and_unknown_where_nothing_is_told():
    now = datetime(2026, 11, 24, tzinfo=UTC)
    states = [check_clock(now + timedelta(minutes=off), now).state for off in (-10, -1, 1, 10)]
    assert states == ["fault", "ok", "ok", "fault"]
    assert check_clock(None, now).state == "skipped"


def test_no_worker_is_started_without_a_word(cli, runpod):
    runpod.health["workers"] = {"initializing": 0}
    done = cli("doctor")
    assert faults(done) == []
    assert "none is up (--end-to-end starts one)" in done.out


def test_one_picture_is_made_from_end_to_end(cli, endpoint):
    done = cli("doctor", "--end-to-end", "--json")
    data = json.loads(done.out)["data"]
    assert data["ready"]
    [made] = [each for each in data["findings"] if each["check"] == "end to end"]
    assert made["text"].startswith("one image in ")
    assert len(endpoint.jobs()) == 2


def test_a_fault_is_an_envelope_too(cli, monkeypatch):
    plant_no_key(monkeypatch)
    done = cli("doctor", "--json")
    envelope = json.loads(done.out)
    assert (done.code, envelope["ok"], envelope["error"]["code"]) == (1, False, "not_ready")
    assert envelope["data"]["verdict"] == "1 thing to fix. Everything else is ready."


def test_the_bundle_holds_no_key_wherever_it_came_from(cli, config, monkeypatch, runpod):
    assert runpod
    (config / "credentials.toml").write_text('[default]\napi_key = "storedkey123"\n')
    (config / "credentials.toml").chmod(0o600)
    (config / "config.toml").write_text('[profiles.default]\nendpoint = "abc"\napi_key = "misplaced9"\n')
    home = config / "home"
    (home / ".runpod").mkdir(parents=True)
    (home / ".runpod" / "config.toml").write_text('[default]\napi_key = "runpodskey77"\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "bucketsecret55")
    monkeypatch.setenv("RUNPOD_COMFY_NOTE", f"{KEY} storedkey123")
    monkeypatch.setenv("https_proxy", "http://me:proxypassword@proxy:3128")
    done = cli("doctor", "--bundle", "report.zip")
    assert "report: report.zip" in done.err
    with zipfile.ZipFile("report.zip") as file:
        text = "".join(file.read(name).decode() for name in file.namelist())
        assert set(file.namelist()) >= {"doctor.json", "environment.json", "config.toml", "jobs.json", "machine.json"}
    for secret in (KEY, "storedkey123", "misplaced9", "runpodskey77", "bucketsecret55", "proxypassword"):
        assert secret not in text, secret
    assert '"RUNPOD_API_KEY": "<set>"' in text
    again = cli("doctor", "--bundle", "report.zip")
    assert (again.code, "Name another file" in again.err) == (2, True)


def test_what_looks_like_a_key_is_not_passed_on_either():
    assert redacted("Authorization: Bearer abc.def-1, rpa_XYZ", set()) == "Authorization: <removed>, <removed>"


def test_a_token_in_an_address_is_not_passed_on():
    text = 'base_url = "https://host/v2?a=1&access_token=abc&b=2"'
    assert redacted(text, set()) == 'base_url = "https://host/v2?a=1&access_token=<removed>&b=2"'
