import json

import pytest
from made_dataset import failure_line, image_line

from runpod_comfy.dataset.manifest import Manifest
from runpod_comfy.gallery.data import gallery_data


@pytest.fixture
def data(tmp_path):
    """What the page gets for lines of a manifest."""

    def of(*lines, images_wanted=1, files=None):
        with Manifest.open(tmp_path / "manifest.jsonl") as manifest:
            for line in lines:
                manifest.add(line)
            found = gallery_data(manifest.tasks.items(), images_wanted=images_wanted, files=files)
        return json.loads(json.dumps(found, allow_nan=False))

    return of


def image(key="a", index=0, sample=0, file=None, **about):
    return image_line(key, index, sample, file or f"images/000/{index:06}_{sample}.png", **about)


def column(found, name):
    [given] = [each for each in found["columns"] if each["name"] == name]
    return [None if code < 0 else given["values"][code] for code in given["codes"]]


def test_a_variable_holds_each_value_once(data):
    found = data(
        *(
            image(key, n, variables={"cfg": cfg})
            for n, (key, cfg) in enumerate(zip("abcd", (5, 7, 5, 7.0), strict=True))
        )
    )
    assert [each["values"] for each in found["columns"]] == [[5, 7, 7.0]]
    assert column(found, "cfg") == [5, 7, 5, 7]


def test_what_javascript_would_round_or_refuse_is_text(data):
    found = data(
        image(seed=2**64 - 1, variables={"a": 2**64 - 1, "b": float("nan"), "c": [1, {"x": 2}], "d": 2**53 - 1})
    )
    assert found["images"][0][2] == str(2**64 - 1)
    assert [column(found, name)[0] for name in "abcd"] == [str(2**64 - 1), "nan", '[1, {"x": 2}]', 2**53 - 1]


def test_a_variable_comes_before_a_column_of_the_same_name_and_none_hides_a_seed(data):
    found = data(image(variables={"cfg": 5, "seed": "x"}, columns={"cfg": 1, "sku": "s", "id": "a", "empty": None}))
    assert [each["name"] for each in found["columns"]] == ["cfg", "var_seed", "sku"]
    assert column(found, "cfg") == [5]


def test_only_a_name_that_is_unusual_is_told(data):
    found = data(
        image("a", 0), image("b", 1, file="images/000/shoe.webp"), image("c", 1234, file="images/001/001234_0.png")
    )
    assert [each[3] for each in found["images"]] == [0, "images/000/shoe.webp", 0]


def test_a_file_that_is_gone_is_left_out(data):
    found = data(image(sample=0), image(sample=1), files={"images/000/000000_1.png"})
    assert [each[1] for each in found["images"]] == [1]


@pytest.mark.parametrize(("wanted", "failures"), [(1, 0), (2, 1), (None, 0)])
def test_a_row_that_failed_and_is_whole_now_is_not_shown_as_failed(data, wanted, failures):
    failure = failure_line("a", 0)
    assert len(data(failure, image(), images_wanted=wanted)["failures"]) == failures


def test_a_failure_of_an_older_manifest_has_the_values_of_its_cell(data):
    failure = failure_line('r {"cfg": 5}', 0, row_id="r")
    del failure["variables"], failure["columns"]
    assert column(data(failure), "cfg") == [5]
