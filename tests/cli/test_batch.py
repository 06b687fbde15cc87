"""`runpod-comfy batch`."""

import json
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

TEMPLATE = """{
  "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "{{ model | default('a') }}"}},
  "2": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": {{ batch_size }},
        "color": {{ color | default(0) }}}},
  "3": {"class_type": "FixtureSleep", "inputs": {"image": ["2", 0], "seconds": {{ seconds | default(0) }}, "steps": 1,
        "seed": 1}},
  "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "{{ prompt | default('p') }}"}}
}"""


@pytest.fixture(autouse=True)
def _data(folder):
    (folder / "t.jinja").write_text(TEMPLATE)
    (folder / "rows.csv").write_text("id;prompt;model;price\nm1;a red mug, big;b;9\nm2;a cup;a;7\nm3;a jar;b;8\n")


def lines(name="manifest.jsonl", folder="out"):
    return [json.loads(line) for line in Path(folder, name).read_text("utf-8").splitlines()]


def test_a_plan_is_shown_and_nothing_is_sent(cli, runpod_emulator):
    done = cli("batch", "t.jinja", "rows.csv", "--samples", 4, "--grid", "color=1,2", "-o", "out", "--dry-run")
    assert done.code == 0
    assert "3 rows x 2 cells x 4 samples = 24 images in 6 jobs" in done.err
    assert "prompt, model; unused: price" in done.err
    assert "2 model loads instead of 3" in done.err
    assert "Nothing was sent" in done.err
    assert not Path("out").exists()
    assert not runpod_emulator.jobs()


def test_rows_and_cells_become_a_dataset_and_the_same_command_goes_on(cli):
    command = ("batch", "t.jinja", "rows.csv", "-n", 2, "-b", 2, "--grid", "color=1,2", "-o", "out", "--local")
    first = cli(*command)
    assert (first.code, first.lines) == (0, ["out/manifest.jsonl"])
    made = lines("metadata.jsonl")
    assert len(made) == 12
    assert {(line["id"], line["color"]) for line in made} == {(i, c) for i in ("m1", "m2", "m3") for c in (1, 2)}
    assert all(len({line["seed"] for line in made if line["id"] == each}) == 1 for each in ("m1", "m2", "m3"))
    again = cli(*command)
    assert "nothing is left to do" in again.err
    assert len([line for line in lines() if line["schema"] == "job/1"]) == 6


@pytest.mark.usefixtures("runpod_emulator")
def test_the_plan_tells_what_the_rest_takes_by_what_was_made(cli):
    first = cli("batch", "t.jinja", "rows.csv", "-o", "out", "-y", "--var", "seconds=0.01")
    assert "estimate   not known" in first.err
    Path("rows.csv").write_text(Path("rows.csv").read_text() + "m4;a lid;b;8\n")
    again = cli("batch", "t.jinja", "rows.csv", "-o", "out", "--dry-run", "--price", "3600", "--var", "seconds=0.01")
    assert "s of execution, $0." in again.err
    assert "by 3 jobs of this folder" in again.err
    assert "disk       about" in again.err


def test_photos_that_the_template_does_not_read_are_told_before_anything_is_made(cli):
    Image.new("RGB", (8, 8)).save("me.png")
    Path("rows.csv").write_text("prompt,image\na mug,me.png\n")
    done = cli("batch", "t.jinja", "rows.csv", "-o", "out", "--local", "--dry-run")
    assert "1 row = 1 image" in done.err
    assert "the rows name 1 photo(s), and t.jinja reads none" in done.err
    assert "prompt; unused: image" in done.err
    Path("t.jinja").write_text(TEMPLATE.replace("default('p')", "default(input_images[0])"))
    done = cli("batch", "t.jinja", "rows.csv", "-o", "out", "--local", "--dry-run")
    assert "no effect" not in done.err
    assert "prompt, image (photos)" in done.err


def test_a_grid_needs_no_data(cli):
    done = cli("batch", "t.jinja", "--grid", "prompt=a,b", "-o", "out", "--local", "--json")
    assert json.loads(done.out)["data"]["images"] == 2


def test_failed_rows_are_summed_up_and_told_by_the_exit_code(cli):
    Path("rows.csv").write_text("color\n1\n-1\n-2\n")
    done = cli("batch", "t.jinja", "rows.csv", "-o", "out", "--local")
    assert done.code == 1
    assert "2 x job_failed" in done.err
    assert "goes on where this ended" in done.err
    assert len(lines("metadata.jsonl")) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rows.csv", "--grid", "colour=1"], "no variable"),
        (["rows.csv", "--grid", "color"], "not name=values"),
        (["rows.csv", "--grid", "color=1..4000"], "--max-images 12000"),
        (["rows.csv", "--grid", "color=1..9000", "--grid", "prompt=1..9000", "--grid", "seed=1..9000"], "--max-images"),
        ([], "neither DATA nor a --grid"),
        (["missing.csv"], "cannot be read"),
        (["bad.csv"], "--skip-bad"),
        (["rows.csv", "--max-cost", "1"], "--price"),
        (["rows.csv", "--seeds", "random"], "same, per-row, or a number"),
        (["rows.csv", "-o", "."], "holds other files"),
        (["rows.csv", "--name", "{sku}"], "no column or variable 'sku'"),
        (["rows.csv", "--name", "all"], "names every image the same"),
        (["rows.csv", "--grid", "prompt=fine,val", "--name", "{prompt}-{seed}"], "--allow-split-words"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(args, words, cli):
    Path("bad.csv").write_text("photo\nmissing.jpg\n")
    done = cli("batch", "t.jinja", *args, *([] if "-o" in args else ["-o", "out"]), "--local")
    assert done.code == 2, done.err
    assert words in done.err


@pytest.mark.usefixtures("runpod_emulator")
def test_many_images_are_not_started_without_a_yes(cli):
    done = cli("batch", "t.jinja", "rows.csv", "-o", "out", "--confirm-above", 2)
    assert done.code == 2
    assert "pass -y" in done.err
    assert cli("batch", "t.jinja", "rows.csv", "-o", "out", "--confirm-above", 2, "-y").code == 0


def test_a_folder_is_not_mixed_with_another_run(cli):
    cli("batch", "t.jinja", "rows.csv", "-o", "out", "--local")
    done = cli("batch", "t.jinja", "rows.csv", "-o", "out", "--local", "-n", 3)
    assert "was begun with num_samples=1" in done.err


def test_names_that_split_datasets_are_taken_if_asked_for(cli):
    Path("rows.csv").write_text("id,prompt\na,val\n")
    command = ("batch", "t.jinja", "rows.csv", "-o", "out", "--local", "--name", "{prompt}/{id}.png")
    assert cli(*command).code == 2
    assert cli(*command, "--allow-split-words").code == 0
    assert Path("out/images/val/a.png").is_file()
    assert "begun with name=" in cli(*command[:-2]).err


def test_the_folder_says_how_it_was_made_and_keeps_its_id(cli):
    command = ("batch", "t.jinja", "rows.csv", "-o", "out", "--local")
    cli(*command)
    before = json.loads(Path("out/run.json").read_text())
    assert Path("out", before["template_file"]).read_text() == TEMPLATE
    assert json.loads(Path("out/template/graph.json").read_text())["4"]["inputs"]["filename_prefix"] == "a red mug, big"
    Path("t.jinja").write_text(TEMPLATE + " ")
    Path("rows.csv").write_text(Path("rows.csv").read_text() + "m4;a lid;b;8\n")
    again = cli(*command)
    assert "t.jinja is not what out was begun with" in again.err
    after = json.loads(Path("out/run.json").read_text())
    assert after["id"] == before["id"]
    assert after["template_sha256"] != before["template_sha256"]


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def images():
    return len(list(Path("out").rglob("*.png")))


@pytest.mark.usefixtures("runpod_emulator")
def test_after_a_kill_the_same_command_loses_nothing_and_pays_for_nothing_twice(shell):
    Path("rows.csv").write_text("color\n" + "\n".join(map(str, range(30))) + "\n")
    command = "exec runpod-comfy batch t.jinja rows.csv --var seconds=0.02 -o out -y -n 4 -b 2 --jobs 4"
    for at_least in (10, 40):
        process = shell(command)
        wait_until(lambda wanted=at_least: images() >= wanted)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    process = shell(command)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    made = lines("metadata.jsonl")
    assert len(made) == len({(line["row"], line["sample"]) for line in made}) == 120
    whole = [line for line in lines() if line["schema"] == "batch/1"]
    assert len(whole) == len({(line["task"], line["batch"]) for line in whole}) == 60
    # A job that was under way is read to its end; at most its batches that nobody can read any more are made again.
    jobs = [line for line in lines() if line["schema"] == "job/1"]
    assert len(jobs) <= 30 + 2 * 4


def test_ctrl_c_cancels_what_runs_and_keeps_what_there_is(shell, runpod_emulator):
    Path("rows.csv").write_text("color\n" + "\n".join(map(str, range(30))) + "\n")
    process = shell("exec runpod-comfy batch t.jinja rows.csv --var seconds=0.1 -o out -y --jobs 3")
    wait_until(lambda: images() >= 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "are kept in out" in err
    assert "Traceback" not in err
    assert {str(job.state) for job in runpod_emulator.jobs()} <= {"COMPLETED", "CANCELLED"}
    assert len(lines("metadata.jsonl")) == images()
