import pytest

from runpod_comfy.comfyui.inputs import input_dir_of, localised_graph
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


async def test_graph_finds_the_images_in_the_servers_folder_and_is_itself_not_changed(stand_in, stand_in_client):
    def graph_of(directory):
        return {"1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": directory}}}

    images = (InputImage("00.png", b"", "image/png", "rcc-1 ü"),)
    submission = Submission(workflow=graph_of("/comfyui/input/rcc-1 ü"), images=images)
    assert await localised_graph(stand_in_client, submission, input_dir=None) == graph_of(
        f"{stand_in.folder}/input/rcc-1 ü"
    )
    assert await localised_graph(stand_in_client, submission, input_dir="/in") == graph_of("/in/rcc-1 ü")
    assert submission.workflow == graph_of("/comfyui/input/rcc-1 ü")
