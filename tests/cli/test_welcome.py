"""`runpod-comfy` alone: what comes next, by what there is here."""

import signal
from pathlib import Path

import pytest

from runpod_comfy.cli.unfinished import continuing, under_way
from runpod_comfy.cli.welcome import Situation, look_around, welcome
from runpod_comfy.profiles import Profile, store_profile

ROWS = "color\n1\n-1\n"
TEMPLATE = """{"1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": {{ batch_size }},
"color": {{ color }}}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}}"""


def commands(seen):
    return [line.strip().split("  ")[0] for line in welcome(seen).splitlines() if line.startswith("  ")]


def test_in_an_empty_folder_the_example_comes_first(tmp_path):
    assert look_around(tmp_path) == Situation()
    assert commands(Situation())[:2] == ["runpod-comfy example", "runpod-comfy init"]


def test_each_state_has_its_next_commands(tmp_path, monkeypatch):
    (tmp_path / "my flow.json").touch()
    assert "runpod-comfy template create 'my flow.json'" in commands(look_around(tmp_path))
    (tmp_path / "a.json.jinja").touch()
    assert commands(look_around(tmp_path))[0] == "runpod-comfy run a.json.jinja"
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "config.toml"))
    store_profile(Profile(endpoint="abc"))
    seen = look_around(tmp_path)
    assert seen.place == "RunPod endpoint abc (profile default)"
    assert "runpod-comfy doctor" in commands(seen)
    (tmp_path / "config.toml").write_text("broken [")
    assert look_around(tmp_path).place.startswith("nothing yet")


def test_an_unfinished_dataset_comes_with_the_command_that_goes_on(cli):
    Path("t.jinja").write_text(TEMPLATE)
    Path("rows.csv").write_text(ROWS)
    command = ("batch", "t.jinja", "rows.csv", "-o", "my set", "--local")
    assert cli(*command).code == 1
    done = cli()
    assert "  runpod-comfy batch t.jinja rows.csv -o 'my set' --local" in done.out
    assert done.code == 0
    Path("rows.csv").write_text("color\n1\n")
    assert cli(*command).code in {0, 1}
    assert cli("batch", "t.jinja", "rows.csv", "-o", "whole", "--local").code == 0
    assert continuing(Path("whole")) is None


@pytest.mark.parametrize(
    "option", [["--comfyui", "http://me:hunter2@127.0.0.1:9"], ["--comfyui=http://me:hunter2@[::1]:9"]]
)
def test_the_command_in_a_datasets_folder_holds_no_password(option, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["runpod-comfy", "batch", "t.jinja", *option, "--var", "prompt=http://a@b"])
    under_way(tmp_path, "runpod-comfy")
    command = continuing(tmp_path)
    assert "hunter2" not in command
    assert "--comfyui" in command
    assert "prompt=http://a@b" in command


@pytest.mark.usefixtures("runpod_emulator")
def test_a_job_that_nobody_has_seen_the_end_of_is_told(cli, shell, runpod_emulator):
    Path("t.jinja").write_text(TEMPLATE.replace("EmptyImage", "FixtureSleep").replace('"width": 16', '"seconds": 30'))
    process = shell("exec runpod-comfy run t.jinja --var color=1 --no-check")
    while not runpod_emulator.jobs():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert "1 job(s) that nobody has seen the end of" in cli().out


@pytest.mark.parametrize(
    "text", ["rm -rf ~", "runpod-comfy batch x; rm -rf ~", "runpod-comfy batch 'x\x1b[2J'", "'", ""]
)
def test_a_folder_of_somebody_else_suggests_nothing_but_a_batch(text, tmp_path):
    (tmp_path / ".runpod-comfy").mkdir()
    (tmp_path / ".runpod-comfy" / "command").write_text(text)
    assert continuing(tmp_path) in {None, "runpod-comfy batch 'x;' rm -rf '~'"}


def test_three_commands_are_shown_and_no_more():
    seen = Situation(template="a", workflow="b", place="c", unfinished="runpod-comfy batch x", open_jobs=3)
    assert len(commands(seen)) == 3
    assert commands(seen)[0] == "runpod-comfy batch x"
