from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.workflow.graph import as_link, check_graph
from runpod_comfy.workflow.seeds import find_seed_inputs, with_seed
from runpod_comfy.workflow.unroll import nodes_behind_seeds, unroll


def node(class_type="Node", **inputs):
    return {"class_type": class_type, "inputs": inputs}


TEXT_TO_IMAGE = {
    "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
    "2": node("CLIPTextEncode", clip=["1", 1], text="a cat"),
    "3": node("KSampler", model=["1", 0], positive=["2", 0], seed=1, latent_image=["4", 0]),
    "4": node("EmptyLatentImage", width=512, height=512, batch_size=2),
    "5": node("VAEDecode", samples=["3", 0], vae=["1", 2]),
    "6": node("SaveImage", images=["5", 0], filename_prefix="cat"),
}


@st.composite
def graphs(draw):
    """Graphs without circles: each node links to earlier ones; ids and seeds are anything that may be one."""
    ids = draw(
        st.lists(
            st.one_of(st.integers(0, 40).map(str), st.sampled_from(["57:8", "a", "007", "-1", "٣"])),
            min_size=1,
            max_size=12,
            unique=True,
        )
    )
    graph = {}
    for position, node_id in enumerate(ids):
        inputs = {}
        if draw(st.booleans()):
            inputs[draw(st.sampled_from(["seed", "noise_seed", "value"]))] = draw(st.integers(0, 9))
        for number in range(draw(st.integers(0, 3)) if position else 0):
            name = draw(st.sampled_from([f"in{number}", "seed"]))
            inputs[name] = [draw(st.sampled_from(ids[:position])), draw(st.integers(0, 2))]
        inputs["text"] = draw(st.sampled_from(["x", ["a", "b"], {"a": ["1", 0]}]))
        graph[node_id] = node(f"Class{position}", **inputs)
    shuffled = draw(st.permutations(list(graph)))
    return {node_id: graph[node_id] for node_id in shuffled}


def as_tree(graph, node_id):
    """Return a node and all that feeds it, without ids."""
    inputs = {
        name: (as_tree(graph, link[0]), link[1]) if (link := as_link(value)) else value
        for name, value in graph[node_id]["inputs"].items()
    }
    return graph[node_id]["class_type"], inputs


@given(graphs(), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5, unique=True))
def test_each_copy_is_the_original_with_its_seed(graph, seeds):
    before = copy.deepcopy(graph)
    unrolled = unroll(graph, seeds)
    assert graph == before
    for node_id, stands_for in unrolled.copies.items():
        for batch in range(len(seeds)) if stands_for.batch is None else [stands_for.batch]:
            alone = with_seed(graph, seeds[batch])
            assert as_tree(unrolled.graph, node_id) == as_tree(alone, stands_for.node_id)


@given(graphs(), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5, unique=True))
def test_shared_nodes_are_there_once_and_others_once_for_each_seed(graph, seeds):
    unrolled = unroll(graph, seeds)
    behind = nodes_behind_seeds(graph)
    assert unrolled.copies.keys() == unrolled.graph.keys()
    found = sorted((each.node_id, -1 if each.batch is None else each.batch) for each in unrolled.copies.values())
    wanted = [(node_id, batch) for node_id in behind for batch in range(len(seeds))]
    wanted += [(node_id, -1) for node_id in graph if node_id not in behind]
    assert found == sorted(wanted)


@given(graphs(), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5, unique=True))
def test_no_id_clashes_and_the_graph_stays_one(graph, seeds):
    unrolled = unroll(graph, seeds).graph
    assert check_graph(unrolled).data is unrolled
    new = unrolled.keys() - graph.keys()
    assert all(int(node_id) > 0 for node_id in new)
    assert len(new) == len(nodes_behind_seeds(graph)) * (len(seeds) - 1)


def test_with_one_seed_the_graph_is_the_seeded_original():
    assert unroll(TEXT_TO_IMAGE, [9]).graph == with_seed(TEXT_TO_IMAGE, 9)


def test_only_what_a_seed_reaches_is_copied():
    unrolled = unroll(TEXT_TO_IMAGE, [7, 8, 9])
    classes = sorted(each["class_type"] for each in unrolled.graph.values())
    assert classes == sorted(
        ["CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage"] + 3 * ["KSampler", "VAEDecode", "SaveImage"]
    )
    assert sorted(unrolled.graph[node_id]["inputs"][name] for node_id, name in find_seed_inputs(unrolled.graph)) == [
        7,
        8,
        9,
    ]


def test_a_seed_held_by_a_primitive_is_copied_with_its_primitive():
    graph = {"1": node("PrimitiveInt", value=5), "2": node("KSampler", seed=["1", 0]), "3": node("Other", a=["1", 0])}
    unrolled = unroll(graph, [1, 2])
    assert len(unrolled.graph) == 6
    assert sorted(each["inputs"]["value"] for each in unrolled.graph.values() if "value" in each["inputs"]) == [1, 2]


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_without_a_seed_everything_is_shared(seeds):
    graph = {"1": node("EmptyImage", width=8), "2": node("SaveImage", images=["1", 0], filename_prefix="a")}
    assert unroll(graph, seeds).graph == graph


def test_a_deep_graph_is_no_trouble():
    graph = {"0": node("KSampler", seed=1)} | {str(n): node(a=[str(n - 1), 0]) for n in range(1, 5000)}
    assert len(unroll(graph, [1, 2]).graph) == 10_000
