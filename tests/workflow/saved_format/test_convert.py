"""Saved workflows, written by hand in the shapes that ComfyUI's editor has had."""

import pytest

from runpod_comfy.errors import WorkflowGraphError
from runpod_comfy.workflow.graph import is_saved_format
from runpod_comfy.workflow.saved_format.convert import convert_saved


def slot(name, kind, link=None, *, widget=False):
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def saved(*nodes, links=(), **more):
    return {"nodes": list(nodes), "links": [list(link) for link in links], "version": 0.4, **more}


def made(node_id, kind, inputs=(), outputs=(), values=(), **more):
    return {
        "id": node_id,
        "type": kind,
        "inputs": list(inputs),
        "outputs": [{"name": each, "type": each} for each in outputs],
        "widgets_values": values if isinstance(values, dict) else list(values),
        **more,
    }


EMPTY = made(1, "EmptyImage", outputs=["IMAGE"], values=[64, 32, 1, 255])
SAVE = made(2, "SaveImage", [slot("images", "IMAGE", 1)], values=["out"])


def inputs_of(data, info, node_id):
    return convert_saved(data, info).graph[node_id]["inputs"]


def test_fields_and_links_become_inputs_and_titles_stay(info):
    got = convert_saved(saved(EMPTY, SAVE | {"title": "My picture"}, links=[(1, 1, 0, 2, 0, "IMAGE")]), info)
    assert got.graph == {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 255},
            "_meta": {"title": "EmptyImage"},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "out", "images": ["1", 0]},
            "_meta": {"title": "My picture"},
        },
    }
    assert got.notes == ()


def test_what_becomes_of_a_seed_is_the_editors_own(info):
    sampler = made(3, "KSampler", values=[7, "randomize", 25, 6.5, "heun", "karras", 0.5])
    assert inputs_of(saved(sampler), info, "3") == {
        "seed": 7, "steps": 25, "cfg": 6.5, "sampler_name": "heun", "scheduler": "karras", "denoise": 0.5,
    }  # fmt: skip


def test_a_field_made_a_socket_keeps_its_place_and_takes_its_link(info):
    number = made(9, "PrimitiveNode", outputs=["INT"], values=[512, "fixed"])
    empty = made(1, "EmptyImage", [slot("height", "INT", 1, widget=True)], ["IMAGE"], [64, 32, 2, 255])
    got = convert_saved(saved(number, empty, links=[(1, 9, 0, 1, 0, "INT")]), info)
    assert list(got.graph) == ["1"]
    assert got.graph["1"]["inputs"] == {"width": 64, "height": 512, "batch_size": 2, "color": 255}


def test_upload_buttons_and_missing_values_are_no_matter(info):
    load = made(1, "LoadImage", outputs=["IMAGE", "MASK"], values=["me.png", "image"])
    short = made(2, "EmptyImage", outputs=["IMAGE"], values=[64])
    got = convert_saved(saved(load, short), info).graph
    assert got["1"]["inputs"] == {"image": "me.png"}
    assert got["2"]["inputs"] == {"width": 64, "height": 512, "batch_size": 1, "color": 0}


def test_values_saved_by_name_are_taken_by_name_even_of_types_that_are_not_known(info):
    video = made(1, "VHS_VideoCombine", values={"frame_rate": 8, "videopreview": {"hidden": False}})
    named = made(2, "Brand", values=[1, "fixed", "x"]) | {
        "widgets_values_named": {"seed": 1, "control_after_generate": "fixed", "text": "x"}
    }
    got = convert_saved(saved(video, named), info)
    assert got.graph["1"]["inputs"] == {"frame_rate": 8}
    assert got.graph["2"]["inputs"] == {"seed": 1, "text": "x"}
    assert all("not in a test's ComfyUI" in note for note in got.notes)
    assert convert_saved(saved(video, named), None).graph == got.graph


def test_the_row_counts_where_someone_edited_it_by_hand(info):
    edited = EMPTY | {"widgets_values_named": {"width": 1, "height": 1, "batch_size": 1, "color": 1}}
    assert inputs_of(saved(edited), info, "1")["width"] == 64


def test_the_names_count_where_the_row_does_not_fit_the_type(info):
    newer = made(1, "EmptyImage", values=[5, 64, 32, 2, 255]) | {
        "widgets_values_named": {"depth": 5, "width": 64, "height": 32, "batch_size": 2, "color": 255}
    }
    assert inputs_of(saved(newer), info, "1") == {"width": 64, "height": 32, "batch_size": 2, "color": 255}


def test_a_choice_is_followed_by_the_fields_that_it_brings(info):
    cloud = made(1, "Cloud", values=["a fox", "large", "16:9", "[1, 2]"])
    assert inputs_of(saved(cloud), info, "1") == {
        "prompt": "a fox", "model": "large", "model.shape": "16:9", "points": "[1, 2]",
    }  # fmt: skip


def test_a_list_in_a_field_is_wrapped_so_that_it_is_no_link(info):
    draw = made(1, "Draw", values=[["1", 0]])
    assert inputs_of(saved(draw), info, "1") == {"canvas": {"__value__": ["1", 0]}}


def test_reroutes_notes_and_named_wires_leave_nothing_behind(info):
    data = saved(
        EMPTY,
        made(3, "Reroute", [slot("", "*", 1)], ["IMAGE"]),
        made(4, "SetNode", [slot("IMAGE", "IMAGE", 2)], ["*"], ["pic"]),
        made(5, "GetNode", outputs=["IMAGE"], values=["pic"]),
        made(6, "MarkdownNote", values=["# Hello"]),
        SAVE | {"inputs": [slot("images", "IMAGE", 3)]},
        links=[(1, 1, 0, 3, 0, "IMAGE"), (2, 3, 0, 4, 0, "IMAGE"), (3, 5, 0, 2, 0, "IMAGE")],
    )
    got = convert_saved(data, info).graph
    assert sorted(got) == ["1", "2"]
    assert got["2"]["inputs"]["images"] == ["1", 0]


def test_a_bypassed_node_passes_its_first_fitting_input_on(info):
    scale = made(
        3,
        "ImageScale",
        [slot("mask", "MASK"), slot("image", "IMAGE", 1)],
        ["IMAGE"],
        ["area", 1, 1, "center"],
        mode=4,
    )
    data = saved(
        EMPTY, scale, SAVE | {"inputs": [slot("images", "IMAGE", 2)]},
        links=[(1, 1, 0, 3, 1, "IMAGE"), (2, 3, 0, 2, 0, "IMAGE")],
    )  # fmt: skip
    got = convert_saved(data, info).graph
    assert sorted(got) == ["1", "2"]
    assert got["2"]["inputs"]["images"] == ["1", 0]


def test_what_a_muted_node_fed_goes_without(info):
    got = convert_saved(saved(EMPTY | {"mode": 2}, SAVE, links=[(1, 1, 0, 2, 0, "IMAGE")]), info).graph
    assert got["2"]["inputs"] == {"filename_prefix": "out"}


def test_a_circle_of_reroutes_is_an_error_that_names_the_node(info):
    data = saved(
        made(3, "Reroute", [slot("", "*", 1)], ["*"]),
        made(4, "Reroute", [slot("", "*", 2)], ["*"]),
        SAVE | {"inputs": [slot("images", "IMAGE", 3)]},
        links=[(1, 4, 0, 3, 0, "*"), (2, 3, 0, 4, 0, "*"), (3, 3, 0, 2, 0, "*")],
    )
    with pytest.raises(WorkflowGraphError, match=r"node 2 \(SaveImage\).*circle") as caught:
        convert_saved(data, info)
    assert caught.value.node_id == "2"


def test_every_node_that_cannot_be_converted_is_named_with_the_nearest_type(info):
    data = saved(made(5, "KSamplr", values=[1, "fixed", 2]), made(6, "Foo", values=["x"], title="My foo"))
    with pytest.raises(WorkflowGraphError) as caught:
        convert_saved(data, info, source="w.json")
    text = str(caught.value)
    assert "node 5 (KSamplr)" in text
    assert "nearest there: KSampler" in text
    assert "node 6 (Foo, “My foo”)" in text
    assert caught.value.node_id == "5"


@pytest.mark.parametrize(
    "nodes",
    [
        [{"type": "Note"}],
        ["x"],
        [None],
        [{"id": 1}],
        [{"id": True, "type": "A"}],
        [{"id": 1, "type": "SaveImage", "inputs": 5, "outputs": "x", "widgets_values": 7, "mode": "a"}],
    ],
)
def test_a_broken_file_ends_in_an_error_of_ours_or_not_at_all(nodes, info):
    for links in ([None, [1], {"id": 2}], True, None):
        _convert_or_refuse({"nodes": nodes, "links": links, "extra": [], "definitions": 3}, info)


def _convert_or_refuse(data, info):
    try:
        convert_saved(data, info)
    except WorkflowGraphError as exc:
        assert "ComfyUI" in str(exc)  # noqa: PT017 - either way is right


def test_only_saved_workflows_look_like_one():
    assert is_saved_format(saved(EMPTY))
    assert not is_saved_format({"1": {"class_type": "A", "inputs": {}}})
    assert not is_saved_format([])


# -- subgraphs ---------------------------------------------------------------------------------------------------------


def subgraph(graph_id, nodes, links, *, inputs=()):
    return {
        "id": graph_id,
        "name": "Sub",
        "nodes": list(nodes),
        "links": [
            {"id": a, "origin_id": b, "origin_slot": c, "target_id": d, "target_slot": e, "type": "*"}
            for a, b, c, d, e in links
        ],
        "inputs": [{"name": each, "linkIds": wires} for each, wires in inputs],
        "outputs": [{"name": "IMAGE", "linkIds": [99]}],
    }


INNER = made(
    7, "EmptyImage",
    [slot("width", "INT", 10, widget=True), slot("height", "INT", 11, widget=True)], ["IMAGE"], [64, 32, 1, 255],
)  # fmt: skip
SIZED = subgraph(
    "s1", [INNER], [(10, -10, 0, 7, 0), (11, -10, 1, 7, 1), (99, 7, 0, -20, 0)],
    inputs=[("width", [10]), ("height", [11])],
)  # fmt: skip


def hosted(definition, *others, host=None, links=((1, 8, 0, 2, 0, "IMAGE"),), more_definitions=()):
    host = host or made(8, definition["id"], [], ["IMAGE"])
    return saved(host, SAVE, *others, links=links, definitions={"subgraphs": [definition, *more_definitions]})


def test_a_subgraphs_nodes_are_named_through_their_host(info):
    got = convert_saved(hosted(SIZED), info).graph
    assert sorted(got) == ["2", "8:7"]
    assert got["2"]["inputs"]["images"] == ["8:7", 0]
    assert got["8:7"]["inputs"] == {"width": 64, "height": 32, "batch_size": 1, "color": 255}


@pytest.mark.parametrize(
    "host",
    [
        {"widgets_values": [100, 200]},
        {"widgets_values": [100, 200], "properties": {"proxyWidgets": [["-1", "width"], ["-1", "height"]]}},
        {"widgets_values": [200, 100], "properties": {"proxyWidgets": [["7", "height"], ["7", "width"]]}},
        {"widgets_values": [], "widgets_values_named": {"height": 200, "width": 100}},
    ],
    ids=["by place", "by promoted input", "by field inside", "by name"],
)
def test_a_hosts_values_go_to_the_fields_inside_in_each_of_the_editors_ways(host, info):
    data = hosted(SIZED, host=made(8, "s1", [], ["IMAGE"]) | host)
    inputs = convert_saved(data, info).graph["8:7"]["inputs"]
    assert (inputs["width"], inputs["height"]) == (100, 200)


def test_a_field_inside_that_is_not_wired_to_the_border_is_set_by_its_host(info):
    host = made(8, "s1", [], ["IMAGE"], [9]) | {"properties": {"proxyWidgets": [["7", "color"]]}}
    assert convert_saved(hosted(SIZED, host=host), info).graph["8:7"]["inputs"]["color"] == 9


def test_a_link_from_outside_weighs_more_than_the_hosts_value(info):
    number = made(9, "PrimitiveNode", outputs=["INT"], values=[777])
    host = made(8, "s1", [slot("height", "INT", 5, widget=True)], ["IMAGE"], [100, 200])
    data = hosted(SIZED, number, host=host, links=[(1, 8, 0, 2, 0, "IMAGE"), (5, 9, 0, 8, 0, "INT")])
    inputs = convert_saved(data, info).graph["8:7"]["inputs"]
    assert (inputs["width"], inputs["height"]) == (100, 777)


def test_two_hosts_of_one_subgraph_have_values_of_their_own(info):
    other = made(12, "s1", [], ["IMAGE"], [300, 400])
    save = made(13, "PreviewImage", [slot("images", "IMAGE", 2)])
    data = hosted(
        SIZED, other, save, host=made(8, "s1", [], ["IMAGE"], [100, 200]),
        links=[(1, 8, 0, 2, 0, "IMAGE"), (2, 12, 0, 13, 0, "IMAGE")],
    )  # fmt: skip
    got = convert_saved(data, info).graph
    assert got["8:7"]["inputs"]["width"] == 100
    assert got["12:7"]["inputs"]["width"] == 300
    assert got["13"]["inputs"]["images"] == ["12:7", 0]


def test_subgraphs_in_subgraphs_are_laid_out_and_values_go_all_the_way_in(info):
    nested = made(5, "s1", [slot("width", "INT", 20, widget=True)], ["IMAGE"], [1, 32])
    outer = subgraph("s2", [nested], [(20, -10, 0, 5, 0), (99, 5, 0, -20, 0)], inputs=[("size", [20])])
    data = hosted(outer, host=made(8, "s2", [], ["IMAGE"], [640]), more_definitions=[SIZED])
    got = convert_saved(data, info).graph
    assert got["8:5:7"]["inputs"]["width"] == 640
    assert got["2"]["inputs"]["images"] == ["8:5:7", 0]


def test_a_bypassed_subgraph_passes_its_input_on_and_a_muted_one_takes_its_links_along(info):
    through = subgraph(
        "s3", [made(4, "ImageInvert", [slot("image", "IMAGE", 10)], ["IMAGE"])],
        [(10, -10, 0, 4, 0), (99, 4, 0, -20, 0)], inputs=[("image", [10])],
    )  # fmt: skip
    for mode, expected in ((0, ["8:4", 0]), (4, ["1", 0]), (2, None)):
        host = made(8, "s3", [slot("image", "IMAGE", 5)], ["IMAGE"], mode=mode)
        data = hosted(through, EMPTY, host=host, links=[(1, 8, 0, 2, 0, "IMAGE"), (5, 1, 0, 8, 0, "IMAGE")])
        assert convert_saved(data, info).graph["2"]["inputs"].get("images") == expected


def test_a_subgraph_that_holds_itself_is_an_error_that_names_the_node(info):
    endless = subgraph("s9", [made(3, "s9", [], ["IMAGE"])], [(99, 3, 0, -20, 0)])
    with pytest.raises(WorkflowGraphError, match="holds itself") as caught:
        convert_saved(hosted(endless, host=made(8, "s9", [], ["IMAGE"])), info)
    assert caught.value.node_id == "8:3"


def test_subgraphs_that_multiply_are_refused(info):
    layers = [
        subgraph(f"d{depth}", [made(n, f"d{depth + 1}", [], ["IMAGE"]) for n in range(20)], [(99, 0, 0, -20, 0)])
        for depth in range(5)
    ]
    layers.append(subgraph("d5", [INNER], [(99, 7, 0, -20, 0)]))
    data = hosted(layers[0], host=made(8, "d0", [], ["IMAGE"]), more_definitions=layers[1:])
    with pytest.raises(WorkflowGraphError, match="Make it smaller"):
        convert_saved(data, info)


# -- group nodes -------------------------------------------------------------------------------------------------------


def grouped(values, *, host_inputs=(), links=((1, 8, 0, 2, 0, "IMAGE"),), others=()):
    group = {
        "nodes": [
            {"type": "EmptyImage", "inputs": [], "outputs": [{"type": "IMAGE"}], "widgets_values": [1, 1, 1, 1]},
            {
                "type": "ImageScale",
                "inputs": [slot("image", "IMAGE", 5)],
                "outputs": [{"type": "IMAGE"}],
                "widgets_values": ["area", 1, 1, "disabled"],
            },
        ],
        "links": [[0, 0, 1, 0, 5, "IMAGE"]],
        "external": [[1, 0, "IMAGE"]],
    }
    host = made(8, "workflow>Make", host_inputs, ["IMAGE"], values)
    return saved(host, SAVE, *others, links=links, extra={"groupNodes": {"Make": group}})


def test_a_groups_values_follow_the_fields_of_the_nodes_in_it(info):
    got = convert_saved(grouped([64, 32, 2, 255, "lanczos", 640, 480, "center"]), info).graph
    assert got["8:0"]["inputs"] == {"width": 64, "height": 32, "batch_size": 2, "color": 255}
    assert got["8:1"]["inputs"] == {
        "image": ["8:0", 0], "upscale_method": "lanczos", "width": 640, "height": 480, "crop": "center",
    }  # fmt: skip
    assert got["2"]["inputs"]["images"] == ["8:1", 0]


def test_a_group_that_is_not_defined_or_not_known_is_named(info):
    undefined = grouped([]) | {"extra": {}}
    with pytest.raises(WorkflowGraphError, match="“Make” that the file does not define") as caught:
        convert_saved(undefined, info)
    assert caught.value.node_id == "8"
    with pytest.raises(WorkflowGraphError, match="its inputs follow from these types"):
        convert_saved(grouped([]), None)


# -- what only the editor does -----------------------------------------------------------------------------------------


def test_what_the_editor_would_put_in_place_of_a_text_is_noted(info):
    data = saved(
        EMPTY,
        SAVE | {"widgets_values": ["%date:yyyy-MM-dd%/out"]},
        made(3, "CLIPTextEncode", [slot("clip", "CLIP")], ["CONDITIONING"], ["a {red|blue} fox"]),
        links=[(1, 1, 0, 2, 0, "IMAGE")],
    )
    notes = convert_saved(data, info).notes
    assert ["filled in by the editor only" in notes[0], "draws one" in notes[1]] == [True, True]
