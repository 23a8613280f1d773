"""Twin documents: every version that was wanted, and what the gateway made of the newest it knows."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from protocols.uplink.batch import Reported


def heard(conn: Connection[Any], gateway_id: str, report: Reported) -> None:
    """A report about an older version than one told before changes nothing."""
    conn.execute(
        "insert into twin_reported as r (gateway_id, name, version, state, detail, document, at)"
        " values (%s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0))"
        " on conflict (gateway_id, name) do update set version = excluded.version, state = excluded.state,"
        " detail = excluded.detail, document = coalesce(excluded.document, r.document), at = excluded.at,"
        " told_at = now() where excluded.version >= r.version",
        (
            gateway_id, report.name, report.version, report.state, report.detail[:2000],
            None if report.document is None else Jsonb(dict(report.document)), report.at_ms,
        ),
    )  # fmt: skip
