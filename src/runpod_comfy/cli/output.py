"""What the command writes: data on stdout, words on stderr, and with ``--json`` one envelope on stdout instead.

The envelope: ``{"schema", "ok", "command", "version", "data", "error"}``; ``error`` is None or has ``code``,
``message`` and ids. ``schema`` names the shape of ``data``, for example ``run/1``: ``schemas/data-run.json`` in the
package describes it, ``schemas/envelope.json`` the envelope. ``--events`` writes a line for each event before.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from runpod_comfy._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from runpod_comfy.cli.failures import Failure

__all__ = [
    "Output",
    "open_streams",
    "printable",
    "symbol",
    "tidy_streams",
    "write_text_to_stderr",
    "write_to_stderr",
]

_STDERR = 2
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


class Output:
    """Where one command's words and data go.

    Args:
        command: The verb; None where it is not known.
        as_json: Write the envelope in place of data, and no next step.
        quiet: Write no words but warnings and errors.
        events: Write what happens as lines of JSON before the envelope.
    """

    def __init__(
        self, *, command: str | None, as_json: bool = False, quiet: bool = False, events: bool = False
    ) -> None:
        self.command = command
        self.as_json = as_json or events
        self.events = events
        self.quiet = quiet
        self._write_line: Callable[[str], None] = write_to_stderr
        self._held: list[str] | None = None

    def data(self, line: str) -> None:
        """Write one line of data to stdout."""
        if self._held is not None:
            self._held.append(line)
        elif not self.as_json:
            _write(sys.stdout, line + "\n")

    @contextmanager
    def data_held(self, *, hold: bool) -> Iterator[None]:
        """Keep lines of data for a while, if ``hold``, and write them at the end."""
        self._held = [] if hold else None
        try:
            yield
        finally:
            held, self._held = self._held or [], None
            for line in held:
                self.data(line)

    def note(self, text: str) -> None:
        """Say something worth knowing."""
        if not self.quiet:
            self._write_line(printable(text))

    def warn(self, text: str) -> None:
        """Say something that must not be missed."""
        self._write_line(printable(f"Warning: {text}"))

    def loud(self, text: str) -> None:
        """Say something that must not be missed and is no fault."""
        self._write_line(printable(text))

    def next_step(self, text: str) -> None:
        """Show the command that probably comes next."""
        if not (self.quiet or self.as_json):
            self._write_line(printable(f"{symbol('→', '->')} next: {text}"))

    def event(self, data: dict[str, Any] | None) -> None:
        """Write one event, where they are wanted."""
        if self.events and data is not None:
            _write(sys.stdout, json.dumps(data) + "\n")

    def succeed(self, data: dict[str, Any]) -> int:
        """Report the end; the exit code."""
        if self.as_json:
            self._envelope(ok=True, data=data, error=None)
        return 0

    def fail(self, failure: Failure, data: dict[str, Any] | None = None, *, told: bool = False) -> int:
        """Report a failure, with what there is of the data; the exit code. What was ``told`` is not said again."""
        if not told:
            self._write_line(printable(f"Error: {failure.message}"))
        if failure.hint and not told:
            self.next_step(failure.hint)
        if self.as_json:
            error = {"code": failure.code, "message": failure.message, "hint": failure.hint, **failure.details}
            self._envelope(ok=False, data=data, error=error)
        return failure.exit_code

    @contextmanager
    def through(self, write_line: Callable[[str], None]) -> Iterator[None]:
        """Send words through ``write_line`` for a while: a live display must know of each line."""
        outer, self._write_line = self._write_line, write_line
        try:
            yield
        finally:
            self._write_line = outer

    def _envelope(self, *, ok: bool, data: dict[str, Any] | None, error: dict[str, Any] | None) -> None:
        envelope = {
            "schema": f"{self.command or 'command'}/1",
            "ok": ok,
            "command": self.command,
            "version": __version__,
            "data": data,
            "error": error,
        }
        _write(sys.stdout, json.dumps(envelope) + "\n")


def printable(text: str) -> str:
    """Replace what could steer a terminal: titles, file names and errors come from templates and servers."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def open_streams() -> None:
    """Give a standard stream that was closed a place to write to: its number would go to a socket."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def tidy_streams() -> None:
    """Let no character that a stream's encoding lacks end the command, and write file names as they are on disk."""
    codecs.register_error("lenient", _lenient)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lenient")


def _lenient(exc: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(exc)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(exc)


def write_to_stderr(line: str) -> None:
    """Write one line to stderr."""
    _write(sys.stderr, line + "\n")


def write_text_to_stderr(text: str) -> None:
    """Write text to stderr as it is."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """Write at once. A reader that has gone (`| head`) or a full disk ends the writing, not the work that is paid."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # What is still buffered would be written again at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def symbol(wanted: str, ascii_symbol: str) -> str:
    """Return a symbol, or what stands for it where stderr's encoding lacks it."""
    try:
        wanted.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return ascii_symbol
    return wanted
