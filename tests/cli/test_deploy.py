"""What is printed for RunPod's forms."""

import json

from runpod_comfy import __version__


def test_the_forms_are_printed_with_neither_key_nor_network(cli):
    done = cli("deploy", "--print", "--max-workers", "5", "--idle-timeout", "7", "--image", "ghcr.io/me/comfy:1")
    assert done.code == 0
    fields = {line[2:].partition("  ")[0]: line for line in done.lines if line.startswith("  ")}
    assert "ghcr.io/me/comfy:1" in fields["Container image"]
    assert "  5 " in fields["Max workers"]
    assert "  7 s" in fields["Idle timeout"]


def test_the_image_is_of_this_version_unless_told(cli):
    assert f"runpod-comfy-worker:{__version__}\n" in cli("deploy", "--print").out


def test_models_of_a_template_are_named_with_the_folder_each_belongs_to(cli):
    done = cli("deploy", "--print", "portrait/workflow.json.jinja", "--var", "checkpoint=mine.safetensors")
    assert "/comfyui/models/checkpoints/mine.safetensors" in done.out
    assert "/comfyui/models/photomaker/photomaker-v1.bin" in done.out


def test_models_on_a_volume_are_below_models_on_it(cli):
    done = cli("deploy", "--print", "portrait/workflow.json.jinja", "--volume")
    assert "/runpod-volume/models/checkpoints/sd_xl_base_1.0.safetensors" in done.out
    assert "/workspace" in done.out
    assert "/comfyui/models" not in done.out


def test_json_has_the_same_fields(cli):
    data = json.loads(cli("deploy", "--print", "portrait/workflow.json.jinja", "--json").out)["data"]
    assert data["endpoint_form"]["Max workers"] == "3"
    assert "Container image" in data["template_form"]
    assert {model["folder"] for model in data["models"]} == {"checkpoints", "photomaker"}


def test_without_print_nothing_is_promised(cli):
    done = cli("deploy")
    assert done.code == 2
    assert "--print" in done.err
