"""One request to RunPod and its answer: in its turn, with the key, and with errors of our tree.

The bodies of errors are documented nowhere, so they are kept as text and never interpreted.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import os
import re
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from runpod_comfy.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from runpod_comfy.serverless.pacing import Pacer
    from runpod_comfy.settings import EndpointSettings

__all__ = ["Exchange", "NotSent", "chunks", "sending_trace"]

# An answer holds at most the lines of one job that were not read yet; a hostile one must not fill the memory.
_MAX_ANSWER_BYTES = 512 * 1024 * 1024
_SHOWN_BODY_CHARS = 400
_SEARCHED_BODY_BYTES = 64 * 1024
_LONGEST_KEY_CHARS = 2048  # as JSON may write it
_DEFAULT_PAUSE_S = 2.0
_CONNECT_S = 15.0
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


class Exchange:
    """The way to one endpoint. The key goes to the configured address only: redirects are not followed."""

    def __init__(self, settings: EndpointSettings, *, session: aiohttp.ClientSession, pacer: Pacer) -> None:
        self._settings = settings
        self._session = session
        self._pacer = pacer
        self._root = f"{settings.base_url}/{quote(settings.endpoint_id, safe='')}"
        self._headers = {"Authorization": f"Bearer {settings.api_key}"}
        self._proxy = proxy_for(settings.base_url)
        # JSON may write each character in three ways.
        self._key = re.compile(
            "".join(rf"(?:\\?{re.escape(char)}|\\u{ord(char):04x})" for char in settings.api_key), re.IGNORECASE
        )

    @property
    def endpoint_id(self) -> str:
        """The endpoint's id."""
        return self._settings.endpoint_id

    async def json(
        self,
        method: str,
        operation: str,
        path: str,
        *,
        data: bytes | None = None,
        timeout_s: float = 30,
        job_id: str | None = None,
        on_send: Callable[[], None] | None = None,
    ) -> Any:
        """Send a request in its turn and return the JSON of its answer.

        ``on_send`` is called just before its first byte leaves: until then the server knows nothing of it.

        Raises:
            NotSent: No connection was made.
            TransportError: No answer came, or half of one.
            ApiError: The answer says no.
            ProtocolError: The answer is no JSON.
        """
        answer, _ = await self.json_and_headers(
            method, operation, path, data=data, timeout_s=timeout_s, job_id=job_id, on_send=on_send
        )
        return answer

    async def json_and_headers(
        self,
        method: str,
        operation: str,
        path: str,
        *,
        data: bytes | None = None,
        timeout_s: float = 30,
        job_id: str | None = None,
        on_send: Callable[[], None] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """Do what :meth:`json` does, and return the answer's headers too."""
        async with self.answer(
            method, operation, path, data=data, timeout_s=timeout_s, job_id=job_id, on_send=on_send
        ) as response:
            content = await _read(response)
        return self._parse(content, operation, job_id), response.headers

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        operation: str,
        path: str,
        *,
        data: bytes | None = None,
        timeout_s: float,
        job_id: str | None,
        on_send: Callable[[], None] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request in its turn and give the answer, if it is a good one, for its body to be read."""
        headers = {**self._headers, "Content-Type": "application/json"} if method == "POST" else self._headers
        if method == "POST" and data is None:
            data = b"{}"
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=_CONNECT_S)
        error: ApiError | None = None
        async with self._pacer.turn(operation):
            try:
                async with self._session.request(
                    method,
                    f"{self._root}/{path}",
                    # aiohttp warns of large bytes, and is content with the same bytes behind a file.
                    data=io.BytesIO(data) if data is not None else None,
                    headers=headers,
                    timeout=timeout,
                    proxy=self._proxy,
                    allow_redirects=False,
                    trace_request_ctx=on_send,
                ) as response:
                    if response.ok and response.status < 300:  # noqa: PLR2004 - the first redirect
                        yield response
                    else:
                        error = self._api_error(response, await _read(response), operation, job_id)
            except _NO_CONNECTION as exc:
                raise NotSent(
                    f"No connection to {_origin(self._root)}: {_reason(exc)}. Check the network and the address.",
                    job_id=job_id,
                    endpoint_id=self.endpoint_id,
                ) from exc
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise TransportError(
                    f"{_origin(self._root)} did not answer to {operation}: {_reason(exc)}.",
                    job_id=job_id,
                    endpoint_id=self.endpoint_id,
                ) from exc
        if isinstance(error, RateLimited):
            self._pacer.slow_down(operation, error.retry_after_s or _DEFAULT_PAUSE_S)
        if error is not None:
            raise error

    def _parse(self, content: bytes, operation: str, job_id: str | None) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as exc:
            raise ProtocolError(
                f"{_origin(self._root)} answered to {operation} with something that is not JSON "
                f"({len(content):,} bytes). Is the base URL right?",
                job_id=job_id,
                endpoint_id=self.endpoint_id,
            ) from exc

    def _api_error(
        self, response: aiohttp.ClientResponse, content: bytes, operation: str, job_id: str | None
    ) -> ApiError:
        status = response.status
        body = _shown(content, self._key)
        kind, advice = _meaning(status, operation, self.endpoint_id)
        error = kind(
            f"RunPod answered {status} to {operation}: {advice}" + (f" It said: {body}" if body else ""),
            status_code=status,
            body=body,
            job_id=job_id,
            endpoint_id=self.endpoint_id,
        )
        if isinstance(error, RateLimited):
            error.retry_after_s = _retry_after_s(response.headers.get("Retry-After"))
        return error


class NotSent(TransportError):
    """No connection was made, so the server cannot have seen the request."""


def sending_trace() -> aiohttp.TraceConfig:
    """Return what a session needs to call a request's ``on_send``."""

    async def sends(_session: aiohttp.ClientSession, context: Any, _: aiohttp.TraceRequestHeadersSentParams) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sends)  # called before they are written
    return trace


def _meaning(  # noqa: PLR0911 - a table of statuses
    status: int, operation: str, endpoint_id: str
) -> tuple[type[ApiError], str]:
    match status:
        case 401 | 403:
            return AuthenticationError, "the API key is missing, wrong, or not allowed to use this endpoint."
        case 404 if operation in {"run", "runsync", "health"}:
            return NotFound, f"there is no endpoint {endpoint_id!r}. Check the endpoint's id."
        case 404:
            return NotFound, "it does not know the job (results are kept for 30 minutes), or there is no such endpoint."
        case 429:
            return RateLimited, "too many requests."
        case 400 | 413 if operation in {"run", "runsync"}:
            return ApiError, "it does not accept the request (bodies over its limit are refused in this way too)."
        case _ if status >= 500:  # noqa: PLR2004 - server errors
            return ServerError, "the service failed; trying again later may help."
        case _ if 300 <= status < 400:  # noqa: PLR2004 - redirects
            return (
                ApiError,
                "a redirect, which is not followed, since the key must not go elsewhere. Check the base URL.",
            )
        case _:
            return ApiError, "the request was refused."


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, or None; loopback addresses never use one.

    aiohttp's own ``trust_env`` is not used, since it would also send what ``~/.netrc`` holds.

    Raises:
        ConfigurationError: The variable names no HTTP proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    kind = next((each for each in (parts.scheme, "all") if proxies.get(each)), None)
    return None if kind is None else _proxy_url(proxies[kind], f"{kind}_proxy")


def _proxy_url(text: str, variable: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and re.fullmatch(r"[\w.:%-]+", parts.hostname or "")
        usable = bool(is_http) and parts.port != 0
    except ValueError:  # brackets that do not match, or a port that is no number below 65536
        usable = False
    if usable:
        return url
    variable = next((name for name in (variable, variable.upper()) if name in os.environ), variable)
    # The value is not shown: it may hold a password.
    kind = "a SOCKS proxy, which is not supported" if url.startswith("socks") else "no address of an HTTP proxy"
    raise ConfigurationError(
        f"The environment variable {variable} names {kind}; nothing was sent. Set it to http://<HOST>:<PORT>, or unset "
        "it (NO_PROXY names hosts that need none)."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, up to a bound."""
    return b"".join([chunk async for chunk in chunks(response)])


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, up to a bound."""
    length = response.content_length
    if length is not None and length > _MAX_ANSWER_BYTES:
        raise ProtocolError(f"RunPod's answer has {length:,} bytes; more than {_MAX_ANSWER_BYTES:,} are not read.")
    total = 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > _MAX_ANSWER_BYTES:
            raise ProtocolError(
                f"RunPod's answer has more than {_MAX_ANSWER_BYTES:,} bytes and was not read to its end."
            )
        yield chunk


def _shown(content: bytes, key: re.Pattern[str]) -> str:
    """Return the begin of a body on one line. The key is replaced first: a cut would leave a part of it."""
    text = key.sub("<key>", content[:_SEARCHED_BODY_BYTES].decode("utf-8", "replace"))
    if len(content) > _SEARCHED_BODY_BYTES:
        text = text[:-_LONGEST_KEY_CHARS]
    return " ".join(text.split())[:_SHOWN_BODY_CHARS]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _reason(exc: BaseException) -> str:
    if isinstance(exc, (asyncio.TimeoutError, TimeoutError)):
        return "time-out"
    if isinstance(exc, aiohttp.ClientHttpProxyError):  # its text may hold the proxy's password
        return f"the proxy answered {exc.status}"
    return str(exc) or type(exc).__name__


def _retry_after_s(header: str | None) -> float | None:
    """Read the seconds of a ``Retry-After`` (the date form is not used by APIs); bounded, since it is outside data."""
    try:
        return min(300.0, max(0.0, float(header))) if header else None
    except ValueError:
        return None
