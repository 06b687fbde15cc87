"""Workflows out of images, as ComfyUI writes them in."""

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.embedded import read_embedded
from runpod_comfy.workflow.template import WorkflowTemplate

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64}, "_meta": {"title": "$width"}}}
SAVED = {"nodes": [{"id": 1, "type": "EmptyImage", "widgets_values_named": {"width": 32}}], "links": []}


def png(path, **chunks):
    info = PngInfo()
    for key, value in chunks.items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_the_graph_that_ran_comes_before_the_editors(tmp_path):
    assert read_embedded(png(tmp_path / "a.png", prompt=GRAPH, workflow=SAVED)) == GRAPH
    assert read_embedded(png(tmp_path / "b.png", workflow=SAVED)) == SAVED


def test_what_comfyui_noted_down_while_running_is_left_out(tmp_path):
    noted = '{"1": {"class_type": "A", "inputs": {}, "is_changed": [NaN]}}'
    assert read_embedded(png(tmp_path / "a.png", prompt=noted)) == {"1": {"class_type": "A", "inputs": {}}}


@pytest.mark.parametrize("kind", ["webp", "jpeg", "avif"])
def test_other_formats_have_it_in_exif(kind, tmp_path):
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(GRAPH)
    exif[0x010F] = "workflow:" + json.dumps(SAVED)
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    assert read_embedded(path) == GRAPH


@pytest.mark.parametrize("chunks", [{}, {"prompt": "no json"}, {"prompt": "[]"}, {"prompt": "{}"}, {"parameters": "x"}])
def test_an_image_without_a_workflow_says_why(chunks, tmp_path):
    with pytest.raises(TemplateError, match="carries no workflow"):
        read_embedded(png(tmp_path / "a.png", **chunks))


def test_what_is_no_image_or_not_there_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nx")
    with pytest.raises(TemplateError, match=r"a\.png cannot be read"):
        read_embedded(tmp_path / "a.png")
    with pytest.raises(TemplateError, match="There is no file"):
        read_embedded(tmp_path / "b.png")


def test_an_image_is_a_template_with_the_variables_of_its_titles(tmp_path):
    template = WorkflowTemplate(png(tmp_path / "a.png", prompt=GRAPH))
    assert template.render(width=9)["1"]["inputs"] == {"width": 9}
    assert template.render() == GRAPH


def test_a_saved_workflow_is_a_template_too(tmp_path, info):
    (tmp_path / "w.json").write_text(json.dumps(SAVED))
    assert WorkflowTemplate(tmp_path / "w.json").render()["1"]["inputs"] == {"width": 32}
    known = WorkflowTemplate(tmp_path / "w.json", object_info=info)
    assert known.render()["1"]["inputs"] == {"width": 32, "height": 512, "batch_size": 1, "color": 0}


def test_from_workflow_takes_files_of_every_format(tmp_path, info):
    (tmp_path / "w.json").write_text(json.dumps(SAVED))
    for source in (tmp_path / "w.json", SAVED, png(tmp_path / "a.png", workflow=SAVED)):
        template = WorkflowTemplate.from_workflow(source, object_info=info)
        assert template.render()["1"]["inputs"]["width"] == 32
        assert template.declarations["width"].most == 16384
