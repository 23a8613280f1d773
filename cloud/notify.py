"""Tells whoever listens that something changed. PostgreSQL delivers at commit, never for what was rolled back, and
folds equal notices of one transaction into one. Listeners read the row itself: a notice only names it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from psycopg import Connection

CHANNEL = "citybrain"

Kind = Literal["alarm", "case", "gateway", "device"]


def notify(conn: Connection[Any], kind: Kind, id: str | int) -> None:
    """Announce one changed row in the caller's transaction."""
    notify_many(conn, kind, [id])


def notify_many(conn: Connection[Any], kind: Kind, ids: Sequence[str | int]) -> None:
    if ids:
        payloads = [json.dumps({"kind": kind, "id": id}, ensure_ascii=False) for id in ids]
        conn.execute("select pg_notify(%s, payload) from unnest(%s::text[]) payload", (CHANNEL, payloads))
