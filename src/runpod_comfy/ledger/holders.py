"""Who reads a job: reads of ``/stream`` consume, so there must be one reader and no doubt who it is.

A process writes down where and since when it lives, and again and again that it still does. On the same machine the
operating system is asked whether it lives; of another machine only that sign of life is known.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BEAT_S", "SILENT_S", "Holder", "is_alive", "this_process"]

BEAT_S: Final = 15.0
"""How often a holder says that it lives."""

SILENT_S: Final = 90.0
"""A holder on another machine that was silent for so long is taken for dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process's hold on jobs.

    Attributes:
        holder_id: Different for each process and each ledger that it opens.
        host: The machine's name, for people.
        place: The machine, its boot and its space of process ids: within it a process id means something.
        pid: The process.
        born: When the process started, as the system tells it: ids of processes are used again.
        beat_s: The last sign of life, in seconds since 1970.
    """

    holder_id: str
    host: str
    place: str
    pid: int
    born: str
    beat_s: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process(now_s: float) -> Holder:
    """Return a new hold of this process."""
    pid = os.getpid()
    return Holder(secrets.token_hex(8), socket.gethostname(), _place(), pid, _born(pid) or "", now_s)


def is_alive(holder: Holder, now_s: float) -> bool:
    """Whether a holder can still be reading."""
    if holder.place != _place():
        return abs(now_s - holder.beat_s) < SILENT_S  # a clock that was set back must not keep a hold for ever
    born = _born(holder.pid)
    if born is not None and holder.born:
        return born == holder.born
    return _exists(holder.pid) and now_s - holder.beat_s < SILENT_S


def _exists(pid: int) -> bool:
    if os.name == "nt":  # there os.kill(pid, 0) would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _born(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; "" if there is no such process, None where nobody tells."""
    if not Path("/proc/self/stat").exists():
        return None
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if after_name[0] in {"Z", "X"} else after_name[19]


def _place() -> str:
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            parts.append(Path(path).read_text("ascii").strip())
        except (OSError, ValueError):
            continue
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - no file, but a name in brackets
    return "/".join(parts)
