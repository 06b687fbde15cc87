"""The worker's link to its ComfyUI: one session for each event loop, and what is known of the machine there."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.folders import find_folders
from runpod_comfy.comfyui.runner import Site
from runpod_comfy.comfyui.shelf import InputShelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ComfyUILink"]


@dataclass(slots=True)
class _Loop:
    """What one event loop has of the link."""

    session: aiohttp.ClientSession | None = None
    users: int = 0
    site: Site | None = None
    finding: asyncio.Lock = field(default_factory=asyncio.Lock)


class ComfyUILink:
    """Lends clients of one ComfyUI.

    A session is open while any job uses it and no longer: the SDK never says that the worker ends, so nothing must be
    left open that only then could be closed.

    Args:
        url: ComfyUI's address.
        comfyui_dir: ComfyUI's folder as seen from here, if that is known.
        largest_bytes: A larger output is not fetched; None fetches any.
    """

    def __init__(self, url: str, *, comfyui_dir: str | None = None, largest_bytes: int | None = None) -> None:
        self.url = url
        self._comfyui_dir = comfyui_dir
        self._largest_bytes = largest_bytes
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[ComfyUIClient]:
        """Lend a client on this loop's session."""
        mine = self._mine()
        if mine.session is None:
            mine.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        mine.users += 1
        try:
            yield ComfyUIClient(self.url, session=mine.session)
        finally:
            mine.users -= 1
            if mine.users == 0:
                session, mine.session = mine.session, None
                await session.close()

    async def site(self, client: ComfyUIClient) -> Site:
        """Return what runs on this loop share; the first one finds out where ComfyUI's folders are.

        Raises:
            TransportError: ComfyUI does not answer.
        """
        mine = self._mine()
        async with mine.finding:
            if mine.site is None:
                folders = await find_folders(client, comfyui_dir=self._comfyui_dir)
                mine.site = Site(
                    shelf=InputShelf(folders), folders=folders, largest_bytes=self._largest_bytes, stay=self.borrow
                )
            return mine.site

    def input_dir(self, site: Site) -> str | None:
        """Return ComfyUI's input folder as its nodes see it; None where the server is to be asked."""
        if site.folders is not None:
            return str(site.folders.input)
        return f"{self._comfyui_dir.rstrip('/')}/input" if self._comfyui_dir else None

    def _mine(self) -> _Loop:
        return self._loops.setdefault(asyncio.get_running_loop(), _Loop())
