import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dataset.grids import Axis, cells, parse_axis, product_text
from runpod_comfy.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("5,7,9", (5, 7, 9)),
        ("5.5,7", (5.5, 7)),
        ("euler, dpmpp_2m", ("euler", "dpmpp_2m")),
        ('"a, ""b""",c', ('a, "b"', "c")),
        ("5..9/2", (5, 7, 9)),
        ("5..9", (5, 6, 7, 8, 9)),
        ("9..5/2", (9, 7, 5)),
        ("0.1..0.5/0.1", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("1..10#4", (1, 4, 7, 10)),
        ("0..1#5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("1..10#1", (1,)),
        ("1-5 (+2)", (1, 3, 5)),
        ("1-10 [4]", (1, 4, 7, 10)),
        ("-2..2/2", (-2, 0, 2)),
        ("true,false", (True, False)),
        ("1e3", ("1e3",)),
        ("18446744073709551615", (2**64 - 1,)),
    ],
)
def test_an_axis_is_read_in_all_its_forms(written, values):
    assert parse_axis(f"x={written}") == Axis("x", values)
    assert [type(value) for value in parse_axis(f"x={written}").values] == [type(value) for value in values]


def test_values_come_from_the_lines_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfa red fox, in snow\r\n\r\n8 cats\n")
    assert parse_axis(f"prompt=@{file}").values == ("a red fox, in snow", "8 cats")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "=1",
        "a b=1",
        "x=",
        "x=1,1",
        "x=1..5/0",
        "x=1..5#0",
        "x=@missing",
        "x=1..1000000",
        'x="open',
        "x=0..9#99999",
    ],
)
def test_what_is_no_axis_is_refused(text):
    with pytest.raises(ConfigurationError, match="--grid"):
        parse_axis(text)


def test_cells_are_all_combinations_the_last_axis_fastest():
    axes = [parse_axis("a=1,2"), parse_axis("b=x,y")]
    assert [tuple(cell.values()) for cell in cells(axes)] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert product_text(axes) == "2 x 2"


def test_without_an_axis_there_is_one_empty_cell():
    assert list(cells([])) == [{}]
    assert list(cells([], zipped=True)) == [{}]
    assert product_text([]) == "1"


def test_zipped_axes_go_together_and_must_be_of_one_length():
    assert [tuple(cell.values()) for cell in cells([Axis("a", (1, 2)), Axis("b", (3, 4))], zipped=True)] == [
        (1, 3),
        (2, 4),
    ]
    with pytest.raises(ConfigurationError, match="a has 1, b has 2"):
        list(cells([Axis("a", (1,)), Axis("b", (3, 4))], zipped=True))


def test_a_variable_has_one_axis():
    with pytest.raises(ConfigurationError, match="twice"):
        list(cells([Axis("a", (1,)), Axis("a", (2,))]))


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(1, 60))
def test_a_counted_range_has_its_ends_and_its_count(low, high, count):
    values = parse_axis(f"x={low}..{high}#{count}").values if low != high or count == 1 else (low, high)
    assert values[0] == low
    if count > 1:
        assert values[-1] == high
        assert len(values) == count or low == high
    assert list(values) == sorted(values, reverse=high < low)
