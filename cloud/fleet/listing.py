"""Gateways and devices that a question picks: counted, given out, tagged; and groups, which are kept questions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from cloud.audit.log import Entry, record
from cloud.fleet.query import DEVICE_ONLINE, KINDS, Kind, QueryError, condition
from protocols.core.errors import ContractError

_GATEWAYS = """
    select g.gateway_id, g.name_zh, g.name_en, g.lon, g.lat, g.district, g.department,
           array(select t.tag from gateway_tag t where t.gateway_id = g.gateway_id order by t.tag collate "C") as tags,
           g.shard, g.admission, g.version, g.online
      from gateway g where {where} order by g.gateway_id
"""
_DEVICES = f"""
    select d.device_id, d.gateway_id, d.name_zh, d.name_en, d.lon, d.lat, d.district, d.department,
           array(select t.tag from device_tag t where t.device_id = d.device_id order by t.tag collate "C") as tags,
           d.device_type, {DEVICE_ONLINE}
      from device d join gateway g using (gateway_id) where {{where}} order by d.device_id
"""  # noqa: S608 - our own words
_SQL = {"gateways": _GATEWAYS, "devices": _DEVICES}
_KEYS = {
    "gateways": ("gateway_id", "name_zh", "name_en", "lon", "lat", "district", "department", "tags", "shard",
                 "admission", "version", "online"),
    "devices": ("device_id", "gateway_id", "name_zh", "name_en", "lon", "lat", "district", "department", "tags",
                "device_type", "online"),
}  # fmt: skip
_NAME = re.compile(r"[\w.-]{1,64}")
_TAG = re.compile(r"[\w.:-]{1,40}")


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    kind: Kind
    query: str
    author: str
    at: datetime
    members: int


def given_out(conn: Connection[Any], kind: Kind, query: str, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows by column name, streamed; in the caller's transaction. Raises QueryError."""
    where, params = condition(kind, query)
    text = _SQL[kind].format(where=where)
    if limit is not None:
        text += " limit %(limit)s"
        params["limit"] = limit
    with conn.cursor(name="fleet_out") as cursor:
        cursor.itersize = 2_000
        cursor.execute(text.encode(), params)
        for row in cursor:
            yield dict(zip(_KEYS[kind], row, strict=True))


def count(conn: Connection[Any], kind: Kind, query: str) -> int:
    """Raises QueryError."""
    where, params = condition(kind, query)
    source = "gateway g" if kind == "gateways" else "device d join gateway g using (gateway_id)"
    row = conn.execute(f"select count(*) from {source} where {where}".encode(), params).fetchone()  # noqa: S608
    return 0 if row is None else int(row[0])


def ids(conn: Connection[Any], kind: Kind, query: str) -> list[str]:
    """The ids a question picks, for whatever is done to a group (an update's wave, a document of the twin)."""
    where, params = condition(kind, query)
    source = (
        "g.gateway_id from gateway g"
        if kind == "gateways"
        else "d.device_id from device d join gateway g using (gateway_id)"
    )
    rows = conn.execute(f"select {source} where {where} order by 1".encode(), params).fetchall()
    return [str(row[0]) for row in rows]


def group_ids(conn: Connection[Any], name: str) -> list[str]:
    """Members of a group now. Raises ContractError ``group``."""
    row = conn.execute("select kind, query from fleet_group where name = %s", (name,)).fetchone()
    if row is None:
        raise ContractError(f"there is no group {name!r}", reason="group")
    return ids(conn, row[0], row[1])


def tag(conn: Connection[Any], kind: Kind, query: str, add: Sequence[str], remove: Sequence[str], who: str) -> int:
    """Put tags on, take tags off whatever the question picks; how many it picked. In the caller's transaction."""
    for one in [*add, *remove]:
        if _TAG.fullmatch(one) is None:
            raise QueryError(f"tag {one[:40]!r}: letters, digits, . : - _, at most 40", f"标签 {one[:40]} 不合规")
    if not query.strip():
        raise QueryError("say which: an empty question picks everything", "请给出条件：空条件会选中全部")
    table, key = ("gateway_tag", "gateway_id") if kind == "gateways" else ("device_tag", "device_id")
    picked = ids(conn, kind, query)
    if remove:
        conn.execute(
            f"delete from {table} where {key} = any(%s) and tag = any(%s)",  # noqa: S608 - our names
            (picked, list(remove)),
        )
    for one in add:
        conn.execute(
            f"insert into {table} ({key}, tag) select unnest(%s::text[]), %s on conflict do nothing",
            (picked, one),
        )
    detail = {"query": query, "add": list(add), "remove": list(remove), "picked": len(picked), "ids": picked[:200]}
    record(conn, Entry(who, "fleet.tag", kind, detail))
    return len(picked)


def groups(conn: Connection[Any]) -> list[Group]:
    rows = conn.execute("select name, kind, query, author, at from fleet_group order by name").fetchall()
    return [Group(name, kind, query, author, at, count(conn, kind, query)) for name, kind, query, author, at in rows]


def save_group(conn: Connection[Any], name: str, kind: str, query: str, who: str) -> None:
    """In the caller's transaction. Raises QueryError."""
    if _NAME.fullmatch(name) is None:
        raise QueryError("a group's name: letters, digits, . - _, at most 64", "组名：字母、数字、. - _，最多 64 个")
    if kind not in KINDS:
        raise QueryError("gateways or devices", "gateways 或 devices")
    condition(kind, query)
    conn.execute(
        "insert into fleet_group (name, kind, query, author) values (%s, %s, %s, %s) on conflict (name) do update"
        " set kind = excluded.kind, query = excluded.query, author = excluded.author, at = now()",
        (name, kind, query, who),
    )
    record(conn, Entry(who, "fleet.group", f"group/{name}", {"kind": kind, "query": query}))


def drop_group(conn: Connection[Any], name: str, who: str) -> bool:
    done = conn.execute("delete from fleet_group where name = %s", (name,)).rowcount == 1
    if done:
        record(conn, Entry(who, "fleet.group.drop", f"group/{name}"))
    return done
