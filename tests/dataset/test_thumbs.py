import io

import pytest
from made_dataset import image_line
from PIL import Image

from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.thumbs import drop_thumb, keep_thumb, make_thumbs, missing_thumbs, thumb_data, thumb_name
from runpod_comfy.errors import InputError


def encoded(mode="RGB", size=(64, 48), kind="PNG", color=0, **options):
    data = io.BytesIO()
    Image.new(mode, size, color).save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize(("size", "small"), [((1024, 512), (256, 128)), ((300, 900), (85, 256)), ((40, 30), (40, 30))])
def test_the_longer_side_has_256_pixels_at_most(size, small):
    with Image.open(io.BytesIO(thumb_data(encoded(size=size)))) as thumb:
        assert (thumb.format, thumb.size) == ("WEBP", small)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_that_comfyui_saves_has_a_thumbnail(mode):
    assert thumb_data(encoded(mode=mode))[8:12] == b"WEBP"


def test_what_is_see_through_stays_so_and_16_bits_are_shown_in_8():
    with Image.open(io.BytesIO(thumb_data(encoded("RGBA", color=(255, 0, 0, 0))))) as thumb:
        assert thumb.getpixel((5, 5))[3] == 0
    with Image.open(io.BytesIO(thumb_data(encoded("I;16", color=0x8000)))) as thumb:
        assert 120 < thumb.convert("L").getpixel((5, 5)) < 136


def test_a_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(thumb_data(encoded(size=(60, 40), kind="JPEG", exif=exif)))) as thumb:
        assert thumb.size == (40, 60)


def test_what_is_no_picture_raises_to_a_caller_and_is_logged_in_a_run(tmp_path, caplog):
    with pytest.raises(InputError):
        thumb_data(b"no picture")
    assert keep_thumb(tmp_path, 3, 1, encoded()[:60]) is False
    assert "row 3, sample 1: no thumbnail could be made" in caplog.text
    assert list(tmp_path.rglob("*")) == []


def test_missing_thumbnails_are_found_and_made(tmp_path):
    with OutputFolder(tmp_path) as folder:
        (tmp_path / "images/000").mkdir(parents=True)
        for sample in range(4):
            file = f"images/000/000007_{sample}.png"
            (tmp_path / file).write_bytes(encoded() if sample < 2 else b"no picture")
            folder.manifest.add(image_line("a", 7, sample, file))
        (tmp_path / "images/000/000007_3.png").unlink()
        keep_thumb(tmp_path, 7, 0, encoded())
        wanted = missing_thumbs(tmp_path, folder.manifest.tasks)
        assert [each.sample for each in wanted] == [1, 2]
        told = []
        assert make_thumbs(tmp_path, wanted, on_thumb=told.append) == 1
        assert told == [1, 2]
        assert [each.sample for each in missing_thumbs(tmp_path, folder.manifest.tasks)] == [2]
    drop_thumb(tmp_path, 7, 0)
    drop_thumb(tmp_path, 7, 0)
    assert not (tmp_path / thumb_name(7, 0)).exists()


def test_nothing_outside_the_folder_is_read_for_a_manifest(tmp_path):
    (tmp_path / "private.png").write_bytes(encoded())
    root = tmp_path / "out"
    with OutputFolder(root) as folder:
        (root / "images").mkdir()
        folder.manifest.add(image_line("a", 0, 0, "images/../../private.png"))
        assert missing_thumbs(root, folder.manifest.tasks) == []


def test_no_thumbnail_is_written_through_a_symlink_out_of_the_folder(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (root / "__gallery__").mkdir(parents=True)
    (root / "__gallery__" / "thumbs").symlink_to(outside)
    assert not keep_thumb(root, 0, 0, encoded())
    assert list(outside.iterdir()) == []
