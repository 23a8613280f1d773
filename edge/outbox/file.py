"""The SQLite file under the outbox: how it is opened, what a transaction is, and what its errors mean.

Write-ahead log with ``synchronous = FULL``: one fsync a commit, done before the call returns. ``secure_delete`` is off:
overwriting what was freed would double what goes to a flash card, and keeps no secret there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from edge.outbox.model import OutboxDamaged
from protocols.core.errors import StoreError

#: Beside the file: what is known to be broken is not believed again because a quick look finds nothing.
BROKEN_SUFFIX = ".broken-found"
SCHEMA_VERSION = 2


class File:
    """One connection and one lock: the uplink acknowledges while the agent commits. ``on_commit`` and ``on_rollback``
    keep what is in memory in step; they are called before anybody else can begin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.on_commit: list[Callable[[], None]] = []
        self.on_rollback: list[Callable[[], None]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self.db.close()
                raise
        except sqlite3.Error as error:
            raise self.refusal(f"outbox {path}", error) from error

    def _prepare(self) -> None:
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = full")
        self.db.execute("pragma secure_delete = off")
        self.db.execute("pragma wal_autocheckpoint = 500")  # 2 MiB of log
        self.db.execute("pragma busy_timeout = 5000")
        found = self.db.execute("pragma quick_check(1)").fetchone()[0]
        if found != "ok":
            raise OutboxDamaged(f"outbox {self.path}: {found}")
        if self.schema_version() in (0, SCHEMA_VERSION):
            self.db.executescript(files(__package__).joinpath("schema.sql").read_text())

    def schema_version(self) -> int:
        """0: an empty file."""
        if not self.db.execute("select 1 from sqlite_master where name = 'meta'").fetchone():
            return 0
        row = self.db.execute("select value from meta where name = 'schema'").fetchone()
        return int(row[0]) if row else 0

    def refusal(self, what: str, error: Exception) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            with suppress(OSError):
                self.path.with_name(self.path.name + BROKEN_SUFFIX).touch()
            return OutboxDamaged(f"{what}: {error}")
        return StoreError(f"{what}: {error}")

    @contextmanager
    def transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """All of it or nothing. Raises StoreError if the disk did not take it."""
        with self.lock:
            try:
                self.db.execute("begin immediate")
                yield self.db
                self.db.execute("commit")
            except BaseException as error:
                for undo in self.on_rollback:
                    undo()
                if self.db.in_transaction:
                    with suppress(sqlite3.Error):  # a disk that fails here too has rolled back by itself
                        self.db.execute("rollback")
                if isinstance(error, sqlite3.Error | OSError):
                    raise self.refusal(f"the outbox did not take {what}", error) from error
                raise
            for keep in self.on_commit:
                keep()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            try:
                yield self.db
            except sqlite3.Error as error:
                raise self.refusal("the outbox cannot be read", error) from error

    def checkpoint(self) -> None:
        """Move what is in the log into the file and begin the log anew: on a full disk it may not grow any further."""
        with self.lock, suppress(sqlite3.Error):
            self.db.execute("pragma wal_checkpoint(restart)").fetchall()

    def close(self) -> None:
        with self.lock:
            self.db.close()
