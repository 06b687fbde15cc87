"""Inputs given by URL: fetched here, so that a request stays small; from public https addresses unless told otherwise.

Who may submit jobs must not be able to read what only this machine can reach (a cloud's metadata service, ComfyUI
itself, a neighbour), nor fill its disk, memory or time.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import aiohttp

from runpod_comfy.errors import InputError
from runpod_comfy.media.formats import media_type_of
from runpod_comfy.media.inputs import check_picture
from runpod_comfy.worker.addresses import PublicSockets, is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runpod_comfy.media.inputs import InputImage
    from runpod_comfy.settings import InputUrls
    from runpod_comfy.submission import Submission

__all__ = ["FetchLimits", "with_fetched_inputs"]

logger = logging.getLogger(__name__)

_MAX_REDIRECTS = 5
_CONNECT_S = 15.0
_AT_ONCE = 4
_CHUNK_BYTES = 256 * 1024
_SNIFFED_BYTES = 64
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How much a job's inputs by URL may take.

    Attributes:
        file_bytes: One file.
        job_bytes: All files of a job.
        total_s: One file, with all its redirects.
        silent_s: Nothing arrives for so long.
    """

    file_bytes: int = 128 * 1024 * 1024
    job_bytes: int = 512 * 1024 * 1024
    total_s: float = 120.0
    silent_s: float = 20.0


async def with_fetched_inputs(
    submission: Submission,
    urls: Mapping[int, str],
    *,
    allowed: InputUrls = "https",
    limits: FetchLimits | None = None,
    may_connect: Callable[[str], bool] | None = None,
) -> Submission:
    """Return the submission with the bytes of its inputs that came as URLs.

    Args:
        submission: What was asked for; the images in ``urls`` have no bytes yet.
        urls: The URLs by their images' positions.
        allowed: ``https``: public addresses over https. ``any``: also http, and addresses of private networks.
            ``off``: none.
        limits: How much they may take.
        may_connect: Which addresses may be connected to, where ``allowed`` shall not say.

    Raises:
        InputError: One cannot be had, is too large, or is neither a picture nor a video. URLs are shown without path
            and query, since they may hold a signature.
    """
    if not urls:
        return submission
    if allowed == "off":
        raise InputError("This worker takes no inputs by URL (WORKER_INPUT_URLS=off). Send them as base64 in 'image'.")
    fetcher = _Fetcher(allowed, limits or FetchLimits(), may_connect)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def fetch(index: int, url: str) -> tuple[int, InputImage]:
        image = submission.images[index]
        async with turns:
            return index, await fetcher.fetch(url, image)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fetch(index, url)) for index, url in urls.items()]
    except ExceptionGroup as failures:
        # Any one of them says what is wrong; the group is an implementation detail.
        raise failures.exceptions[0] from None
    fetched = dict(task.result() for task in tasks)
    images = tuple(fetched.get(index, image) for index, image in enumerate(submission.images))
    return replace(submission, images=images)


class _Fetcher:
    """Fetches the files of one job; no connection, cookie or address is kept for the next."""

    def __init__(self, allowed: InputUrls, limits: FetchLimits, may_connect: Callable[[str], bool] | None) -> None:
        self._schemes = {"https"} if allowed == "https" else {"https", "http"}
        self._may_connect = may_connect or (is_public if allowed == "https" else lambda _: True)
        self._limits = limits
        self._left_bytes = limits.job_bytes

    async def fetch(self, url: str, image: InputImage) -> InputImage:
        label = f"The input {image.name!r}"
        try:
            async with asyncio.timeout(self._limits.total_s):
                data = await self._follow(url, label)
        except TimeoutError as exc:
            raise InputError(
                f"{label}: {_shown(url)} took longer than {self._limits.total_s:.0f} s. Use a faster host."
            ) from exc
        media_type = media_type_of(data) or ""
        await asyncio.to_thread(check_picture, data, label)
        logger.info("%s: %d bytes of %s from %s", label, len(data), media_type, _shown(url))
        return replace(image, data=data, media_type=media_type)

    async def _follow(self, url: str, label: str) -> bytes:
        """Follow redirects by hand, since each address on the way is checked."""
        for _ in range(_MAX_REDIRECTS + 1):
            found = await self._ask(url, label)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise InputError(f"{label}: {_shown(url)} redirects more than {_MAX_REDIRECTS} times.")

    async def _ask(self, url: str, label: str) -> bytes | str:
        """Return what is there, or where it says to look."""
        host = self._checked_host(url, label)
        sockets = PublicSockets(self._may_connect)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(use_dns_cache=False, force_close=True, socket_factory=sockets),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A small body that unpacks to a large one would pass the cap.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "runpod-comfy-worker"},
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=self._limits.silent_s),
        )
        try:
            async with session, session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return response.headers.get("Location", "")
                return await self._body(response, label, host)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise InputError(_unreachable(label, host, exc, sockets)) from exc

    def _checked_host(self, url: str, label: str) -> str:
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError as exc:
            raise InputError(f"{label}: 'url' is no URL.") from exc
        if parts.scheme not in self._schemes or not host:
            wanted = "https" if self._schemes == {"https"} else "http or https"
            raise InputError(f"{label}: 'url' (or what it redirects to) is no {wanted} address.")
        if parts.username or parts.password:
            raise InputError(f"{label}: 'url' holds a user or password. Use a presigned URL.")
        return host

    async def _body(self, response: aiohttp.ClientResponse, label: str, host: str) -> bytes:
        if response.status != _OK:
            raise InputError(f"{label}: {host} answered {response.status}. Check the URL, and whether it has expired.")
        if (response.headers.get("Content-Encoding") or "identity").lower() != "identity":
            raise InputError(f"{label}: {host} sends it compressed though asked not to.")
        self._check_room(response.content_length or 0, label)
        data = bytearray()
        is_sniffed = False
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            self._left_bytes -= len(chunk)
            data += chunk
            self._check_room(0, label, have=len(data))
            if not is_sniffed and len(data) >= _SNIFFED_BYTES:
                _sniff(bytes(data[:_SNIFFED_BYTES]), label, host)
                is_sniffed = True
        _sniff(bytes(data[:_SNIFFED_BYTES]), label, host)
        return bytes(data)

    def _check_room(self, announced: int, label: str, *, have: int = 0) -> None:
        limits = self._limits
        if max(announced, have) > limits.file_bytes:
            raise InputError(f"{label}: is larger than {limits.file_bytes // 2**20} MiB.")
        if announced > self._left_bytes or self._left_bytes < 0:
            raise InputError(f"{label}: with it the job's inputs by URL exceed {limits.job_bytes // 2**20} MiB.")


def _sniff(head: bytes, label: str, host: str) -> None:
    media_type = media_type_of(head) or ""
    if not media_type.startswith(("image/", "video/")):
        raise InputError(f"{label}: what {host} sends is neither a picture nor a video that is known here.")


def _unreachable(label: str, host: str, exc: Exception, sockets: PublicSockets) -> str:
    if sockets.refused:
        return f"{label}: {host} is no public address ({sockets.refused[0]}), and the worker fetches no others."
    return f"{label}: {host} did not send it: {type(exc).__name__}. Check the URL; it must work without a login."


def _shown(url: str) -> str:
    return urlsplit(url).hostname or "the URL"
