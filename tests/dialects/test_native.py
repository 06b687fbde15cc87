import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runpod_comfy.dialects.native import LineWriter, NativeReader
from runpod_comfy.errors import ProtocolError
from runpod_comfy.events import BatchFinished, Finished, OutputReady, Progress, Queued, Warned
from runpod_comfy.results import Origin, OutputFile, OutputText, WorkflowOutputImage, WorkflowResult

PNG = b"\x89PNG\r\n\x1a\n"


def picture(index, data=None):
    return WorkflowOutputImage(
        name=f"a_{index:05}_.png",
        data=data or PNG + bytes([index]) * 50,
        subfolder="sub",
        media_type="image/png",
        origin=Origin(batch=0, seed=2**64 - 1, node_id="9", node_title="Save “Image”"),
    )


def written(events, *, done=True):
    writer = LineWriter()
    pieces = [piece for event in events for piece in writer.event(event)]
    return pieces + (list(writer.done(gpu_s=1.5)) if done else [])


def read(pieces):
    reader = NativeReader()
    return reader, [event for piece in pieces for event in reader.feed(piece)]


EVERY_KIND = [
    OutputReady(output=picture(1)),
    OutputReady(output=OutputFile(name="v.mp4", data=b"\0\1\2", kind="gifs", media_type="video/mp4")),
    OutputReady(output=OutputText(text='a "caption"\n\u2028 \U0001f980', origin=Origin(node_id="3"))),
    Progress(batch=0, batch_count=2, node_id="5", node_title="KSampler", value=3, maximum=20),
    Progress(batch=0, batch_count=2, node_id="5", value=4, maximum=20, preview=b"\xff\xd8 a JPEG"),
    BatchFinished(batch=0, batch_count=2, seed=7, gpu_s=0.25),
    Warned(message="careful"),
]


def test_what_was_written_is_read():
    reader, events = read(written(EVERY_KIND))
    assert events == EVERY_KIND
    assert reader.complete
    assert (reader.outputs, reader.batches_done, reader.gpu_s, reader.missing) == (3, 1, 1.5, 0)


def test_events_that_only_clients_know_have_no_line():
    assert written([Queued(job_id="x"), Finished(result=WorkflowResult())], done=False) == []


def test_every_line_has_images_as_existing_clients_expect():
    for piece in written(EVERY_KIND):
        assert isinstance(json.loads(piece)["images"], list)


def test_an_image_has_the_keys_that_existing_clients_read():
    image = json.loads(written([OutputReady(output=picture(1))])[0])["images"][0]
    assert (image["name"], image["subfolder"]) == ("a_00001_.png", "sub")
    assert isinstance(image["image"], str)


@given(cuts=st.lists(st.integers(0, 10_000), max_size=20), sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_a_line_cut_at_any_boundaries_decodes_to_the_same_images(cuts, sizes):
    outputs = [OutputReady(output=picture(index, PNG + bytes(size))) for index, size in enumerate(sizes)]
    text = "".join(written(outputs))
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    reader, events = read(text[a:b] for a, b in pairwise(bounds))
    assert events == outputs
    assert reader.complete


@given(st.data())
@settings(max_examples=200)
def test_whatever_pieces_are_dropped_nothing_half_is_returned(data):
    outputs = [OutputReady(output=picture(index, PNG + bytes([index]) * 300)) for index in range(4)]
    text = "".join(written(outputs))
    step = data.draw(st.integers(5, 200))
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    dropped = data.draw(st.sets(st.integers(0, len(pieces) - 1), min_size=1))
    reader, events = read(piece for index, piece in enumerate(pieces) if index not in dropped)
    sent = {event.output.name: event.output.data for event in outputs}
    arrived = {event.output.name: event.output.data for event in events if isinstance(event, OutputReady)}
    assert arrived.items() <= sent.items()
    assert arrived == sent or not reader.complete
    assert arrived == sent or reader.describe_loss() or len(dropped) == len(pieces)


def test_a_damaged_image_that_still_is_json_is_lost_and_can_be_read_again():
    whole = written([OutputReady(output=picture(1)), OutputReady(output=picture(2))])
    at = whole[0].index('"image":"') + 60
    reader, events = read([whole[0][:at] + whole[0][at + 4 :], *whole[1:]])
    assert [event.output.name for event in events] == ["a_00002_.png"]
    assert reader.describe_loss() == "1 line(s) of the answer never arrived whole"
    reader.start_over()
    again = [event for piece in whole for event in reader.feed(piece)]
    assert [event.output.name for event in again] == ["a_00001_.png"]
    assert reader.complete


def test_an_empty_file_arrives_and_one_that_lost_its_bytes_does_not():
    empty = OutputFile(name="log.txt", data=b"", kind="files", media_type="text/plain")
    reader, [event] = read(written([OutputReady(output=empty)]))
    assert (event.output.name, event.output.data, event.output.size_bytes) == ("log.txt", b"", 0)
    assert reader.complete
    reader, events = read(['{"images": [{"image": "", "name": "a.png", "subfolder": ""}]}\n'])
    assert not events
    assert reader.describe_loss() == "a.png arrived damaged"


def test_a_batch_counts_as_finished_once_all_of_its_lines_are_here():
    events = []
    for batch in (0, 1):
        for index in (0, 1):
            image = picture(2 * batch + index).but(origin=Origin(batch=batch, seed=7))
            events.append(OutputReady(output=image))
        events.append(BatchFinished(batch=batch, batch_count=2, seed=7))
    pieces = written(events)
    lost = pieces.pop(1)
    reader, arrived = read(pieces)
    assert [each.batch for each in arrived if isinstance(each, BatchFinished)] == [1]
    late = list(reader.feed(lost))
    assert [type(each) for each in late] == [OutputReady, BatchFinished]
    assert late[-1].batch == 0


def test_a_repeated_line_counts_once():
    pieces = written([OutputReady(output=picture(1))])
    reader, events = read([pieces[0], pieces[0], *pieces[1:]])
    assert len(events) == 1
    assert reader.complete


def test_a_lost_progress_line_is_no_loss():
    pieces = written([Progress(batch=0, batch_count=1), OutputReady(output=picture(1))])
    reader, _ = read(pieces[1:])
    assert reader.complete


def test_the_end_that_never_came_is_told():
    reader, _ = read(written([OutputReady(output=picture(1))], done=False))
    assert not reader.complete
    assert reader.describe_loss() == "the end of the answer never arrived"


def test_an_error_line_says_where():
    writer = LineWriter()
    reader, _ = read(writer.error("boom", node_id="2", node_type="KSampler", traceback="…"))
    assert (reader.error.message, reader.error.node_id, reader.error.node_type) == ("boom", "2", "KSampler")
    assert reader.done
    assert not reader.complete


def test_lines_of_a_worker_that_numbers_nothing_are_read():
    reader, events = read(['{"images": [{"image": "iVBORw0KGgo=", "name": "x.png", "subfolder": ""}]}\n', "{}\n"])
    assert events[0].output.data == PNG
    assert events[0].output.media_type == "image/png"
    assert not reader.numbered
    assert reader.describe_loss() is None


@pytest.mark.parametrize("piece", [{"images": []}, ["x"], 3, None, '{"images": [{"image": "x"}, 3]}\n'])
def test_another_dialect_is_a_protocol_error(piece):
    with pytest.raises(ProtocolError):
        read([piece])


@pytest.mark.parametrize("line", ['{"message": "secret"}', "[1]", '"secret"'])
def test_a_line_of_another_dialect_is_noted_without_its_content(line):
    reader, events = read([line + "\n"])
    assert not events
    assert reader.foreign
    assert "secret" not in reader.foreign
    assert reader.lines == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
line_keys = st.sampled_from(
    [
        "images",
        "seq",
        "batch",
        "seed",
        "node_id",
        "files",
        "texts",
        "progress",
        "batch_done",
        "warnings",
        "error",
        "done",
    ]
)


@given(st.dictionaries(line_keys, json_values, max_size=6))
def test_no_line_whatever_raises_anything_but_a_protocol_error(line):
    with suppress(ProtocolError):
        read([json.dumps(line) + "\n"])


def test_output_in_a_bucket_is_read_as_an_address_and_what_its_bytes_must_be():
    writer, reader = LineWriter(), NativeReader()
    [line] = writer.stored(picture(3), url="https://b/a.png?signature")
    assert json.loads(line)["images"] == []  # existing clients decode the `image` of each of those
    [found] = reader.feed(line)
    assert found.with_data(picture(3).data) == picture(3)
    assert (found.url, found.size_bytes) == ("https://b/a.png?signature", picture(3).size_bytes)
    with pytest.raises(ValueError, match="damaged"):
        found.with_data(b"other")
    for piece in writer.done(gpu_s=1.0):
        assert not list(reader.feed(piece))
    assert (reader.complete, reader.outputs) == (True, 1)


@pytest.mark.parametrize("missing", ["name", "size_bytes", "sha256"])
def test_output_in_a_bucket_that_cannot_be_checked_is_lost(missing):
    item = {"name": "a.png", "url": "https://b/a.png", "size_bytes": 1, "sha256": "00"} | {missing: None}
    reader = NativeReader()
    assert not list(reader.feed(json.dumps({"images": [], "files": [item]}) + "\n"))
    assert "in a bucket arrived damaged" in reader.describe_loss()


def test_what_a_worker_says_of_itself_is_read():
    writer, reader = LineWriter(), NativeReader()
    for piece in [*writer.description({"worker": {"version": "1"}}), *writer.done(gpu_s=0.0)]:
        assert not list(reader.feed(piece))
    assert reader.complete
    assert reader.description == {"worker": {"version": "1"}}
