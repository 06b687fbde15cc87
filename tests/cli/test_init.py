import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_comfy.profiles import Profile, config_file, read_key, read_profile

KEY = "rpa_SECRET123"


@pytest.fixture(autouse=True)
def _own_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "config" / "config.toml"))


def test_a_checked_key_and_endpoint_serve_later_commands(shell, runpod_emulator, monkeypatch):
    for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID"):
        monkeypatch.delenv(name)
    init = shell(f"echo {KEY} | runpod-comfy init --endpoint local --key-stdin --json")
    out, err = init.communicate(timeout=60)
    assert init.returncode == 0, err
    assert json.loads(out)["data"]["endpoint"] == "local"
    assert KEY not in out + err
    assert (read_profile().endpoint, read_key("default")) == ("local", KEY)
    run = shell("runpod-comfy run portrait/workflow.json.jinja portrait/chelsea.jpg")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "RunPod endpoint local (profile default)" in err
    assert len(runpod_emulator.jobs()) == 1


def test_a_wrong_endpoint_is_not_stored(shell, runpod_emulator):
    process = shell(f"echo {KEY} | runpod-comfy init --endpoint nowhere --key-stdin")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "there is no endpoint 'nowhere'" in err
    assert not config_file().exists()
    assert not runpod_emulator.jobs()


def test_a_comfyui_server_needs_no_key_and_is_asked_whether_it_is_there(cli, stand_in):
    assert cli("init", "--profile", "home", "--comfyui", stand_in.url).code == 0
    assert read_profile("home") == Profile(name="home", comfyui=stand_in.url)
    run = cli("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg", "--profile", "home")
    assert f"ComfyUI at {stand_in.url} (profile home)" in run.err
    absent = cli("init", "--profile", "away", "--comfyui", "http://127.0.0.1:9")
    assert (absent.code, "did not answer" in absent.err) == (1, True)


def test_a_profile_that_is_not_there_is_named(cli):
    done = cli("run", "portrait/workflow.json.jinja", "--profile", "hme")
    assert done.code == 2
    assert "no profile 'hme'" in done.err


def test_where_nobody_can_be_asked_the_options_are_named(shell):
    process = shell("runpod-comfy init < /dev/null")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--key-stdin" in err


def test_at_a_terminal_it_asks_and_hides_the_key(folder):
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("runpod-comfy")), "init", "--no-check"]
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    for question, answer in ((b"(hidden)", KEY), (b"Endpoint id", "abc")):
        while question not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{answer}\n".encode())
    while b"next:" not in shown:
        shown += os.read(ours, 1000)
    assert process.wait(20) == 0
    os.close(ours)
    assert KEY.encode() not in shown
    assert (read_profile().endpoint, read_key("default")) == ("abc", KEY)
