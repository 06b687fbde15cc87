"""The folder that ``output_dir=`` names: outputs go there as they arrive, and leave memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.errors import ConfigurationError, InputError, RunpodComfyError
from runpod_comfy.events import OutputReady, Warned
from runpod_comfy.media.files import safe_output_path, write_new
from runpod_comfy.results import OutputFile

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

    def put_all(self, events: Iterable[Event]) -> list[Event]:
        """Do ``put`` for several events."""
        return [kept for event in events for kept in self.put(event)]

    def put(self, event: Event) -> Iterator[Event]:
        """Write the file that an event brings, and yield the event with the path in place of the bytes. Blocks.

        A name that leads elsewhere is not followed: that output stays in memory, and a warning says so.

        Raises:
            RunpodComfyError: The disk is full, or the folder is gone; the event has been yielded with its bytes.
        """
        if not isinstance(event, OutputReady) or not isinstance(event.output, OutputFile):
            yield event
            return
        output = event.output
        try:
            # Not synced: thousands of files would take minutes on a slow disk.
            path = write_new(safe_output_path(self.folder, output.name, output.subfolder), output.data, synced=False)
        except InputError as exc:
            yield event
            yield Warned(message=f"{exc} The output was not written to {self.folder}; its bytes are in .data.")
        except OSError as exc:
            yield event
            raise RunpodComfyError(
                f"An output could not be written to {self.folder}: {exc.strerror or exc}. Make room, or choose "
                "another output_dir=."
            ) from exc
        else:
            yield OutputReady(output=output.kept_at(path))
