from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.workflow.seeds import SEED_INPUTS, draw_seeds, find_seed_inputs, with_seed


def node(class_type="KSampler", **inputs):
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize("name", SEED_INPUTS)
@pytest.mark.parametrize("value", [0, 7, -1, 2**64 - 1])
def test_whole_number_under_a_seed_name_is_a_seed(name, value):
    assert find_seed_inputs({"3": node(**{name: value, "steps": 20})}) == (("3", name),)


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1], {"seed": 1}])
def test_anything_else_under_a_seed_name_is_none(value):
    assert find_seed_inputs({"3": node(seed=value)}) == ()


@pytest.mark.parametrize("name", ["Seed", "seed_behavior", "my_seed", "seeds"])
def test_names_must_match_exactly(name):
    assert find_seed_inputs({"3": node(**{name: 1})}) == ()


@pytest.mark.parametrize("name", ["value", "Value", "int", "integer", "Number", "int_value"])
def test_linked_seed_is_followed_to_its_primitive(name):
    graph = {"1": node("PrimitiveInt", **{name: 5, "control_after_generate": "fixed"}), "2": node(noise_seed=["1", 0])}
    assert find_seed_inputs(graph) == (("1", name),)


def test_linked_seed_is_followed_through_reroutes():
    graph = {
        "2": node(seed=["11", 0]),
        "11": node("Reroute", **{"": ["10", 0]}),
        "10": node("Reroute", any=["1", 0]),
        "1": node("PrimitiveInt", value=5),
    }
    assert find_seed_inputs(graph) == (("1", "value"),)


def test_primitive_that_feeds_two_samplers_is_named_once():
    graph = {"1": node("PrimitiveInt", value=5), "2": node(seed=["1", 0]), "3": node(noise_seed=["1", 0])}
    assert find_seed_inputs(graph) == (("1", "value"),)


def test_seed_node_that_feeds_a_sampler_is_named_once():
    assert find_seed_inputs({"1": node("Seed (rgthree)", seed=5), "2": node(seed=["1", 0])}) == (("1", "seed"),)


@pytest.mark.parametrize(
    "feeding",
    [
        pytest.param(node("RandomInt", min=0, max=9), id="several numbers"),
        pytest.param(node("PrimitiveInt", value=1, step=2), id="a second number"),
        pytest.param(node("Switch", index=1), id="a number that is no value"),
        pytest.param(node("PrimitiveBoolean", value=True), id="a boolean"),
        pytest.param(node("PrimitiveString", value="5"), id="a string"),
        pytest.param(node("Math", a=["2", 0], value=3), id="a computation"),
        pytest.param(node("Math", a=["2", 0], expression="a+1"), id="an expression"),
        pytest.param(node("Reroute", any=["1", 0]), id="itself"),
        pytest.param(node("Reroute", any=["404", 0]), id="nothing"),
        pytest.param(None, id="no node"),
    ],
)
def test_computed_seed_is_left_alone(feeding):
    graph = {"1": feeding, "2": node("PrimitiveFloat", value=1.5), "3": node(seed=["1", 0])}
    assert find_seed_inputs(graph) == ()


def test_every_seed_of_the_graph_gets_the_number_and_nothing_else_changes():
    graph = {
        "1": node("PrimitiveInt", value=5),
        "2": node(seed=["1", 0], steps=20),
        "3": {**node("RandomNoise", noise_seed=1), "_meta": {"title": "Noise"}},
        "4": node("Both", seed=1, noise_seed=2),
        "5": node("SaveImage", images=["3", 0]),
    }
    before = copy.deepcopy(graph)
    seeded = with_seed(graph, 99)
    assert graph == before
    assert seeded == {
        "1": node("PrimitiveInt", value=99),
        "2": node(seed=["1", 0], steps=20),
        "3": {**node("RandomNoise", noise_seed=99), "_meta": {"title": "Noise"}},
        "4": node("Both", seed=99, noise_seed=99),
        "5": node("SaveImage", images=["3", 0]),
    }
    assert seeded["2"] is graph["2"]
    assert seeded["5"] is graph["5"]
    assert list(seeded) == list(graph)


@given(count=st.integers(0, 300), source=st.integers())
def test_drawn_seeds_differ_and_fit_in_32_bits(count, source):
    seeds = draw_seeds(count, seed=None, rng=random.Random(source))
    assert len(seeds) == len(set(seeds)) == count
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_drawn_seeds_depend_on_the_source_of_randomness_alone():
    def draw(source):
        return draw_seeds(4, seed=None, rng=random.Random(source))

    assert draw(1) == draw(1) != draw(2)
    assert len(draw_seeds(4, seed=None, rng=random.SystemRandom())) == 4


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        (0, (0, 1, 2)),
        (2**32 - 2, (2**32 - 2, 2**32 - 1, 0)),
        (2**32, (2**32, 2**32 + 1, 2**32 + 2)),
        (2**64 - 1, (2**64 - 1, 0, 1)),
    ],
)
def test_given_seed_counts_up_and_keeps_its_width(seed, seeds):
    assert draw_seeds(3, seed=seed, rng=random.SystemRandom()) == seeds


@pytest.mark.parametrize("seed", [-1, 2**64, True, 1.0, "1"])
def test_seed_out_of_range_is_refused_with_the_range(seed):
    with pytest.raises(ConfigurationError, match=r"0 to 2\*\*64 - 1"):
        draw_seeds(1, seed=seed, rng=random.SystemRandom())
