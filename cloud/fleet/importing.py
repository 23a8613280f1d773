"""Bringing a table in: checked whole, then written whole, in one transaction. Bringing it again changes nothing.

```
 file ─▶ sheet.read ─▶ stage (temporary table, COPY) ─▶ checks against the registry ─▶ new | changed | same
              └── errors by row, both languages ──┴──▶ anything wrong: nothing is written (or: all but those rows)
```
Columns that are not in the table are left as they are; an empty cell empties the field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h3
from psycopg import Connection, Rollback

from cloud.audit.log import Entry, record
from cloud.fleet.query import Kind
from cloud.fleet.sheet import Row, RowError, read
from protocols.uplink.topics import SHARDS

_MOST_ERRORS = 500
_IDS_AN_ENTRY = 200


@dataclass(slots=True)
class Outcome:
    """``dry_run``: nothing was written, whatever the numbers say."""

    rows: int = 0
    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    same: int = 0
    left_out: int = 0  # rows with errors
    errors: list[RowError] = field(default_factory=list)
    more_errors: int = 0
    written: bool = False
    dry_run: bool = False


def bring(
    conn: Connection[Any], kind: Kind, data: bytes, who: str, *, dry_run: bool = False, skip_wrong: bool = False
) -> Outcome:
    """In a transaction of its own. Raises SheetError where the table as a whole cannot be read."""
    outcome = Outcome(dry_run=dry_run)
    with conn.transaction():
        _stage(conn, kind, read(kind, data), outcome)
        _check(conn, kind, outcome)
        if outcome.errors and not skip_wrong:
            outcome.left_out = len({error.row for error in outcome.errors}) if not outcome.more_errors else outcome.rows
            raise Rollback
        for error_row in {error.row for error in outcome.errors}:
            conn.execute("delete from fleet_stage where number = %s", (error_row,))
            outcome.left_out += 1
        _sort(conn, kind, outcome)
        _write(conn, kind)
        if dry_run:
            raise Rollback
        _audit(conn, kind, data, who, outcome)
        outcome.written = True
    return outcome


def _wrong(outcome: Outcome, errors: Iterable[RowError]) -> None:
    for error in errors:
        if len(outcome.errors) < _MOST_ERRORS:
            outcome.errors.append(error)
        else:
            outcome.more_errors += 1


def _stage(conn: Connection[Any], kind: Kind, rows: Iterable[Row | RowError], outcome: Outcome) -> None:
    conn.execute("drop table if exists fleet_stage")
    conn.execute(
        "create temporary table fleet_stage (number integer, id text, gateway_id text, name_zh text, name_en text,"
        " lon double precision, lat double precision, h3_9 text, district text, department text, tags text[],"
        " shard smallint, admission text, brought text[]) on commit drop"
    )
    with conn.cursor() as cursor, cursor.copy("copy fleet_stage from stdin") as copy:
        for row in rows:
            if isinstance(row, RowError):
                _wrong(outcome, [row])
                continue
            outcome.rows += 1
            v = row.values
            cell = None
            if v.get("lon") is not None and v.get("lat") is not None:
                cell = h3.latlng_to_cell(v["lat"], v["lon"], 9)
            id_ = v["gateway_id"] if kind == "gateways" else v["device_id"]
            copy.write_row(
                (
                    row.number, id_, v["gateway_id"], v.get("name_zh"), v.get("name_en"), v.get("lon"), v.get("lat"),
                    cell, v.get("district"), v.get("department"), v.get("tags"), v.get("shard"), v.get("admission"),
                    list(v),
                )
            )  # fmt: skip
    outcome.rows += len({error.row for error in outcome.errors})


def _check(conn: Connection[Any], kind: Kind, outcome: Outcome) -> None:
    """What only the registry, or the rest of the table, can say."""
    column = "gateway_id" if kind == "gateways" else "device_id"
    twice = conn.execute(
        "select number, id, first_value(number) over (partition by id order by number) from fleet_stage"
        " where id in (select id from fleet_stage group by id having count(*) > 1)"
    ).fetchall()
    _wrong(
        outcome,
        (
            RowError(number, column, f"{id_} stands in row {first} already", f"{id_} 已在第 {first} 行出现")
            for number, id_, first in twice
            if number != first
        ),
    )
    if kind == "gateways":
        moved = conn.execute(
            "select s.number, s.id, g.shard from fleet_stage s join gateway g on g.gateway_id = s.id"
            " where s.shard is not null and s.shard <> g.shard"
        ).fetchall()
        _wrong(
            outcome,
            (
                RowError(
                    n, "shard", f"{id_} lives in shard {shard} and stays there", f"{id_} 固定在分片 {shard}，不能更改"
                )
                for n, id_, shard in moved
            ),
        )
        return
    strange = conn.execute(
        "select s.number, s.gateway_id from fleet_stage s"
        " where not exists (select 1 from gateway g where g.gateway_id = s.gateway_id)"
    ).fetchall()
    _wrong(outcome, (RowError(n, "gateway_id", f"there is no gateway {g}", f"没有网关 {g}") for n, g in strange))
    foreign = conn.execute(
        "select s.number, s.id, d.gateway_id from fleet_stage s join device d on d.device_id = s.id"
        " where d.gateway_id <> s.gateway_id"
    ).fetchall()
    _wrong(
        outcome,
        (RowError(n, "gateway_id", f"{id_} belongs to gateway {g}", f"{id_} 属于网关 {g}") for n, id_, g in foreign),
    )


_FIELDS = ("name_zh", "name_en", "lon", "lat", "district", "department")


def _own(kind: Kind) -> tuple[str, str, tuple[str, ...]]:
    """(table, key, fields that are compared and written)."""
    if kind == "gateways":
        return "gateway", "gateway_id", (*_FIELDS, "admission")
    return "device", "device_id", _FIELDS


def _sort(conn: Connection[Any], kind: Kind, outcome: Outcome) -> None:
    """Which rows are new, changed, or as they were."""
    table, key, fields = _own(kind)
    differs = " or ".join(f"('{name}' = any(s.brought) and s.{name} is distinct from x.{name})" for name in fields)
    rows = conn.execute(
        f"select s.id, x.{key} is null, ({differs}) or ('tags' = any(s.brought) and s.tags is distinct from"  # noqa: S608
        f' array(select t.tag from {table}_tag t where t.{key} = x.{key} order by t.tag collate "C"))'
        f" from fleet_stage s left join {table} x on x.{key} = s.id order by s.number"
    ).fetchall()
    for id_, new, changed in rows:
        if new:
            outcome.new.append(id_)
        elif changed:
            outcome.changed.append(id_)
        else:
            outcome.same += 1


def _write(conn: Connection[Any], kind: Kind) -> None:
    table, key, fields = _own(kind)
    if kind == "gateways":
        _choose_shards(conn)
        conn.execute(
            "insert into gateway (gateway_id, shard) select id, shard from fleet_stage where shard is not null"
            " on conflict (gateway_id) do nothing"
        )
    else:
        conn.execute(
            "insert into device (device_id, gateway_id) select id, gateway_id from fleet_stage"
            " on conflict (device_id) do nothing"
        )
    sets = [f"{name} = case when '{name}' = any(s.brought) then s.{name} else x.{name} end" for name in fields]
    if kind == "devices":
        sets.append("h3_9 = case when 'lon' = any(s.brought) then s.h3_9 else x.h3_9 end")
    differs = " or ".join(f"('{name}' = any(s.brought) and s.{name} is distinct from x.{name})" for name in fields)
    conn.execute(
        f"update {table} x set {', '.join(sets)} from fleet_stage s where x.{key} = s.id and ({differs})".encode()  # noqa: S608
    )
    conn.execute(
        f"delete from {table}_tag t using fleet_stage s where t.{key} = s.id and 'tags' = any(s.brought)"  # noqa: S608
        " and t.tag <> all(s.tags)"
    )
    conn.execute(
        f"insert into {table}_tag ({key}, tag) select s.id, unnest(s.tags) from fleet_stage s"  # noqa: S608
        " where 'tags' = any(s.brought) on conflict do nothing"
    )


def _choose_shards(conn: Connection[Any]) -> None:
    """New gateways without a shard go where the fewest are. The lock is the one a claim takes for the same choice."""
    conn.execute("select pg_advisory_xact_lock(hashtext('citybrain shard choice'))")
    filled = dict.fromkeys(range(SHARDS), 0)
    for shard, count in conn.execute(
        "select shard, count(*) from (select shard from gateway union all"
        " select s.shard from fleet_stage s where s.shard is not null"
        " and not exists (select 1 from gateway g where g.gateway_id = s.id)) t group by shard"
    ).fetchall():
        filled[int(shard)] = int(count)
    chosen: list[tuple[str, int]] = []
    for (id_,) in conn.execute(
        "select s.id from fleet_stage s where s.shard is null"
        " and not exists (select 1 from gateway g where g.gateway_id = s.id) order by s.number"
    ).fetchall():
        shard = min(filled, key=lambda one: (filled[one], one))
        filled[shard] += 1
        chosen.append((id_, shard))
    conn.execute(
        "update fleet_stage s set shard = c.shard from unnest(%s::text[], %s::smallint[]) as c(id, shard)"
        " where c.id = s.id",
        ([id_ for id_, _ in chosen], [shard for _, shard in chosen]),
    )


def _audit(conn: Connection[Any], kind: Kind, data: bytes, who: str, outcome: Outcome) -> None:
    """One entry for the table, and further ones that name every row it made or changed."""
    digest = hashlib.sha256(data).hexdigest()
    summary = {"sha256": digest, "new": len(outcome.new), "changed": len(outcome.changed), "same": outcome.same}
    record(conn, Entry(who, "fleet.import", kind, summary))
    for what, ids in (("new", outcome.new), ("changed", outcome.changed)):
        for part in _parts(ids, _IDS_AN_ENTRY):
            record(conn, Entry(who, f"fleet.import.{what}", kind, {"sha256": digest, "ids": part}))


def _parts(ids: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    """At most ``size`` and at most what one entry may hold."""
    part: list[str] = []
    used = 0
    for id_ in ids:
        length = len(json.dumps(id_, ensure_ascii=False).encode()) + 1
        if part and (len(part) == size or used + length > 15_000):
            yield part
            part, used = [], 0
        part.append(id_)
        used += length
    if part:
        yield part
