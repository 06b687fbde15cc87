"""A pytest plugin: RunPod Serverless on this machine for your own tests.

>>> def test_my_app_makes_portraits(runpod_emulator):  # doctest: +SKIP
...     my_app.make_portraits()  # RUNPOD_API_KEY, RUNPOD_ENDPOINT_ID and RUNPOD_ENDPOINT_BASE_URL point at the emulator
...     assert len(runpod_emulator.jobs()) == 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runpod_comfy.executors.local import LocalRunpod

__all__ = ["runpod_emulator"]


@pytest.fixture
def runpod_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRunpod]:
    """RunPod on this machine: an endpoint ``local`` whose worker drives a stand-in ComfyUI, for one test.

    Environment variables name it, so that code under test needs no change. Its address is ``.settings.base_url``, its
    jobs are ``.jobs()``, and faults are planned with ``.platform.faults.add(…)``.
    """
    from runpod_comfy import _loop  # noqa: PLC0415 - a plugin must cost nothing where it is not used
    from runpod_comfy.executors.local import LOCAL_API_KEY, LOCAL_ENDPOINT_ID, LocalRunpod  # noqa: PLC0415 - likewise

    local = LocalRunpod()
    _loop.run_sync(local.start)
    try:
        monkeypatch.setenv("RUNPOD_API_KEY", LOCAL_API_KEY)
        monkeypatch.setenv("RUNPOD_ENDPOINT_ID", LOCAL_ENDPOINT_ID)
        monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", local.settings.base_url)
        yield local
    finally:
        _loop.run_sync(local.stop)
