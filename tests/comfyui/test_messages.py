import struct

import pytest

from runpod_comfy.comfyui.messages import (
    Executing,
    NodeProgress,
    Other,
    Preview,
    PromptEnded,
    QueueStatus,
    parse_binary,
    parse_text,
)

P = "b999733a-22b8-4d55-aee0-a028c127378d"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"status","data":{"status":{"exec_info":{"queue_remaining":2}},"sid":"s"}}', QueueStatus(remaining=2)),
        (
            f'{{"type":"executing","data":{{"node":"1","display_node":"1","prompt_id":"{P}"}}}}',
            Executing(prompt_id=P, node_id="1"),
        ),
        (f'{{"type":"executing","data":{{"node":null,"prompt_id":"{P}"}}}}', PromptEnded(prompt_id=P)),
        ('{"type":"executing","data":{"node":"2"}}', Executing(prompt_id=None, node_id="2")),
        (
            f'{{"type":"progress","data":{{"value":1,"max":2,"prompt_id":"{P}","node":"5"}}}}',
            NodeProgress(prompt_id=P, node_id="5", value=1, maximum=2),
        ),
        (
            f'{{"type":"execution_success","data":{{"prompt_id":"{P}","timestamp":1}}}}',
            Other(kind="execution_success", prompt_id=P),
        ),
    ],
)
def test_recorded_messages_are_understood(text, message):
    assert parse_text(text) == message


def test_node_of_a_subgraph_is_told_by_the_id_it_has_in_the_workflow():
    text = f'{{"type":"executing","data":{{"node":"5.0.1","display_node":"5","prompt_id":"{P}"}}}}'
    assert parse_text(text) == Executing(prompt_id=P, node_id="5")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "null",
        "{}",
        '{"type":"executing"}',
        '{"type":"executing","data":{"node":null}}',
        '{"type":7,"data":[]}',
    ],
)
def test_malformed_text_is_no_error(text):
    assert isinstance(parse_text(text), Other)


@pytest.mark.parametrize("value", ['"x"', "null", "1e300", "[]"])
def test_progress_that_is_no_number_counts_as_none(value):
    text = f'{{"type":"progress","data":{{"value":{value},"max":{value},"prompt_id":"p","node":"5"}}}}'
    assert parse_text(text) == NodeProgress(prompt_id="p", node_id="5", value=0, maximum=0)


def test_preview_is_read_with_and_without_metadata():
    plain = struct.pack(">II", 1, 1) + b"\xff\xd8jpeg"
    about = b'{"node_id":"5","prompt_id":"p","display_node_id":"5"}'
    with_metadata = struct.pack(">II", 4, len(about)) + about + b"image"
    assert parse_binary(plain) == Preview(data=b"\xff\xd8jpeg")
    assert parse_binary(with_metadata) == Preview(data=b"image", prompt_id="p", node_id="5")


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", struct.pack(">II", 4, 99) + b"{", struct.pack(">II", 4, 2) + b"[]", b"?" * 8]
)
def test_malformed_binary_is_no_error(data):
    assert isinstance(parse_binary(data), Other)
