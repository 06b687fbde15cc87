"""`runpod-comfy export` and `runpod-comfy pick`."""

import json
import re
import shlex
from pathlib import Path

import pytest

from runpod_comfy.cli import export as export_module
from runpod_comfy.cli import pick as pick_module

TEMPLATE = """{
  "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": {{ batch_size }}, "color": 1}},
  "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "{{ prompt }}"}}
}"""


@pytest.fixture(autouse=True)
def _dataset(cli, folder):
    (folder / "t.jinja").write_text(TEMPLATE)
    (folder / "rows.csv").write_text("id,prompt\na,a mug\nb,a cup\n")
    assert cli("batch", "t.jinja", "rows.csv", "-o", "dataset", "--local", "-n", 2).code == 0
    run_id = json.loads(Path("dataset/run.json").read_text())["id"]
    for name, stars in (("selection", {"a": 1, "b": 4}), ("mine", {"a": 5}), ("theirs", {"b": 2})):
        images = [{"task": task, "sample": 1, "stars": count} for task, count in stars.items()]
        Path(f"{name}.json").write_text(json.dumps({"schema": "selection/1", "run": run_id, "images": images}))


def examples(module):
    return re.findall(r"^  runpod-comfy (.+)$", module.command.epilog, re.MULTILINE)


@pytest.mark.parametrize("example", [*examples(export_module), *examples(pick_module)])
def test_the_examples_of_the_help_run(example, cli):
    done = cli(*shlex.split(example))
    assert done.code == 0, done.err
    assert Path(done.lines[-1].replace("00000.tar", "")).exists()


def test_without_a_folder_the_export_stands_beside_the_dataset(cli):
    done = cli("export", "kohya", "dataset/")
    assert done.lines == ["dataset-kohya"]
    assert Path("dataset-kohya/000000_0.txt").read_text() == "a mug\n"


def test_from_within_the_dataset_the_export_stands_beside_it_too(cli, folder, monkeypatch):
    monkeypatch.chdir(folder / "dataset")
    assert cli("export", "csv", ".").lines == [str(folder / "dataset-csv" / "images.csv")]


def test_hf_brings_the_folder_up_to_date_and_shows_the_upload(cli):
    done = cli("export", "hf", "dataset", "--caption", "{{ prompt }}!")
    assert "hf upload YOUR-NAME/dataset dataset . --repo-type dataset --exclude" in done.err
    texts = [json.loads(line)["text"] for line in Path("dataset/metadata.jsonl").read_text().splitlines()]
    assert texts == ["a mug!", "a mug!", "a cup!", "a cup!"]
    # A batch that goes on keeps the caption.
    Path("rows.csv").write_text("id,prompt\na,a mug\nb,a cup\nc,a jar\n")
    cli("batch", "t.jinja", "rows.csv", "-o", "dataset", "--local", "-n", 2)
    assert '"a jar!"' in Path("dataset/metadata.jsonl").read_text()


def test_as_json_it_tells_path_and_count(cli):
    done = cli("export", "csv", "dataset", "--json")
    assert json.loads(done.out)["data"] == {"path": "dataset-csv/images.csv", "images": 4, "warnings": []}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["export", "hf", "dataset", "--strip-metadata"], "need --to"),
        (["export", "csv", "portrait"], "is no dataset"),
        (["export", "csv", "dataset", "--to", "portrait"], "exists already"),
        (["export", "csv", "dataset", "--caption", "style"], "There are: height, id, prompt"),
        (["export", "jpg", "dataset"], "is not one of"),
        (["pick", "dataset", "rows.csv"], "is not JSON"),
        (["pick", "dataset", "selection.json", "--stars", "5"], "None of the 0 chosen"),
        (["pick", "dataset"], "SELECTION"),
    ],
)
def test_what_cannot_be_done_says_why(args, words, cli):
    done = cli(*args)
    assert done.code == 2, done.err
    assert words in done.err


def test_a_picked_folder_is_exported_and_not_continued(cli):
    cli("pick", "dataset", "mine.json", "theirs.json", "--to", "chosen")
    assert cli("export", "kohya", "chosen").code == 0
    assert sorted(path.name for path in Path("chosen-kohya").glob("*.png")) == ["000000_1.png", "000001_1.png"]
    done = cli("batch", "t.jinja", "rows.csv", "-o", "chosen", "--local", "-n", 2)
    assert "was picked from another dataset" in done.err
