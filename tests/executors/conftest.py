"""An emulated endpoint with any handler on it, on the library's own background loop."""

import contextlib
import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from runpod_comfy import RunpodComfyWorkflowExecutor, _loop
from runpod_comfy.dialects.native import LineWriter
from runpod_comfy.emulator.api import EmulatorServer
from runpod_comfy.emulator.inprocess import InProcessWorker
from runpod_comfy.emulator.jobs import EndpointConfig
from runpod_comfy.emulator.platform import Platform
from runpod_comfy.events import BatchFinished, OutputReady
from runpod_comfy.results import Origin, WorkflowOutputImage


class Endpoint:
    """An endpoint, what happened on it, and an executor for it."""

    def __init__(self, handler, config, *, aggregate, stream_hold_s=0.0):
        self._handler = handler
        self._aggregate = aggregate
        self.platform = Platform(EndpointConfig(endpoint_id="test", **config))
        self.server = EmulatorServer(self.platform, stream_hold_s=stream_hold_s)
        self.worker = None

    async def start(self):
        await self.server.start()
        if self._handler:
            self.worker = InProcessWorker(self.platform, "test", self._handler, aggregate=self._aggregate)
            await self.worker.start()

    async def stop(self):
        if self.worker:
            await self.worker.stop()
        await self.server.stop()

    def executor(self, **options):
        settings = {"endpoint": "test", "api_key": "a-key", "base_url": self.server.base_url, **options}
        return RunpodComfyWorkflowExecutor(**settings)

    def jobs(self):
        async def statuses():
            return list(self.platform.statuses("test"))

        return _loop.run_sync(statuses)

    def states(self):
        return [str(job.state) for job in self.jobs()]


@pytest.fixture
def make_endpoint():
    """`make_endpoint(handler, **config)` starts an emulated endpoint whose worker runs that handler, if any."""
    with contextlib.ExitStack() as stack:

        def make(handler=None, *, aggregate=False, stream_hold_s=0.0, **config):
            endpoint = Endpoint(handler, config, aggregate=aggregate, stream_hold_s=stream_hold_s)
            _loop.run_sync(endpoint.start)
            stack.callback(_loop.run_sync, endpoint.stop)
            return endpoint

        yield make


@pytest.fixture
def lines():
    """`lines(*events, error=None, done=True, hold=None)` is a handler that yields events' lines as the worker does."""

    def make(*events, error=None, done=True, hold=None):
        async def handler(job):
            writer = LineWriter()
            for event in events:
                for piece in writer.event(event):
                    yield piece
            if hold is not None:
                await hold(job)
            if error is not None:
                for piece in writer.error(error, node_id="3", node_type="KSampler"):
                    yield piece
                yield {"error": error}
            elif done:
                for piece in writer.done(gpu_s=1.0):
                    yield piece

        return handler

    return make


def drawn(seed, index=0, size_px=8):
    """Return the picture that `painter` makes of a seed: the same one each time."""
    data = io.BytesIO()
    color = ((seed >> 16) & 255, (seed >> 8) & 255, seed & 255)
    Image.new("RGB", (size_px, size_px), color).save(data, "png", pnginfo=_named(f"{seed} {index}"))
    return data.getvalue()


def _named(text):
    info = PngInfo()
    info.add_text("made of", text)
    return info


@pytest.fixture
def painter():
    """`painter(per_batch=2, hold=None)` is a handler that makes what was asked for: each batch from its seed."""

    def make(*, per_batch=2, hold=None, requests=None):
        async def handler(job):
            asked = job["input"]
            if requests is not None:
                requests.append(asked)
            writer = LineWriter()
            count = asked["batch_count"]
            for batch, seed in enumerate(asked["seeds"]):
                for index in range(per_batch):
                    origin = Origin(batch=batch, seed=seed, node_id="9", node_title="Save")
                    name = f"a_{batch * per_batch + index + 1:05}_.png"
                    image = WorkflowOutputImage(
                        name=name, data=drawn(seed, index), media_type="image/png", origin=origin
                    )
                    for piece in writer.event(OutputReady(output=image)):
                        yield piece
                for piece in writer.event(BatchFinished(batch=batch, batch_count=count, seed=seed, gpu_s=0.5)):
                    yield piece
                if hold is not None:
                    await hold(job, batch)
            for piece in writer.done(gpu_s=0.5 * count):
                yield piece

        return handler

    return make
