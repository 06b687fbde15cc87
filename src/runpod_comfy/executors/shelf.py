"""The folder that ``output_dir=`` names: outputs go there as they arrive, and leave memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.executors.filing import Filing
from runpod_comfy.results import OutputElsewhere

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runpod_comfy.events import Event

__all__ = ["Shelf"]


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder that can be written to."""

    folder: Path

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Shelf:
        """Make the folder where it is missing.

        Raises:
            ConfigurationError: It cannot be made or written to: said before a job is paid for.
        """
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(f"output_dir {path} cannot be made: {exc.strerror or exc}.") from exc
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigurationError(f"output_dir {path} may not be written to. Choose another folder.")
        return cls(path)

    def put_all(self, events: Iterable[Event]) -> Iterator[Event]:
        """Write the files that events bring, and return the events with paths in place of bytes. Blocks.

        A name that leads elsewhere is not followed: that output stays in memory, and a warning says so.

        Raises:
            RunpodComfyError: In the end, where the disk is full or the folder is gone; that event has its bytes.
        """
        return (event for event in Filing(shelf=self).file(events, []).told() if not isinstance(event, OutputElsewhere))
