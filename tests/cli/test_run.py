"""`runpod-comfy run`."""

import hashlib
import json
import signal
from pathlib import Path

import pytest
from PIL import Image

from runpod_comfy.emulator.faults import Fault, Status
from runpod_comfy.emulator.jobs import JobState

TEMPLATE = "portrait/workflow.json.jinja"
PHOTOS = ["portrait/astronaut.jpg", "portrait/chelsea.jpg"]
SLOW = """{
  "1": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
  "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 60, "steps": 600, "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}}
}"""


def workflow_in(path):
    """The workflow that ComfyUI has stored in a PNG."""
    with Image.open(path) as picture:
        return json.loads(picture.text["prompt"])


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_paths_go_to_stdout_and_everything_else_to_stderr(cli):
    done = cli("run", TEMPLATE, *PHOTOS, "-n", 4, "-b", 2)
    assert done.code == 0
    assert len(done.lines) == 4
    assert all(workflow_in(line) for line in done.lines)
    assert "LOCAL STAND-IN" in done.err
    assert "2 photos" in done.err
    assert "→ next: runpod-comfy run" in done.err


def test_json_is_one_envelope_with_everything_about_each_image(cli):
    done = cli("run", TEMPLATE, *PHOTOS, "-n", 2, "-b", 2, "--seed", 2**64 - 1, "--json")
    [line] = done.lines
    envelope = json.loads(line)
    assert (envelope["schema"], envelope["ok"], envelope["error"]) == ("run/1", True, None)
    assert envelope["data"]["seeds"] == [2**64 - 1]
    for image in envelope["data"]["images"]:
        data = Path(image["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (image["size_bytes"], image["sha256"])
    assert "next:" not in done.err


def test_nothing_is_ever_overwritten(cli):
    first, again = (cli("run", TEMPLATE, PHOTOS[0], "--seed", 1, "-q") for _ in range(2))
    assert first.lines != again.lines
    assert len(list((first.folder / "out").rglob("*.png"))) == 2


def test_quiet_says_nothing_but_that_the_pictures_are_not_real(cli):
    assert cli("run", TEMPLATE, PHOTOS[0], "-q", "--local").err == ""
    assert "LOCAL STAND-IN" in cli("run", TEMPLATE, PHOTOS[0], "-q").err


def test_variables_reach_the_workflow(cli):
    Path("prompt.txt").write_text('a "noir" {{ portrait }}\n')
    done = cli("run", TEMPLATE, PHOTOS[0], "--var", "prompt=@prompt.txt", "--var", "steps=3", "-q", "--local")
    values = [value for node in workflow_in(done.lines[0]).values() for value in node["inputs"].values()]
    assert any(str(value).endswith('a "noir" {{ portrait }}') for value in values)
    assert 3 in values


# -- where it runs -----------------------------------------------------------------------------------------------------


def test_an_endpoint_is_one_argument_more(cli, runpod_emulator, monkeypatch):
    monkeypatch.delenv("RUNPOD_ENDPOINT_ID")
    done = cli("run", TEMPLATE, *PHOTOS, "--endpoint", "local", "-n", 2)
    assert (done.code, len(done.lines)) == (0, 2)
    assert "LOCAL STAND-IN" not in done.err
    assert len(runpod_emulator.jobs()) == 1


@pytest.mark.usefixtures("runpod_emulator")
def test_the_environment_names_the_endpoint_and_is_named(cli):
    assert "RunPod endpoint local (RUNPOD_ENDPOINT_ID)" in cli("run", TEMPLATE, PHOTOS[0]).err


def test_a_comfyui_server_is_one_argument_more(cli, stand_in):
    done = cli("run", TEMPLATE, PHOTOS[0], "--comfyui", stand_in.url)
    assert (done.code, len(done.lines)) == (0, 1)


def test_too_few_photos_are_counted(cli):
    Path("two.jinja").write_text(SLOW.replace("input_images[0]", "input_images[1]"))
    done = cli("run", "two.jinja", PHOTOS[0])
    assert done.code == 2
    assert "uses input_images[1], and 1 input image was given" in done.err


def test_whole_batches_are_announced(cli):
    done = cli("run", TEMPLATE, PHOTOS[0], "-n", 3, "-b", 2, "--local")
    assert "3 sample(s) in batches of 2 make 4 images" in done.err


def test_two_places_are_one_too_many(cli):
    done = cli("run", TEMPLATE, "--endpoint", "a", "--comfyui", "http://127.0.0.1:1")
    assert done.code == 2
    assert "both named" in done.err


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["missing.jinja"], 2, "missing.jinja"),
        ([TEMPLATE, "missing.jpg"], 2, "there is no such file"),
        ([TEMPLATE, "nothere*.jpg"], 2, "the pattern nothere*.jpg matched nothing"),
        ([TEMPLATE, "--image", "nothere*.jpg"], 2, "the pattern nothere*.jpg matched nothing"),
        ([*PHOTOS, TEMPLATE], 2, "astronaut.jpg is a picture; the template comes first"),
        ([f"./{PHOTOS[0]}", "-n", "2", TEMPLATE], 2, "is a picture; the template comes first"),
        ([PHOTOS[0], "--object-info", TEMPLATE], 2, "carries no workflow"),
        ([TEMPLATE, "-n", "0"], 2, "num-samples"),
        ([TEMPLATE, "--var", "prompt"], 2, "is not name=value"),
        ([TEMPLATE, PHOTOS[0], "--var", "promt=a"], 2, "promt"),
        ([TEMPLATE, PHOTOS[0], "--stepps", "3"], 2, "--stepps"),
        (["workflow_ui.json"], 2, "Export"),
        (["latin1.jinja"], 2, "UTF-8"),
        ([TEMPLATE, PHOTOS[0], "--endpoint", "a"], 3, "RUNPOD_API_KEY"),
        ([TEMPLATE, PHOTOS[0], "--comfyui", "http://127.0.0.1:9"], 1, "did not answer"),
        ([TEMPLATE, PHOTOS[0], "-o", "latin1.jinja"], 2, "--output-dir latin1.jinja"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_says_what_to_do(args, code, words, cli, monkeypatch):
    folder = Path.cwd()
    monkeypatch.setenv("HOME", str(folder))
    (folder / "workflow_ui.json").write_text('{"nodes": [], "links": [], "version": 0.4}')
    (folder / "latin1.jinja").write_bytes('{"é": 1}'.encode("latin-1"))
    done = cli("run", *args)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert not done.lines


def test_a_failure_in_json_has_a_stable_code(cli):
    envelope = json.loads(cli("run", "missing.jinja", "--json").out)
    assert (envelope["ok"], envelope["error"]["code"]) == (False, "template_error")


def test_a_wrong_key_is_a_matter_of_credentials(cli, runpod_emulator):
    runpod_emulator.platform.faults.add(Fault("run", Status(401)))
    assert cli("run", TEMPLATE, PHOTOS[0]).code == 3


def test_a_job_that_is_too_slow_is_cancelled_and_told_by_its_code(cli, runpod_emulator):
    Path("slow.jinja").write_text(SLOW)
    done = cli("run", "slow.jinja", PHOTOS[0], "--timeout", 1)
    assert done.code == 4
    assert [job.state for job in runpod_emulator.jobs()] == [JobState.CANCELLED]


# -- through a real shell ----------------------------------------------------------------------------------------------


def test_an_unquoted_glob_after_one_flag_works(shell):
    process = shell(f"runpod-comfy run {TEMPLATE} --image portrait/*.jpg -n 2 -b 2 --json -q")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    graph = workflow_in(json.loads(out)["data"]["images"][0]["path"])
    [loader] = [node for node in graph.values() if node["class_type"] == "LoadImagesFromDir"]
    assert "rcc-" in loader["inputs"]["directory"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_the_job_and_then_ends_the_command(number, code, shell, runpod_emulator):
    Path("slow.jinja").write_text(SLOW)
    process = shell(f"exec runpod-comfy run slow.jinja {PHOTOS[0]}")
    next(line for line in process.stderr if "started" in line)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert [job.state for job in runpod_emulator.jobs()] == [JobState.CANCELLED]
    assert "was cancelled" in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_does_not_end_what_is_paid_for(shell):
    process = shell(f"set -o pipefail; runpod-comfy run {TEMPLATE} {PHOTOS[0]} -n 4 -b 2 | head -1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 1
    assert len(list(Path("out").rglob("*.png"))) == 4


@pytest.mark.parametrize("away", [">/dev/full", "2>/dev/full", ">&-", "<&-", "2>&-", ">&- 2>&- <&-"])
def test_a_stream_that_cannot_be_written_does_not_end_what_is_paid_for(away, shell):
    process = shell(f"runpod-comfy run {TEMPLATE} {PHOTOS[0]} -n 2 -b 1 {away}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert len(list(Path("out").rglob("*.png"))) == 2


def test_a_password_in_an_address_is_not_shown(cli):
    done = cli("run", TEMPLATE, PHOTOS[0], "--comfyui", "http://bob:hunter2@127.0.0.1:9")
    assert "127.0.0.1:9" in done.err
    assert "hunter2" not in done.err


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C"}])
def test_no_terminals_encoding_ends_the_command(env, shell):
    process = shell(f"runpod-comfy run {TEMPLATE} {PHOTOS[0]} --var 'prompt=ein Füchslein 🦊'", env=env)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "next:" in err


def test_on_a_terminal_one_line_is_drawn_again_and_again(shell):
    line = f"script -qec 'runpod-comfy run {TEMPLATE} {PHOTOS[0]} -n 4 -b 2' /dev/null"
    process = shell(line, env={"TERM": "xterm", "CI": ""})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    assert "\x1b[" in out
    assert out.count(".png") >= 4
