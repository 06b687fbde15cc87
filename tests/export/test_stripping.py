import io

import pytest
from PIL import Image, PngImagePlugin
from PIL.Image import Exif

from runpod_comfy.errors import InputError
from runpod_comfy.export.png import chunks_of, read_texts, with_text
from runpod_comfy.export.stripping import strip_metadata

SECRET = b"a secret workflow"


def picture(form, *, orientation=None, **options):
    made = Image.radial_gradient("L").convert("RGB")
    exif = Exif()
    exif[0x010F] = SECRET.decode()
    if orientation:
        exif[0x0112] = orientation
    if form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", SECRET.decode())
        info.add_itxt("workflow", SECRET.decode(), zip=True)
        options["pnginfo"] = info
    target = io.BytesIO()
    made.save(target, form, exif=exif, icc_profile=b"a profile", **options)
    return target.getvalue()


FILES = {
    "png": picture("PNG"),
    "jpeg": picture("JPEG", comment=SECRET),
    "progressive": picture("JPEG", progressive=True, comment=SECRET) + b"appendix \xff\xd9" + SECRET,
    "webp": picture("WEBP", xmp=SECRET),
    "lossless": picture("WEBP", lossless=True, xmp=SECRET),
}


@pytest.mark.parametrize("name", FILES)
def test_metadata_is_gone_and_pixels_are_the_same(name):
    before, after = FILES[name], strip_metadata(FILES[name], name)
    assert SECRET in before
    assert SECRET not in after
    with Image.open(io.BytesIO(before)) as first, Image.open(io.BytesIO(after)) as made:
        assert made.tobytes() == first.tobytes()
        assert made.info["icc_profile"] == b"a profile"
        assert not {"exif", "xmp", "comment", "prompt", "workflow"} & set(made.info)
    assert strip_metadata(after, name) == after


def test_a_photo_stays_turned_as_it_is_meant():
    with Image.open(io.BytesIO(strip_metadata(picture("JPEG", orientation=6), "a.jpg"))) as made:
        assert dict(made.getexif()) == {0x0112: 6}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [12, 40, 0.5, -3])
def test_a_file_that_is_cut_off_is_refused(name, kept):
    data = FILES["jpeg" if name == "progressive" else name]
    cut = data[: kept if isinstance(kept, int) else int(len(data) * kept)]
    with pytest.raises(InputError):
        strip_metadata(cut, "x")


def test_other_formats_are_refused_with_what_to_do():
    target = io.BytesIO()
    Image.new("RGB", (2, 2)).save(target, "GIF")
    with pytest.raises(InputError, match=r"a\.gif is image/gif.*without --strip-metadata"):
        strip_metadata(target.getvalue(), "a.gif")


@pytest.mark.parametrize("text", ["plain", "Größe", "日本 “ink”\nSteps: 1"])
def test_a_text_is_written_once_and_read_again(text):
    made = with_text(with_text(FILES["png"], "parameters", "old"), "parameters", text)
    assert read_texts(made) == {"prompt": SECRET.decode(), "workflow": SECRET.decode(), "parameters": text}
    kinds = [chunk.kind for chunk in chunks_of(made)]
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    with Image.open(io.BytesIO(made)) as image:
        image.load()
        assert image.text["parameters"] == text
