"""What the library warns of during a dataset: a few lines are shown, and all of them are in the folder's log."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runpod_comfy.cli.output import Output

__all__ = ["warnings_kept"]

_SHOWN = 3
# Of single jobs, and of the stand-in's side: nobody reads these of thousands of jobs.
_ONLY_KEPT = ("runpod_comfy.executors.collect", "runpod_comfy.worker", "runpod_comfy.emulator")


@contextmanager
def warnings_kept(path: Path, output: Output) -> Iterator[None]:
    """Show the first warnings that the library logs, keep all of them in a file, and say how many there were.

    Thousands of jobs on a bad day warn thousands of times, and what matters would scroll away.
    """
    kept = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler = _Warnings(kept, output)
    logger = logging.getLogger("runpod_comfy")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        kept.close()
        if handler.count > _SHOWN:
            output.warn(f"{handler.count - _SHOWN:,} more warnings are in {path}")


class _Warnings(logging.Handler):
    def __init__(self, kept: logging.Handler, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept
        self._output = output
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.handle(record)
        if record.name.startswith(_ONLY_KEPT):
            return
        self.count += 1
        if self.count <= _SHOWN:
            more = " (further ones are kept in a file)" if self.count == _SHOWN else ""
            self._output.warn(f"{record.getMessage()}{more}")
