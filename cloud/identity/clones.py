"""Two boxes with one identity: noticed, and told as an alarm.

Each start of an agent draws a random session name and says it with its state. A restart goes from A to B and never
back. When A speaks again after B has, both are alive: a copied disk, a stolen key. The same when a certificate that
has a successor is used to ask for another one (:mod:`cloud.identity.enrolment`).
"""

from __future__ import annotations

from typing import Any, Literal

from psycopg import Connection

from cloud.ingest.events import EventDesk
from protocols.core.ids import derived_id
from protocols.core.model import Event
from protocols.vocabulary import event_types

SCENARIO = "platform/identity"
TYPE = "sec.identity.cloned"
_KEEP = 50  # sessions remembered a gateway


def seen(conn: Connection[Any], gateway_id: str, session: str, at_ms: int, now_ms: int) -> list[Event]:
    """A state message with ``online``. ``at_ms``: the gateway's clock; a redelivered message has the one it had."""
    if not session or len(session) > 64:
        return []
    newest = conn.execute(
        "select session from gateway_session where gateway_id = %s order by last_at desc, first_at desc limit 1",
        (gateway_id,),
    ).fetchone()
    row = conn.execute(
        "select said_ms from gateway_session where gateway_id = %s and session = %s", (gateway_id, session)
    ).fetchone()
    if row is not None and row[0] >= at_ms:
        return []  # the broker's copy of what was heard before
    back = row is not None and newest is not None and newest[0] != session
    conn.execute(
        "insert into gateway_session as s (gateway_id, session, said_ms, first_at, last_at)"
        " values (%s, %s, %s, clock_timestamp(), clock_timestamp())"
        " on conflict (gateway_id, session) do update set said_ms = excluded.said_ms, last_at = clock_timestamp(),"
        " times = s.times + %s",
        (gateway_id, session, at_ms, int(back)),
    )
    if row is None:
        conn.execute(
            "delete from gateway_session where gateway_id = %s and session not in (select session from gateway_session"
            " where gateway_id = %s order by last_at desc limit %s)",
            (gateway_id, gateway_id, _KEEP),
        )
    return [_event(gateway_id, "raise", "sessions", now_ms, now_ms)] if back and not _onset(conn, gateway_id) else []


def raise_alarm(conn: Connection[Any], gateway_id: str, code: str, now_ms: int) -> None:
    """In the caller's transaction; nothing if it is raised already."""
    if not _onset(conn, gateway_id):
        EventDesk({}).take(conn, [_event(gateway_id, "raise", code, now_ms, now_ms)], gateway_id, now_ms)


def forget(conn: Connection[Any], gateway_id: str, now_ms: int) -> None:
    """The identity was given anew, or taken away: whoever had it before counts no more."""
    conn.execute("delete from gateway_session where gateway_id = %s", (gateway_id,))
    onset_ms = _onset(conn, gateway_id)
    if onset_ms:
        EventDesk({}).take(conn, [_event(gateway_id, "clear", "ok", onset_ms, now_ms)], gateway_id, now_ms)


def _onset(conn: Connection[Any], gateway_id: str) -> int:
    row = conn.execute(
        "select (extract(epoch from onset_at) * 1000)::bigint from alarm where scenario = %s and key = %s"
        " and state <> 'cleared'",
        (SCENARIO, _key(gateway_id)),
    ).fetchone()
    return int(row[0]) if row else 0


def _key(gateway_id: str) -> str:
    return f"{gateway_id}:cloned"


def _event(gateway_id: str, state: Literal["raise", "clear"], code: str, onset_ms: int, now_ms: int) -> Event:
    return Event(
        id=derived_id(SCENARIO, gateway_id, onset_ms, state),
        type=TYPE,
        ts_ms=now_ms,
        seen_ms=now_ms,
        source=gateway_id,
        scenario=SCENARIO,
        level=event_types()[TYPE].level,
        state=state,
        key=_key(gateway_id),
        values={"code": code},
    )
