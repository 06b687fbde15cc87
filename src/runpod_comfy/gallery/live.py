"""The page of a dataset that is being made: it learns of new images without being loaded again.

A page from disk may not fetch, but it may add a ``<script src>``. So beside it are ``__gallery__/live.js``, which says
how many parts there are, and ``__gallery__/live/000003.js``, the tasks that changed since the part before. The page
itself is written again now and then, with everything up to some part inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any

from runpod_comfy.gallery.data import gallery_data
from runpod_comfy.gallery.page import safe_json, write_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from runpod_comfy.dataset.manifest import TaskRecord
    from runpod_comfy.gallery.page import Gallery

__all__ = ["LiveGallery"]

logger = logging.getLogger(__name__)

_EVERY_S = 5.0
_PAGE_EVERY_S = 60.0
_COST_SHARE = 50  # of the time, at most one part in so many goes into this

_Seen = tuple[int, int, str | None]


class LiveGallery:
    """Keeps a dataset's page up to date. No fault of the page's ends what fills the dataset.

    Args:
        gallery: The page.
        tasks: What the manifest says, growing meanwhile.
        every_s: At least so many seconds between two parts.
    """

    def __init__(self, gallery: Gallery, tasks: Mapping[str, TaskRecord], *, every_s: float = _EVERY_S) -> None:
        self._gallery = gallery
        self._tasks = tasks
        self._every_s = every_s
        self._folder = gallery.root / "__gallery__" / "live"
        self._session = secrets.token_hex(4)
        self._parts = 0
        self._seen: dict[str, _Seen] = {}

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write the page, keep it up to date while entered, and write it once more at the end."""
        stop = asyncio.Event()
        keeping = asyncio.create_task(self._keep(stop))
        try:
            yield
        finally:
            stop.set()
            await keeping

    async def _keep(self, stop: asyncio.Event) -> None:
        self._changed()  # what is there is in the page
        await asyncio.to_thread(self._begin, dict(self._tasks))
        page_cost_s, page_at_s = 0.0, time.monotonic()
        part_cost_s = 0.0
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self._every_s, _COST_SHARE * part_cost_s)):
                    await stop.wait()
            begun_s = time.monotonic()
            await asyncio.to_thread(self._add_part, self._changed())
            part_cost_s = time.monotonic() - begun_s
            if time.monotonic() - page_at_s > max(_PAGE_EVERY_S, _COST_SHARE * page_cost_s):
                page_at_s = time.monotonic()
                await asyncio.to_thread(self._write_page, dict(self._tasks))
                page_cost_s = time.monotonic() - page_at_s
        await asyncio.to_thread(self._end, dict(self._tasks))

    def _changed(self) -> list[tuple[str, TaskRecord]]:
        found = []
        for key, record in self._tasks.items():
            now = _looks(record)
            if self._seen.get(key) != now:
                self._seen[key] = now
                found.append((key, record))
        return found

    def _begin(self, tasks: dict[str, TaskRecord]) -> None:
        with _forgiving():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_status(running=True)
            self._write_page(tasks)

    def _end(self, tasks: dict[str, TaskRecord]) -> None:
        with _forgiving():
            self._write_status(running=False)
            self._gallery.write(tasks)

    def _write_page(self, tasks: dict[str, TaskRecord]) -> None:
        with _forgiving():
            # What comes after this part is not in the page; a task that is in both is the same.
            self._gallery.write(tasks, live={"session": self._session, "parts": self._parts})

    def _add_part(self, changed: list[tuple[str, TaskRecord]]) -> None:
        with _forgiving():
            if changed:
                data = gallery_data(changed, images_wanted=self._gallery.images_wanted)
                write_whole(self._folder / f"{self._parts:06}.js", _call("part", {"part": self._parts, **data}))
                self._parts += 1
            self._write_status(running=True)

    def _write_status(self, *, running: bool) -> None:
        status = {"session": self._session, "parts": self._parts, "running": running, "at": round(time.time())}
        write_whole(self._folder.parent / "live.js", _call("status", status))


def _looks(record: TaskRecord) -> _Seen:
    """Return what differs once the page has something new to show of a task."""
    last = next(reversed(record.images.values()), None)
    return len(record.images), len(record.failures), last["sha256"] if last else None


def _call(name: str, value: Mapping[str, Any]) -> str:
    return f"runpodComfyGallery.{name}({safe_json(value)});\n"


@contextlib.contextmanager
def _forgiving() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        logger.warning("the gallery's page could not be written: %s", exc)
