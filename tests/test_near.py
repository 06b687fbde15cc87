import pytest

from runpod_comfy.near import nearest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("SDXL_base_1.0.ckpt", ["sd_xl_base_1.0.safetensors"]),
        ("sdxl/sd_xl_base_1.0.safetensors", ["sd_xl_base_1.0.safetensors"]),
        ("nothing like it", []),
    ],
)
def test_the_nearest_name_does_not_mind_folders_case_and_endings(typed, meant):
    assert nearest(typed, ["v1-5.safetensors", "sd_xl_base_1.0.safetensors"]) == meant
