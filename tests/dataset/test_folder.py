import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy import WorkflowTemplate
from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.manifest import Manifest, read_manifest
from runpod_comfy.dataset.metadata import flat_rows, metadata_text
from runpod_comfy.dataset.plan import Task
from runpod_comfy.dataset.reference import manifest_lines
from runpod_comfy.dataset.rows import Row
from runpod_comfy.dataset.template_copy import copy_template, template_sha256
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.results import OutputFile, WorkflowOutputImage


def task(index, key="a"):
    return Task(index=index, key=key, row=Row(id=key, line=1))


def image_line(key="a", index=0, sample=0, **more):
    line = {"schema": "image/1", "task": key, "index": index, "sample": sample, "batch": 0, "row_id": key}
    return {**line, "file": "images/000/000000_0.png", "kind": "images", "sha256": "x", "size_bytes": 1, **more}


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_known_when_it_is_opened_again(tmp_path):
    path = tmp_path / "manifest.jsonl"
    with Manifest.open(path) as manifest:
        manifest.add({"schema": "job/1", "task": "a", "index": 7, "job_id": "j", "first_batch": 0, "at": 1})
        manifest.add(image_line(index=7, prompt="ä\ud800"))
        manifest.add({"schema": "batch/1", "task": "a", "index": 7, "batch": 0, "batches": 2})
        manifest.add({"schema": "failure/1", "task": "b", "index": 8, "error": {}})
        manifest.add({"schema": "later/9", "task": "b", "index": 8})
        before = manifest.tasks
    again = Manifest.open(path)
    again.close()
    assert again.tasks == before
    assert (again.tasks["a"].whole, again.tasks["a"].job_ended) == ({0}, False)
    assert again.tasks["b"].job_ended


@pytest.mark.parametrize("cut", range(2, 40, 3))
def test_a_line_cut_by_a_crash_is_left_out_and_written_over(cut, tmp_path):
    path = tmp_path / "manifest.jsonl"
    with Manifest.open(path) as manifest:
        manifest.add(image_line("a"))
        manifest.add(image_line("b", index=1))
    path.write_bytes(path.read_bytes()[:-cut])
    with Manifest.open(path) as manifest:
        assert (set(manifest.tasks), manifest.dropped) == ({"a"}, True)
        manifest.add(image_line("c", index=2))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["task"] for line in lines] == ["a", "c"]


def test_a_last_line_without_its_break_is_whole_and_is_not_paid_for_again(tmp_path):
    path = tmp_path / "manifest.jsonl"
    with Manifest.open(path) as manifest:
        manifest.add(image_line("a"))
    path.write_bytes(path.read_bytes().rstrip())
    assert set(read_manifest(path)) == {"a"}
    assert [line["task"] for line in manifest_lines(path)] == ["a"]
    with Manifest.open(path) as manifest:
        assert (set(manifest.tasks), manifest.dropped) == ({"a"}, False)
        manifest.add(image_line("b", index=1))
    assert [json.loads(line)["task"] for line in path.read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"task": "a"}', "3"])
def test_a_manifest_that_somebody_edited_is_refused(line, tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text(f"{line}\n{json.dumps(image_line())}\n")
    with pytest.raises(ConfigurationError, match="line 1 is no line of a manifest"):
        Manifest.open(path)


@pytest.mark.parametrize(
    "about",
    [
        {"file": "../victim.png"},
        {"file": "images/../../victim.png"},
        {"file": "/etc/victim.png"},
        {"file": 5},
        {"sample": "../../../victim"},
        {"sample": -1},
        {"index": "a"},
        {"index": -1},
        {"variables": []},
        {"columns": "x"},
        {"seed": "x"},
        {"size_bytes": "x"},
        {"width": "<b>"},
        {"at": "x"},
    ],
    ids=str,
)
def test_a_line_that_leads_out_of_the_folder_or_is_of_wrong_kinds_is_refused_by_all_readers(about, tmp_path):
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(image_line())}\n{json.dumps(image_line() | about)}\n")
    with pytest.raises(ConfigurationError, match=f"line 2 is no line of a manifest: its {min(about)} is"):
        read_manifest(tmp_path / "manifest.jsonl")
    with pytest.raises(ConfigurationError, match="line 2 is no line of a manifest"):
        list(manifest_lines(tmp_path / "manifest.jsonl"))


@pytest.mark.parametrize("name", ["file", "sample", "task", "index"])
def test_a_line_that_lacks_what_it_needs_is_refused(name, tmp_path):
    line = image_line()
    del line[name]
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(line)}\n")
    with pytest.raises(ConfigurationError, match=f"line 1 is no line of a manifest: it has no {name}"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_a_line_that_is_nested_without_end_is_refused(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_a_manifest_is_read_while_another_process_writes_it(tmp_path):
    path = tmp_path / "manifest.jsonl"
    with Manifest.open(path) as manifest:
        manifest.add(image_line("a"))
        with path.open("ab") as file:
            file.write(b'{"schema": "image/1", "ta')
        assert set(read_manifest(path)) == {"a"}
        assert path.read_bytes().endswith(b'"ta')
    with pytest.raises(ConfigurationError, match="is no dataset"):
        read_manifest(tmp_path / "missing.jsonl")


# -- the folder --------------------------------------------------------------------------------------------------------


def test_files_are_numbered_a_thousand_to_a_folder(tmp_path):
    with OutputFolder(tmp_path) as folder:
        picture = WorkflowOutputImage(name="test_val.png", data=b"1", media_type="image/png")
        video = OutputFile(name="clip.MP4", data=b"22", media_type="video/mp4")
        odd = OutputFile(name="x.../../etc", data=b"3")
        paths = [
            folder.save(picture, 123, 2, is_image=True),
            folder.save(video, 1000, 0, is_image=False),
            folder.save(odd, 2_345_678, 0, is_image=False),
        ]
    assert [path.as_posix() for path in paths] == [
        "images/000/000123_2.png",
        "files/001/001000_0.mp4",
        "files/2345/2345678_0.bin",
    ]
    assert [(tmp_path / path).read_bytes() for path in paths] == [b"1", b"22", b"3"]


def test_a_tasks_number_stays_and_no_two_share_one(tmp_path):
    with OutputFolder(tmp_path) as folder:
        folder.manifest.add(image_line("old", index=3))
        taken = {3}
        assert folder.index_for(task(0, "old"), taken) == 3
        assert folder.index_for(task(0, "new"), taken) == 0
        assert folder.index_for(task(3, "third"), taken) == 4


def test_what_a_kill_left_half_written_goes(tmp_path):
    with OutputFolder(tmp_path) as folder:
        folder.write_run({})
    half = tmp_path / "images" / "000" / ".0123456789ab.part"
    half.parent.mkdir(parents=True)
    half.touch()
    OutputFolder(tmp_path).close()
    assert not half.exists()


def test_one_writer_at_a_time(tmp_path):
    with OutputFolder(tmp_path):
        script = "import pathlib; from runpod_comfy.dataset.folder import OutputFolder; OutputFolder(pathlib.Path())"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True)
        assert "Another process writes" in done.stderr
    OutputFolder(tmp_path).close()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(ConfigurationError, match=r"thesis\.docx"):
        OutputFolder(tmp_path)


def test_a_runs_id_is_drawn_once(tmp_path):
    with OutputFolder(tmp_path) as folder:
        first = folder.new_run_id()
        folder.write_run({"id": first})
        assert (len(first), folder.new_run_id()) == (16, first)


def test_the_card_follows_the_images_until_somebody_edits_it(tmp_path):
    def add(sample, ending):
        with OutputFolder(tmp_path) as folder:
            folder.write_run({})
            name = f"images/000/000000_{sample}.{ending}"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
            folder.manifest.add(image_line(sample=sample, file=name))

    card = tmp_path / "README.md"
    add(0, "png")
    assert "images/**/*.png" in card.read_text()
    add(1, "webp")
    assert "images/**/*.webp" in card.read_text()
    card.write_text(card.read_text() + "My cat.")
    add(2, "jpg")
    assert card.read_text().endswith("My cat.")
    assert "jpg" not in card.read_text()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("t.jinja", "template/t.jinja"),
        ("test_flux.jinja", "template/__as_named__/test_flux.jinja"),
        ("graph.json", "template/graph.template.json"),
    ],
)
def test_the_template_is_kept_with_all_it_includes(name, kept, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "size.jinja").write_text("16")
    (tmp_path / name).write_text(
        '{"1": {"class_type": "A", "inputs": {"w": {% include "parts/size.jinja" %}, "p": {{ p }}}}}'
    )
    (tmp_path / f"{name}.yaml").write_text("variables:\n  p:\n    default: 7\n")
    template, root = WorkflowTemplate(tmp_path / name), tmp_path / "out"
    assert copy_template(template, template.render(), root) == kept
    assert WorkflowTemplate(root / kept).render() == json.loads((root / "template/graph.json").read_text())
    before = template_sha256(template)
    (tmp_path / "parts" / "size.jinja").write_text("17")
    assert template_sha256(WorkflowTemplate(tmp_path / name)) != before


# -- the metadata ------------------------------------------------------------------------------------------------------


def flat(*images):
    lines = [
        {"file": f"{n}.png", "index": n, "sample": 0, "row_id": str(n), "sha256": "x", **each}
        for n, each in enumerate(images)
    ]
    return [json.loads(line) for line in metadata_text(flat_rows(lines)).splitlines()]


def test_every_line_has_every_column_and_a_column_one_type():
    first, second = flat({"variables": {"cfg": 7, "prompt": "a"}, "columns": {"sku": "x"}}, {"variables": {"cfg": "x"}})
    assert first.keys() == second.keys()
    assert (first["cfg"], second["cfg"]) == ("7", "x")
    assert (first["sku"], second["sku"]) == ("x", "")
    assert (first["text"], second["text"]) == ("a", "")


def test_columns_without_any_value_are_left_out_and_names_do_not_clash():
    [line] = flat({"variables": {"width": 5, "none": None}})
    assert line["var_width"] == 5
    assert "none" not in line
    assert "width" not in line


def test_large_seeds_keep_all_their_digits():
    assert [line["seed"] for line in flat({"seed": str(2**64 - 1)}, {"seed": "7"})] == [str(2**64 - 1), "7"]
    assert [line["seed"] for line in flat({"seed": str(2**63 - 1)}, {"seed": "7"})] == [2**63 - 1, 7]


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), values), min_size=1))
def test_any_values_become_columns_of_one_type(rows):
    lines = flat(*({"variables": each} for each in rows))
    for name in lines[0]:
        kinds = {
            float if isinstance(line[name], (int, float)) and not isinstance(line[name], bool) else type(line[name])
            for line in lines
        }
        assert len(kinds - {type(None)}) == 1
