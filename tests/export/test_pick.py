import json
from importlib.resources import files

import jsonschema
import pytest

from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.export.pick import pick
from runpod_comfy.export.report import Request
from runpod_comfy.export.selection import Choice, chosen, read_selection
from runpod_comfy.export.source import read_source


def selection(path, *images, run=None):
    path.write_text(json.dumps({"schema": "selection/1", "run": run, "images": list(images)}))
    return path


def image(task="person-0", sample=0, **more):
    return {"file": "images/000/000000_0.png", "task": task, "sample": sample, "stars": 3, "rejected": False, **more}


def test_the_most_stars_count_and_a_rejection_wins():
    choices = [
        Choice(task="a", sample=0, stars=1),
        Choice(task="a", sample=0, stars=4),
        Choice(task="a", sample=1, stars=5),
        Choice(task="a", sample=1, rejected=True),
        Choice(task="b", sample=0, stars=2),
    ]
    assert chosen(choices, min_stars=2) == {("a", 0), ("b", 0)}
    assert chosen(choices, min_stars=3) == {("a", 0)}
    assert chosen([Choice(task="c", sample=0)], min_stars=0) == {("c", 0)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": "selection/2", "images": []}',
        '{"schema": "selection/1", "images": {}}',
        '{"schema": "selection/1", "images": [7]}',
        '{"schema": "selection/1", "images": [{"file": "images/000/000000_0.png"}]}',
        '{"schema": "selection/1", "images": [{"task": "a", "sample": "0"}]}',
        '{"schema": "selection/1", "images": [{"task": "a", "sample": 0, "stars": 6}]}',
        '{"schema": "selection/1", "images": [{"task": "a", "sample": 0, "stars": true}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_selection_is_refused(text, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError, match=r"s\.json"):
        read_selection(tmp_path / "s.json", run_id=None)


def test_a_selection_of_another_run_is_refused(tmp_path):
    path = selection(tmp_path / "s.json", image(), run="b" * 16)
    with pytest.raises(ConfigurationError, match="another run"):
        read_selection(path, run_id="a" * 16)
    assert read_selection(path, run_id="b" * 16) == read_selection(path, run_id=None)


def test_chosen_images_are_a_dataset_again(dataset, tmp_path):
    (dataset / "images" / "000" / "000000_1.txt").write_text("a caption")
    source = read_source(dataset)
    made = pick(source, {("person-0", 1), ("person-3", 0), ("gone", 7)}, Request(target=tmp_path / "chosen"))
    assert (made.images, made.warnings) == (2, (f"1 chosen images are not in {dataset} and were left out.",))
    again = read_source(made.path)
    assert [(each.line["task"], each.line["sample"]) for each in again.pictures] == [("person-0", 1), ("person-3", 0)]
    assert again.pictures[0].path.samefile(source.pictures[1].path)
    assert set(read_manifest(made.path / "manifest.jsonl")) == {"person-0", "person-3"}
    schema = json.loads((files("runpod_comfy") / "schemas" / "run-record.json").read_text())
    jsonschema.validate(json.loads((made.path / "run.json").read_text()), schema)
    assert again.run["picked_from"] == source.run["id"] != again.run["id"]
    names = {path.relative_to(made.path).as_posix() for path in made.path.rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "__gallery__/thumbs/000/000000_1.webp",
        "__gallery__/thumbs/000/000003_0.webp",
        "images/000/000000_1.png",
        "images/000/000000_1.txt",
        "images/000/000003_0.png",
        "manifest.jsonl",
        "metadata.jsonl",
        "run.json",
        "template/graph.json",
        "template/t.jinja",
    }
    third = pick(again, {("person-3", 0)}, Request(target=tmp_path / "fewer"))
    assert len(read_source(third.path).pictures) == 1


def test_the_paths_of_a_selection_are_never_opened(dataset, tmp_path):
    path = selection(tmp_path / "s.json", image(file="../../etc/passwd"), image(task="../x", sample=-1))
    wanted = chosen(read_selection(path, run_id=None), min_stars=1)
    made = pick(read_source(dataset), wanted, Request(target=tmp_path / "chosen"))
    assert [each.line["file"] for each in read_source(made.path).pictures] == ["images/000/000000_0.png"]


def test_nothing_chosen_makes_no_folder(dataset, tmp_path):
    with pytest.raises(ConfigurationError, match="None of the 0 chosen"):
        pick(read_source(dataset), set(), Request(target=tmp_path / "chosen"))
    assert not (tmp_path / "chosen").exists()
