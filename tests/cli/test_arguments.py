from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.cli.arguments import find_images, parse_variables, spread_option


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        ("--image 1 2 3", "--image 1 --image 2 --image 3"),
        ("t.jinja --image 1 2 -n 4", "t.jinja --image 1 --image 2 -n 4"),
        ("--image 1 2 t.json", "--image 1 --image 2 t.json"),
        ("--image 1 --image 2 3", "--image 1 --image 2 --image 3"),
        ("--image 1 -- 2 3", "--image 1 -- 2 3"),
        ("--image", "--image"),
        ("-n 4 a b", "-n 4 a b"),
    ],
)
def test_each_word_after_the_option_gets_one_of_its_own(words, spread):
    assert spread_option(words.split(), "--image") == spread.split()


@given(st.lists(st.sampled_from(["--image", "a.png", "t.jinja", "-n", "4", "--"])))
def test_spreading_loses_no_word(words):
    without = [word for word in words if word != "--image"]
    assert [word for word in spread_option(words, "--image") if word != "--image"] == without


def test_a_folder_stands_for_its_pictures_in_their_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.webp").mkdir()
    assert find_images([Path("x.png"), tmp_path]) == [Path("x.png"), tmp_path / "a.jpg", tmp_path / "b.PNG"]


def test_a_pattern_that_no_shell_has_expanded_stands_for_its_files(tmp_path):
    for name in ("b.jpg", "a.jpg", "[x].jpg"):
        (tmp_path / name).touch()
    assert find_images([tmp_path / "[ab].jpg"]) == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert find_images([tmp_path / "[x].jpg"]) == [tmp_path / "[x].jpg"]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(click.BadParameter, match=r"the pattern .*nothere\*.jpg matched nothing"):
        find_images([tmp_path / "nothere*.jpg"])


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(click.BadParameter, match="has no pictures"):
        find_images([tmp_path])


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("8", 8),
        ("1.5", 1.5),
        ("true", True),
        ('"8"', "8"),
        ("[1, 2]", [1, 2]),
        ("a fox", "a fox"),
        ("a=b", "a=b"),
        ("", ""),
        ("NaN", "NaN"),
        ('"@home"', "@home"),
        (str(2**64 - 1), 2**64 - 1),
    ],
)
def test_a_value_is_json_or_text(value, read):
    assert parse_variables([f"x={value}"]) == {"x": read}


def test_a_value_comes_from_a_file_as_text_without_its_last_line_end(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xef\xbb\xbf8 foxes\nin snow\n")
    assert parse_variables([f"x=@{file}"]) == {"x": "8 foxes\nin snow"}


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["x"], "is not name=value"),
        (["=1"], "is not name=value"),
        (["a b=1"], "is not name=value"),
        (["x=1", "x=2"], "given twice"),
        (["x=@missing.txt"], "cannot be read"),
    ],
)
def test_what_is_no_assignment_is_refused(assignments, words):
    with pytest.raises(click.BadParameter, match=words):
        parse_variables(assignments)
