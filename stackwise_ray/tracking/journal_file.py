"""The file of a journal: how it is opened or refused, its transactions, a full disk, and facts about the sweep.

`tracking.journal` builds the trials, attempts and decisions on it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from stackwise_ray.core.errors import ConfigError, DiskFullError
from stackwise_ray.core.records import JOURNAL_SCHEMA

JOURNAL_VERSION = 1
"""Raised when a column changes its meaning; a journal of a newer version is refused."""

_LEAST_ROOM = 2**18  # bytes; SQLite's write-ahead log and its index take 64 KiB and more


class JournalFile:
    """An open SQLite file with the journal's tables; every method may be called from any thread.

    Args:
        path: The file; it is made where it is missing, and its folder must exist.

    Raises:
        ConfigError: The file is no journal, or was written by a newer version of this program.
        DiskFullError: From any writing method; the transaction is rolled back and may be repeated later.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"the journal cannot be opened ({error}); check that its folder exists and is writable",
                source=str(path),
            ) from error
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def put_meta(self, key: str, value: Any) -> None:
        """Stores a fact about the sweep (plain JSON data), over an earlier one of the same key."""
        if key in ("schema_version", "journal_id"):
            raise ValueError(f"{key} is the journal's own")
        with self._transaction() as connection:
            self._write_meta(connection, key, value)

    def get_meta(self, key: str, default: Any = None) -> Any:
        """A fact about the sweep, or `default` where it was never stored."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row["value"])

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Where nobody else reads it at that moment the journal leaves WAL mode, so that it can be read from a
        read-only folder or disk.
        """
        with self._lock, contextlib.suppress(sqlite3.ProgrammingError):
            self._connection.execute("PRAGMA busy_timeout = 0")
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ private

    def _prepare(self) -> None:
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self._transaction() as connection:
                for statement in JOURNAL_SCHEMA.split(";"):
                    connection.execute(statement)
                version = self.get_meta("schema_version")
                if version is None:
                    self._write_meta(connection, "schema_version", JOURNAL_VERSION)
                    self._write_meta(connection, "journal_id", uuid.uuid4().hex)  # trackers know the sweep by it
        except sqlite3.DatabaseError as error:
            self._refuse_full_disk(error)
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise ConfigError(
                    f"the journal cannot be read ({error}); check that the disk is intact and not full",
                    source=str(self.path),
                ) from error
            raise ConfigError(
                f"this is not a journal of a sweep ({error}); move it away or choose another output",
                source=str(self.path),
            ) from error
        if version is not None and version > JOURNAL_VERSION:
            raise ConfigError(
                f"schema_version = {version} is newer than this program's {JOURNAL_VERSION}; update stackwise_ray "
                "or choose another output",
                source=str(self.path),
            )

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Everything in the block or nothing; `durable` waits for the disk."""
        with self._lock:
            connection = self._connection
            try:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    self._refuse_full_disk(error)
                raise

    def _refuse_full_disk(self, error: sqlite3.Error) -> None:
        """Names a full disk, which SQLite also calls an I/O error: where its shared memory cannot grow."""
        code = error.sqlite_errorcode & 0xFF
        no_room = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(self.path.parent).free < _LEAST_ROOM
        if code == sqlite3.SQLITE_FULL or no_room:
            raise DiskFullError(f"{self.path}: {error}; free some space and run the same command again") from error

    @staticmethod
    def _write_meta(connection: sqlite3.Connection, key: str, value: Any) -> None:
        connection.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, dump(value)),
        )


def dump(value: Any) -> str:
    """Strict JSON, as the tables store it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
