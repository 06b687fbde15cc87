"""The stand-in as a server: ComfyUI's routes over HTTP and its websocket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import struct
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import orjson
from aiohttp import WSMsgType, web

from runpod_comfy.emulator.comfyui.execution import PREVIEW, Engine
from runpod_comfy.emulator.comfyui.misbehaving import Misbehaving
from runpod_comfy.emulator.comfyui.nodes import NODE_TYPES
from runpod_comfy.emulator.comfyui.python_json import dumps
from runpod_comfy.emulator.comfyui.validation import validate

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ComfyUIStandIn"]

logger = logging.getLogger(__name__)

_VERSION: Final = "0.3.64"  # the one whose behaviour is copied
_LARGEST_BODY_BYTES: Final = 512 * 1024 * 1024
_FOLDERS: Final = ("input", "output", "temp")


class ComfyUIStandIn(Misbehaving):
    """A ComfyUI server without models: it checks, queues, caches and saves as ComfyUI does, and draws proofs.

    Args:
        folder: The base folder with ``input``, ``output`` and ``temp``; None makes one and removes it in the end.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        seconds_per_node: How long each node that is not cached takes, in seconds.
        strict_nodes: Refuse node types that are not known, as a real server does.
        show_folder: Name the base folder on its command line; a server elsewhere names one that is not here.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seconds_per_node: float = 0.0,
        strict_nodes: bool = False,
        show_folder: bool = True,
    ) -> None:
        self._own_folder = folder is None
        self._host, self._port = host, port
        self._seconds_per_node = seconds_per_node
        self._strict_nodes = strict_nodes
        self._show_folder = show_folder
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._with_metadata: set[str] = set()
        self._outbox: asyncio.Queue[tuple[web.WebSocketResponse, str | bytes]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self.folder = folder or Path()

    @property
    def url(self) -> str:
        """The address, ``http://host:port``; the port is known once the server has started."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen, and begin to work."""
        if self._own_folder:
            self.folder = Path(tempfile.mkdtemp(prefix="comfyui-stand-in-"))
        for name in _FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._engine = Engine(self.folder, self._tell, seconds_per_node=self._seconds_per_node)
        app = web.Application(client_max_size=_LARGEST_BODY_BYTES)
        for prefix in ("", "/api"):
            app.add_routes([web.route(method, prefix + path, handler) for method, path, handler in self._routes()])
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        self._tasks = [asyncio.create_task(self._engine.run()), asyncio.create_task(self._send())]

    async def stop(self) -> None:
        """Stop working and listening; a second call does nothing."""
        for task in self._tasks:
            task.cancel()
        # A node computes in a thread, which no cancellation reaches; the loop would wait for it at its end.
        self._engine.interrupt(None)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.close_sockets()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            if self._own_folder:
                await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- what tests can ask for ------------------------------------------------------------------------------------

    @property
    def socket_count(self) -> int:
        """How many websockets are open."""
        return len(self._sockets)

    @property
    def running(self) -> str | None:
        """The id of the prompt that computes, or None."""
        return self._engine.running.prompt_id if self._engine.running else None

    @property
    def remembered(self) -> list[str]:
        """The ids of the prompts in the history."""
        return list(self._engine.history)

    async def close_sockets(self) -> None:
        """Close all websockets; clients may connect again."""
        sockets, self._sockets = list(self._sockets.values()), {}
        for socket in sockets:
            with suppress(ConnectionError):
                await socket.close()

    # -- events ----------------------------------------------------------------------------------------------------

    def _tell(self, client_id: str | None, kind: str, data: dict[str, Any]) -> None:
        if self._silent:
            return
        for each, socket in self._sockets.items():
            if client_id in {None, each}:
                self._outbox.put_nowait((socket, self._encode(each, kind, data)))

    def _encode(self, client_id: str, kind: str, data: dict[str, Any]) -> str | bytes:
        if kind != PREVIEW:
            return dumps({"type": kind, "data": data}).decode()
        about = dict(data)
        image = about.pop("image")
        if client_id not in self._with_metadata:
            return struct.pack(">II", 1, 1) + bytes(image)
        metadata = orjson.dumps(about)
        return struct.pack(">II", 4, len(metadata)) + metadata + bytes(image)

    async def _send(self) -> None:
        while True:
            socket, message = await self._outbox.get()
            with suppress(ConnectionError, RuntimeError):
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        # The newer of two sockets with one id gets the events, and the older one's end takes them from both.
        self._sockets[client_id] = socket
        exec_info = {"queue_remaining": self._engine.remaining}
        self._tell(client_id, "status", {"status": {"exec_info": exec_info}, "sid": client_id})
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                with suppress(orjson.JSONDecodeError, AttributeError):
                    if orjson.loads(message.data).get("type") == "feature_flags":
                        self._with_metadata.add(client_id)
                        flags = {"supports_preview_metadata": True, "max_upload_size": 104857600}
                        self._tell(client_id, "feature_flags", flags)
        finally:
            self._sockets.pop(client_id, None)
            self._with_metadata.discard(client_id)
        return socket

    # -- routes ----------------------------------------------------------------------------------------------------

    def _routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/ws", self._websocket),
            ("GET", "/", self._home),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/prompt", self._get_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
            ("GET", "/history", self._get_history),
            ("POST", "/history", self._post_history),
            ("GET", "/history/{prompt_id}", self._get_history),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("POST", "/upload/mask", self._upload),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/models", self._models),
            ("GET", "/models/{folder}", self._models),
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/embeddings", self._nothing),
            ("GET", "/extensions", self._nothing),
            ("GET", "/runpod_comfy/compute_thread", self._compute_thread),
        ]

    async def _home(self, _: web.Request) -> web.Response:
        return web.Response(text="A stand-in for ComfyUI: it draws labelled proofs, no generated pictures.\n")

    async def _nothing(self, _: web.Request) -> web.Response:
        return _json([])

    async def _post_prompt(self, request: web.Request) -> web.Response:
        # A body that is no JSON, and a graph that is no object, end as 500 on a real server too.
        body = orjson.loads(await request.read())
        if "prompt" not in body:
            error = {
                "type": "no_prompt",
                "message": "No prompt provided",
                "details": "No prompt provided",
                "extra_info": {},
            }
            return _json({"error": error, "node_errors": {}}, status=400)
        graph = body["prompt"]
        verdict = validate(graph, file_exists=self._input_exists, strict=self._strict_nodes)
        if verdict.error is not None:
            return _json({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        extra_data = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        prompt_id = body.get("prompt_id")
        item = self._engine.put(
            graph,
            extra_data,
            verdict.outputs,
            front=bool(body.get("front")),
            prompt_id=str(prompt_id) if prompt_id is not None else None,
        )
        if self._late_s:
            await asyncio.sleep(self._late_s)
        return _json({"prompt_id": item.prompt_id, "number": item.number, "node_errors": verdict.node_errors})

    async def _get_prompt(self, _: web.Request) -> web.Response:
        return _json({"exec_info": {"queue_remaining": self._engine.remaining}})

    async def _get_queue(self, _: web.Request) -> web.Response:
        running = [self._engine.running.described()] if self._engine.running else []
        return _json({"queue_running": running, "queue_pending": [item.described() for item in self._engine.pending]})

    async def _post_queue(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if body.get("clear"):
            self._engine.delete([item.prompt_id for item in self._engine.pending])
        self._engine.delete(body.get("delete") or [])
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        content = await request.read()
        body = orjson.loads(content) if content else {}
        self._engine.interrupt(body.get("prompt_id"))
        return web.Response()

    async def _free(self, _: web.Request) -> web.Response:
        self._engine.free()
        return web.Response()

    async def _get_history(self, request: web.Request) -> web.Response:
        if self._garbles_history:
            return web.Response(body=b'{"outputs": ', content_type="application/json")
        prompt_id = request.match_info.get("prompt_id")
        history = self._engine.history
        if prompt_id is None:
            return _json(history)
        return _json({prompt_id: history[prompt_id]} if prompt_id in history else {})

    async def _post_history(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if body.get("clear"):
            self._engine.history.clear()
        for prompt_id in body.get("delete") or []:
            self._engine.history.pop(prompt_id, None)
        return web.Response()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        kind = request.query.get("type", "output")
        path = self._path(kind, request.query.get("subfolder", ""), request.query.get("filename", ""))
        if path is None:
            return web.Response(status=400)
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form.get("image")
        if not isinstance(image, web.FileField):
            return web.Response(status=400)
        kind, subfolder = str(form.get("type") or "input"), str(form.get("subfolder") or "")
        path = self._path(kind, subfolder, image.filename)
        if path is None:
            return web.Response(status=400)
        data = image.file.read()
        path.parent.mkdir(parents=True, exist_ok=True)
        if str(form.get("overwrite")).lower() not in {"true", "1"}:
            path = _free_name(path, data)
        path.write_bytes(data)
        return _json({"name": path.name, "subfolder": subfolder, "type": kind})

    async def _object_info(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        return _json({each: kind.described(each) for each, kind in NODE_TYPES.items() if name in {None, each}})

    async def _models(self, request: web.Request) -> web.Response:
        folder = request.match_info.get("folder")
        models = self.folder / "models"
        if folder is None:
            return _json(sorted(each.name for each in models.glob("*/")))
        if not (models / folder).is_dir():
            return web.Response(status=404)
        return _json(sorted(each.name for each in (models / folder).iterdir()))

    async def _compute_thread(self, _: web.Request) -> web.Response:
        if not self._knows_its_thread:
            return web.Response(status=404)
        return _json({"alive": not self._tasks[0].done()})

    async def _system_stats(self, _: web.Request) -> web.Response:
        argv = ["main.py", *(["--base-directory", str(self.folder)] if self._show_folder else [])]
        # A strict one runs what it lists and nothing else, as a real server does.
        stand_in = {} if self._strict_nodes else {"stand_in": True}
        return _json({"system": {"comfyui_version": _VERSION, "argv": argv, **stand_in}, "devices": []})

    # -- files -----------------------------------------------------------------------------------------------------

    def _path(self, kind: str, subfolder: str, filename: str) -> Path | None:
        """Return where a file is or goes; None where that would be outside its folder."""
        root = (self.folder / kind).resolve()
        if kind not in _FOLDERS or not filename or "\0" in subfolder + filename:
            return None
        path = (root / subfolder / filename).resolve()
        return path if path.is_relative_to(root) and path != root else None

    def _input_exists(self, name: str) -> bool:
        path = self._path("input", "", name)
        return path is not None and path.is_file()


def _free_name(path: Path, data: bytes) -> Path:
    """Return a name that is free, or that of a file with the same content."""
    candidate, number = path, 0
    while candidate.exists():
        if hashlib.sha256(candidate.read_bytes()).digest() == hashlib.sha256(data).digest():
            return candidate
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=dumps(value), status=status, content_type="application/json", charset="utf-8")
