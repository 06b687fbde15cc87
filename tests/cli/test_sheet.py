"""`runpod-comfy sheet`: contact sheets."""

import json
from pathlib import Path

import pytest
from PIL import Image

TEMPLATE = """{
  "1": {"class_type": "EmptyImage", "inputs": {"width": {{ 0 if cfg == 7 and steps == 2 else 48 }}, "height": 32,
        "batch_size": {{ batch_size }}, "color": {{ cfg * 65536 * 20 + steps * 20 }}}},
  "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "{{ prompt }}"}}
}"""


@pytest.fixture
def dataset(cli):
    Path("t.jinja").write_text(TEMPLATE)
    Path("rows.csv").write_text("prompt\nmug\ncup\n")
    grids = ("--grid", "cfg=5,7", "--grid", "steps=1,2,3")
    assert cli("batch", "t.jinja", "rows.csv", *grids, "-o", "out", "--local").code == 1  # one cell of each row fails
    return Path("out")


def sheet(cli, *args):
    done = cli("sheet", *args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["data"]["pages"], done.err


def colours(path):
    with Image.open(path) as page:
        return {colour for _, colour in page.convert("RGB").getcolors(2**24)}


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize("axes", [(), ("--x", "cfg", "--y", "steps"), ("--x", "prompt"), ("--y", "cfg")])
def test_every_image_is_on_the_sheet_whatever_the_axes(axes, cli):
    pages, err = sheet(cli, "out", *axes)
    assert pages == ["sheet.png"]
    assert "10 of 12 images on 1 page(s)" in err
    made = {(cfg * 20, 0, steps * 20) for cfg in (5, 7) for steps in (1, 2, 3)} - {(140, 0, 40)}
    assert made <= colours("sheet.png")
    assert (0x4A, 0x23, 0x28) in colours("sheet.png")  # those that failed


@pytest.mark.usefixtures("dataset")
def test_many_images_are_split_into_pages_under_64_million_pixels(cli):
    pages, _ = sheet(cli, "out", "--cell", 2048, "--columns", 2, "-o", "big/s.jpg")
    assert pages == ["big/s-1.jpg", "big/s-2.jpg"]
    for page in pages:
        with Image.open(page) as image:
            assert image.width * image.height < 64_000_000
            assert max(image.size) <= 8000


def test_files_and_folders_of_files_need_no_dataset(cli):
    Image.new("RGB", (90, 60), (1, 200, 3)).save("a.png")
    Path("broken.png").write_bytes(b"none")
    pages, err = sheet(cli, "portrait", "a.png", "broken.png", "-o", "all.webp", "--cell", 64)
    assert "4 of 4 images on 1 page(s)" in err
    with Image.open(pages[0]) as image:
        assert image.format == "WEBP"
    sheet(cli, "a.png", "-o", "sheet.png")
    assert (1, 200, 3) in colours("sheet.png")


def test_a_sheet_in_its_own_folder_does_not_show_itself(cli):
    for _ in range(2):
        _, err = sheet(cli, "portrait", "-o", "portrait/sheet.png")
        assert "2 of 2 images" in err


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["out", "--x", "stpes"], "Did you mean steps?"),
        (["out", "-o", "sheet.gif"], "neither .png, .jpg nor .webp"),
        (["a.png", "b.png", "-o", "b.png"], "b.png is one of the images"),
        (["empty"], "has no pictures"),
        (["nowhere.png"], "There is no file nowhere.png"),
    ],
)
def test_what_cannot_be_drawn_is_refused(args, words, cli):
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(f"{name}.png")
    Path("empty").mkdir()
    done = cli("sheet", *args)
    assert done.code == 2
    assert words in done.err
