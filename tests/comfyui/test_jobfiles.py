import os
import time

import pytest

from runpod_comfy.comfyui.folders import Folders
from runpod_comfy.comfyui.jobfiles import JobFiles, with_fresh_saves, with_metadata
from runpod_comfy.comfyui.outputs import FileRef


@pytest.fixture
def folders(tmp_path):
    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
    return Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def save(prefix, class_type="SaveImage"):
    return {"class_type": class_type, "inputs": {"images": ["1", 0], "filename_prefix": prefix}}


@pytest.mark.parametrize("prefix", ["out", "sub/out", "a/../out", "%year%/out", "ünïcode/ü", "trailing/", "sub\\out"])
def test_literal_prefix_leads_to_the_jobs_folder(folders, prefix):
    graph = {"2": save(prefix)}
    placed = JobFiles(folders).placed(graph)
    folder, _, rest = placed["2"]["inputs"]["filename_prefix"].partition("/")
    assert folder.startswith("rcc-")
    assert rest == prefix
    assert graph == {"2": save(prefix)}


@pytest.mark.parametrize(
    "prefix", ["", ".", "..", "../out", "a/../../out", "/abs", "C:/x", "..\\out", "a\0b", ["9", 0], 7]
)
def test_prefix_that_is_no_place_below_the_output_folder_is_comfyuis_to_judge(folders, prefix):
    graph = {"2": save(prefix)}
    assert JobFiles(folders).placed(graph) is graph


def test_model_that_a_node_saves_for_later_jobs_is_not_the_jobs(folders):
    graph = {"2": save("checkpoints/mine", "CheckpointSave")}
    assert JobFiles(folders).placed(graph) is graph


def test_without_folders_nothing_is_placed():
    graph = {"2": save("out")}
    assert JobFiles(None).placed(graph) is graph


def test_subfolder_reported_is_the_workflows_own(folders):
    files = JobFiles(folders)
    folder = files.placed({"2": save("x")})["2"]["inputs"]["filename_prefix"].partition("/")[0]
    told = {"": "", folder: "", f"{folder}/sub": "sub", f"{folder}\\sub\\er": "sub/er", "other": "other"}
    assert {
        each: files.subfolder_of(FileRef(node_id="2", kind="images", filename="a", subfolder=each)) for each in told
    } == told


async def test_everything_the_job_made_is_removed_and_nothing_else(folders):
    files = JobFiles(folders)
    folder = files.placed({"2": save("x")})["2"]["inputs"]["filename_prefix"].partition("/")[0]
    mine = ["output/" + folder + "/sub/a.png", "output/" + folder + "/unreported.png", "output/b.png", "temp/c.png"]
    theirs = ["output/old.png", "output/other.png", "input/d.png"]
    root = folders.output.parent
    for name in [*mine, *theirs]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    os.utime(root / "output" / "old.png", (time.time() - 60, time.time() - 60))
    files.note(
        FileRef(node_id="2", kind="images", filename=name, type=kind)
        for kind, name in (("output", "b.png"), ("output", "old.png"), ("temp", "c.png"), ("output", "../input/d.png"))
    )
    await files.remove()
    left = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert left == sorted(theirs)
    assert not (folders.output / folder).exists()


def test_saves_are_made_fresh_by_their_prefix_or_by_an_input_that_no_node_knows():
    linked = {"class_type": "SaveImage", "inputs": {"filename_prefix": ["9", 0]}}
    graph = {"1": save("a/b"), "2": linked, "3": save("c"), "4": {"class_type": "PreviewText", "inputs": {}}}
    changed = with_fresh_saves(graph, ["1", "2", "4", "not there"], "x")
    assert changed["1"]["inputs"]["filename_prefix"] == "a/b-x"
    assert changed["2"]["inputs"] == {"filename_prefix": ["9", 0], "_runpod_comfy": "x"}
    assert changed["3"] is graph["3"]
    assert graph["1"] == save("a/b")


def test_files_show_prompt_and_workflow_and_the_callers_own_workflow_wins():
    given = {"api_key_comfy_org": "k", "extra_pnginfo": {"workflow": "theirs"}}
    assert with_metadata(given, prompt={"1": {}}, workflow={"nodes": []}) == {
        "api_key_comfy_org": "k",
        "extra_pnginfo": {"workflow": "theirs", "prompt": {"1": {}}},
    }
    assert with_metadata({}, prompt=None, workflow={"nodes": []}) == {"extra_pnginfo": {"workflow": {"nodes": []}}}
    assert with_metadata({"api_key_comfy_org": "k"}, prompt=None, workflow=None) == {"api_key_comfy_org": "k"}
    assert given == {"api_key_comfy_org": "k", "extra_pnginfo": {"workflow": "theirs"}}
