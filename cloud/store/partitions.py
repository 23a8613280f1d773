"""Day partitions of `reading` on plain PostgreSQL, made when the first reading of a day arrives.

Days outside a plausible window (a clock in 1970, a year ahead) share the default partition, so that no wrong clock can
make a partition of its own. When such a day comes, what waits there for it moves into the day's partition.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

_PAST_DAYS, _FUTURE_DAYS = 400, 2
DAY_MS = 86_400_000


def install(conn: psycopg.Connection[Any]) -> None:
    conn.execute("create table reading_other partition of reading default")


def name_of(day: int) -> str:
    """``day``: days since 1970-01-01 UTC."""
    return f"reading_{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"


def plausible(day: int, today: int) -> bool:
    return today - _PAST_DAYS <= day <= today + _FUTURE_DAYS


class DayPartitions:
    """Remembers which days exist; :meth:`ensure` makes the missing ones in the caller's transaction."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._known: set[str] = set()
        self._there: set[str] = set()  # as the running transaction sees it
        self._native = (
            conn.execute("select 1 from pg_partitioned_table where partrelid = 'reading'::regclass").fetchone()
            is not None
        )

    def ensure(self, conn: psycopg.Connection[Any], days: set[int], now_ms: int) -> None:
        if not self._native:
            return
        today = now_ms // DAY_MS
        self._there = set()
        for day in sorted(days):
            name = name_of(day)
            if name in self._known or not plausible(day, today):
                continue
            self._there.add(name)
            start = datetime.fromtimestamp(day * 86_400, UTC)
            conn.execute(f"select pg_advisory_xact_lock({0x6461790000 + day})")  # two workers, one new day
            if conn.execute("select to_regclass(%s)", (name,)).fetchone() != (None,):
                continue
            first, last = f"'{start:%Y-%m-%d}+00'", f"'{start + timedelta(days=1):%Y-%m-%d}+00'"
            # PostgreSQL makes no partition for rows that the default partition holds: they are moved beforehand.
            conn.execute(f"create table {name} (like reading including defaults)")
            early = f"delete from reading_other where ts >= {first} and ts < {last} returning *"  # noqa: S608 - dates
            conn.execute(f"with early as ({early}) insert into {name} select * from early")  # noqa: S608 - as above
            conn.execute(f"alter table reading attach partition {name} for values from ({first}) to ({last})")

    def forget(self) -> None:
        """The transaction failed, and with it what it made."""
        self._there = set()

    def committed(self) -> None:
        """The transaction that made them is through."""
        self._known |= self._there
        self._there = set()
