import pytest

from runpod_comfy.dialects.native_request import input_urls_of, parse_request
from runpod_comfy.errors import InputError


def test_image_of_a_request_may_be_a_url_which_is_left_for_the_worker():
    body = {
        "workflow": {"1": {"class_type": "SaveImage", "inputs": {}}},
        "images": [{"name": "a.png", "image": "AAAA"}, {"name": "b.png", "url": "https://h/b", "subfolder": "x"}],
    }
    assert [(each.name, each.data, each.subfolder) for each in parse_request(body).images] == [
        ("a.png", b"\0\0\0", ""),
        ("b.png", b"", "x"),
    ]
    assert input_urls_of(body) == {1: "https://h/b"}
    assert input_urls_of({}) == {}


@pytest.mark.parametrize(
    ("body", "seeds", "randomize"),
    [
        ({"seeds": [7]}, (7,), True),
        ({"seeds": [7, 8], "batch_count": 2}, (7, 8), True),
        ({"seeds": [7], "randomize_seed": False}, (), False),
        ({"batch_count": 2}, (), True),
        ({}, (), False),
    ],
)
def test_seeds_that_are_named_are_taken_unless_seeds_shall_stay(body, seeds, randomize):
    read = parse_request({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}, **body})
    assert (read.seeds, read.randomize_seed) == (seeds, randomize)


@pytest.mark.parametrize(
    "image", [{"name": "a", "url": 1}, {"name": "a"}, {"url": "https://h/a"}, {"name": "../a", "url": "x"}]
)
def test_image_with_neither_bytes_nor_url_is_refused(image):
    with pytest.raises(InputError):
        parse_request({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}, "images": [image]})
