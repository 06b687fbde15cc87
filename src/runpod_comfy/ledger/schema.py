"""The ledger's file: its tables, how it is opened, and what is said when it can't be."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["connect"]

VERSION: Final = 1
_BUSY_S: Final = 30.0

# Seeds go up to 2**64 - 1, which no SQLite integer holds: they are kept as JSON.
_TABLES: Final = """
CREATE TABLE holders (
  holder_id TEXT PRIMARY KEY, host TEXT NOT NULL, place TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL,
  beat_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE submissions (
  submission_id TEXT PRIMARY KEY, endpoint_id TEXT NOT NULL, base_url TEXT NOT NULL, job_id TEXT,
  state TEXT NOT NULL, note TEXT NOT NULL DEFAULT '', template_name TEXT NOT NULL, digest TEXT NOT NULL,
  seeds TEXT NOT NULL, batch_count INTEGER NOT NULL, batches TEXT, parent_id TEXT, output_dir TEXT,
  recipe TEXT NOT NULL, reads INTEGER NOT NULL DEFAULT 0, holder_id TEXT, gpu_s REAL,
  created_s REAL NOT NULL, changed_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX submissions_by_job ON submissions (job_id);
CREATE INDEX submissions_by_state ON submissions (state);
CREATE INDEX submissions_by_parent ON submissions (parent_id);
CREATE TABLE lines (
  submission_id TEXT NOT NULL, seq INTEGER NOT NULL, batch INTEGER, ends_batch INTEGER NOT NULL,
  ends_job INTEGER NOT NULL,
  PRIMARY KEY (submission_id, seq)
) WITHOUT ROWID;
CREATE TABLE outputs (
  submission_id TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL,
  size_bytes INTEGER NOT NULL, path TEXT, part TEXT, batch INTEGER, node_id TEXT, text TEXT,
  line INTEGER,
  PRIMARY KEY (submission_id, number)
) WITHOUT ROWID;
"""


_TIMES: Final = """
CREATE TABLE IF NOT EXISTS times (
  submission_id TEXT PRIMARY KEY, delay_s REAL, execution_s REAL, worker_id TEXT, ended_s REAL NOT NULL
) WITHOUT ROWID
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made with its folder where it is missing; only its owner may read it.

    Raises:
        ConfigurationError: It cannot be opened, is no ledger, or is one of a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(0o600)
        # Autocommit: transactions begin where we say so. One lock outside keeps threads apart.
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _set_up(connection, path)
        except BaseException:
            connection.close()
            raise
    except ConfigurationError:
        raise
    except (OSError, ValueError, sqlite3.Error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise ConfigurationError(
            f"The ledger {path} cannot be used: {reason}. Nothing was sent. Name another file (ledger=…, or "
            "RUNPOD_COMFY_LEDGER for the command), or do without one (ledger=None, --no-ledger)."
        ) from exc
    return connection


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: what was written is there after a power failure too. A job is worth the millisecond.
    connection.execute("PRAGMA synchronous = FULL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been first.
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    if version <= VERSION:
        # Beside the tables of the version: whoever does not know it loses nothing.
        connection.execute(_TIMES)
    else:
        raise ConfigurationError(
            f"The ledger {path} was written by a newer version of this package. Update it, or name another file."
        )
