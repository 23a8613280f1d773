"""Writing an entry: in the transaction of the deed itself, so that neither is there without the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.types.json import Jsonb

_INSERT = "insert into audit_entry (who, action, what, detail) values (%s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Entry:
    """``who``: operator, ``gateway:<id>``, ``token:<name>`` or ``system``. ``action`` as ``command.send``, ``login``.
    ``what``: what it was done to, as ``gateway/gw-1``. ``detail``: flat JSON without secrets."""

    who: str
    action: str
    what: str
    detail: Mapping[str, object] = field(default_factory=dict)


def record(conn: Connection[Any], entry: Entry) -> None:
    """In the caller's transaction."""
    conn.execute(_INSERT, (entry.who[:128], entry.action, entry.what[:256], Jsonb(dict(entry.detail))))


async def arecord(conn: AsyncConnection[Any], entry: Entry) -> None:
    """In the caller's transaction."""
    await conn.execute(_INSERT, (entry.who[:128], entry.action, entry.what[:256], Jsonb(dict(entry.detail))))
