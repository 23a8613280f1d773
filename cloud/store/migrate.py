"""Brings a database to the schema this core speaks: numbered SQL files, each applied once, in one transaction."""

from __future__ import annotations

from importlib.resources import files

import psycopg

from cloud.store import partitions, timescale
from protocols.core.errors import StoreError

_LOCK = 0x63697479  # "city": one migration at a time, whoever starts first


def migrate(conninfo: str) -> list[str]:
    """Apply what is missing; returns the names applied. Raises StoreError."""
    applied: list[str] = []
    try:
        with psycopg.connect(conninfo, autocommit=True) as conn:
            conn.execute("select pg_advisory_lock(%s)", (_LOCK,))
            conn.execute(
                "create table if not exists schema_migration (name text primary key, at timestamptz default now())"
            )
            done = {row[0] for row in conn.execute("select name from schema_migration")}
            scripts = sorted(
                (f for f in files(__package__).joinpath("migrations").iterdir() if f.name.endswith(".sql")),
                key=lambda f: f.name,
            )
            for script in scripts:
                if script.name in done:
                    continue
                with conn.transaction():
                    conn.execute(script.read_text(encoding="utf-8").encode())
                    if script.name.startswith("0001_") and not timescale.install(conn):
                        partitions.install(conn)
                    conn.execute("insert into schema_migration (name) values (%s)", (script.name,))
                applied.append(script.name)
    except psycopg.Error as error:
        raise StoreError(f"migration failed: {error}") from error
    return applied
