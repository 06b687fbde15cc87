"""A ComfyUI for each test: the stand-in, and the real one too where COMFYUI_URL names one."""

import io
import os

import aiohttp
import pytest
from PIL import Image

from runpod_comfy.comfyui.client import ComfyUIClient
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
async def session():
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def client(session, comfyui_url):
    return ComfyUIClient(comfyui_url, session=session)


@pytest.fixture
def stand_in_client(session, stand_in):
    return ComfyUIClient(stand_in.url, session=session)


@pytest.fixture
def png():
    """Make a PNG file's bytes."""

    def make(colour="red", size=(32, 24)):
        data = io.BytesIO()
        Image.new("RGB", size, colour).save(data, "PNG")
        return data.getvalue()

    return make


@pytest.fixture
def nap():
    """Make a graph that takes some time: EmptyImage → FixtureSleep → SaveImage."""

    def make(seconds=0.1, *, colour=0, prefix="nap", images=1):
        empty = {"width": 32, "height": 32, "batch_size": images, "color": colour}
        sleep = {"image": ["1", 0], "seconds": seconds, "steps": max(5, round(20 * seconds)), "seed": 1}
        return {
            "1": {"class_type": "EmptyImage", "inputs": empty},
            "2": {"class_type": "FixtureSleep", "inputs": sleep, "_meta": {"title": "Nap"}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
        }

    return make
