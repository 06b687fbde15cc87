import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dialects.names import DistinctNames, plain_name


@given(st.lists(st.sampled_from(["a_00001_.png", "a_00002_.png", "a_00003_.png", "a.png", "a_1.png", "a", "a_9_.png"])))
def test_no_two_files_get_the_same_name(asked):
    names = DistinctNames()
    given_names = [names.name_for(name, None) for name in asked]
    assert len(set(given_names)) == len(asked)


def test_counters_count_on_as_comfyui_would():
    names = DistinctNames()
    assert [names.name_for("a_00099_.png", None) for _ in range(3)] == ["a_00099_.png", "a_00100_.png", "a_00101_.png"]


def test_each_subfolder_has_its_own_names():
    names = DistinctNames()
    assert [names.name_for("a.png", folder) for folder in ("x", "y", "x")] == ["a.png", "a.png", "a_1.png"]


@pytest.mark.parametrize("name", ["../../etc/a.png", "..\\..\\a.png", "/a.png", "C:\\x\\a.png"])
def test_names_from_outside_lose_their_folders(name):
    assert plain_name(name) == "a.png"


@pytest.mark.parametrize("name", ["", "/", "a/.."])
def test_a_name_that_is_no_name_gets_one(name):
    assert plain_name(name) == "output"
