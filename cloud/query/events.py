"""Events, dead letters and evidence."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from cloud.query.cursor import Page, cut, decode
from cloud.query.pool import Connection
from cloud.query.rows import DeadLetter, Event, Evidence
from cloud.query.sight import EVERYTHING, Sight
from protocols.core.errors import ContractError

_EVENT = ", ".join(f'"{name}"' for name in Event.__slots__)
_DEAD = ", ".join(DeadLetter.__slots__)


async def events(
    conn: Connection,
    *,
    device_id: str = "",
    type_: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    sight: Sight = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Event]:
    """Newest first, by the time of the fact."""
    key = decode(cursor, (str, str))
    where = [sight.where("event", "event")]
    params: dict[str, Any] = {"limit": limit + 1} | sight.params
    if device_id:
        where.append("device_id = %(device_id)s")
        params["device_id"] = device_id
    if type_:
        # "crane.*" asks for a family
        where.append("type like %(type)s")
        params["type"] = type_.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
    if since:
        where.append("ts >= %(since)s")
        params["since"] = since
    if until:
        where.append("ts < %(until)s")
        params["until"] = until
    if key:
        where.append("(ts < %(k0)s::timestamptz or (ts = %(k0)s::timestamptz and event_id > %(k1)s))")
        params |= {"k0": _instant(str(key[0])), "k1": key[1]}
    query = (
        f"select {_EVENT} from event where {' and '.join(where)} "  # noqa: S608
        "order by ts desc, event_id limit %(limit)s"
    )
    async with conn.cursor(row_factory=class_row(Event)) as cur:
        rows = await (await cur.execute(query.encode(), params)).fetchall()
    return cut(rows, limit, [[row.ts.isoformat(), row.event_id] for row in rows])


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ContractError("cursor: not one that this server gave", reason="cursor") from error


async def dead_letters(
    conn: Connection,
    *,
    gateway_id: str = "",
    sight: Sight = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[DeadLetter]:
    """Newest first. The payload stays in the database: it may hold anything."""
    key = decode(cursor, (int,))
    query = (
        f"select {_DEAD} from dead_letter where {sight.where('dead_letter', 'dead_letter')} "  # noqa: S608
        "and (%(id)s = '' or gateway_id = %(id)s) "
        "and (%(before)s::bigint is null or dead_letter_id < %(before)s) order by dead_letter_id desc limit %(limit)s"
    )
    async with conn.cursor(row_factory=class_row(DeadLetter)) as cur:
        params = {"id": gateway_id, "before": key[0] if key else None, "limit": limit + 1} | sight.params
        await cur.execute(query.encode(), params)
        rows = await cur.fetchall()
    return cut(rows, limit, [[row.dead_letter_id] for row in rows])


async def evidence(conn: Connection, sha256: str) -> Evidence | None:
    """A still or clip that has arrived whole; None while chunks are missing."""
    async with conn.cursor(row_factory=class_row(Evidence)) as cur:
        await cur.execute(
            "select sha256, mime, kind, masked, device_id, ts, content from evidence "
            "where sha256 = %s and content is not null",
            [sha256],
        )
        return await cur.fetchone()


async def names_evidence(conn: Connection, case_id: int, sha256: str) -> str | None:
    """``open`` or ``closed`` if an alarm of this case names that evidence; None if none does."""
    row = await (
        await conn.execute(
            "select f.closed_at is null from case_file f join case_alarm x using (case_id) "
            "join alarm a using (alarm_id) where f.case_id = %s "
            "and a.evidence @> jsonb_build_array(jsonb_build_object('sha256', %s::text)) limit 1",
            [case_id, sha256],
        )
    ).fetchone()
    return None if row is None else "open" if row[0] else "closed"
