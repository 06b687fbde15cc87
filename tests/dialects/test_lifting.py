import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dialects.lifting import lift
from runpod_comfy.media.wire import to_base64

LONG = bytes(range(256)) * 20


def parsed(line):
    short, lifted = lift(line)
    assert len(short) < 4000
    return orjson.loads(short), lifted


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("key", ["image", "data"])
def test_large_values_come_back_whole_and_the_line_is_short(key, space):
    values = [LONG, b"small", LONG[::-1]]
    items = ",".join(f'{{"name":"{n}","{key}":{space}"{to_base64(v)}"}}' for n, v in enumerate(values))
    line, lifted = parsed(f'{{"images":[{items}],"batch":7}}'.encode())
    assert [lifted.decode(item[key]) for item in line["images"]] == values
    assert line["batch"] == 7


def test_a_data_uri_is_decoded_too():
    line, lifted = parsed(b'{"images":[{"image":"data:image/png;base64,' + to_base64(LONG).encode() + b'"}]}')
    assert lifted.decode(line["images"][0]["image"]) == LONG


@given(st.dictionaries(st.sampled_from(["image", "data", 'x"image', "text"]), st.text(max_size=6000), max_size=3))
def test_no_text_is_taken_for_a_key_nor_changed(values):
    line = orjson.dumps({"texts": [values], "quoted": orjson.dumps(values).decode()})
    found = orjson.loads(lift(line)[0])
    assert found["quoted"] == orjson.dumps(values).decode()
    for key, value in values.items():
        if isinstance(found["texts"][0][key], str):
            assert found["texts"][0][key] == value
        else:
            assert not set(value) & set('"\\')


def test_escaped_base64_is_left_to_the_parser():
    escaped = to_base64(b"\xff" * 6000).replace("/", "\\/")
    short, lifted = lift(f'{{"images":[{{"image":"{escaped}"}}]}}'.encode())
    assert lifted.decode(orjson.loads(short)["images"][0]["image"]) == b"\xff" * 6000


@pytest.mark.parametrize("value", [None, True, 0, -1, 3, 1.5, [], "A"])
def test_what_is_no_binary_value_is_refused(value):
    _, lifted = lift(b"{}")
    with pytest.raises(ValueError, match=r".+"):
        lifted.decode(value)


def test_a_string_that_never_ends_is_left_as_it_is():
    line = b'{"images":[{"image":"' + b"A" * 9000
    assert lift(line)[0] == line
