"""What has been kept long enough goes: days of readings, rollups, letters, events, alarms, pictures, closed cases.

Readings go a day at a time, as partitions (chunks, with TimescaleDB) once every class of devices lets go of them, row
by row where one class does earlier. Never before the hours they belong to are rolled up. Nothing of an open alarm or an
open case is touched. Every step is a transaction of its own that is soon over; what it removed is in the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection
from psycopg import sql as build

from cloud.audit.log import Entry, record
from cloud.store import timescale

_ROWS_AT_ONCE = 20_000
#: Times by clocks that were wrong, or not known to be right: what says 1970 may be of this morning. Its age is
#: counted from the day on which the core heard of it. Needs %(now)s and %(days)s.
_DOUBTED: LiteralString = (
    "doubted as materialized (select gateway_id, first_at, last_at from ledger_gap where kind = 'clock_unknown'"
    " and told_at > %(now)s - make_interval(days => %(days)s)"
    " union all select gateway_id, from_at, to_at from clock_correction"
    " where told_at > %(now)s - make_interval(days => %(days)s))"
)

_OTHERS: dict[str, LiteralString] = {
    "dead_letter": "delete from dead_letter where dead_letter_id in (select dead_letter_id from dead_letter"
    " where received_at < %(before)s order by dead_letter_id limit %(most)s)",
    # The events of an alarm stay as long as the alarm.
    "event": "delete from event where event_id in (select e.event_id from event e where e.ts < %(before)s"
    " and e.received_at < %(before)s and not exists (select from alarm a where e.key <> '' and a.key = e.key"
    " and a.scenario = e.scenario) order by e.ts limit %(most)s)",
    "alarm": "delete from alarm where alarm_id in (select a.alarm_id from alarm a where a.state = 'cleared'"
    " and a.updated_at < %(before)s and a.raised_at < %(before)s"
    " and not exists (select from case_alarm ca where ca.alarm_id = a.alarm_id) limit %(most)s)",
    "evidence": "with held as materialized (select x ->> 'sha256' as sha256 from alarm a"
    " cross join jsonb_array_elements(a.evidence) x where a.state <> 'cleared' or exists (select from case_alarm ca"
    " join case_file c using (case_id) where ca.alarm_id = a.alarm_id and c.closed_at is null))"
    " delete from evidence where sha256 in (select e.sha256 from evidence e where e.received_at < %(before)s"
    " and not exists (select from held h where h.sha256 = e.sha256) limit %(most)s)",
}


@dataclass(frozen=True, slots=True)
class Removed:
    """``what``: reading | rollup_1m | ... | case; ``rows`` None: whole partitions, not counted."""

    what: str
    rows: int | None
    detail: str = ""


def step(conn: Connection[Any], now_ms: int) -> Removed | None:
    """Remove some of what is due, in one transaction; None when nothing is. Raises psycopg.Error."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    for remove in (_whole_days, _class_days, _rollups, _others, _cases):
        with conn.transaction():
            removed = remove(conn, now)
            if removed is not None:
                record(
                    conn,
                    Entry("system", "retention.remove", removed.what, {"rows": removed.rows, "detail": removed.detail}),
                )
                return removed
    return None


def _rolled_until(conn: Connection[Any]) -> datetime:
    """No reading from here on may go: its hour is not made, or is to be made anew."""
    row = conn.execute("select least((select done from rollup_state), (select min(hour) from rollup_dirty))").fetchone()
    found: datetime = row[0] if row and row[0] else datetime.fromtimestamp(0, UTC)
    return found


def _whole_days(conn: Connection[Any], now: datetime) -> Removed | None:
    """Partitions that no class of devices wants any more."""
    row = conn.execute("select max(raw_days), bool_or(raw_days is null) from retention_policy").fetchone()
    if row is None or row[0] is None or row[1]:
        return None
    before = min(_day_start(now - timedelta(days=row[0])), _day_start(_rolled_until(conn)))
    if timescale.active(conn):
        gone = conn.execute("select count(*) from drop_chunks('reading', older_than => %s)", (before,)).fetchone()
        if gone and gone[0]:
            _note(conn, before)
            return Removed("reading", None, f"{gone[0]} chunks before {before:%Y-%m-%d}")
        return None
    for (name,) in conn.execute(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = 'reading'::regclass and c.relname ~ '^reading_[0-9]{8}$' order by c.relname"
    ).fetchall():
        day = datetime.strptime(name[len("reading_") :], "%Y%m%d").replace(tzinfo=UTC)
        if day + timedelta(days=1) > before:
            return None
        if _in_doubt(conn, day, now, row[0]):
            continue
        # Detaching for good takes a lock of a moment; whoever reads or writes other days waits no longer than that.
        conn.execute("set local lock_timeout = '2s'")
        conn.execute(build.SQL("drop table {}").format(build.Identifier(name)))
        _note(conn, day + timedelta(days=1))
        return Removed("reading", None, f"day {day:%Y-%m-%d}")
    return None


def _in_doubt(conn: Connection[Any], day: datetime, now: datetime, days: int) -> bool:
    """Whether a wrong clock has stamped readings of this day."""
    found = conn.execute(
        build.SQL("with ")
        + build.SQL(_DOUBTED)
        + build.SQL(" select 1 from doubted where first_at < %(until)s and last_at >= %(since)s limit 1"),
        {"now": now, "days": days, "since": day, "until": day + timedelta(days=1)},
    )
    return found.fetchone() is not None


def _note(conn: Connection[Any], until: datetime) -> None:
    """For every class: readings before it are gone, so that what comes for their hours is added to the rollups."""
    conn.execute(
        "insert into retention_done select device_class, %(until)s from retention_policy on conflict (device_class)"
        " do update set raw_until = greatest(retention_done.raw_until, excluded.raw_until)",
        {"until": until},
    )


def _class_days(conn: Connection[Any], now: datetime) -> Removed | None:
    """Rows of classes that are kept for a shorter time than others; and what lies in the partition of odd times."""
    rolled = _rolled_until(conn)
    for device_class, days, longest in conn.execute(
        "select device_class, raw_days, raw_days = max(raw_days) over () and not bool_or(raw_days is null) over ()"
        " from retention_policy"
    ).fetchall():
        if days is None:
            continue
        before = min(now - timedelta(days=days), rolled).replace(minute=0, second=0, microsecond=0)
        if longest:
            before = _day_start(before)  # its days go as a whole; here only what lies among the odd times
        row = conn.execute("select raw_until from retention_done where device_class = %s", (device_class,)).fetchone()
        done: datetime = row[0] if row else datetime.fromtimestamp(0, UTC)
        if before - done < timedelta(hours=1):
            continue
        removed = conn.execute(
            build.SQL("with ")
            + build.SQL(_DOUBTED)
            + build.SQL(
                ", mine as materialized (select s.series_id, d.gateway_id from series s join device d using (device_id)"
                " where (policy_of(d.device_type)).device_class = %(class)s)"
                " delete from reading r using (select r.tableoid, r.ctid from reading r join mine m using (series_id)"
                " where r.ts < %(before)s and not exists (select from doubted x where x.gateway_id = m.gateway_id"
                " and r.ts between x.first_at and x.last_at) limit %(most)s) old"
                " where r.tableoid = old.tableoid and r.ctid = old.ctid and r.ts < %(before)s"
            ),
            {"class": device_class, "before": before, "most": _ROWS_AT_ONCE, "now": now, "days": days},
        ).rowcount
        if removed < _ROWS_AT_ONCE:
            conn.execute(
                "insert into retention_done values (%s, %s) on conflict (device_class) do update"
                " set raw_until = greatest(retention_done.raw_until, excluded.raw_until)",
                (device_class, before),
            )
        if removed:
            return Removed("reading", removed, f"{device_class} before {before:%Y-%m-%d %H:%M}")
    return None


def _rollups(conn: Connection[Any], now: datetime) -> Removed | None:
    for table, column in (("rollup_1m", "m1_days"), ("rollup_1h", "h1_days"), ("rollup_1d", "d1_days")):
        found = conn.execute(
            build.SQL(
                "with due as materialized (select device_class, %s - make_interval(days => {column}) as before"
                " from retention_policy where {column} is not null),"
                " old as (select r.ctid from {table} r join series using (series_id) join device d using (device_id)"
                " join due on due.device_class = (policy_of(d.device_type)).device_class and r.ts < due.before"
                " where r.ts < (select max(before) from due) limit %s)"
                " delete from {table} where ctid = any(array(select ctid from old))"
            ).format(table=build.Identifier(table), column=build.Identifier(column)),
            (now, _ROWS_AT_ONCE),
        )
        if found.rowcount:
            return Removed(table, found.rowcount)
    return None


def _due(conn: Connection[Any], what: str, now: datetime) -> datetime | None:
    row = conn.execute("select days from retention_other where what = %s", (what,)).fetchone()
    return now - timedelta(days=row[0]) if row and row[0] is not None else None


def _others(conn: Connection[Any], now: datetime) -> Removed | None:
    for what, statement in _OTHERS.items():
        before = _due(conn, what, now)
        if before is None:
            continue
        removed = conn.execute(statement, {"before": before, "most": 1_000}).rowcount
        if removed:
            return Removed(what, removed)
    return None


def _cases(conn: Connection[Any], now: datetime) -> Removed | None:
    before = _due(conn, "case", now)
    if before is None:
        return None
    ids = [
        row[0]
        for row in conn.execute(
            "select case_id from case_file where closed_at < %s order by case_id limit 200", (before,)
        )
    ]
    if not ids:
        return None
    for table in ("case_transition", "case_alarm", "case_file"):
        conn.execute(build.SQL("delete from {} where case_id = any(%s)").format(build.Identifier(table)), (ids,))
    return Removed("case", len(ids))


def _day_start(moment: datetime) -> datetime:
    return datetime.combine(date(moment.year, moment.month, moment.day), datetime.min.time(), UTC)
