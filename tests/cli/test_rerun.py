"""`runpod-comfy rerun`: the same picture again, or with one thing changed."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from runpod_comfy.dataset.reference import Reference
from runpod_comfy.workflow.embedded import read_embedded

TEMPLATE = """{
  "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 128, "batch_size": {{ batch_size }}}},
  "2": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "positive": ["5", 0], "negative": ["5", 0],
        "latent_image": ["1", 0], "seed": {{ seed }}, "steps": {{ steps | default(20) }}, "cfg": {{ cfg | default(7) }},
        "sampler_name": "euler", "scheduler": "normal", "denoise": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "p_{{ seed }}"}},
  "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
  "5": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "{{ prompt | default('fox') }}"}},
  "6": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["4", 2]}}
}"""
LARGEST = 2**64 - 1


@pytest.fixture(autouse=True)
def _template(folder):
    (folder / "t.jinja").write_text(TEMPLATE)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Where the dataset is kept: tests that need one take a copy."""
    return tmp_path_factory.mktemp("made") / "out"


@pytest.fixture
def dataset(cli, made_once):
    """Two rows of five images in batches of two; the second row's first seed is the largest there is."""
    Path("rows.jsonl").write_text(f'{{"id": "a", "prompt": "a mug"}}\n{{"id": "b", "seed": {LARGEST}, "cfg": 3}}\n')
    if made_once.exists():
        shutil.copytree(made_once, "out")
        return Path("out")
    done = cli("batch", "t.jinja", "rows.jsonl", "-n", 5, "-b", 2, "-o", "out", "--local")
    assert done.code == 0, done.err
    shutil.copytree("out", made_once)
    return Path("out")


def rerun(cli, *args):
    done = cli("rerun", *args, "--local", "--json", "-o", "again")
    return done, json.loads(done.out)["data"]


def graph(path):
    return read_embedded(Path(path))


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize("what", ["out#000001_3", "out#1_3", "out/images/000/000001_3.png"])
def test_an_image_of_a_dataset_is_made_again_to_the_last_pixel(what, cli):
    done, data = rerun(cli, what)
    assert done.code == 0, done.err
    [image] = data["images"]
    assert image["comparison"]["same_pixels"], (image["comparison"], done.err)
    assert Path(image["path"]).name == "000001_3.png"
    assert image["seed"] == 0  # the second batch's: seeds count up and begin again
    assert "1 image(s) again as they were, of 2 in whole batches" in done.err
    assert "identical" in done.err
    # The template's own seed is that of the job's first batch.
    assert graph(image["path"])["3"]["inputs"]["filename_prefix"] == f"p_{LARGEST}"


@pytest.mark.usefixtures("dataset")
def test_a_row_is_made_again_in_one_job_with_its_seeds_however_large(cli):
    _, data = rerun(cli, "out#000001")
    assert len(data["job_ids"]) == 1
    assert [image["seed"] for image in data["images"]] == [LARGEST, LARGEST, 0, 0, 1, 1]
    assert all(image["comparison"]["same_pixels"] for image in data["images"])


@pytest.mark.usefixtures("dataset")
def test_images_of_one_batch_are_made_by_one_job(cli):
    _, data = rerun(cli, "out#000000_2", "out#000000_3", "out#000001_0")
    assert len(data["job_ids"]) == 2
    assert [Path(image["path"]).stem for image in data["images"]] == ["000000_2", "000000_3", "000001_0"]


@pytest.mark.usefixtures("dataset")
def test_a_whole_dataset_is_made_again_several_jobs_at_once_and_a_failure_stops_no_other(cli):
    done, data = rerun(cli, "out", "--var", "steps=9")
    assert done.code == 0, done.err
    assert [Path(image["original"]).stem for image in data["images"]] == [
        f"00000{r}_{s}" for r in "01" for s in range(6)
    ]
    assert {graph(image["path"])["2"]["inputs"]["steps"] for image in data["images"]} == {9}
    lines = Path("out/manifest.jsonl").read_text()
    Path("out/manifest.jsonl").write_text(lines.replace('"cfg":3', '"cfg":-1'))  # its graph is refused
    done, data = rerun(cli, "out")
    assert done.code == 1
    assert len(data["images"]) == 6
    assert "out/images/000/000001_0.png: The worker failed" in done.err


@pytest.mark.usefixtures("dataset")
def test_much_is_not_started_without_a_yes(cli, runpod_emulator):
    text = Path("out/manifest.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines() if '"image/1"' in line and '"index":0' in line]
    rows = [{**line, "index": row, "task": str(row)} for row in range(60) for line in lines]
    Path("out/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    done = cli("rerun", "out")
    assert (done.code, runpod_emulator.jobs()) == (2, [])
    assert "360 images are more than 200: pass -y" in done.err


@pytest.mark.usefixtures("dataset")
def test_one_thing_is_changed_and_all_else_is_as_it_was(cli):
    done, data = rerun(cli, "out#000001_1", "--var", "cfg=9")
    [image] = data["images"]
    assert image["comparison"] is None
    assert "with cfg changed" in done.err
    before, now = graph("out/images/000/000001_1.png"), graph(image["path"])
    assert (before["2"]["inputs"].pop("cfg"), now["2"]["inputs"].pop("cfg")) == (3, 9)
    assert before == now


@pytest.mark.usefixtures("dataset")
def test_the_rest_of_a_batch_is_kept_where_that_is_asked_for(cli):
    _, data = rerun(cli, "out#000001_1", "out#000000_3", "--all")
    assert [image["original"] for image in data["images"]] == [
        "out/images/000/000000_3.png",
        "out/images/000/000001_1.png",
        None,
        None,
    ]


@pytest.mark.usefixtures("dataset")
def test_another_seed_is_a_change_like_any_other(cli):
    _, data = rerun(cli, "out#000001", "--var", f"seed={LARGEST - 1}")
    assert [image["seed"] for image in data["images"]] == [LARGEST - 1] * 2 + [LARGEST] * 2 + [0] * 2


def test_an_image_alone_is_made_again_from_the_workflow_that_it_carries(cli, dataset):
    shutil.copy(dataset / "images/000/000001_1.png", "alone.png")
    shutil.rmtree(dataset)
    done, data = rerun(cli, "alone.png")
    assert done.code == 0, done.err
    [image] = data["images"]
    # The second of its batch, which the file does not say.
    assert image["comparison"]["same_pixels"], image
    assert "which of the 2 images of its batch it is, is not in the file" in done.err
    assert graph(image["path"])["2"]["inputs"]["seed"] == LARGEST
    _, data = rerun(cli, "alone.png", "--var", "cfg=9", "--var", "seed=7")
    assert len(data["images"]) == 2
    inputs = graph(data["images"][0]["path"])["2"]["inputs"]
    assert (inputs["cfg"], inputs["seed"]) == (9, 7)


@pytest.mark.usefixtures("dataset")
def test_a_template_that_has_changed_is_told_by_what_it_changed(cli):
    Path("t.jinja").write_text(TEMPLATE.replace("default(20)", "default(30)"))
    shutil.rmtree("out/template", ignore_errors=True)
    done, data = rerun(cli, "out#000001_0")
    assert not data["images"][0]["comparison"]["same_pixels"]
    assert "2 KSampler.steps: 20 → 30" in done.err
    assert "has no copy of the template: t.jinja is used as it is now" in done.err


@pytest.mark.usefixtures("dataset")
def test_the_folders_own_copy_of_the_template_is_taken_before_the_one_that_has_changed(cli):
    Path("out/template").mkdir(exist_ok=True)
    Path("out/template/t.jinja").write_text(TEMPLATE)
    Path("t.jinja").write_text("{}")
    done, data = rerun(cli, "out#000001_0")
    assert data["images"][0]["comparison"]["same_pixels"]
    assert "t.jinja has changed since; the copy of then" in done.err


def test_photos_come_from_the_data_and_where_it_is_gone_they_must_be_given(cli):
    done = cli("batch", "portrait/workflow.json.jinja", "portrait", "-o", "faces", "--local")
    assert done.code == 0, done.err
    done, data = rerun(cli, "faces#000000")
    assert data["images"][0]["comparison"]["same_pixels"], done.err
    shutil.move("portrait", "elsewhere")
    Path("faces/template").mkdir(exist_ok=True)
    shutil.copy("elsewhere/workflow.json.jinja", "faces/template")
    done, _ = rerun(cli, "faces#000000")
    assert done.code == 2
    assert re.search("input photos are not stored: .*portrait.* is gone. Give them with --image", done.err)
    photo = min(Path("elsewhere").glob("*.jpg"))
    _, data = rerun(cli, "faces#000000", "--image", photo)
    assert data["images"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing.png", "There is no image nothing.png"),
        ("out#000007", "has no row 000007"),
        ("out#000001_9", "has no image 000001_9; the row has 0, 1"),
        ("portrait#000001", "is no dataset"),
        ("photo.jpg", "carries no workflow"),
    ],
)
@pytest.mark.usefixtures("dataset")
def test_what_cannot_be_made_again_says_why(what, words, cli):
    Image.new("RGB", (8, 8)).save("photo.jpg")
    done = cli("rerun", what, "--local")
    assert done.code == 2, done.err
    assert words in done.err


@pytest.mark.parametrize("change", ["batch_size=4", "seed=1.5", "cgf=3"])
@pytest.mark.usefixtures("dataset")
def test_a_change_that_cannot_be_is_refused(change, cli):
    assert cli("rerun", "out#000001_0", "--var", change, "--local").code == 2


def test_a_failed_row_has_nothing_to_make_again(cli):
    Path("rows.jsonl").write_text('{"cfg": 1}\n{"cfg": -5}\n')
    Path("t.jinja").write_text(TEMPLATE.replace('"euler"', '"{{ "euler" if cfg > 0 else "no such" }}"'))
    cli("batch", "t.jinja", "rows.jsonl", "-o", "out", "--local")
    done = cli("rerun", "out#000001", "--local")
    assert "has no image: it failed" in done.err


def test_a_row_is_named_by_the_folder_and_the_number_of_its_files():
    assert Reference.parse("a#b/out#000123_2") == Reference(folder=Path("a#b/out"), index=123, sample=2)
    assert Reference.parse("out#7") == Reference(folder=Path("out"), index=7)
    assert [Reference.parse(text) for text in ("out#", "#7", "out#7_", "out", "out#x")] == [None] * 5


@pytest.mark.usefixtures("dataset")
def test_an_image_whose_batch_is_not_all_there_keeps_its_place(cli):
    manifest = Path("out/manifest.jsonl")
    kept = [line for line in manifest.read_text().splitlines() if '"sample":3' in line and '"index":1' in line]
    manifest.write_text("\n".join(kept) + "\n")  # as where images were chosen and linked into a folder of their own
    _, data = rerun(cli, "out#000001_3")
    [image] = data["images"]
    assert image["comparison"]["same_pixels"]
    told = json.loads(kept[0])
    manifest.write_text(json.dumps({**told, "sample": 9}) + "\n")  # its number tells nothing: the pixels do
    _, data = rerun(cli, "out#000001_9")
    assert data["images"][0]["comparison"]["same_pixels"]


@pytest.mark.usefixtures("dataset")
def test_photos_and_template_are_those_that_the_lines_name(cli):
    shutil.copytree("portrait", "photos")
    manifest, run = Path("out/manifest.jsonl"), Path("out/run.json")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    told = [{**line, "photos": ["photos/gone.jpg"], "template_sha256": "1"} for line in lines]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in told))
    Path("out/template/deep").mkdir(parents=True, exist_ok=True)
    shutil.move("t.jinja", "out/template/deep/t.jinja")
    about = {"template_file": "template/deep/t.jinja", "template_sha256": "2"}
    run.write_text(json.dumps({**json.loads(run.read_text()), **about}))
    done, data = rerun(cli, "out#000001_0")
    assert data["images"][0]["comparison"]["same_pixels"], done.err  # it takes no photos
    assert "photos/gone.jpg is gone" in done.err
    assert "the template was another one when this was made" in done.err
    run.write_text(json.dumps({**json.loads(run.read_text()), "template_file": "../portrait/workflow.json.jinja"}))
    assert "is gone and out has no copy of it" in cli("rerun", "out#000001_0", "--local").err


def test_the_examples_in_the_help_run_as_written(cli):
    assert cli("batch", "portrait/workflow.json.jinja", "portrait", "--samples", 2, "-o", "dataset").code == 0
    assert cli("run", "portrait/workflow.json.jinja", "portrait").code == 0
    for verb in ("rerun", "sheet"):
        examples = [line.strip() for line in cli(verb, "--help").lines if line.startswith("    runpod-comfy ")]
        assert len(examples) == 3
        for example in examples:
            done = cli(*shlex.split(example)[1:])
            assert done.code == 0, (example, done.err)
