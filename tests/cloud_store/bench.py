"""A database with one gateway's series, a committer that writes to it, and a clock that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection, Connection

from cloud.ingest.committer import Committer, Inbound
from cloud.ingest.rules import Rules
from cloud.query import readings
from cloud.query.rows import Readings, Series
from cloud.store.keeping import tidy
from protocols.uplink.batch import Declaration
from tests.cloud_ingest.site import declare, encode, enrol

GATEWAY, SHARD = "gw-s-01", 3
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
START = datetime(2026, 3, 2, 16, tzinfo=UTC)  # midnight in Hefei
T0_MS = round(START.timestamp() * 1000)


class Store:
    """``meter-1/x`` (alias 0) and ``meter-2/x`` (alias 1, a gas sensor), one decimal."""

    def __init__(self, dsn: str, conn: Connection[Any], *, start: datetime = START) -> None:
        enrol(dsn, (GATEWAY, SHARD))
        self.dsn = dsn
        self.conn = conn
        self.now_ms = round(start.timestamp() * 1000)
        self.committer = Committer(conn, Rules([]), {}, lambda: self.now_ms)
        self._seq: dict[str, int] = {}
        conn.execute(
            "update rollup_state set mark = %(h)s, done_1m = %(h)s, done = %(h)s, horizon = null,"
            " done_day = date_bin('1 day', %(h)s, timestamptz '2000-01-01 00:00+08')",
            {"h": start},
        )
        self.commit([], declarations=(declare(0, "meter-1"), declare(1, "meter-2", kind="gas/combustible")))

    def commit(
        self,
        rows: Sequence[Sequence[int]],
        lane: str = "data",
        declarations: tuple[Declaration, ...] = (),
        **parts: Any,
    ) -> None:
        """Rows of (alias, ts_ms, integer[, quality[, lag_ms]]) in a batch of their own."""
        seq = self._seq[lane] = self._seq.get(lane, 0) + 1
        payload = encode(seq, rows, declarations=declarations, **parts)
        self.committer.commit(self.conn, [Inbound(f"cb/v1/{SHARD}/{GATEWAY}/up/{lane}", payload, lambda: None)])

    def passes(self, span: timedelta) -> None:
        self.now_ms += round(span.total_seconds() * 1000)

    def all_rolled(self) -> None:
        """As if every hour and day before now had been made: what comes for them is late."""
        at = datetime.fromtimestamp(self.now_ms / 1000, UTC)
        self.conn.execute(
            "update rollup_state set mark = %(at)s, done_1m = %(at)s, done = %(at)s, done_day ="
            " date_bin('1 day', %(at)s, timestamptz '2000-01-01 00:00+08')",
            {"at": at.replace(minute=0, second=0, microsecond=0)},
        )

    def tidy(self) -> dict[str, int]:
        return tidy(self.conn, self.now_ms)

    def all(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        return self.conn.execute(statement.encode(), arguments).fetchall()

    def one(self, statement: str, *arguments: object) -> Any:
        return self.all(statement, *arguments)[0][0]

    def chart(self, since: datetime, until: datetime, device: str = "meter-1", *, most: int = 2000) -> Readings:
        async def ask() -> Readings:
            async with await AsyncConnection.connect(self.dsn, autocommit=True) as conn:
                found = await readings.device_series(conn, device)
                of: Series = found[0]
                now = datetime.fromtimestamp(self.now_ms / 1000, UTC)
                return await readings.readings(conn, of, since, until, max_points=most, now=now)

        return asyncio.run(ask())


def rolled(store: Store, table: str) -> list[tuple[Any, ...]]:
    """What the rollup says, by series and bucket; sums rounded, since their order is free."""
    return store.all(
        "select series_id, ts, n, n_value, n_good, n_suspect, n_bad, n_missing, low, low_at, high, high_at,"
        f" round(total::numeric, 6)::float8, first, first_at, last, last_at from {table} order by 1, 2"
    )


def counted(store: Store, width: timedelta) -> list[tuple[Any, ...]]:
    """The same from the readings, one after the other: slow, and written without looking at the other."""
    found: dict[tuple[int, datetime], list[tuple[datetime, float | None, int]]] = {}
    origin = datetime(2000, 1, 1, tzinfo=UTC) - timedelta(hours=8)
    rows = store.all(
        "select s.series_id, r.ts, r.value, r.quality from series s"
        " cross join lateral reading_true(s.series_id, '-infinity', 'infinity') r"
    )
    for series, ts, value, quality in rows:
        found.setdefault((series, origin + (ts - origin) // width * width), []).append((ts, value, quality))
    out = []
    for (series, start), mine in sorted(found.items()):
        told = sorted((ts, value) for ts, value, quality in mine if value is not None and quality not in (2, 5))
        by_value = sorted((value, ts) for ts, value in told)
        low = by_value[0] if told else (None, None)
        top = min(((-v, t) for v, t in by_value), default=None)
        grades = [quality for _, _, quality in mine]
        out.append(
            (
                series, start, len(mine), len(told), grades.count(0), grades.count(1), grades.count(2),
                sum(1 for _, value, quality in mine if quality == 5 or value is None),
                *low, -top[0] if top else None, top[1] if top else None,
                None if not told else round(sum(v for _, v in told), 6),
                *((told[0][1], told[0][0], told[-1][1], told[-1][0]) if told else (None,) * 4),
            )
        )  # fmt: skip
    return out
