import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runpod_comfy.dataset.rows import read_rows
from runpod_comfy.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Write a file of data beside two photos and read it."""
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)

    def make(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_rows(path)

    return make


EXCEL = '\ufeffid;prompt;cfg;photo\r\n7;a red mug, big;7.5;a.jpg\r\n8;"say ""hi""\nthere";8;a.jpg|b.jpg\r\n'


@pytest.mark.parametrize("text", [EXCEL, EXCEL.replace(";", "\t"), EXCEL.replace("mug, big", "mug").replace(";", ",")])
def test_what_spreadsheets_save_is_read(text, write):
    first, second = write(text).rows
    assert (first.id, first.line, first.values["cfg"]) == ("7", 2, 7.5)
    assert (second.id, second.line, second.values) == ("8", 3, {"prompt": 'say "hi"\nthere', "cfg": 8})
    assert [path.name for path in second.photos] == ["a.jpg", "b.jpg"]


def test_an_empty_cell_leaves_the_templates_default(write):
    [row] = write("prompt,cfg,steps\na,,20\n").rows
    assert row.values == {"prompt": "a", "steps": 20}


@pytest.mark.parametrize(
    ("cell", "value"),
    [("8", 8), ("-8.50", -8.5), ("007", "007"), ("1e3", "1e3"), ("{{ x }}", "{{ x }}"), ("nan", "nan")],
)
def test_a_cell_is_a_number_only_where_it_is_written_as_one(cell, value, write):
    [row] = write(f"x,y\n{cell},1\n").rows
    assert row.values["x"] == value
    assert type(row.values["x"]) is type(value)


def test_digits_without_end_stay_text(write):
    for cell in ("9" * 5000, "9" * 400 + ".5"):
        [row] = write(f"x,y\n{cell},1\n").rows
        assert row.values["x"] == cell


def test_an_id_is_a_name_though_it_looks_like_a_number(write):
    assert [row.id for row in write("id,x\n1.10,a\n1.1,b\n1.0,c\n1,d\n").rows] == ["1.10", "1.1", "1.0", "1"]


def test_a_json_line_that_is_nested_without_end_spares_the_others(write):
    table = write('{"x": 1}\n' + "[" * 100_000 + "\n", "data.jsonl")
    assert ([row.values for row in table.rows], [bad.line for bad in table.bad]) == ([{"x": 1}], [2])


def test_decimal_commas_are_refused_with_the_columns_name(write):
    with pytest.raises(InputError, match=r"'cfg' has decimal commas \(7,5\). Write 7.5"):
        write("prompt;cfg\na;7,5\nb;8\n")
    assert write("prompt;x\na;7,5\nb;c\n").rows  # a text that looks like one


@pytest.mark.parametrize("name", ["data.jsonl", "data.ndjson"])
def test_json_lines_keep_their_types(name, write):
    lines = [
        '{"id": 1, "prompt": "a\\u2028b", "flag": true, "seed": 18446744073709551615, "none": null}',
        "",
        "[1]",
        "{",
    ]
    table = write("\n".join(lines), name)
    [row] = table.rows
    assert row.values == {"prompt": "a\u2028b", "flag": True, "seed": 2**64 - 1}
    assert [bad.line for bad in table.bad] == [3, 4]


def test_a_row_without_an_id_is_known_by_what_it_says(write):
    rows = write("prompt,cfg\na,1\nb,1\n").rows
    again = write("cfg,prompt\n1,b\n1,a\n").rows
    assert {row.id for row in rows} == {row.id for row in again}
    assert len({row.id for row in rows}) == 2


@pytest.mark.parametrize("text", ["id,x\n7,1\n8,1\n7,2\n", "x\n1\n2\n1\n"])
def test_the_same_row_twice_is_refused_with_both_lines(text, write):
    with pytest.raises(InputError, match="lines 2 and 4"):
        write(text)


def test_a_bad_row_spares_the_others(write):
    table = write("prompt,photo\na,a.jpg\nb,missing.jpg\nc\nd,b.jpg\n")
    assert [row.values["prompt"] for row in table.rows] == ["a", "d"]
    assert [(bad.line, bad.reason.partition(" ")[0]) for bad in table.bad] == [(3, "the"), (4, "has")]
    assert "missing.jpg does not exist" in table.bad[0].reason


def test_a_folder_of_folders_is_a_row_each(tmp_path):
    for name in ("mug/2.png", "mug/1.png", "cup/1.jpg", "empty/notes.txt", ".hidden/1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    table = read_rows(tmp_path)
    assert {row.id: [path.name for path in row.photos] for row in table.rows} == {
        "cup": ["1.jpg"],
        "mug": ["1.png", "2.png"],
    }
    assert [bad.reason for bad in table.bad] == ["the folder empty has no pictures"]


def test_a_folder_of_pictures_is_a_row_each(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    assert [(row.id, row.photos[0].name) for row in read_rows(tmp_path).rows] == [("a", "a.JPG"), ("b", "b.png")]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("", "data.csv", "is empty"),
        ("a,a\n1,2\n", "data.csv", "'a' twice"),
        ("a,\n1,2\n", "data.csv", "without a name"),
        ('a,b\n"1,2\n', "data.csv", "quote left open"),
        (b"pr\xfcfung\n1\n", "data.csv", "not UTF-8"),
        ("a", "data.xlsx", "no format of rows"),
        (b"PAR1 and no more", "data.parquet", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(content, name, words, write):
    with pytest.raises(InputError, match=words):
        write(content, name)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"missing\.csv cannot be read"):
        read_rows(Path("missing.csv"))


cells = st.text(max_size=5) | st.integers() | st.booleans()


@given(st.lists(st.dictionaries(st.sampled_from("abc"), cells), max_size=5))
def test_json_lines_come_back_as_they_were_written(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    path.write_text("\n".join(json.dumps({"id": str(n), **each}) for n, each in enumerate(records)), "utf-8")
    assert [dict(row.values) for row in read_rows(path).rows] == records
