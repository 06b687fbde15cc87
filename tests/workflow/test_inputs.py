import copy

from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.media.inputs import InputImage
from runpod_comfy.workflow.inputs import name_inputs_flat

FOLDER = "rcc-0123456789abcdef"


def photos(count):
    return tuple(InputImage(f"{n:02}.png", bytes([n]), "image/png", FOLDER) for n in range(count))


def graph(*values):
    return {"1": {"class_type": "A", "inputs": {str(n): value for n, value in enumerate(values)}}}


@given(st.integers(1, 120))
def test_every_photo_is_found_under_its_new_name(count):
    images = photos(count)
    workflow = graph(*(f"{image.subfolder}/{image.name}" for image in images))
    before = copy.deepcopy(workflow)
    renamed, moved = name_inputs_flat(workflow, images)
    assert workflow == before
    assert list(renamed["1"]["inputs"].values()) == [image.name for image in moved]
    assert [image.data for image in moved] == [image.data for image in images]
    assert all("/" not in image.name and not image.subfolder for image in moved)


def test_names_within_longer_texts_and_annotations_are_changed_too():
    renamed, _ = name_inputs_flat(graph(f"{FOLDER}/00.png [input]", f"{FOLDER}/00.png,{FOLDER}/01.png"), photos(2))
    assert renamed["1"]["inputs"] == {"0": f"{FOLDER}-00.png [input]", "1": f"{FOLDER}-00.png,{FOLDER}-01.png"}


def test_other_inputs_are_left_alone_and_an_unchanged_graph_is_the_same():
    workflow = graph(f"/in/{FOLDER}", "00.png", f"{FOLDER}/02.png", 3, ["2", 0])
    assert name_inputs_flat(workflow, photos(2))[0] is workflow


def test_without_photos_nothing_changes():
    workflow = graph("a")
    assert name_inputs_flat(workflow, ()) == (workflow, ())
