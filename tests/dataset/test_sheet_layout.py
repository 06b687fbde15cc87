import pytest

from runpod_comfy.dataset.sheet_layout import lay_out, legend_of
from runpod_comfy.dataset.tiles import Tile
from runpod_comfy.errors import ConfigurationError


def tile(name, *, made=True, sample=0, **values):
    return Tile(
        name=name, paths=("file",) if made else (), reason="" if made else "oom: x", sample=sample, values=values
    )


def names(table):
    return [[cell.name if cell else None for cell in row] for row in table.cells]


def test_tiles_follow_each_other_where_there_are_no_axes():
    [table] = lay_out([tile(str(n)) for n in range(5)])
    assert names(table) == [["0", "1", "2"], ["3", "4", None]]
    assert names(lay_out([tile("a"), tile("b")], columns=1)[0]) == [["a"], ["b"]]


def test_numbers_are_sorted_and_texts_stay_in_the_order_of_the_data():
    tiles = [tile(f"{cfg}{sampler}", cfg=cfg, sampler=sampler) for cfg in (10, 9) for sampler in ("z", "a")]
    [table] = lay_out(tiles, x="cfg", y="sampler")
    assert (table.columns, table.rows) == (("cfg 9", "cfg 10"), ("sampler z", "sampler a"))
    assert names(table) == [["9z", "10z"], ["9a", "10a"]]


def test_what_else_varies_gives_a_table_of_its_own():
    tiles = [
        tile(f"{p}{x}{y}{s}", prompt=p, x=x, y=y, sample=s, price={"m": 1, "c": 2}[p])
        for p in "mc"
        for x in (1, 2)
        for y in (1, 2)
        for s in (0, 1)
    ]
    tables = lay_out(tiles, x="x", y="y")
    # The price follows from the prompt, so it parts nothing further.
    assert [table.title for table in tables] == ["sample 0, prompt m", "sample 1, prompt m", "sample 0, prompt c",
                                                 "sample 1, prompt c"]  # fmt: skip
    assert names(tables[3]) == [["c111", "c211"], ["c121", "c221"]]


def test_with_one_axis_the_rest_is_the_other():
    tiles = [tile(f"{p}{x}", prompt=p, x=x) for p in "mc" for x in (1, 2)]
    [table] = lay_out(tiles, x="x")
    assert (table.columns, table.rows) == (("x 1", "x 2"), ("prompt m", "prompt c"))
    assert names(table) == [["m1", "m2"], ["c1", "c2"]]
    [turned] = lay_out(tiles, y="x")
    assert names(turned) == [["m1", "c1"], ["m2", "c2"]]


def test_images_that_nothing_tells_apart_are_all_shown():
    tables = lay_out([tile("a", x=1, y=1, id="r1"), tile("b", x=1, y=1, id="r2")], x="x", y="y")
    assert [names(table) for table in tables] == [[["a"]], [["b"]]]
    assert tables[1].title == "row r2"


def test_a_failed_cell_stands_where_its_picture_would():
    tiles = [tile("failed", made=False, x=2, y=1), tile("a", x=1, y=1, prompt="m"), tile("c", x=1, y=1, prompt="c")]
    tables = lay_out(tiles, x="x", y="y")
    assert [names(table) for table in tables] == [[["a", "failed"]], [["c", None]]]


def test_what_has_no_value_on_an_axis_is_not_dropped():
    tables = lay_out([tile("a", x=1), tile("lost", made=False)], x="x")
    assert (tables[1].title, names(tables[1])) == ("without a value for x", [["lost"]])


def test_a_seed_of_a_dataset_and_a_sample_are_axes_too():
    tiles = [tile(f"{s}", seed=str(2**64 - 1 - s), sample=s) for s in range(2)]
    [table] = lay_out(tiles, x="seed")
    assert table.columns == ("seed 18446744073709551615", "seed 18446744073709551614")
    with pytest.raises(ConfigurationError, match="Did you mean seed"):
        lay_out(tiles, x="sead")


def test_the_legend_says_what_is_the_same_and_what_varies():
    found = legend_of([tile("a", steps=4, cfg=1, seed="1"), tile("b", steps=4, cfg=2, seed="2", made=False)])
    assert (found.same, found.varying, found.images, found.missing) == (("steps=4",), ("cfg",), 1, 1)
