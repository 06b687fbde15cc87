"""What callers hold: pictures that decode late, and files that keep their bytes."""

import io

import pytest
from PIL import Image, PngImagePlugin

from runpod_comfy import OutputFile, OutputText, WorkflowOutputImage, WorkflowResult
from runpod_comfy.errors import InputError
from runpod_comfy.results import Origin


def png(text="a workflow"):
    about = PngImagePlugin.PngInfo()
    about.add_text("prompt", text)
    data = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(data, "PNG", pnginfo=about)
    return data.getvalue()


def image(name="a_00001_.png", subfolder=None, data=None):
    return WorkflowOutputImage(name=name, subfolder=subfolder, data=png() if data is None else data)


def test_a_picture_is_opened_when_it_is_first_asked_for_and_once():
    broken = image(data=b"no picture")
    assert (broken.size_bytes, broken.name) == (10, "a_00001_.png")
    whole = image()
    assert whole.item is whole.item
    assert whole.item.size == (8, 6)
    assert whole.item.text["prompt"] == "a workflow"


def test_saving_into_a_folder_keeps_comfyuis_name_and_never_overwrites(tmp_path):
    paths = [image().save(tmp_path) for _ in range(3)]
    assert [path.name for path in paths] == ["a_00001_.png", "a_00001__1.png", "a_00001__2.png"]
    assert {path.read_bytes() for path in paths} == {png()}
    assert image().save(f"{tmp_path}/new/").parent.name == "new"


def test_saving_under_a_name_replaces_that_file(tmp_path):
    target = tmp_path / "mine.png"
    target.write_bytes(b"old")
    assert image().save(target) == target
    assert target.read_bytes() == png()


def test_a_result_saves_everything_and_keeps_subfolders(tmp_path):
    sound = OutputFile(name="s.flac", data=b"fLaC", kind="audio", media_type="audio/flac")
    result = WorkflowResult([image(subfolder="portraits"), image()], files=[sound], texts=[OutputText(text="a cat")])
    paths = result.save(tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in paths) == [
        "a_00001_.png",
        "portraits/a_00001_.png",
        "s.flac",
    ]


def test_what_a_worker_sends_as_a_picture_is_never_run_as_a_program():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(InputError, match="EPS"):
        _ = image(data=postscript).item
    with pytest.raises(InputError, match="not an image"):
        _ = image(data=b"junk").item


def test_one_bad_name_does_not_cost_the_other_files(tmp_path):
    result = WorkflowResult([image("../a.png"), image("b.png"), image("c.png")])
    with pytest.raises(InputError, match=r"2 other file\(s\)"):
        result.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "c.png"]


@pytest.mark.parametrize(("name", "subfolder"), [("../a.png", None), ("a.png", "../.."), ("/a.png", None)])
def test_a_hostile_name_is_not_written_anywhere(name, subfolder, tmp_path):
    result = WorkflowResult([image(name, subfolder)])
    with pytest.raises(InputError):
        result.save(tmp_path / "out")
    assert not list(tmp_path.rglob("*.png"))


def test_a_result_is_shown_without_its_bytes():
    shown = repr(WorkflowResult([image()])) + repr(image())
    assert "PNG" not in shown
    assert "1 images" in shown


def test_an_output_knows_where_it_was_made():
    made = OutputText(text="a", origin=Origin(batch=1, seed=2**64 - 1, node_id="9", node_title="Caption"))
    assert (made.origin.batch, made.origin.seed, made.origin.node_title) == (1, 2**64 - 1, "Caption")
    placed = WorkflowOutputImage(name="a.png", data=b"", origin=made.origin)
    assert (placed.batch, placed.seed, placed.node_id) == (1, 2**64 - 1, "9")
