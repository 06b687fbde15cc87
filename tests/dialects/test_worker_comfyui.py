import base64

import pytest

from runpod_comfy.dialects.worker_comfyui import WorkerComfyuiReader, kind_of_answer
from runpod_comfy.dialects.worker_comfyui_answer import Answer
from runpod_comfy.dialects.worker_comfyui_request import (
    encode_request,
    layout_of_first_batch,
    refuse_directories,
    why_not_unrolled,
)
from runpod_comfy.errors import TemplateError
from runpod_comfy.events import BatchFinished, OutputReady
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.results import OutputElsewhere, OutputFile, WorkflowOutputImage
from runpod_comfy.submission import Submission
from runpod_comfy.workflow.graph import as_link

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 40
PHOTO = InputImage("00.png", PNG, "image/png", "rcc-0123456789abcdef")


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def workflow(prefix="out/cat", **loader):
    return {
        "1": node("LoadImage", image="rcc-0123456789abcdef/00.png", **loader),
        "3": node("KSampler", seed=1, latent_image=["1", 0]),
        "8": node("VAEDecode", samples=["3", 0]),
        "9": node("SaveImage", images=["8", 0], filename_prefix=prefix) | {"_meta": {"title": "Keep"}},
    }


def submission(graph=None, *, seeds=(7,), images=(PHOTO,)):
    return Submission(workflow=graph or workflow(), images=images, batch_count=len(seeds) or 1, seeds=seeds)


def answer(*names, data=PNG):
    encoded = base64.b64encode(data).decode()
    return {"images": [{"filename": name, "type": "base64", "data": encoded} for name in names]}


def heard(output, sent=None, *, error=None):
    reader = WorkerComfyuiReader(encode_request(sent)[1]) if sent else WorkerComfyuiReader()
    return reader, list(reader.finish(output, error))


def names_saved(request):
    """Return what ComfyUI would call the first file of each node that saves."""
    prefixes = [
        each["inputs"]["filename_prefix"]
        for each in request["workflow"].values()
        if "filename_prefix" in each["inputs"]
    ]
    return [f"{prefix.rpartition('/')[2]}_00001_.png" for prefix in prefixes]


# -- requests ----------------------------------------------------------------------------------------------------------


def test_images_go_by_name_and_without_folders():
    request, _ = encode_request(submission())
    [image] = request["images"]
    assert image == {"name": "rcc-0123456789abcdef-00.png", "image": base64.b64encode(PNG).decode()}
    assert request["workflow"]["1"]["inputs"]["image"] == image["name"]


def test_a_path_of_an_image_in_the_folder_becomes_that_of_its_flat_name():
    graph = {"1": node("LoadImageFromPath", path="/comfyui/input/rcc-0123456789abcdef/00.png")}
    request, _ = encode_request(submission(graph))
    assert request["workflow"]["1"]["inputs"]["path"] == "/comfyui/input/rcc-0123456789abcdef-00.png"


@pytest.mark.parametrize("folder", ["/comfyui/input/rcc-0123456789abcdef", "/comfyui/input/rcc-0123456789abcdef/"])
def test_a_template_that_needs_a_directory_is_refused_with_the_reason(folder):
    sent = submission({"5": node("LoadImagesFromDir", directory=folder)})
    with pytest.raises(TemplateError, match=r"node 5 .*input_images_dir.*input_images\[0\]"):
        refuse_directories(sent)
    with pytest.raises(TemplateError):
        encode_request(sent)


def test_several_batches_share_what_no_seed_reaches():
    request, _ = encode_request(submission(seeds=(7, 8, 9)))
    graph = request["workflow"]
    assert [each["class_type"] for each in graph.values()].count("LoadImage") == 1
    samplers = [each for each in graph.values() if each["class_type"] == "KSampler"]
    assert sorted(each["inputs"]["seed"] for each in samplers) == [7, 8, 9]
    assert all(each["inputs"]["latent_image"] == ["1", 0] for each in samplers)


def test_each_batch_saves_under_a_name_of_its_own_in_its_own_folder():
    request, _ = encode_request(submission(seeds=(7, 8, 9)))
    prefixes = [
        each["inputs"]["filename_prefix"]
        for each in request["workflow"].values()
        if "filename_prefix" in each["inputs"]
    ]
    assert len(set(prefixes)) == 3
    assert all(prefix.startswith("out/cat") for prefix in prefixes)


def test_one_batch_is_the_workflow_with_its_seed_and_prefix():
    request, _ = encode_request(submission(images=()))
    assert request["workflow"] == workflow() | {"3": node("KSampler", seed=7, latent_image=["1", 0])}


def test_the_rendered_workflow_is_not_changed():
    graph = workflow()
    encode_request(submission(graph, seeds=(7, 8)))
    assert graph == workflow()


# -- what can share a prompt -------------------------------------------------------------------------------------------


def test_savers_and_previews_can_share_a_prompt():
    assert why_not_unrolled(workflow() | {"10": node("PreviewImage", images=["8", 0])}) is None


@pytest.mark.parametrize(
    ("saver", "words"),
    [
        (node("SaveImage", images=["8", 0], filename_prefix=["2", 0]), "is linked"),
        (node("Image Saver", images=["8", 0], filename="%time"), "no filename_prefix"),
    ],
)
def test_batches_whose_files_cannot_be_told_apart_cannot_share_a_prompt(saver, words):
    reason = why_not_unrolled({"2": node("PrimitiveString", value="a"), **workflow(), "9": saver})
    assert words in reason
    assert "node 9" in reason


def test_a_saver_that_no_seed_reaches_may_be_called_anything():
    assert why_not_unrolled(workflow() | {"11": node("Image Saver", images=["1", 0])}) is None


# -- answers -----------------------------------------------------------------------------------------------------------


def test_images_come_back_by_batch_seed_and_node_under_the_users_own_prefix():
    sent = submission(seeds=(7, 8, 9))
    names = names_saved(encode_request(sent)[0])
    reader, events = heard(answer(*reversed(names)), sent)
    images = [each.output for each in events if isinstance(each, OutputReady)]
    assert [(each.batch, each.seed) for each in images] == [(0, 7), (1, 8), (2, 9)]
    assert {(each.node_id, each.origin.node_title, each.subfolder) for each in images} == {("9", "Keep", "out")}
    assert [each.name for each in images] == ["cat_00001_.png", "cat_00002_.png", "cat_00003_.png"]
    assert [(each.batch, each.seed) for each in events if isinstance(each, BatchFinished)] == [(0, 7), (1, 8), (2, 9)]
    assert reader.complete
    assert reader.outputs == 3


def test_an_output_that_no_seed_reaches_belongs_to_every_batch():
    graph = workflow() | {"11": node("SaveImage", images=["1", 0], filename_prefix="mask")}
    sent = submission(graph, seeds=(7, 8))
    names = names_saved(encode_request(sent)[0])
    assert len(names) == 3
    _, events = heard(answer(*names), sent)
    images = [each.output for each in events if isinstance(each, OutputReady)]
    assert [(each.batch, each.node_id) for each in images] == [(0, "9"), (0, "11"), (1, "9"), (1, "11")]


def test_the_image_of_one_batch_is_known_by_its_prefix():
    graph = workflow(prefix="cat") | {"11": node("SaveImage", images=["8", 0], filename_prefix="cat_big")}
    _, events = heard(answer("cat_00001_.png", "cat_big_00001_.png"), submission(graph))
    assert [each.output.node_id for each in events if isinstance(each, OutputReady)] == ["9", "11"]


def test_addresses_are_named_and_not_fetched_here():
    output = {"images": [{"filename": "cat_00001_.png", "type": "s3_url", "data": "https://b.example/x.png?sig=1"}]}
    reader, events = heard(output, submission())
    assert isinstance(events[0], OutputElsewhere)
    assert (events[0].url, events[0].name) == ("https://b.example/x.png?sig=1", "cat_00001_.png")
    assert events[0].origin.seed == 7
    assert reader.uses_bucket


def test_a_bucket_that_was_only_pretended_is_told():
    output = {"images": [{"filename": "cat_00001_.png", "type": "s3_url", "data": "simulated_uploaded/1a2b.png"}]}
    reader, events = heard(output, submission())
    assert events == []
    assert "BUCKET_SECRET_ACCESS_KEY" in reader.describe_loss()
    assert not reader.complete


def test_a_partial_failure_keeps_the_images_and_names_the_node_as_the_user_knows_it():
    sent = submission(seeds=(7, 8))
    request, layout = encode_request(sent)
    failing = next(new for new, each in layout.copies.items() if (each.node_id, each.batch) == ("3", 1))
    told = f"Workflow execution error: Node Type: KSampler, Node ID: {failing}, Message: out of memory\n"
    reader, events = heard(answer(names_saved(request)[0]) | {"errors": [told]}, sent)
    assert [each.output.batch for each in events if isinstance(each, OutputReady)] == [0]
    assert (reader.error.node_id, reader.error.node_type) == ("3", "KSampler")
    assert reader.error.message == "batch 2 of 2, node 3 (KSampler): out of memory"
    assert not reader.complete


def test_a_failure_tells_its_details():
    reader, _ = heard({"details": ["No outputs found in history for prompt x."]}, error="Job processing failed")
    assert reader.error.message == "Job processing failed; No outputs found in history for prompt x."


def test_no_images_is_a_whole_answer():
    reader, events = heard({"status": "success_no_images", "images": []}, submission())
    assert events == []
    assert reader.complete


@pytest.mark.parametrize(
    "item", [{}, "x", {"filename": "a.png"}, {"filename": "a.png", "type": "base64", "data": "%%"}]
)
def test_a_damaged_output_is_lost_and_said(item):
    output = answer("cat_00001_.png")
    output["images"].append(item)
    reader, events = heard(output, submission())
    assert len([each for each in events if isinstance(each, OutputReady)]) == 1
    assert reader.describe_loss()
    assert not reader.complete


def test_two_nodes_that_save_under_one_name_are_told_apart():
    graph = workflow("out/cat") | {"10": node("SaveImage", images=["3", 0], filename_prefix="other/cat")}
    sent = submission(graph)
    request, _ = encode_request(sent)
    _, events = heard(answer(*names_saved(request)), sent)
    made = [event.output for event in events if isinstance(event, OutputReady)]
    assert [(each.node_id, each.subfolder, each.name, each.batch) for each in made] == [
        ("9", "out", "cat_00001_.png", 0),
        ("10", "other", "cat_00001_.png", 0),
    ]


def test_file_that_either_of_two_nodes_may_have_saved_is_credited_to_none():
    graph = workflow("out/cat") | {"10": node("SaveImage", images=["3", 0], filename_prefix="other/cat")}
    reader = WorkerComfyuiReader(layout_of_first_batch(submission(graph)))
    [made, _] = reader.finish(answer("cat_00001_.png"), None)
    assert (made.output.node_id, made.output.subfolder, made.output.name) == (None, None, "cat_00001_.png")


@pytest.mark.parametrize("images", [[], answer("cat_00001_.png")["images"]])
def test_what_this_projects_worker_adds_to_the_official_answer_is_read_too(images):
    told = Answer(1_000_000)
    told.add_file(OutputFile(name="sound_00001_.flac", data=b"fLaC", kind="audio", media_type="audio/flac"))
    told.add_text("a caption")
    output = told.result() | {"images": images}
    for each in (output, {name: value for name, value in output.items() if name != "status"}):
        reader, events = heard(each, submission())
        made = [event.output for event in events if isinstance(event, OutputReady)]
        assert [type(one).__name__ for one in made][-2:] == ["OutputFile", "OutputText"]
        assert (made[-2].name, made[-2].data, made[-1].text) == ("sound_00001_.flac", b"fLaC", "a caption")
        assert reader.complete
        assert reader.outputs == len(images) + 2


def test_an_empty_file_is_an_output_too():
    reader, events = heard(answer("log_00001_.txt", data=b""), submission())
    assert [event.output.data for event in events if isinstance(event, OutputReady)] == [b""]
    assert reader.complete


def test_names_from_outside_lose_their_folders():
    _, events = heard(answer("../../evil.png"), submission())
    assert events[0].output.name == "evil.png"


def test_an_answer_can_be_read_without_knowing_the_request():
    names = names_saved(encode_request(submission(seeds=(7, 8)))[0])
    _, events = heard(answer(*names))
    assert [
        (each.output.batch, each.output.seed, each.output.name) for each in events if isinstance(each, OutputReady)
    ] == [
        (0, None, "cat_00001_.png"),
        (1, None, "cat_00002_.png"),
    ]


def test_a_video_is_a_file_and_not_a_picture():
    _, events = heard(answer("cat_00001_.mp4", data=b"\0\0\0\x18ftypisom" + b"x" * 20), submission())
    assert type(events[0].output) is OutputFile
    assert events[0].output.media_type == "video/mp4"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("Workflow validation failed:\n• Node 1", "worker-comfyui"),
        ("Failed to upload one or more input images", "worker-comfyui"),
        ("CUDA out of memory", None),
    ],
)
def test_a_failure_in_its_own_words_tells_the_worker(error, kind):
    assert heard(None, error=error)[0].kind == kind


# -- 4.0.1 and older ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_an_old_answer_is_one_image_under_the_only_savers_prefix(head):
    output = {"status": "success", "message": head + base64.b64encode(PNG).decode()}
    reader, events = heard(output, submission())
    image = events[0].output
    assert type(image) is WorkflowOutputImage
    assert (image.name, image.data, image.seed, image.node_id) == ("cat_00001_.png", PNG, 7, "9")
    assert reader.kind == "worker-comfyui-4"
    assert reader.complete


def test_an_old_answer_may_be_an_address():
    _, events = heard({"status": "success", "message": "https://b.example/11-26/x/1a2b.webp?X-Amz=1"}, submission())
    assert events[0].name == "cat_00001_.webp"


def test_an_old_error_comes_as_a_success():
    reader, events = heard({"status": "error", "message": "the image does not exist"}, submission())
    assert events == []
    assert reader.error.message == "the image does not exist"


def test_an_old_answer_to_several_batches_is_a_loss_that_names_the_argument():
    output = {"status": "success", "message": base64.b64encode(PNG).decode()}
    reader, events = heard(output, submission(seeds=(7, 8)))
    assert [each.output.seed for each in events if isinstance(each, OutputReady)] == [None]
    assert "worker='worker-comfyui-4'" in reader.describe_loss()


# -- whose answer it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (answer("a.png"), "worker-comfyui"),
        ({**answer("a.png"), "errors": ["x"]}, "worker-comfyui"),
        ({"status": "success_no_images", "images": []}, "worker-comfyui"),
        ({"status": "success", "message": "abc"}, "worker-comfyui-4"),
        ({"status": "error", "message": "abc"}, "worker-comfyui-4"),
        ({"images": []}, None),
        ({"images": [{"image": "…", "name": "a.png"}]}, None),
        ({"text": "I am a language model"}, None),
        ({"status": "ok", "message": "hi"}, None),
        ([{"choices": []}], None),
        ("<html>", None),
        (None, None),
        (3, None),
    ],
)
def test_the_shape_tells_the_worker(output, kind):
    assert kind_of_answer(output) == kind
    reader, events = heard(output)
    assert reader.kind == kind
    assert kind or events == []


def test_copies_keep_their_links_within_their_batch():
    request, layout = encode_request(submission(seeds=(1, 2, 3)))
    for node_id, each in request["workflow"].items():
        for value in each["inputs"].values():
            if link := as_link(value):
                assert layout.copies[link[0]].batch in {layout.copies[node_id].batch, None}
