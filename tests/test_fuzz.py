"""Every parser of data from outside, fed with what nobody should send: only errors of our tree come out.

The inputs are the same each time (`derandomize`), and so many for each parser. They are made of real answers, in which
parts are replaced, dropped, doubled or cut.
"""

import base64
import copy
import io
import json
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from runpod_comfy.comfyui.failures import execution_failure, refusal
from runpod_comfy.comfyui.messages import parse_binary, parse_text
from runpod_comfy.comfyui.outputs import HistoryEntry
from runpod_comfy.dialects.answer import AnswerReader
from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.dialects.native_request import parse_request
from runpod_comfy.emulator.bodies import parse_request as parse_run_body
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.errors import InputError, ProtocolError, RunpodComfyError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.executors.outcome import JobTerms, judge
from runpod_comfy.media.files import safe_output_path
from runpod_comfy.media.formats import media_type_of, size_in_container
from runpod_comfy.media.pictures import decoding, open_picture, picture_errors
from runpod_comfy.results import Origin, OutputFile, OutputText, WorkflowOutputImage
from runpod_comfy.serverless.api import EndpointHealth, JobStatus, _counts, _job_status
from runpod_comfy.serverless.queueing import explain
from runpod_comfy.serverless.stream_body import StreamBody
from runpod_comfy.workflow.graph import check_graph

fixed = settings(
    max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=12)
)
WORDS = st.sampled_from(
    ["images", "output", "error", "status", "type", "data", "seq", "batch", "../../x", "", "s3_url"]
)
JSON = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | WORDS, inner, max_size=4),
    max_leaves=12,
)


def places_in(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places_in(inner, (*path, key))


@st.composite
def mutants(draw, *examples):
    """One of these JSON values with some of its parts replaced or dropped."""
    value = copy.deepcopy(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(0, 4))):
        path = draw(st.sampled_from(list(places_in(value))))
        if not path:
            value = draw(JSON)
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()):
            holder[path[-1]] = draw(JSON)
        else:
            del holder[path[-1]]
    return value


@st.composite
def damaged(draw, *examples):
    """One of these bytes or texts with some of it cut, doubled or overwritten."""
    value = draw(st.sampled_from(examples))
    noise = st.binary(max_size=6) if isinstance(value, bytes) else st.text(max_size=6)
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(value))), draw(st.integers(0, 40))
        kind = draw(st.sampled_from(["cut", "end", "double", "overwrite"]))
        rest = value[at + length :]
        part = {"cut": value[:0], "end": value[:0], "double": value[at : at + length] * 2}.get(kind)
        if part is None:
            part = draw(noise)
        value = value[:at] + part + (value[:0] if kind == "end" else rest)
    return value


def picture(kind="png", size=(7, 5)):
    data = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(data, kind)
    return data.getvalue()


PICTURES = [picture("png"), picture("jpeg"), picture("webp"), picture("gif"), picture("bmp")]


def native_pieces():
    writer = LineWriter()
    origin = Origin(batch=0, seed=2**64 - 1, node_id="9", node_title="Save")
    events = [
        Progress(batch=0, batch_count=2, node_id="3", node_title="K", value=1, maximum=20),
        OutputReady(output=WorkflowOutputImage(name="a.png", data=picture(), subfolder="x", origin=origin)),
        OutputReady(output=OutputFile(name="v.mp4", data=b"mp4", kind="gifs", origin=origin)),
        OutputReady(output=OutputText(text="a caption", origin=origin)),
        Warned(message="careful"),
        BatchFinished(batch=0, batch_count=2, seed=7, gpu_s=0.5),
    ]
    return [piece for event in events for piece in writer.event(event)] + list(writer.done(gpu_s=1.0))


PIECES = native_pieces()
LINES = [json.loads(piece) for piece in PIECES]
ENCODED = base64.b64encode(picture()).decode()
OFFICIAL = [
    {"images": [{"filename": "a_00001_.png", "type": "base64", "data": ENCODED}], "errors": ["node 3 failed"]},
    {"images": [{"filename": "a.png", "type": "s3_url", "data": "https://b.example/a.png?sig=1"}]},
    {"status": "success", "message": ENCODED},
    {"status": "success_no_images", "images": []},
    {"error": "Workflow validation failed", "details": ["Node 3: bad"]},
]
STATUS = {
    "id": "0c5a-e1",
    "status": "COMPLETED",
    "delayTime": 12,
    "executionTime": 3400,
    "workerId": "w",
    "output": OFFICIAL[0],
    "error": '{"error_type": "<class \'ValueError\'>", "error_message": "no", "error_traceback": "Traceback …"}',
}
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0]}, "_meta": {"title": "K"}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}
REQUEST = {
    "workflow": GRAPH,
    "batch_count": 2,
    "randomize_seed": True,
    "seeds": [1, 2],
    "images": [{"name": "00.png", "image": ENCODED, "subfolder": "rcc-1"}],
    "timeout_s": 5,
}
EVENTS = json.loads((Path(__file__).parent / "data" / "comfyui" / "events.json").read_text("utf-8"))
VERDICTS = json.loads((Path(__file__).parent / "data" / "comfyui" / "verdicts.json").read_text("utf-8"))


def only_our_errors(call, *also):
    """Call it; errors of our tree are fine, and those that the caller is documented to map."""
    try:
        return call()
    except (RunpodComfyError, *also):
        return None


def read(reader, pieces, output=None, error=None):
    events = only_our_errors(lambda: list(reader.feed(pieces)))
    more = only_our_errors(lambda: list(reader.finish(output, error)))
    found = judge("j", JobStatus(job_id="j", state="COMPLETED", output=output, error=error), reader, JobTerms())
    assert found is None or isinstance(found, RunpodComfyError)
    for event in [*(events or ()), *(more or ())]:
        if isinstance(event, OutputReady):
            assert isinstance(event.output, OutputFile | OutputText)


@fixed
@given(st.lists(damaged(*PIECES) | JSON, max_size=8))
def test_pieces_of_lines(pieces):
    read(AnswerReader(), pieces)


@fixed
@given(st.lists(mutants(*LINES), max_size=6))
def test_lines_that_are_json(lines):
    read(AnswerReader(), [json.dumps(line) + "\n" for line in lines])


@fixed
@given(mutants(*OFFICIAL), st.none() | st.text(max_size=20))
def test_answers_of_runpods_own_worker(output, error):
    read(AnswerReader(batch_count=2), [], output, error)


@fixed
@given(st.lists(damaged(*PIECES), max_size=4), JSON)
def test_aggregates_after_a_stream(pieces, output):
    read(AnswerReader(), pieces, [*pieces, output])


@fixed
@given(mutants(STATUS, [STATUS]))
def test_runpods_states(answer):
    status = only_our_errors(lambda: _job_status(answer, endpoint_id="e", job_id="j"))
    if status is not None:
        reader = AnswerReader()
        only_our_errors(lambda: list(reader.finish(status.output, status.error)))
        assert isinstance(judge("j", status, reader), RunpodComfyError | None)


@fixed
@given(
    damaged(
        orjson.dumps({"status": "IN_PROGRESS", "stream": [{"output": "ab"}, {"output": "c\n"}]}),
        orjson.dumps([{"output": "ab"}, {"output": "c", "metrics": {}}]),
        b"<html>502</html>",
    ),
    st.integers(1, 20),
)
def test_bodies_of_the_stream(body, step):
    stream = StreamBody()
    stream._cut_at = 10

    def take():
        for start in range(0, len(body), step):
            stream.add(body[start : start + step])
            if stream.is_long:
                stream.cut()
        stream.end()

    only_our_errors(take, ValueError)  # which the API tells as a ProtocolError
    assert isinstance(stream.state, str)


@fixed
@given(mutants({"jobs": {"inQueue": 3}, "workers": {"idle": 0, "running": 1, "throttled": 2, "unhealthy": 0}}))
def test_the_endpoints_health(answer):
    health = EndpointHealth(
        jobs=_counts(answer.get("jobs") if isinstance(answer, dict) else answer),
        workers=_counts(answer.get("workers") if isinstance(answer, dict) else answer),
    )
    assert explain(health, waited_s=60.0, usual_s=None).sentence


@fixed
@given(mutants(*EVENTS) if isinstance(EVENTS, list) else mutants(EVENTS))
def test_comfyuis_events(event):
    only_our_errors(lambda: parse_text(json.dumps(event)))


@fixed
@given(damaged(*(json.dumps(event) for event in (EVENTS if isinstance(EVENTS, list) else [EVENTS]))))
def test_comfyuis_events_as_text(text):
    only_our_errors(lambda: parse_text(text))


@fixed
@given(damaged(b"\x00\x00\x00\x01\x00\x00\x00\x02" + picture(), b"\x00\x00\x00\x04\x00\x00\x00\x10{}" + picture()))
def test_comfyuis_previews(data):
    only_our_errors(lambda: parse_binary(data))


@fixed
@given(mutants(*(VERDICTS if isinstance(VERDICTS, list) else [VERDICTS, *VERDICTS.values()])))
def test_comfyuis_refusals_and_failures(verdict):
    body = verdict if isinstance(verdict, dict) else {"error": verdict}
    assert isinstance(refusal(body, GRAPH), RunpodComfyError)
    assert isinstance(execution_failure(body, GRAPH, where="here"), RunpodComfyError)


@fixed
@given(
    mutants(
        {
            "prompt": [1, "p", {}],
            "outputs": {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}], "text": ["hi"]}},
            "status": {
                "status_str": "success",
                "completed": True,
                "messages": [["execution_success", {"timestamp": 1}]],
            },
        }
    )
)
def test_comfyuis_history(entry):
    found = HistoryEntry(raw=entry if isinstance(entry, dict) else {})
    assert isinstance(found.outputs(GRAPH), list)
    assert found.error is None or isinstance(found.error, dict)
    assert found.interrupted in {True, False}
    assert found.gpu_s is None or found.gpu_s >= 0


@fixed
@given(mutants(REQUEST))
def test_requests_of_clients(request):
    only_our_errors(lambda: parse_request(request))


@fixed
@given(mutants({"input": {"a": 1}, "policy": {"ttl": 60000, "executionTimeout": 6000}}), st.booleans())
def test_bodies_of_run(body, sync):
    only_our_errors(lambda: parse_run_body(orjson.dumps(body), EndpointConfig(endpoint_id="e"), sync=sync))


@fixed
@given(mutants(GRAPH))
def test_graphs(graph):
    only_our_errors(lambda: check_graph(graph))


@fixed
@given(damaged(*PICTURES) | st.binary(max_size=60))
def test_headers_of_pictures(data):
    assert media_type_of(data) is None or isinstance(media_type_of(data), str)
    size = size_in_container(data)
    assert size is None or all(isinstance(each, int) for each in size)


@fixed
@given(damaged(*PICTURES))
def test_pictures(data):
    def read():
        with picture_errors("photo.png"), decoding():
            open_picture(data, "photo.png").load()

    only_our_errors(read)


@fixed
@given(
    damaged("portrait_00001_.png", "../../etc/passwd", "C:\\windows\\x.png", "a/../b.png", "con.png"),
    st.none() | damaged("a/b", "..\\..", "/root", "x/../../y"),
)
def test_names_never_leave_the_folder(tmp_path_factory, name, subfolder):
    folder = tmp_path_factory.getbasetemp() / "names"
    try:
        path = safe_output_path(folder, name, subfolder)
    except InputError:
        return
    assert path.resolve().is_relative_to(folder.resolve())
    assert path.resolve() != folder.resolve()


def test_what_is_no_text_is_a_protocol_error():
    with pytest.raises(ProtocolError):
        list(AnswerReader().feed([{"a": 1}]))
