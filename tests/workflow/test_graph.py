from __future__ import annotations

import functools
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.workflow.graph import Link, as_link, check_graph


def node(class_type="KSampler", title=None, **inputs):
    made = {"class_type": class_type, "inputs": inputs}
    return made if title is None else {**made, "_meta": {"title": title}}


def portrait():
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "3": node("KSampler", "Draw", seed=1, model=["4", 0], latent_image=["5", 0]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="x"),
    }


def refusal(graph, source="workflow"):
    with pytest.raises(WorkflowGraphError) as caught:
        check_graph(graph, source=source)
    return caught.value


def test_good_graph_is_passed_on_as_it_is():
    data = portrait()
    graph = check_graph(data)
    assert graph.data is data
    assert list(graph.nodes) == ["4", "5", "3", "8", "9"]
    assert data == portrait()


def test_links_name_both_ends():
    assert check_graph(portrait()).links() == (
        Link("3", "model", "4", 0),
        Link("3", "latent_image", "5", 0),
        Link("8", "samples", "3", 0),
        Link("8", "vae", "4", 2),
        Link("9", "images", "8", 0),
    )


def test_output_nodes_are_those_that_feed_nothing_or_save_on_the_way():
    data = portrait() | {
        "10": node("SaveLatent", samples=["3", 0]),
        "11": node("PreviewImage", images=["8", 0]),
        "12": node("MyArchive", images=["11", 0]),
    }
    assert check_graph(data).output_nodes() == ("9", "10", "11", "12")


def test_title_is_the_given_one_then_the_class_then_the_id():
    graph = check_graph(portrait() | {"10": node("SaveLatent") | {"_meta": None}})
    assert graph.title("3") == "Draw"
    assert graph.title("8") == "VAEDecode"
    assert graph.title("10") == "SaveLatent"
    assert graph.title("8.0.1") == "8.0.1"


def test_unknown_keys_and_nested_values_are_left_alone():
    data = portrait()
    data["3"] |= {"is_changed": ["abc"], "_meta": {"title": 3, "color": None}, "extra": {"nodes": []}}
    data["3"]["inputs"] |= {
        "sizes": [512, 768],
        "table": [["99", 0], {"a": ["98", 0]}],
        "three": ["99", 0, 0],
        "flag": ["99", True],
        "none": None,
    }
    assert len(check_graph(data).links()) == 5


@pytest.mark.parametrize("graph", [None, [], "{}", 3, [{"class_type": "A", "inputs": {}}]])
def test_what_is_no_object_is_refused(graph):
    assert "no JSON object" in str(refusal(graph))


def test_graph_without_nodes_is_refused():
    assert "has no nodes" in str(refusal({}, source="face.json"))
    assert str(refusal({}, source="face.json")).startswith("face.json: ")


@pytest.mark.parametrize(
    "export",
    [
        {"last_node_id": 9, "last_link_id": 9, "nodes": [{"id": 3, "type": "KSampler"}], "links": [], "version": 0.4},
        {"id": "0-0", "revision": 0, "nodes": [], "links": [], "groups": [], "extra": {}},
    ],
)
def test_ui_export_is_refused_with_the_menu_to_use(export):
    text = str(refusal(export))
    assert "Workflow → Export (API)" in text
    assert "Save (API Format)" in text


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"prompt": portrait()}, "prompt"),
        ({"prompt": portrait(), "client_id": "x"}, "prompt"),
        ({"input": {"workflow": portrait()}}, "input"),
        ({"workflow": portrait()}, "workflow"),
        ({"output": portrait(), "workflow": {"nodes": []}}, "output"),
    ],
)
def test_request_around_a_graph_is_refused_with_the_key_to_take(body, key):
    refused = str(refusal(body))
    assert "holds a workflow" in refused
    assert f"'{key}'" in refused or "'workflow'" in refused


def test_node_called_like_a_request_key_is_a_node():
    assert check_graph({"prompt": node("SaveImage")}).output_nodes() == ("prompt",)


@pytest.mark.parametrize("broken", [None, [], "text", 3])
def test_node_that_is_no_object_is_refused(broken):
    refused = refusal(portrait() | {"7": broken})
    assert refused.node_id == "7"
    assert "node 7" in str(refused)


@pytest.mark.parametrize("class_type", [None, "", 3, ["KSampler"]])
def test_node_without_class_is_refused_by_id_and_title(class_type):
    refused = refusal(portrait() | {"7": {"class_type": class_type, "inputs": {}, "_meta": {"title": "Upscale"}}})
    assert refused.node_id == "7"
    assert "node 7 (Upscale) has no 'class_type'" in str(refused)


@pytest.mark.parametrize("bad", [{"class_type": "A"}, {"class_type": "A", "inputs": None}])
def test_node_without_inputs_is_refused_by_id_and_class(bad):
    refused = refusal(portrait() | {"7": bad})
    assert refused.node_id == "7"
    assert "node 7 (A) has no object 'inputs'" in str(refused)


def test_node_id_that_is_a_number_is_refused():
    refused = refusal({1: node("SaveImage")})
    assert refused.node_id == "1"
    assert 'Write "1"' in str(refused)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400])
def test_number_that_no_request_can_carry_is_refused(value):
    with pytest.raises(WorkflowGraphError, match=r"'steps' of node 3 .* more than 64 bits"):
        check_graph({"3": {"class_type": "KSampler", "inputs": {"steps": value}}})
    check_graph({"3": {"class_type": "KSampler", "inputs": {"seed": 2**64 - 1, "least": -(2**63)}}})


DEEP = functools.reduce(lambda inner, _: [inner], range(300), 1)


@pytest.mark.parametrize("value", ["half \ud83d", [2**64], {"deep": [{"\udc00": 1}]}, DEEP])
def test_what_no_request_can_carry_is_refused_wherever_it_stands(value):
    for bad in ({"class_type": "A", "inputs": {"x": value}}, {"class_type": "A", "inputs": {}, "_meta": value}):
        with pytest.raises(WorkflowGraphError, match="node '3' holds what JSON cannot carry"):
            check_graph({"3": bad})


def test_link_to_an_output_below_the_first_is_refused():
    refused = refusal(portrait() | {"9": node("SaveImage", images=["8", -1])})
    assert refused.node_id == "9"
    assert "output -1 of node 8; outputs are counted from 0" in str(refused)


def test_dangling_link_is_refused_by_node_input_and_title():
    refused = refusal(portrait() | {"9": node("SaveImage", "Final", images=["77", 0])})
    assert refused.node_id == "9"
    for part in ("'images'", "node 9 (SaveImage, “Final”)", "node 77"):
        assert part in str(refused)


def test_link_by_number_is_refused_with_the_string_to_write():
    refused = refusal(portrait() | {"9": node("SaveImage", images=[8, 0])})
    assert refused.node_id == "9"
    assert "'images'" in str(refused)
    assert '["8", 0]' in str(refused)


def test_node_that_feeds_itself_is_refused():
    refused = refusal({"1": node("ImageInvert", image=["1", 0])})
    assert "node 1 (ImageInvert) → node 1 (ImageInvert)" in str(refused)


def test_circle_is_named_in_the_direction_of_its_links():
    data = portrait()
    data["4"]["inputs"]["odd"] = ["8", 0]
    refused = refusal(data)
    named = str(refused).partition("circle: ")[2]
    ids = [part.split()[1] for part in named.partition(". Cut")[0].split(" → ")]
    assert ids[0] == ids[-1] == refused.node_id
    graph_links = {(n, v[0]) for n, each in data.items() for v in each["inputs"].values() if isinstance(v, list)}
    assert all((fed, feeding) in graph_links for feeding, fed in itertools.pairwise(ids))


@pytest.mark.parametrize("closed", [False, True])
def test_chain_of_twenty_thousand_nodes_needs_no_recursion(closed):
    count = 20_000 if not closed else 2_000
    data = {str(index): node("Pass", value=[str(index - 1), 0]) for index in range(1, count)}
    data["0"] = node("Pass", value=[str(count - 1), 0]) if closed else node("Start")
    if closed:
        assert "circle" in str(refusal(data))
    else:
        assert check_graph(data).output_nodes() == (str(count - 1),)


@pytest.mark.parametrize(
    ("value", "link"),
    [
        (["4", 0], ("4", 0)),
        (("4", 1), ("4", 1)),
        (["4"], None),
        (["4", "0"], None),
        (["4", False], None),
        (["4", 0.0], None),
        ([4, 0], None),
        ("40", None),
        ({"4": 0}, None),
    ],
)
def test_only_a_string_and_a_whole_number_are_a_link(value, link):
    assert as_link(value) == link


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["nodes", "links", "prompt", "class_type", "inputs", "_meta", "title", "1", "2"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_a_graph_or_is_refused_as_one(value):
    before = json.dumps(value)
    try:
        graph = check_graph(value)
    except WorkflowGraphError as exc:
        assert str(exc).startswith("workflow: ")  # noqa: PT017 - either outcome is right
    else:
        assert all(link.source_id in graph.nodes for link in graph.links())
        assert graph.output_nodes()
    assert json.dumps(value) == before
