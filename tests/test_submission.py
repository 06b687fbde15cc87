"""What is sent is warned of where it would be paid for and is probably not meant."""

from runpod_comfy import WorkflowTemplate
from runpod_comfy.submission import build_submission

GRAPH = """{
  "1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "{{ input_images_dir }}"}},
  "2": {"class_type": "KSampler", "inputs": {"seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
}"""
OWN_FOLDER = "{# runpod-comfy:\nvariables: {input_images_dir: {type: text, default: /mine}}\n#}\n"


def warnings(text):
    return build_submission(WorkflowTemplate.from_string(text)).warnings


def test_a_template_that_reads_photos_and_gets_none_is_warned_of():
    [warning] = warnings(GRAPH)
    assert "no input image was given" in warning


def test_a_folder_that_the_template_names_itself_needs_no_photos():
    assert warnings(OWN_FOLDER + GRAPH) == ()


def test_a_template_without_photos_is_not_warned_of_them():
    assert warnings(GRAPH.replace("{{ input_images_dir }}", "/mine")) == ()
