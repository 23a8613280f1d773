"""The log as console and API list it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cloud.audit.heads import read_head
from cloud.audit.reads import LOGGED, Logged, where
from cloud.query.cursor import Page, cut, decode
from cloud.query.pool import Connection


@dataclass(frozen=True, slots=True)
class Sealed:
    entries: int  # sealed
    signed: int  # of these, under the newest head
    signed_at: datetime | None
    origin: str  # whose key
    root: str
    unsealed: int  # committed, not sealed yet
    problem: str = ""  # why the process that answers cannot seal, "" if it can


async def entries(
    conn: Connection,
    *,
    who: str = "",
    action: str = "",
    what: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Logged]:
    """Newest first. Raises ContractError ``cursor``."""
    condition, params = where(who, action, what)
    if since is not None:
        condition += " and e.at >= %(since)s"
        params["since"] = since
    if until is not None:
        condition += " and e.at < %(until)s"
        params["until"] = until
    if key := decode(cursor, (int,)):
        condition += " and e.entry_id < %(before)s::bigint"
        params["before"] = key[0]
    query = f"{LOGGED} where {condition} order by e.entry_id desc limit %(limit)s"
    rows = await (await conn.execute(query.encode(), params | {"limit": limit + 1})).fetchall()
    found = [Logged(*row) for row in rows]
    return cut(found, limit, [[row.entry_id] for row in found])


async def sealed(conn: Connection) -> Sealed:
    row = await (
        await conn.execute(
            "select (select coalesce(max(leaf_index) + 1, 0) from audit_leaf),"
            " (select count(*) from audit_entry e where e.entry_id > p.settled_id"
            "   and not exists (select 1 from audit_leaf l where l.entry_id = e.entry_id)),"
            " (select note from audit_head order by head_no desc limit 1) from audit_progress p"
        )
    ).fetchone()
    count, open_, note = row if row is not None else (0, 0, None)
    if note is None:
        return Sealed(count, 0, None, "", "", open_)
    head = read_head(note)
    at = datetime.fromtimestamp(head.at_ms / 1000, UTC)
    return Sealed(count, head.size, at, head.origin, head.root.hex(), open_)
