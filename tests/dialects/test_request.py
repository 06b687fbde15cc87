from runpod_comfy.dialects.request import encode_request
from runpod_comfy.dialects.worker_comfyui import WorkerComfyuiReader
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.submission import Submission

PHOTO = InputImage("00.png", b"\x89PNG\r\n\x1a\nx", "image/png", "rcc-0123456789abcdef")


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


BY_NAME = {
    "1": node("LoadImage", image="rcc-0123456789abcdef/00.png"),
    "2": node("KSampler", seed=1, latent_image=["1", 0]),
    "3": node("SaveImage", images=["2", 0], filename_prefix="a"),
    "4": node("PreviewImage", images=["2", 0]),
}
BY_FOLDER = BY_NAME | {"1": node("LoadImagesFromDir", directory="/comfyui/input/rcc-0123456789abcdef")}


def submission(graph):
    return Submission(workflow=graph, images=(PHOTO,), batch_count=2, seeds=(7, 8))


def test_for_a_worker_that_is_not_known_the_request_is_one_for_each():
    request, layout = encode_request(submission(BY_NAME), None)
    # This project's worker runs both batches, and finds the photo where it was uploaded.
    assert (request["batch_count"], request["seeds"], request["randomize_seed"]) == (2, [7, 8], True)
    [image] = request["images"]
    assert image["subfolder"] == ""
    # worker-comfyui runs what stands there, once, with the same photo under the same name.
    assert request["workflow"]["1"]["inputs"]["image"] == image["name"]
    assert request["workflow"]["2"]["inputs"]["seed"] == 7
    assert layout.seeds == (7,)


def test_a_folder_goes_to_a_worker_that_is_not_known_as_only_this_projects_can_use_it():
    request, _ = encode_request(submission(BY_FOLDER), None)
    assert request["images"][0]["subfolder"] == PHOTO.subfolder
    assert request["workflow"] == BY_FOLDER


def test_this_projects_worker_gets_the_native_request():
    request, layout = encode_request(submission(BY_NAME), "native")
    assert request["workflow"] == BY_NAME
    assert request["images"][0]["subfolder"] == PHOTO.subfolder
    assert WorkerComfyuiReader(layout).layout.seeds == (7,)


def test_old_versions_get_no_previews_which_they_would_take_for_the_last_image():
    assert "4" in encode_request(submission(BY_NAME), "worker-comfyui")[0]["workflow"]
    classes = [
        each["class_type"] for each in encode_request(submission(BY_NAME), "worker-comfyui-4")[0]["workflow"].values()
    ]
    assert "PreviewImage" not in classes
    assert classes.count("SaveImage") == 2
