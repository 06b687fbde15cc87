"""Node types kept on this machine: one file for each target, with the version of the worker that told them.

Asking costs a second on a server, and a worker's start on an endpoint; a workflow that is checked against what was kept
costs nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.workflow.object_info import ObjectInfo

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KeptObjectInfo", "ObjectInfoCache"]

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptObjectInfo:
    """Node types as they were told.

    Attributes:
        info: The node types.
        version: The version of the worker, or of ComfyUI; "" where it did not tell.
        fetched_at: When, as ISO 8601 in UTC.
    """

    info: ObjectInfo = field(repr=False)
    version: str
    fetched_at: str


class ObjectInfoCache:
    """Node types by target: an endpoint's id or a server's address.

    Args:
        folder: Where the files are; it is made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, KeptObjectInfo]] = {}

    def load(self, target: str) -> KeptObjectInfo | None:
        """Return what was kept for a target; None where there is nothing, or nothing that can be read."""
        path = self._path(target)
        try:
            changed_ns = path.stat().st_mtime_ns
            if path in self._read and self._read[path][0] == changed_ns:
                return self._read[path][1]
            data = orjson.loads(path.read_bytes())
            kept = KeptObjectInfo(
                info=ObjectInfo(data["object_info"], source="the node types that were kept"),
                version=str(data["version"]),
                fetched_at=str(data["fetched_at"]),
            )
            if data["format"] != _FORMAT:
                return None
        except (OSError, orjson.JSONDecodeError, ConfigurationError, KeyError, TypeError):
            return None
        self._read[path] = (changed_ns, kept)
        return kept

    def store(self, target: str, data: dict[str, Any], *, version: str, fetched_at: str) -> None:
        """Keep what a target told.

        Args:
            target: The endpoint's id, or the server's address.
            data: The body of ``GET /object_info``.
            version: The worker's version, or ComfyUI's.
            fetched_at: When it was told, as ISO 8601 in UTC.

        Raises:
            ConfigurationError: It is no object_info.
            OSError: It cannot be written.
        """
        ObjectInfo(data)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Not the target: an address may hold a password.
        body = orjson.dumps({"format": _FORMAT, "version": version, "fetched_at": fetched_at, "object_info": data})
        # Another process may be reading the old one, or writing at the same time.
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            os.replace(name, self._path(target))  # noqa: PTH105 - a path of mkstemp's
        except BaseException:
            os.unlink(name)  # noqa: PTH108 - likewise
            raise

    def _path(self, target: str) -> Path:
        # Addresses hold what no file name may.
        return self._folder / f"{hashlib.sha256(target.encode()).hexdigest()[:24]}.json"
