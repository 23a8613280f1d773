"""Who may come in, as one frozen table: what every broker's rules are made from.

A gateway is in it when it has been enrolled with a certificate and is not revoked. Decisions are made from memory, so
that brokers go on letting gateways in while the database is away.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

CHANNEL = "citybrain_identity"


@dataclass(frozen=True, slots=True)
class Access:
    """``gateways``: id to shard, of those that may come in. ``revoked``: serials not yet expired, with their time.
    ``kick``: gateways whose live session is to be ended and has not been since.
    ``shut_out``: revoked gateways."""

    gateways: Mapping[str, int] = field(default_factory=dict)
    revoked: Mapping[str, dt.datetime] = field(default_factory=dict)
    kick: tuple[str, ...] = ()
    shut_out: tuple[str, ...] = ()


def load(conn: Connection[Any]) -> Access:
    rows = conn.execute(
        "select g.gateway_id, g.shard from gateway g where exists (select from gateway_certificate c"
        " where c.gateway_id = g.gateway_id and c.revoked_at is null)"
        " and not exists (select from gateway_access a where a.gateway_id = g.gateway_id and a.revoked_at is not null)"
        " order by 1"
    ).fetchall()
    revoked = conn.execute(
        "select serial, revoked_at from gateway_certificate where revoked_at is not null and not_after > now()"
    ).fetchall()
    kick = conn.execute(
        "select gateway_id from gateway_access where kick_wanted_at is not null"
        " and (kicked_at is null or kicked_at < kick_wanted_at) order by kick_wanted_at"
    ).fetchall()
    out = conn.execute("select gateway_id from gateway_access where revoked_at is not null order by 1").fetchall()
    return Access(dict(rows), dict(revoked), tuple(row[0] for row in kick), tuple(row[0] for row in out))


def kicked(conn: Connection[Any], gateway_id: str) -> None:
    """Its live session has been ended after the rules that keep it out were in force."""
    conn.execute("update gateway_access set kicked_at = now() where gateway_id = %s", (gateway_id,))


def changed(conn: Connection[Any]) -> None:
    """Tell the brokers' guards, in the transaction of the change."""
    conn.execute("select pg_notify(%s, '')", (CHANNEL,))
