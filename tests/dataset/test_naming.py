from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dataset.naming import FreeNames, NamePattern, split_word_in
from runpod_comfy.errors import ConfigurationError


@pytest.mark.parametrize(
    ("pattern", "values", "name"),
    [
        ("{sku}/{seed}.png", {"sku": "88-412 B", "seed": "18446744073709551615"}, "88-412-b/18446744073709551615"),
        ("{index}_{sample}", {"index": 7, "sample": 2}, "000007-2"),
        ("{a}/{a}", {"a": "../../etc"}, "etc/etc"),
        ("{a}", {"a": "日本"}, "none"),
        ("{a}", {"a": "CON"}, "con-"),
        ("{cfg}", {"cfg": 7.5}, "7-5"),
        ("Shots of {a}.JPG", {"a": "Å"}, "shots-of-a"),
        ("{a}", {}, "none"),
    ],
)
def test_what_a_pattern_gives(pattern, values, name):
    assert NamePattern(pattern).name_for(values) == name


@pytest.mark.parametrize("pattern", ["plain", "{a}/", "/{a}", "{a", "{}", "{a b}", "{a!r}"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ConfigurationError, match="--name"):
        NamePattern(pattern)


@given(st.text(), st.text(max_size=400))
def test_no_value_leads_anywhere_or_is_too_long(first, second):
    parts = PurePosixPath(NamePattern("{a}/x-{b}-{seed}").name_for({"a": first, "b": second, "seed": 2**64 - 1})).parts
    assert len(parts) == 2
    assert all(part not in {"", ".", ".."} and len(part.encode()) <= 80 for part in parts)
    assert parts[1].endswith("18446744073709551615")


@given(st.lists(st.tuples(st.sampled_from(["a", "a-2", "b"]), st.integers(0, 9))))
def test_no_two_images_share_a_name_and_one_keeps_its_own(asked):
    names = FreeNames()
    given = {}
    for name, number in asked:
        if number not in given:
            given[number] = name, names.name_for(name, (number, 0))
        assert names.name_for(given[number][0], (number, 0)) == given[number][1]
    assert len({name for _, name in given.values()}) == len(given)
    again = FreeNames({(number, 0): name for number, (_, name) in given.items()})
    assert all(again.name_for(asked_for, (number, 0)) == name for number, (asked_for, name) in given.items())


@pytest.mark.parametrize("name", ["000123-test", "shoe-val/1", "dev", "a/train-07", "eval-1/x", "x.validation.y"])
def test_words_by_which_loaders_split_are_found(name):
    assert split_word_in(name)


@pytest.mark.parametrize("name", ["latest", "valley", "trainer/1", "device-2", "contest"])
def test_words_that_only_hold_one_are_not(name):
    assert split_word_in(name) is None
