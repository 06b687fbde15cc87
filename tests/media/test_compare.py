import io

from PIL import Image

from runpod_comfy.media.compare import compare_pictures


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_equal_bytes_are_not_even_decoded():
    assert str(compare_pictures(b"no picture", b"no picture")) == "identical, byte for byte"


def test_metadata_is_no_difference():
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    palette = image.quantize(2)
    assert str(compare_pictures(png(image), png(Image.new("RGB", (4, 4), (1, 2, 3))) + b"\0")) == "identical pixels"
    assert compare_pictures(png(image), png(palette)).most == 0


def test_the_difference_is_told_in_numbers():
    before, now = Image.new("RGB", (10, 10)), Image.new("RGB", (10, 10))
    now.putpixel((0, 0), (30, 0, 0))
    found = compare_pictures(png(before), png(now))
    assert (found.same_pixels, found.most, round(found.changed_share, 6)) == (False, 30, 0.01)
    assert str(found) == "differs slightly by 0.10 of 255 in the mean, 30 at most, in 1.0% of the pixels"


def test_sixteen_bits_are_compared_as_such():
    before, now = Image.new("I;16", (2, 2), 300), Image.new("I;16", (2, 2), 301)
    assert not compare_pictures(png(before), png(now)).same_pixels
    assert compare_pictures(png(before), png(before) + b"\0").same_pixels


def test_other_sizes_and_what_is_no_picture_are_told():
    small, large = png(Image.new("RGB", (4, 2))), png(Image.new("RGB", (8, 4)))
    assert str(compare_pictures(small, large)) == "differs: 4 x 2 before, 8 x 4 now"
    assert str(compare_pictures(b"one", b"two")) == "differs in its bytes"
