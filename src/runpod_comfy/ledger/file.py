"""The ledger's file as it is used: one connection, one transaction at a time, and what is said when it fails."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import LedgerError
from runpod_comfy.ledger.holders import this_process
from runpod_comfy.ledger.schema import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["LedgerFile"]


class LedgerFile:
    """An open file; used from any thread, and opened anew in a forked child.

    Args:
        path: The file.
        clock: Seconds since 1970.

    Attributes:
        holder: Who reads jobs by it: this process, another one after a fork.

    Raises:
        ConfigurationError: It cannot be used.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._connection = connect(self._path)
        self._connection.row_factory = sqlite3.Row
        self._pid = os.getpid()
        self.holder = this_process(self._clock())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give what statements are executed on; all of them count, or none.

        Raises:
            LedgerError: They cannot be written.
        """
        with self._lock:
            db = self._mine()
            try:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
            except (sqlite3.Error, UnicodeEncodeError, OverflowError) as exc:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise LedgerError(f"The ledger {self._path} could not be written: {exc}. {_cause_of(exc)}") from exc

    def rows(self, query: str, *values: Any) -> Sequence[sqlite3.Row]:
        """Return what a query finds.

        Raises:
            LedgerError: It cannot be read.
        """
        with self._lock:
            try:
                return self._mine().execute(query, values).fetchall()
            except (sqlite3.Error, UnicodeEncodeError) as exc:
                raise LedgerError(f"The ledger {self._path} could not be read: {exc}.") from exc

    def _mine(self) -> sqlite3.Connection:
        if self._pid != os.getpid():  # a fork: SQLite's connections must not cross it
            self._open()
        return self._connection


def _cause_of(exc: Exception) -> str:
    if isinstance(exc, UnicodeEncodeError):
        return "It keeps names of files and folders in UTF-8, and this one is none: choose another, or --no-ledger."
    if isinstance(exc, sqlite3.OperationalError) and "locked" in str(exc):
        return "Does another program keep it locked?"
    return "Is the disk full, or the folder read-only?"
