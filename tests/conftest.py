"""What several test modules need: the servers that a machine may or may not have."""

import os

import boto3
import pytest
from hypothesis import HealthCheck, settings
from moto.server import ThreadedMotoServer

# How fast a machine is says nothing about the code: no property test fails for the time it takes.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


_REAL_COMFYUI_URL = os.environ.get("COMFYUI_URL")  # before tests are kept from seeing it


@pytest.fixture(scope="session")
def real_comfyui_url():
    """The address of a real ComfyUI server; tests that ask for it are marked `real_comfyui`."""
    if not _REAL_COMFYUI_URL:
        pytest.skip("no COMFYUI_URL")
    return _REAL_COMFYUI_URL


@pytest.fixture(scope="session")
def storage():
    """A real S3 API on this machine: its address. It has one bucket, `photos`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "s"}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="photos")
    yield url
    server.stop()


_SETTINGS = ("RUNPOD_COMFY_PROFILE", "RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID", "RUNPOD_ENDPOINT_BASE_URL", "COMFYUI_URL")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine(tmp_path_factory):
    """Tests, and what several share, must not read the key, the profile or the addresses of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path_factory.getbasetemp() / "no-profile" / "config.toml"))
        for name in _SETTINGS:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _nothing_of_other_tests(monkeypatch, tmp_path_factory, _no_settings_of_this_machine):
    """What one test submits another must not collect, nor does it inherit settings."""
    monkeypatch.setenv("RUNPOD_COMFY_LEDGER", str(tmp_path_factory.mktemp("ledger") / "jobs.sqlite"))
    monkeypatch.setenv("RUNPOD_COMFY_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in _SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is unset again after a test that sets it otherwise
        monkeypatch.delenv(name)
