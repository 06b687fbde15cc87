"""The expected shapes were checked by hand: ComfyUI's own editor (1.27) opened them and gave the graph back."""

import pytest

from runpod_comfy.workflow.editor import editor_workflow

INT = {"default": 0}
CLASSES = {
    "Loader": {"input": {"required": {"ckpt_name": [["a", "b"], {}]}}, "output": ["MODEL", "CLIP", "VAE"]},
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {**INT, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "sampler_name": [["euler", "dpm"]],
                "latent": ["LATENT", {}],
            },
            "optional": {
                "scale": ["FLOAT", {"default": 1.5}],
                "mask": ["MASK"],
                "forced": ["INT", {"forceInput": True}],
            },
            "hidden": {"prompt": "PROMPT"},
        },
        "output": ["LATENT"],
        "output_name": ["samples"],
        "display_name": "The Sampler",
    },
    "Number": {"input": {"required": {"value": ["INT", {"control_after_generate": True}]}}, "output": ["INT"]},
    "LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE", "MASK"]},
    "Odd": {"input": {"required": {"x": ["CURVE", {}], "y": ["COMBO", {"options": ["p", "q"]}]}}, "output": [["a"]]},
    "Bare": {},
}  # fmt: skip


def node(class_type, title=None, **inputs):
    return {"class_type": class_type, "inputs": inputs} | ({"_meta": {"title": title}} if title else {})


def test_links_are_numbered_and_known_at_both_ends():
    graph = {
        "1": node("Loader", ckpt_name="b"),
        "2": node("Sampler", model=["1", 0], seed=7, steps=["3", 0], sampler_name="dpm", latent=["2b", 0]),
        "2b": node("Sampler", model=["1", 0], seed=8, steps=4, sampler_name="euler", latent=["9", 9]),
        "3": node("Number", value=12),
    }
    made = editor_workflow(graph, CLASSES)
    by_id = {each["id"]: each for each in made["nodes"]}
    assert list(by_id) == [1, 2, 4, 3]
    for number, source, out_slot, target, in_slot, kind in made["links"]:
        assert by_id[source]["outputs"][out_slot]["type"] == kind
        assert number in by_id[source]["outputs"][out_slot]["links"]
        assert by_id[target]["inputs"][in_slot]["link"] == number
    assert [(source, target) for _, source, _, target, _, _ in made["links"]] == [(1, 2), (4, 2), (3, 2), (1, 4)]
    assert (made["last_node_id"], made["last_link_id"], made["version"]) == (4, 4, 0.4)


def test_widgets_have_their_values_in_the_order_of_the_class_and_seeds_stay():
    graph = {"1": node("Sampler", seed=7, sampler_name="dpm", steps=["2", 0]), "2": node("Number", value=3)}
    sampler, number = editor_workflow(graph, CLASSES)["nodes"]
    # What is linked keeps the place of its widget; what is not given has its default.
    assert sampler["widgets_values"] == [7, "fixed", 20, "dpm", 1.5]
    assert number["widgets_values"] == [3, "fixed"]
    assert [each["name"] for each in sampler["inputs"]] == [
        "model", "latent", "mask", "forced", "seed", "steps", "sampler_name", "scale",
    ]  # fmt: skip
    assert [each["widget"]["name"] for each in sampler["inputs"] if "widget" in each][:2] == ["seed", "steps"]


def test_pictures_chosen_and_widgets_of_unknown_types_keep_their_values():
    graph = {"1": node("LoadImage", image="x/00.png"), "2": node("Odd", x=[1, 2, 3], y="q"), "3": node("Bare")}
    load, odd, bare = editor_workflow(graph, CLASSES)["nodes"]
    assert load["widgets_values"] == ["x/00.png", "image"]
    assert odd["widgets_values"] == [[1, 2, 3], "q"]
    assert odd["outputs"][0]["type"] == "COMBO"
    assert (bare["inputs"], bare["outputs"], bare["widgets_values"]) == ([], [], [])


def test_only_a_title_of_its_own_is_kept():
    graph = {"1": node("Sampler", "Mine"), "2": node("Sampler", "The Sampler"), "3": node("Sampler", "Sampler")}
    assert [each.get("title") for each in editor_workflow(graph, CLASSES)["nodes"]] == ["Mine", None, None]


def test_nodes_stand_to_the_right_of_what_feeds_them_and_nowhere_upon_each_other():
    graph = {
        "3": node("Sampler", model=["1", 0], latent=["2", 0]),
        "2": node("Sampler", model=["1", 0]),
        "1": node("Loader", ckpt_name="a"),
        "4": node("Loader", ckpt_name="a"),
    }
    places = [each["pos"] for each in editor_workflow(graph, CLASSES)["nodes"]]
    assert places[2][0] < places[1][0] < places[0][0]
    assert places[2][0] == places[3][0]
    assert places[2][1] < places[3][1]


@pytest.mark.parametrize("ids", [["1", "01"], ["9:3", "9"], ["ü", "12345678901234567890"], ["٣", "3"]])
def test_every_node_gets_a_number_of_its_own(ids):
    numbers = [each["id"] for each in editor_workflow({each: node("Bare") for each in ids}, CLASSES)["nodes"]]
    assert len(set(numbers)) == 2
    assert all(0 < number < 10**9 + 2 for number in numbers)


def test_without_a_description_of_each_class_there_is_no_workflow():
    assert editor_workflow({"1": node("Bare"), "2": node("Unknown")}, CLASSES) is None
    assert editor_workflow({}, CLASSES)["nodes"] == []
