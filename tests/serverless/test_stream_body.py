import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.serverless import stream_body
from runpod_comfy.serverless.stream_body import StreamBody

TRICKY = st.just('x"},{"output":"y')


def read(body, chunk_bytes):
    reader, outputs = StreamBody(), []
    for start in range(0, len(body), chunk_bytes):
        reader.add(body[start : start + chunk_bytes])
        if reader.is_long:
            outputs += reader.cut()
    return outputs + reader.end(), reader.state


@given(st.lists(st.one_of(TRICKY, st.text(), st.none()), max_size=8), st.integers(1, 40), st.booleans())
def test_an_answer_reads_the_same_however_it_is_cut(outputs, chunk_bytes, state_last):
    items = {"stream": [{"output": output} for output in outputs]}
    answer = {**items, "status": "COMPLETED"} if state_last else {"status": "COMPLETED", **items}
    body = json.dumps(answer, separators=(",", ":")).encode()
    whole = stream_body.CUT_BYTES
    stream_body.CUT_BYTES = 1
    try:
        assert read(body, chunk_bytes) == (outputs, "COMPLETED")
    finally:
        stream_body.CUT_BYTES = whole


@pytest.mark.parametrize(
    "body",
    [
        '[{"output":"a"},{"output":"b"}]',
        '{"status": "X", "stream": [{"output": "a"}, {"output": "b"}]}',
        '{"stream":[{"metrics":{},"output":"a"},{"metrics":{},"output":"b"}]}',
        '{"stream":["a","b"]}',
    ],
)
def test_other_layouts_are_read_too(body, monkeypatch):
    monkeypatch.setattr(stream_body, "CUT_BYTES", 1)
    assert read(body.encode(), 7)[0] == ["a", "b"]


def test_an_output_that_holds_such_a_list_itself_is_not_cut(monkeypatch):
    monkeypatch.setattr(stream_body, "CUT_BYTES", 1)
    inner = {"list": [{"output": 1}, {"output": 2}]}
    body = json.dumps({"stream": [{"output": inner}, {"output": "b"}]}, separators=(",", ":"))
    assert read(body.encode(), 5)[0] == [inner, "b"]


def test_what_is_whole_is_known_also_when_the_rest_never_comes():
    reader = StreamBody()
    reader.add(b'{"status":"IN_PROGRESS","stream":[{"output":"a"},{"output":"b"},{"output":"half')
    assert reader.cut() == ["a", "b"]
    assert reader.state == "IN_PROGRESS"


@pytest.mark.parametrize("body", [b"", b"{}", b'"x"', b'{"stream":7}', b"<html>", b'{"stream":[{"output":"a"}'])
def test_what_is_no_answer_is_refused(body):
    with pytest.raises(ValueError, match=r".+"):
        read(body, 10)
