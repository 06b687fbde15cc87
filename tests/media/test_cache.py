import io
import os
import threading

import pytest
from PIL import Image

from runpod_comfy.errors import InputError
from runpod_comfy.media.cache import Cache, file_key, picture_key
from runpod_comfy.media.inputs import Encoders


def test_what_is_known_is_not_made_again():
    cache, made = Cache(len, limit_bytes=100), []

    def make(value):
        made.append(value)
        return value

    assert [cache.get(key, lambda: make(b"x" * 10)) for key in "aab"] == [b"x" * 10] * 3
    assert len(made) == 2


def test_the_least_used_is_forgotten_and_what_is_too_large_never_kept():
    cache, made = Cache(len, limit_bytes=100), []

    def get(key, size):
        return cache.get(key, lambda: made.append(key) or bytes(size))

    for key, size in (("a", 40), ("b", 40), ("a", 40), ("c", 40), ("a", 40), ("b", 40), ("huge", 101), ("huge", 101)):
        assert len(get(key, size)) == size
    assert made == ["a", "b", "c", "b", "huge", "huge"]


def test_many_who_want_the_same_at_once_wait_for_one_who_makes_it():
    cache, made, go_on = Cache(len), [], threading.Event()

    def make():
        go_on.wait(20)
        made.append(1)
        return b"x"

    threads = [threading.Thread(target=cache.get, args=("k", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert made == [1]


def test_a_failure_is_everybodys_own_and_is_not_kept():
    cache = Cache(len)

    def fail():
        raise InputError("mine")

    for _ in range(2):
        with pytest.raises(InputError, match="mine"):
            cache.get("k", fail)
    assert cache.get("k", lambda: b"ok") == b"ok"


def test_a_file_that_is_written_again_is_another_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    assert file_key(str(path)) is None  # a second writing now might not show
    os.utime(path, (1000, 1000))
    first = file_key(str(path))
    assert first == file_key(str(path))
    path.write_bytes(b"2")
    os.utime(path, (1000, 1001))
    assert file_key(str(path)) not in (None, first)
    assert file_key(str(tmp_path / "none")) is None


def test_a_picture_is_known_by_its_pixels_and_not_by_its_name():
    image, same = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "red")
    before = picture_key(image)
    assert picture_key(same) == before
    image.putpixel((0, 0), (0, 0, 0))
    assert picture_key(image) != before


def test_a_photo_in_many_jobs_is_encoded_once(tmp_path):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (64, 64), "red").save(path)
    os.utime(path, (1000, 1000))
    work = Encoders()
    first = work.encode(path, label="input image 1", max_pixels=None)
    assert work.encode(path, label="input image 2", max_pixels=None) is first
    assert work.encode(path, label="input image 1", max_pixels=100) is not first
    assert Image.open(io.BytesIO(first.data)).format == "PNG"
