"""One ComfyUI server over HTTP and websocket; knows nothing of batches, jobs or RunPod.

Shapes and hazards were recorded from ComfyUI 0.3.64. No aiohttp class escapes from here.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import uuid
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from runpod_comfy.comfyui.failures import refusal
from runpod_comfy.comfyui.messages import Connected, Lost, parse_binary, parse_text
from runpod_comfy.errors import (
    ApiError,
    AuthenticationError,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

    from runpod_comfy.comfyui.messages import Message

__all__ = ["ComfyUIClient", "FileTooLarge", "QueuedPrompt"]

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
# Validation reads input files, and the server stands still while a node holds Python's lock.
_PROMPT_TIMEOUT_S = 120.0
_TRANSFER_TIMEOUT_S = 600.0
_CONNECT_S = 15.0
_HEARTBEAT_S = 30.0
_FIRST_RECONNECT_S, _LONGEST_RECONNECT_S = 0.1, 5.0
_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_SHOWN_BODY_CHARS = 300
_FEATURES = '{"type":"feature_flags","data":{"supports_preview_metadata":true}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedPrompt:
    """A prompt that ComfyUI has accepted.

    Attributes:
        prompt_id: Its id.
        node_errors: The nodes that ComfyUI will leave out, with their errors; their outputs will be missing.
    """

    prompt_id: str
    node_errors: Mapping[str, Any] = field(default_factory=dict)


class FileTooLarge(Exception):
    """A file was not read, since it has more bytes than were asked for; for callers inside this package."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


class ComfyUIClient:
    """A ComfyUI server.

    >>> async with aiohttp.ClientSession() as session:  # doctest: +SKIP
    ...     client = ComfyUIClient("http://127.0.0.1:8188", session=session)
    ...     prompt = await client.queue_prompt(graph)

    Args:
        url: The server's address, also with a path in front of ComfyUI's own.
        session: Where connections come from; it stays the caller's.
        headers: Sent with each request, for example ``{"Authorization": "Bearer …"}`` for a proxy in front.
        client_id: Whose messages the websocket gets; None makes one up. It must not be shared: of two sockets with
            one id the newer falls silent when the older closes.
    """

    def __init__(
        self,
        url: str,
        *,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str] | None = None,
        client_id: str | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._headers = dict(headers or {})
        self.client_id = client_id or uuid.uuid4().hex

    @property
    def origin(self) -> str:
        """The server's address for messages: without path and password."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def sibling(self) -> ComfyUIClient:
        """Return another client of the same server, with an id of its own."""
        return ComfyUIClient(self._url, session=self._session, headers=self._headers)

    async def system_stats(self) -> dict[str, Any]:
        """Return versions, devices and the command line: ``GET /system_stats``.

        Raises:
            ProtocolError: Something answers there that is not ComfyUI.
        """
        stats = self._object(await self._get("system_stats"), "system_stats")
        if not isinstance(stats.get("system"), dict):
            raise ProtocolError(f"{self.origin} answers, but not as ComfyUI does. Check the address.")
        return stats

    async def object_info(self, node_class: str | None = None) -> dict[str, Any]:
        """Return the installed node classes and their inputs, or those of one: ``GET /object_info``."""
        path = f"object_info/{quote(node_class, safe='')}" if node_class else "object_info"
        return self._object(await self._get(path), "object_info")

    async def models(self, folder: str | None = None) -> list[str]:
        """Return the kinds of models that ComfyUI knows, or the files of one kind: ``GET /models``.

        Raises:
            NotFound: There is no such kind, or this ComfyUI is too old to tell.
        """
        path = f"models/{quote(folder, safe='')}" if folder else "models"
        try:
            answer = orjson.loads(await self._get(path))
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, list):
            raise ProtocolError(f"{self.origin} answered to models with something that is no list. Is it ComfyUI?")
        return [each for each in answer if isinstance(each, str)]

    async def upload(self, name: str, data: bytes, *, subfolder: str = "", overwrite: bool = True) -> str:
        """Put a file into the input folder and return the name ComfyUI gives it, such as ``photos/00.png``.

        Without ``overwrite`` a file of that name with other content makes ComfyUI choose another: ``00 (1).png``.
        """
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("image", io.BytesIO(data), filename=name, content_type="application/octet-stream")
        form.add_field("type", "input")
        form.add_field("subfolder", subfolder)
        form.add_field("overwrite", "true" if overwrite else "false")
        answer = await self._request("POST", "upload/image", data=form, timeout_s=_TRANSFER_TIMEOUT_S)
        stored = self._object(answer, "upload/image")
        if not isinstance(stored.get("name"), str):
            raise ProtocolError(f"{self.origin} answered to upload/image without a name. Is it ComfyUI?")
        below = stored.get("subfolder")
        return f"{below}/{stored['name']}" if below else stored["name"]

    async def holds_input(self, name: str, data: bytes, *, subfolder: str = "") -> bool:
        """Return whether the input folder has this file with this content.

        Uploading it again would cut it to nothing for a moment, under a prompt that may be reading it.
        """
        place = {"filename": name, "subfolder": subfolder, "type": "input"}
        try:
            return await self._request("GET", "view", params=place, expected_bytes=len(data)) == data
        except ApiError:
            return False

    async def queue_prompt(
        self,
        graph: dict[str, Any],
        *,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
        front: bool = False,
    ) -> QueuedPrompt:
        """Queue a graph: ``POST /prompt``. Never sent twice, since the same prompt id would run twice.

        Args:
            graph: The workflow in API format.
            prompt_id: The id it gets; None makes one up.
            extra_data: What nodes may read besides it, such as ``extra_pnginfo``.
            front: Put it before all that wait.

        Raises:
            JobFailed: ComfyUI refuses it; with node, class and ComfyUI's words.
            TransportError: No answer; the prompt may or may not be queued.
        """
        body: dict[str, Any] = {"prompt": graph, "client_id": self.client_id}
        body["prompt_id"] = prompt_id or str(uuid.uuid4())
        if extra_data:
            body["extra_data"] = dict(extra_data)
        if front:
            body["front"] = True
        try:
            answer = await self._post("prompt", body, timeout_s=_PROMPT_TIMEOUT_S)
        except _Refused as exc:
            told = _json_object(exc.content)
            if told is None or not {"error", "node_errors"} & told.keys():
                raise
            raise refusal(told, graph) from exc
        told = self._object(answer, "prompt")
        if not isinstance(told.get("prompt_id"), str):
            raise ProtocolError(f"{self.origin} answered to prompt without a prompt_id. Is it ComfyUI?")
        node_errors = told.get("node_errors")
        return QueuedPrompt(
            prompt_id=told["prompt_id"], node_errors=node_errors if isinstance(node_errors, dict) else {}
        )

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """Return what a prompt that has ended came to, or None where it has not ended or is not known."""
        answer = self._object(await self._get(f"history/{quote(prompt_id, safe='')}"), "history")
        entry = answer.get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def queue(self) -> tuple[list[str], list[str]]:
        """Return the ids of the prompts that run and of those that wait: ``GET /queue``."""
        answer = self._object(await self._get("queue"), "queue")
        return _prompt_ids(answer.get("queue_running")), _prompt_ids(answer.get("queue_pending"))

    async def compute_thread_lives(self) -> bool | None:
        """Return whether the thread that computes prompts lives; None where nobody there knows.

        It is told by this project's nodes for ComfyUI (``worker/nodes/compute_thread.py``), where they are installed.
        """
        try:
            answer = self._object(await self._get("runpod_comfy/compute_thread"), "compute_thread")
        except (ApiError, ProtocolError):
            return None
        return answer["alive"] if isinstance(answer.get("alive"), bool) else None

    async def delete_pending(self, prompt_ids: Iterable[str]) -> None:
        """Take prompts that wait off the queue; others are left alone, and so are those that run."""
        await self._post("queue", {"delete": list(prompt_ids)})

    async def interrupt(self, prompt_id: str) -> None:
        """Interrupt this prompt where it runs; at the next node, or step of a sampler.

        Older ComfyUI ignores the id and interrupts whatever runs: ask :meth:`queue` first.
        """
        await self._post("interrupt", {"prompt_id": prompt_id})

    async def forget(self, prompt_ids: Iterable[str]) -> None:
        """Drop what ``/history`` keeps of prompts, which is their whole graphs: ComfyUI keeps 10,000 of them."""
        await self._post("history", {"delete": list(prompt_ids)})

    async def view(
        self,
        filename: str,
        subfolder: str = "",
        type: str = "output",  # noqa: A002 - its name there
        *,
        largest_bytes: int | None = None,
    ) -> bytes:
        """Return a file's bytes.

        Raises:
            NotFound: It is gone.
            FileTooLarge: It has more than ``largest_bytes``; it was not read.
        """
        place = {"filename": filename, "subfolder": subfolder, "type": type}
        return await self._request(
            "GET", "view", params=place, timeout_s=_TRANSFER_TIMEOUT_S, largest_bytes=largest_bytes
        )

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Message]]:
        """Open the websocket; what comes is an endless iterator of messages that connects again by itself.

        It begins with :class:`Connected` or :class:`Lost`, and says so whenever that changes. What was missed in
        between is not sent again.
        """
        async with aclosing(self._messages()) as messages:
            yield messages

    async def _messages(self) -> AsyncGenerator[Message]:
        wait_s = _FIRST_RECONNECT_S
        while True:
            try:
                async with self._session.ws_connect(
                    f"{self._url}/ws",
                    params={"clientId": self.client_id},
                    headers=self._headers,
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=_MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                ) as socket:
                    wait_s = _FIRST_RECONNECT_S
                    # As the very first message, or previews come without the name of their prompt.
                    await socket.send_str(_FEATURES)
                    yield Connected()
                    async for frame in socket:
                        if frame.type is aiohttp.WSMsgType.TEXT:
                            yield parse_text(frame.data)
                        elif frame.type is aiohttp.WSMsgType.BINARY:
                            yield parse_binary(frame.data)
                    reason = f"it was closed ({socket.close_code})"
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                reason = _reason(exc)
            logger.info("%s: no websocket: %s", self.origin, reason)
            yield Lost(reason)
            await asyncio.sleep(wait_s)
            wait_s = min(_LONGEST_RECONNECT_S, wait_s * 2)

    async def _get(self, path: str) -> bytes:
        return await self._request("GET", path)

    async def _post(self, path: str, body: Mapping[str, Any], *, timeout_s: float = _TIMEOUT_S) -> bytes:
        # As a file, since aiohttp warns of large bytes.
        return await self._request("POST", path, data=io.BytesIO(orjson.dumps(body)), timeout_s=timeout_s)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        data: io.BytesIO | aiohttp.FormData | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
        expected_bytes: int | None = None,
        largest_bytes: int | None = None,
    ) -> bytes:
        """Return the body of a 200; of one that has another size than expected, nothing is read."""
        headers = (
            {**self._headers, "Content-Type": "application/json"} if isinstance(data, io.BytesIO) else self._headers
        )
        try:
            async with self._session.request(
                method,
                f"{self._url}/{path}",
                data=data,
                params=params,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s, connect=_CONNECT_S),
                allow_redirects=False,
            ) as response:
                if expected_bytes is not None and response.content_length not in {expected_bytes, None}:
                    response.close()
                    return b""
                size_bytes = response.content_length or 0
                if largest_bytes is not None and size_bytes > largest_bytes:
                    response.close()
                    raise FileTooLarge(size_bytes)
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise TransportError(
                f"ComfyUI at {self.origin} did not answer to {path.partition('/')[0]}: {_reason(exc)}. "
                "Check that it runs and that the address is right."
            ) from exc
        self._check(response, content, path)
        return content

    def _check(self, response: aiohttp.ClientResponse, content: bytes, path: str) -> None:
        status = response.status
        what = f"{self.origin} answered {status} to {path.partition('/')[0]}"
        is_page = response.content_type == "text/html"
        if 300 <= status < 400 or (is_page and status < 300):  # noqa: PLR2004 - redirects, and pages of a login
            raise ProtocolError(
                f"{what} with {'a web page' if is_page else 'a redirect'}, which ComfyUI does not do. Check the "
                "address; for a server behind a login, pass what it takes as headers=."
            )
        if status < 300:  # noqa: PLR2004 - all is well
            return
        body = "" if is_page else content[: 4 * _SHOWN_BODY_CHARS].decode("utf-8", "replace")
        body = " ".join(body.split())[:_SHOWN_BODY_CHARS]
        kind, advice = _meaning(status)
        error = kind(f"{what}: {advice}" + (f" It said: {body}" if body else ""), status_code=status, body=body)
        if isinstance(error, _Refused):
            error.content = content
        raise error

    def _object(self, content: bytes, path: str) -> dict[str, Any]:
        answer = _json_object(content)
        if answer is None:
            raise ProtocolError(
                f"{self.origin} answered to {path} with something that is no JSON object ({len(content):,} bytes). "
                "Is it ComfyUI? Check the address."
            )
        return answer


class _Refused(ApiError):
    """A 4xx with its whole body, which for ``/prompt`` says what is wrong with the graph."""

    content: bytes = b""


def _meaning(status: int) -> tuple[type[ApiError], str]:
    match status:
        case 401 | 403:
            return AuthenticationError, "what stands in front of ComfyUI wants credentials; pass them as headers=."
        case 404:
            return NotFound, "there is no such thing. Check the address where this happens to every request."
        case 413:
            return _Refused, "the file is too large for this ComfyUI; start it with a larger --max-upload-size."
        case 429:
            return RateLimited, "too many requests."
        case _ if status >= 500:  # noqa: PLR2004 - server errors
            return ServerError, "ComfyUI, or what stands in front of it, failed; its log says why."
        case _:
            return _Refused, "the request was refused."


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = _python_json(content)
    return answer if isinstance(answer, dict) else None


def _python_json(content: bytes) -> Any:
    """Read what Python writes as JSON and nobody else takes for it: NaN, Infinity, halves of surrogate pairs.

    ComfyUI passes on what nodes report, and what they declare as their inputs' bounds, as Python's ``json`` writes it.
    The numbers become null, and the halves ``?``, since neither could be sent on.
    """
    with suppress(ValueError, RecursionError):
        answer = json.loads(content, parse_constant=lambda _: None)
        return orjson.loads(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))
    return None


def _prompt_ids(items: object) -> list[str]:
    """Read the ids of a queue's items, which are lists: number, id, graph, extra data, outputs."""
    found = items if isinstance(items, list) else []
    return [item[1] for item in found if isinstance(item, list) and item[1:] and isinstance(item[1], str)]


def _reason(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "time-out"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return exc.os_error.strerror or str(exc.os_error)
    if isinstance(exc, aiohttp.WSServerHandshakeError):
        return f"it answered {exc.status}"
    return str(exc) or type(exc).__name__
