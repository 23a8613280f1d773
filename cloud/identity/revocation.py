"""Taking an identity away: its certificates end, the brokers' rules shut it out, its live session is ended."""

from __future__ import annotations

import datetime as dt
from typing import Any

from psycopg import Connection

from cloud.audit.log import Entry, record
from cloud.identity import clones
from cloud.identity.access import changed


def revoke(conn: Connection[Any], gateway_id: str, who: str, reason: str, now: dt.datetime) -> int | None:
    """Number of certificates that ended; None if there is no such gateway. A new claim lets the gateway back in."""
    with conn.transaction():
        if conn.execute("select from gateway where gateway_id = %s", (gateway_id,)).fetchone() is None:
            return None
        ended = conn.execute(
            "update gateway_certificate set revoked_at = %s where gateway_id = %s and revoked_at is null",
            (now, gateway_id),
        ).rowcount
        conn.execute(
            "update gateway_claim set voided_at = %s where gateway_id = %s and used_at is null and voided_at is null",
            (now, gateway_id),
        )
        conn.execute(
            "insert into gateway_access (gateway_id, revoked_at, revoked_by, reason, kick_wanted_at)"
            " values (%(gateway)s, %(now)s, %(who)s, %(reason)s, %(now)s) on conflict (gateway_id) do update set"
            " revoked_at = excluded.revoked_at, revoked_by = excluded.revoked_by, reason = excluded.reason,"
            " kick_wanted_at = excluded.kick_wanted_at",
            {"gateway": gateway_id, "now": now, "who": who, "reason": reason[:500]},
        )
        clones.forget(conn, gateway_id, round(now.timestamp() * 1000))
        detail = {"reason": reason[:500], "certificates": ended}
        record(conn, Entry(who, "gateway.revoke", f"gateway/{gateway_id}", detail))
        changed(conn)
    return ended
