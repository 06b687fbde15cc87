"""A ComfyUI and a handler for each test: the stand-in, and the real one too where COMFYUI_URL names one."""

import os

import pytest

from runpod_comfy.emulator.comfyui import ComfyUIStandIn

_REAL_URL = os.environ.get("COMFYUI_URL")  # read now: tests run without it


@pytest.fixture
async def stand_in():
    async with ComfyUIStandIn() as comfyui:
        yield comfyui


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.real_comfyui)])
async def comfyui_url(request):
    if request.param == "real":
        if not _REAL_URL:
            pytest.skip("no COMFYUI_URL")
        yield _REAL_URL
        return
    async with ComfyUIStandIn() as comfyui:
        yield comfyui.url


@pytest.fixture
def nap():
    """Make a graph that takes some time: EmptyImage → FixtureSleep → SaveImage."""

    def make(seconds=0.05, *, colour=0, images=1):
        empty = {"width": 32, "height": 32, "batch_size": images, "color": colour}
        sleep = {"image": ["1", 0], "seconds": seconds, "steps": max(5, round(20 * seconds)), "seed": 1}
        return {
            "1": {"class_type": "EmptyImage", "inputs": empty},
            "2": {"class_type": "FixtureSleep", "inputs": sleep},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "nap"}},
        }

    return make
