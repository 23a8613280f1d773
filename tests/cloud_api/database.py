"""A real PostgreSQL for the tests of API and console: the embedded one, one server a folder, one database a use."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from cloud.store.embedded import prepare
from cloud.store.migrate import migrate


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A running server; yields its connection string."""
    with tempfile.TemporaryDirectory(prefix="cb-web-") as folder:
        Path(folder).chmod(0o755)
        embedded = prepare(Path(folder) / "pg")
        process = subprocess.Popen(
            embedded.argv, user=embedded.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait(embedded.dsn, process)
            yield embedded.dsn
        finally:
            process.terminate()
            process.wait(30)


def _wait(dsn: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(dsn).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)


def fresh(dsn: str, name: str) -> str:
    """An empty database with the core's schema; its connection string."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f'drop database if exists "{name}" with (force)'.encode())
        conn.execute(f'create database "{name}"'.encode())
    made = make_conninfo(dsn, dbname=name)
    migrate(made)
    return made
