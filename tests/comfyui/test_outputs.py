import pytest

from runpod_comfy.comfyui.outputs import FileRef, HistoryEntry, TextRef, UniqueNames, as_output
from runpod_comfy.results import Origin, OutputFile, WorkflowOutputImage

PNG = b"\x89PNG\r\n\x1a\n rest"
MP4 = b"\0\0\0\x20ftypisom rest"


def file(name, **more):
    return {"filename": name, "subfolder": "", "type": "output", **more}


def ref(name, **more):
    return FileRef(node_id="1", kind=more.pop("kind", "images"), filename=name, **more)


def ended(*messages, status="success"):
    return HistoryEntry({"outputs": {}, "status": {"status_str": status, "messages": list(messages)}})


def test_outputs_come_in_the_order_of_the_graphs_nodes():
    entry = HistoryEntry(
        {"outputs": {"10": {"images": [file("b")]}, "9": {"images": [file("a")]}, "x": {"text": ["t"]}}}
    )
    assert [each.node_id for each in entry.outputs({"9": {}, "10": {}})] == ["9", "10", "x"]


def test_every_kind_of_file_and_text_is_found():
    reported = {
        "images": [file("a.png")],
        "gifs": [file("v.mp4", format="video/h264-mp4", fullpath="/x/v.mp4")],
        "audio": [file("s.flac", subfolder="audio")],
        "3d": [file("m.glb")],
        "latents": [file("l.latent")],
        "text": ["one", "two"],
        "animated": [True],
        "result": ["m.glb", None],
    }
    found = HistoryEntry({"outputs": {"7": reported}}).outputs({"7": {}})
    kinds = [each.kind if isinstance(each, FileRef) else each.text for each in found]
    assert kinds == ["images", "gifs", "audio", "3d", "latents", "one", "two"]
    assert found[2].subfolder == "audio"


def test_a_file_reported_twice_is_one_output_and_a_text_said_twice_is_two():
    entry = HistoryEntry({"outputs": {"7": {"images": [file("a")], "gifs": [file("a")], "text": ["x", "x"]}}})
    assert [type(each) for each in entry.outputs({})] == [FileRef, TextRef, TextRef]


def test_what_a_node_shows_of_its_inputs_is_no_output():
    assert HistoryEntry({"outputs": {"7": {"images": [file("a", type="input")]}}}).outputs({}) == []


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"outputs": None, "status": None},
        {"outputs": [], "status": []},
        {"outputs": {"1": None, "2": {"images": None}, "3": {"images": [None, 1, {"filename": 7}, {}]}}},
        {"outputs": {"1": {"images": [{"filename": "a", "type": ["output"]}, {"filename": "a", "type": {"x": 1}}]}}},
        {"status": {"messages": [1, [], ["a"], ["execution_error", None]]}},
    ],
)
def test_entry_with_anything_missing_is_read(raw):
    entry = HistoryEntry(raw)
    assert (entry.outputs({}), entry.error, entry.interrupted, entry.gpu_s) == ([], None, False, None)


def test_only_the_messages_tell_a_failure_from_an_interruption():
    failed = ended(["execution_error", {"node_id": "2"}], status="error")
    stopped = ended(["execution_interrupted", {"node_id": "2"}], status="error")
    assert (failed.failed, failed.interrupted, failed.error) == (True, False, {"node_id": "2"})
    assert (stopped.failed, stopped.interrupted, stopped.error) == (True, True, None)


def test_gpu_time_is_from_start_to_end():
    entry = ended(["execution_start", {"timestamp": 1_000}], ["execution_success", {"timestamp": 3_500}])
    assert entry.gpu_s == 2.5


def test_names_are_unique_within_a_subfolder_and_stay_comfyuis_own_where_they_can():
    names = UniqueNames()
    refs = [ref("a_00001_.png"), ref("a_00001_.png"), ref("a_00001_.png", subfolder="x"), ref("a_00001_.png")]
    assert [names.name_for(each, each.subfolder) for each in refs] == [
        "a_00001_.png",
        "a_00001__1.png",
        "a_00001_.png",
        "a_00001__2.png",
    ]


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "x/evil.png"])
def test_a_name_never_carries_a_path(name):
    assert UniqueNames().name_for(ref(name), "") == "evil.png"


@pytest.mark.parametrize(
    ("kind", "name", "data", "expected", "media_type"),
    [
        ("images", "a.png", PNG, WorkflowOutputImage, "image/png"),
        ("images", "no-extension", PNG, WorkflowOutputImage, "image/png"),
        ("images", "v.mp4", MP4, OutputFile, "video/mp4"),
        ("images", "a.png", b"no picture", OutputFile, "image/png"),
        ("gifs", "a.gif", b"GIF89a", OutputFile, "image/gif"),
        ("audio", "s.mp3", b"\xff\xfb", OutputFile, "audio/mpeg"),
        ("latents", "l.latent", b"", OutputFile, "application/octet-stream"),
    ],
)
def test_only_a_picture_that_opens_is_an_image(kind, name, data, expected, media_type):
    output = as_output(ref(name, kind=kind), data, name=name, subfolder="", origin=Origin())
    assert type(output) is expected
    assert (output.media_type, output.kind, output.data) == (media_type, kind, data)
