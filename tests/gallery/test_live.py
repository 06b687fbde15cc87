import asyncio
import json
import re

from made_dataset import image_line

from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.gallery.live import LiveGallery
from runpod_comfy.gallery.page import Gallery


def call_of(path):
    name, text = re.fullmatch(r"runpodComfyGallery\.(\w+)\((.*)\);\n", path.read_text()).groups()
    return name, json.loads(text)


def line(index):
    return image_line(f"r{index}", index, 0, f"images/000/{index:06}_0.png")


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - files have no event
            await asyncio.sleep(0.01)


async def test_what_a_batch_adds_comes_in_parts_and_the_page_is_whole_at_the_end(tmp_path):
    beside = tmp_path / "__gallery__"
    part = beside / "live" / "000000.js"
    with OutputFolder(tmp_path) as folder:
        (tmp_path / "images/000").mkdir(parents=True)
        for index in (0, 1):
            (tmp_path / f"images/000/{index:06}_0.png").write_bytes(b"x")
        folder.manifest.add(line(0))
        async with LiveGallery(
            Gallery(root=tmp_path, shown_as="out", run={}), folder.manifest.tasks, every_s=0.01
        ).kept():
            await until((tmp_path / "gallery.html").exists)
            folder.manifest.add(line(1))
            await until(lambda: part.exists() and call_of(beside / "live.js")[1]["parts"] == 1)
            page = (tmp_path / "gallery.html").read_text()
            assert '"tasks":[["r0"' in page
            assert "r1" not in page
            name, data = call_of(part)
            assert (name, [task[0] for task in data["tasks"]]) == ("part", ["r1"])
            assert call_of(beside / "live.js")[1]["running"] is True
    assert call_of(beside / "live.js")[1]["running"] is False
    page = (tmp_path / "gallery.html").read_text()
    assert '"r1"' in page
    assert '"live":null' in page


async def test_a_page_that_cannot_be_written_ends_nothing(tmp_path, caplog):
    (tmp_path / "gallery.html").mkdir()
    with OutputFolder(tmp_path / "sub") as folder:
        async with LiveGallery(
            Gallery(root=tmp_path, shown_as="out", run={}), folder.manifest.tasks, every_s=0.01
        ).kept():
            await until(lambda: "gallery's page could not be written" in caplog.text)
