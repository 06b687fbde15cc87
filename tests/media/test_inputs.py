"""Images on their way in."""

import asyncio
import io
import os
import signal
import threading
import weakref
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from runpod_comfy.errors import InputError
from runpod_comfy.media.formats import media_type_of
from runpod_comfy.media.inputs import encode_image, encode_images, name_images
from runpod_comfy.media.pictures import MAX_IMAGE_PIXELS

ORIENTATION = 0x0112


def picture(mode="RGB", size=(40, 24)):
    """A picture without any symmetry, so that turning it shows."""
    image = Image.new("RGB", size, "red")
    image.paste((0, 0, 255), (0, 0, 10, 6))
    image.paste((0, 255, 0), (30, 0, 40, 4))
    return image.convert(mode)


def encoded(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def turned_jpeg(orientation=6):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(picture(), "JPEG", exif=exif, quality=95)


def opened(data):
    return Image.open(io.BytesIO(data))


def as_comfyui_loads_it(data):
    """What LoadImage makes of a file: it applies the EXIF orientation."""
    return ImageOps.exif_transpose(opened(data)).convert("RGB")


def opened_file(path):
    """An image as `Image.open` leaves it: the file is closed with the test's last reference to it."""
    image = Image.open(path)
    weakref.finalize(image, image.fp.close)
    return image


def loaded(data):
    image = opened(data)
    image.load()
    return image


FORMS = {
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "path": lambda path: path,
    "string": str,
    "unread picture of a file": opened_file,
    "unread picture of bytes": lambda path: opened(path.read_bytes()),
    "read picture": lambda path: loaded(path.read_bytes()),
    "copy of a picture": lambda path: loaded(path.read_bytes()).copy(),
}
UNREAD = [name for name in FORMS if "picture" not in name or "unread" in name]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(turned_jpeg())
    return path


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_exactly_once_in_whatever_form_it_comes(form, orientation, photo):
    photo.write_bytes(turned_jpeg(orientation))
    sent = encode_image(FORMS[form](photo))
    expected = as_comfyui_loads_it(photo.read_bytes())
    assert as_comfyui_loads_it(sent.data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("form", UNREAD)
@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_a_file_that_comfyui_reads_is_sent_as_it_is(form, kind, extension, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(encoded(picture(), kind))
    sent = encode_image(FORMS[form](path))
    assert sent.data == path.read_bytes()
    assert sent.extension == extension


def test_a_picture_that_was_changed_is_sent_as_it_is_now(photo):
    image = opened_file(photo)
    image.thumbnail((20, 20))
    assert opened(encode_image(image).data).size == (12, 20)  # and upright
    draft = opened_file(photo)
    draft.draft("L", (20, 12))
    assert opened(encode_image(draft).data).mode == "L"


def test_encoding_leaves_the_callers_picture_usable(photo):
    image = opened_file(photo)
    encode_image(image)
    assert image.getexif()[ORIENTATION] == 6
    assert image.resize((4, 4)).size == (4, 4)
    assert encode_image(image).data  # and again


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "HSV"])
def test_a_picture_of_any_mode_arrives_with_its_colours(mode):
    through = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode, mode)
    image = picture(through).convert(mode)
    sent = opened(encode_image(image).data)
    assert sent.convert("RGB").tobytes() == image.convert(through).convert("RGB").tobytes()


def test_alpha_is_kept_since_comfyui_reads_it_as_the_mask():
    image = picture("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert opened(encode_image(image).data).getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_sixteen_bits_are_kept():
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 300, 65535)):
        image.putpixel((x, 0), value)
    sent = opened(encode_image(image).data)
    assert [sent.getpixel((x, 0)) for x in range(3)] == [0, 300, 65535]


def test_other_formats_become_png():
    for kind in ("BMP", "TIFF", "GIF"):
        sent = encode_image(encoded(picture(), kind))
        assert (sent.extension, media_type_of(sent.data)) == ("png", "image/png")


def test_pictures_are_scaled_down_on_request_and_never_up(photo):
    assert opened(encode_image(photo, max_pixels=100).data).size == (7, 12)  # upright
    assert encode_image(photo, max_pixels=40 * 24).data == photo.read_bytes()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_file_cut_short_anywhere_is_refused_without_decoding_it(kind, lossless):
    options = {"lossless": True} if kind == "WEBP" and lossless else {}
    data = encoded(picture(), kind, **options)
    for end in range(12, len(data), 7):
        with pytest.raises(InputError, match=r"truncated or damaged|not an image"):
            encode_image(data[:end])


def test_a_thumbnail_within_a_cut_photo_does_not_pass_for_its_end():
    thumbnail = encoded(picture(size=(8, 8)), "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = encoded(picture(), "JPEG")
    whole = data[:2] + segment + data[2:]
    assert encode_image(whole).data == whole
    with pytest.raises(InputError, match="truncated"):
        encode_image(whole[:-2])


def huge_png():
    """A header that claims 200 megapixels, in a file of a few bytes."""
    data = bytearray(encoded(picture("L"), "PNG"))
    data[16:24] = (20_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.jpg", "there is no such file"),
        (".", "is a folder"),
        (b"", "zero bytes"),
        (b"hello", "is not an image"),
        ("https://example.com/a.jpg", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL or base64"),
        (3, "is of type int"),
        (huge_png(), f"at most {MAX_IMAGE_PIXELS:,}"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
        (Image.new("F", (2, 2), 0.5), "cannot hold"),
        ("nul\0.jpg", "cannot be read"),
    ],
)
def test_what_is_no_usable_image_is_named_with_the_reason(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        encode_image(source, label="input image 3")


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(InputError, match="is no regular file"):
            encode_image(path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # forking then is what is tested
def test_a_process_forked_while_another_thread_decodes_can_decode():
    bitmap = encoded(picture(size=(400, 400)), "BMP")
    stop = threading.Event()

    def decode():
        while not stop.is_set():
            encode_image(bitmap)

    thread = threading.Thread(target=decode)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                encode_image(bitmap)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"x", "text", b"II*\0\xff\xff\xff\xff", 5])
def test_an_exif_that_cannot_be_read_turns_nothing(exif):
    image = Image.new("RGB", (8, 4), "red")
    image.info["exif"] = exif
    sent = opened(encode_image(image).data)
    assert (sent.size, sent.getpixel((0, 0))) == ((8, 4), (255, 0, 0))


async def test_photos_of_many_calls_are_encoded_by_the_same_few_threads():
    pictures = [Image.new("RGB", (16, 16), (number, 0, 0)) for number in range(4)]
    await asyncio.gather(*(encode_images(pictures) for _ in range(50)))
    names = {thread.name for thread in threading.enumerate() if "encode" in thread.name}
    assert 1 <= len(names) <= 4


async def test_every_bad_image_is_reported_at_once(photo):
    with pytest.raises(InputError) as caught:
        await encode_images([b"", photo, "missing.png"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("input image 1:")
    assert lines[1].startswith("input image 3 (missing.png):")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF0000WEBP"]))
def test_any_bytes_whatever_are_an_image_or_an_input_error(data, start):
    with suppress(InputError):
        encode_image(start + data)


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_sort_in_the_order_of_the_images():
    image = encode_image(picture())
    for count in (1, 3, 101):
        names = [each.name for each in name_images([image] * count)]
        assert names == sorted(names)
        assert len(set(names)) == count


def test_the_same_images_get_the_same_subfolder_and_others_another():
    red, blue = encode_image(picture()), encode_image(Image.new("RGB", (8, 8), "blue"))
    [[first], [second], [third]] = [name_images([image]) for image in (red, red, blue)]
    assert first.subfolder == second.subfolder != third.subfolder
    assert name_images([red, blue])[0].subfolder != name_images([blue, red])[0].subfolder
