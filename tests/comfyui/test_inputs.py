import pytest

from runpod_comfy.comfyui.inputs import input_dir_of, prepare_inputs, with_other_prefixes
from runpod_comfy.errors import TransportError
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.submission import Submission


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["main.py"], "input"),
        (["main.py", "--base-directory", "/data/comfy/"], "/data/comfy/input"),
        (["main.py", "--base-directory=/data/comfy"], "/data/comfy/input"),
        (["main.py", "--base-directory", "/a", "--input-directory", "/b/in"], "/b/in"),
        (["main.py", "--base-directory", "relative"], "input"),
        (["main.py", "--base-directory", "C:\\ComfyUI"], "C:\\ComfyUI\\input"),
        (["main.py", "--base-directory"], "input"),
        (None, "input"),
    ],
)
def test_input_folder_is_read_from_the_servers_command_line(argv, expected):
    assert input_dir_of({"system": {"argv": argv}}) == expected


def graph_of(directory):
    return {"1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": directory}}}


async def test_images_are_uploaded_to_their_subfolders_and_the_graph_finds_them(stand_in, stand_in_client, png):
    images = tuple(InputImage(f"{n:02}.png", png(size=(8 + n, 8)), "image/png", "rcc-1 ü") for n in range(6))
    submission = Submission(workflow=graph_of("/comfyui/input/rcc-1 ü"), images=images)
    graph = await prepare_inputs(stand_in_client, submission, input_dir=None)
    assert graph == graph_of(f"{stand_in.folder}/input/rcc-1 ü")
    assert submission.workflow == graph_of("/comfyui/input/rcc-1 ü")
    for image in images:
        assert (stand_in.folder / "input" / "rcc-1 ü" / image.name).read_bytes() == image.data


async def test_a_file_that_is_there_is_not_written_again_and_another_is_overwritten(stand_in, stand_in_client, png):
    folder = stand_in.folder / "input" / "s"
    folder.mkdir()
    (folder / "same.png").write_bytes(png())
    (folder / "other.png").write_bytes(png("blue"))
    before = (folder / "same.png").stat().st_mtime_ns
    images = tuple(InputImage(name, png(), "image/png", "s") for name in ("same.png", "other.png"))
    await prepare_inputs(stand_in_client, Submission(workflow={}, images=images), input_dir="/in")
    assert (folder / "same.png").stat().st_mtime_ns == before
    assert (folder / "other.png").read_bytes() == png()


async def test_a_failed_upload_is_one_error_of_our_tree(stand_in, stand_in_client, png):
    images = tuple(InputImage(f"{n}.png", png(), "image/png", "s") for n in range(5))
    await stand_in.stop()
    with pytest.raises(TransportError):
        await prepare_inputs(stand_in_client, Submission(workflow={}, images=images), input_dir="/in")


def test_only_literal_prefixes_are_changed_and_the_graph_itself_is_not():
    graph = {
        "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a/b"}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": ["9", 0]}},
    }
    changed = with_other_prefixes(graph, "-x")
    assert changed["1"]["inputs"] == {"filename_prefix": "a/b-x"}
    assert changed["2"] is graph["2"]
    assert graph["1"]["inputs"] == {"filename_prefix": "a/b"}
    assert with_other_prefixes({"2": graph["2"]}, "-x") is None
