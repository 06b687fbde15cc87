"""Workflows made templates."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.authoring.draft import draft_template
from runpod_comfy.workflow.object_info import ObjectInfo
from runpod_comfy.workflow.template import WorkflowTemplate


def node(class_type, title=None, **inputs):
    found = {"class_type": class_type, "inputs": inputs}
    return found | {"_meta": {"title": title}} if title else found


GRAPH = {
    "4": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="v1-5.safetensors"),
    "5": node("EmptyLatentImage", width=768, height=512, batch_size=4),
    "6": node("CLIPTextEncode", "Positive Prompt", text='a "red" fox {{ in }} {# snow #}', clip=["4", 1]),
    "7": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="blurry", clip=["4", 1]),
    "3": node(
        "KSampler", seed=812739, steps=20, cfg=8, sampler_name="heun", scheduler="karras", denoise=1,
        model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
    ),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="fox"),
}  # fmt: skip


def template_of(graph, **more):
    return WorkflowTemplate.from_string(draft_template(graph, **more).text())


def test_what_people_vary_becomes_variables_with_todays_values(info):
    template = template_of(GRAPH, info=info)
    assert {name: each.default for name, each in template.declarations.items()} == {
        "prompt": 'a "red" fox {{ in }} {# snow #}',
        "negative_prompt": "blurry",
        "batch_size": 4,
        "seed": 812739,
        "width": 768,
        "height": 512,
        "steps": 20,
        "cfg": 8,
        "denoise": 1,
        "sampler": "heun",
        "scheduler": "karras",
        "checkpoint": "v1-5.safetensors",
        "output_prefix": "fox",
    }
    assert template.render() == GRAPH


def test_node_types_bring_ranges_choices_and_help(info):
    declared = template_of(GRAPH, info=info).declarations
    assert (declared["steps"].least, declared["steps"].most) == (1, 10000)
    assert (declared["sampler"].type, "dpmpp_2m" in declared["sampler"].choices) == ("choice", True)
    assert declared["checkpoint"].type == "text"  # what is installed there says nothing about elsewhere
    assert declared["checkpoint"].help == "The model"
    assert declared["cfg"].type == "float"
    assert declared["steps"].node == "#3 KSampler"


def test_values_given_go_to_their_places():
    graph = template_of(GRAPH).render(prompt="x\n{{ y }}", seed=1, batch_size=2, cfg=2.5)
    assert graph["6"]["inputs"]["text"] == "x\n{{ y }}"
    assert (graph["3"]["inputs"]["seed"], graph["5"]["inputs"]["batch_size"]) == (1, 2)
    assert graph["3"]["inputs"]["cfg"] == 2.5


def test_a_range_never_excludes_what_the_workflow_has(info):
    graph = copy.deepcopy(GRAPH)
    graph["3"]["inputs"]["steps"] = 20000
    assert template_of(graph, info=info).render() == graph


def test_photos_fill_the_nodes_that_load_images_in_their_order():
    graph = {"1": node("LoadImage", image='a"b.png'), "2": node("LoadImage", image="c.png")}
    template = template_of(graph)
    assert template.render() == graph
    assert template.render(input_images=["x.png"])["1"]["inputs"]["image"] == "x.png"
    assert template.render(input_images=["x.png"])["2"]["inputs"]["image"] == "c.png"
    assert template.render(input_images=["x", "y"])["2"]["inputs"]["image"] == "y"


def test_a_folder_of_photos_is_given_by_whoever_runs_it():
    graph = {"1": node("LoadImagesFromDir", directory="/photos")}
    template = template_of(graph)
    assert template.render() == graph
    assert template.render(input_images_dir="/in")["1"]["inputs"]["directory"] == "/in"


def test_equal_values_share_a_variable_and_different_ones_are_told_apart_by_title():
    graph = {
        "1": node("KSampler", "Base", seed=1, steps=20, cfg=7.0),
        "2": node("KSampler", "Refiner", seed=2, steps=20, cfg=3.0),
        "3": node("KSampler", seed=3, steps=20, cfg=3.0),
    }
    declared = template_of(graph).declarations
    assert set(declared) == {"seed", "refiner_seed", "seed_2", "steps", "cfg", "refiner_cfg"}
    assert template_of(graph).render(steps=5)["2"]["inputs"]["steps"] == 5


def test_a_text_is_called_by_its_nodes_title():
    graph = {"1": node("CLIPTextEncode", "Hair & eyes", text="blue"), "2": node("CLIPTextEncode", "提示", text="x")}
    assert set(template_of(graph).declarations) == {"hair_eyes", "提示"}


def test_a_text_behind_a_link_is_found_in_the_node_that_holds_it():
    graph = {"1": node("PrimitiveString", value="a fox"), "2": node("CLIPTextEncode", text=["1", 0])}
    assert template_of(graph).render(prompt="a cat")["1"]["inputs"]["value"] == "a cat"


def test_what_is_kept_is_no_variable_and_what_is_added_is_one():
    graph = GRAPH | {"10": node("LoraLoader", "My LoRA", lora_name="fox.safetensors", strength_model=0.8)}
    template = template_of(graph, keep=["cfg", "denoise"], add={"strength": "My LoRA.strength_model"})
    assert not {"cfg", "denoise"} & set(template.declarations)
    assert template.render(strength=0.5)["10"]["inputs"]["strength_model"] == 0.5
    assert template.render() == graph


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": ["promt"]}, "Did you mean prompt"),
        ({"add": {"x": "99.steps"}}, "by id or title"),
        ({"add": {"x": "3.stepz"}}, "Node 3 has: seed, steps"),
        ({"add": {"x": "3.model"}}, "is linked"),
        ({"add": {"x y": "3.steps"}}, "NAME=NODE.INPUT"),
    ],
)
def test_what_cannot_be_kept_or_added_is_refused_with_what_there_is(options, words):
    with pytest.raises(TemplateError, match=words):
        draft_template(GRAPH, **options)


# -- titles ------------------------------------------------------------------------------------------------------------


def test_a_title_with_a_dollar_is_a_variable_of_that_name(tmp_path):
    graph = {
        "1": node("CLIPTextEncode", "$prompt", text="a fox", clip=["4", 1]),
        "2": node("KSampler", "$strength.denoise: how much changes, $noise.seed!", seed=5, denoise=1.0, steps=20),
        "3": node("LoadImage", "costs $5", image="x.png"),
    }
    (tmp_path / "w.json").write_text(json.dumps(graph))
    template = WorkflowTemplate(tmp_path / "w.json")
    assert set(template.declarations) == {"prompt", "strength", "noise"}
    assert template.variables == {"noise"}
    assert template.declarations["strength"].help == "how much changes"
    assert template.render(noise=5) == graph
    assert template.render(noise=6, prompt="a cat")["1"]["inputs"]["text"] == "a cat"


@pytest.mark.parametrize(
    ("title", "words"),
    [("$x", "title it \\$x.a"), ("$x.c", "no value of that name"), ("$x.l", "no value of that name")],
)
def test_a_title_that_does_not_say_which_value_is_refused_with_what_to_write(title, words):
    with pytest.raises(TemplateError, match=words):
        draft_template({"1": node("Foo", title, a=1, b=2, l=["1", 0])})


def test_titles_weigh_more_than_what_would_be_found():
    graph = copy.deepcopy(GRAPH)
    graph["6"]["_meta"]["title"] = "$scene"
    declared = template_of(graph).declarations
    assert "scene" in declared
    assert declared["scene"].default == GRAPH["6"]["inputs"]["text"]
    assert template_of(graph).render() == graph


# -- round trip --------------------------------------------------------------------------------------------------------

hostile = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(
        ["{{ prompt }}", "{{", "}}", "{% raw %}", "{#", "#}", "-#}", "{{{", "\\", '"', "'", "\n", "\u2028", "\x85",
         "$x", "{{ '", '{{ "}}" }}', "\x00", "😀{{", "# x", "null", "~", "1e5", "a: b", "- x", "@f", "\\u007b{",
         "\ufeff"]
    ),
)  # fmt: skip
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
json_values = st.recursive(
    st.one_of(st.none(), numbers, hostile),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(hostile, inner, max_size=3)),
    max_leaves=5,
)
input_names = st.one_of(
    st.sampled_from(
        ["text", "prompt", "seed", "noise_seed", "steps", "cfg", "width", "batch_size", "image", "directory",
         "ckpt_name", "filename_prefix", "sampler_name", "value", "denoise", "guidance", "length"]
    ),
    hostile,
)  # fmt: skip
classes = st.one_of(
    st.sampled_from(
        ["CLIPTextEncode", "KSampler", "EmptyLatentImage", "LoadImage", "LoadImagesFromDir", "SaveImage",
         "CheckpointLoaderSimple", "PrimitiveInt", "FluxGuidance"]
    ),
    hostile.filter(bool),
)  # fmt: skip
graphs = st.dictionaries(
    st.one_of(st.integers(1, 99).map(str), hostile.filter(bool)),
    st.fixed_dictionaries(
        {"class_type": classes, "inputs": st.dictionaries(input_names, json_values, max_size=5)},
        optional={"_meta": st.fixed_dictionaries({"title": hostile}), "extra": json_values},
    ),
    min_size=1,
    max_size=6,
)


def typed(value):
    """A value with its types, keys in their order: 1, 1.0 and true are three things."""
    return json.dumps(value)


@given(graphs, st.booleans())
def test_rendering_the_defaults_gives_the_same_graph(graph, known):
    info = ObjectInfo(_types()) if known else None
    try:
        draft = draft_template(graph, info)
    except TemplateError as exc:
        assert "titled" in str(exc)  # noqa: PT017 - a title like $x that names nothing is refused
        return
    assert typed(WorkflowTemplate.from_string(draft.text()).render()) == typed(graph)


def _types():
    return {
        "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {"multiline": True}]}}, "output": []},
        "KSampler": {
            "input": {
                "required": {
                    "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                    "steps": ["INT", {"min": 1, "max": 100}],
                    "cfg": ["FLOAT", {"min": 0.0}],
                    "sampler_name": [["euler", "heun"], {"tooltip": "One. {# #} Two."}],
                }
            },
            "output": [],
        },
    }


def test_one_title_for_two_values_is_refused_since_one_would_be_lost():
    def node(text):
        return {"class_type": "CLIPTextEncode", "inputs": {"text": text}, "_meta": {"title": "$prompt"}}

    with pytest.raises(TemplateError, match=r"#1 CLIPTextEncode and #2 CLIPTextEncode are both titled \$prompt"):
        draft_template({"1": node("a fox"), "2": node("a cat")})
    assert set(draft_template({"1": node("a fox"), "2": node("a fox")}).variables) == {"prompt"}


@pytest.mark.parametrize("name", ["not", "self", "loop", "true", "class"])
def test_a_word_of_jinja_or_python_is_no_name_for_a_variable(name):
    node = {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}, "_meta": {"title": f"${name}"}}
    with pytest.raises(TemplateError, match=rf"\${name}_value"):
        draft_template({"6": node})
    plain = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}}}
    with pytest.raises(TemplateError, match=f"such as {name}_value"):
        draft_template(plain, add={name: "6.text"})
