"""The newest reading of each series, by source time: late data never overwrites it.

Collected over many commits and written at most twice a second, always inside a transaction that also holds the data.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from psycopg import Connection

from cloud.ingest.copy import Rows
from protocols.core.model import Float64s, Int32s, Int64s, SeriesInfo, UInt8s

_EVERY_MS = 500
_REPAIR_S = 0.2  # in one go


class LastValues:
    def __init__(self) -> None:
        self._ts: Int64s = np.zeros(0, np.int64)
        self._value: Float64s = np.zeros(0)
        self._quality: UInt8s = np.zeros(0, np.uint8)
        self._dirty: set[int] = set()
        self._flushed_ms = 0
        self._written: set[int] = set()
        #: What the running transaction has changed: series and their values before it.
        self._before: list[tuple[Int32s, Int64s, Float64s, UInt8s]] = []
        self._dirty_before: set[int] = set()
        self._infos: Mapping[int, SeriesInfo] = {}
        self._repair: list[str] = []  # gateways

    def forget(self) -> None:
        """The transaction failed: back to what was committed. Its readings may come again, or be set aside."""
        for series, ts_ms, value, quality in reversed(self._before):
            self._ts[series], self._value[series], self._quality[series] = ts_ms, value, quality
        if self._before:
            self._dirty = self._dirty_before
        else:
            self._dirty |= self._written
        self._before, self._written = [], set()

    def see(self, rows: Rows | None, infos: Mapping[int, SeriesInfo]) -> None:
        self._infos = infos
        if rows is None or not len(rows):
            return
        self._reserve(int(rows.series_id.max()) + 1)
        order = np.lexsort((rows.ts_ms, rows.series_id))
        series, times = rows.series_id[order], rows.ts_ms[order]
        newest = np.flatnonzero(np.append(series[1:] != series[:-1], True))
        series, times, order = series[newest], times[newest], order[newest]
        better = times >= self._ts[series]
        series, times, order = series[better], times[better], order[better]
        self._remember(series)
        self._ts[series], self._value[series], self._quality[series] = times, rows.value[order], rows.quality[order]
        self._dirty.update(series.tolist())

    def restate(self, conn: Connection[Any], series: list[int], until_ms: int) -> None:
        """Corrections have moved readings of these series: their last values from the readings themselves, by true
        time and not later than ``until_ms``. In the caller's transaction."""
        if not series:
            return
        rows = conn.execute(
            "insert into last_value (series_id, ts, value, quality) select s, l.ts, l.value, l.quality"
            " from unnest(%s::int[]) s cross join lateral last_true(s, to_timestamp(%s / 1000.0)) l"
            " on conflict (series_id) do update set ts = excluded.ts, value = excluded.value,"
            " quality = excluded.quality"
            " returning series_id, (extract(epoch from ts) * 1000)::bigint, value, quality",
            (series, until_ms),
        ).fetchall()
        self._reserve(max(series) + 1)
        found = np.array([row[0] for row in rows], dtype=np.int32)
        self._remember(found)
        self._ts[found] = [row[1] for row in rows]
        self._value[found] = [np.nan if row[2] is None else row[2] for row in rows]
        self._quality[found] = [row[3] for row in rows]
        self._dirty -= set(found.tolist())

    def _reserve(self, top: int) -> None:
        if top > len(self._ts):
            size = max(top, 2 * len(self._ts), 256)
            self._ts = np.concatenate([self._ts, np.full(size - len(self._ts), np.iinfo(np.int64).min)])
            self._value = np.concatenate([self._value, np.full(size - len(self._value), np.nan)])
            self._quality = np.concatenate([self._quality, np.zeros(size - len(self._quality), np.uint8)])

    def _remember(self, series: Int32s) -> None:
        """What these were, should the transaction fail."""
        if not self._before:
            self._dirty_before = self._dirty | self._written
        self._before.append((series, self._ts[series], self._value[series], self._quality[series]))

    def flush(self, conn: Connection[Any], now_ms: int) -> None:
        """In the caller's transaction; :meth:`committed` or :meth:`forget` must follow."""
        if not self._dirty or now_ms - self._flushed_ms < _EVERY_MS:
            return
        self._flushed_ms = now_ms
        self._written, self._dirty = self._dirty, set()
        index = np.fromiter(self._written, dtype=np.int64, count=len(self._written))
        index.sort()
        value = [None if v != v else v for v in self._value[index].tolist()]
        conn.execute(
            "insert into last_value (series_id, ts, value, quality) select s, to_timestamp(t / 1000.0), v, q"
            " from unnest(%s::int[], %s::float8[], %s::float8[], %s::int2[]) as u(s, t, v, q)"
            " on conflict (series_id) do update set ts = excluded.ts, value = excluded.value,"
            " quality = excluded.quality where excluded.ts >= last_value.ts",
            (index.tolist(), self._ts[index].astype(float).tolist(), value, self._quality[index].tolist()),
        )
        devices = sorted({self._infos[i].device for i in self._written if i in self._infos})
        conn.execute(
            "update device set seen_at = now() where device_id = any(%s) and (seen_at is null or seen_at < now())",
            (devices,),
        )

    def committed(self) -> None:
        self._before, self._written = [], set()

    # -- what a worker that died had not written yet ----------------------------------------------------------------

    def repair_later(self, conn: Connection[Any], shard: int) -> None:
        """The shard was another worker's: which of its gateways may have values newer than their last ones?

        Those whose lanes moved within the last seconds that anything in the shard moved."""
        rows = conn.execute(
            "select distinct c.gateway_id from lane_cursor c join gateway g using (gateway_id) where g.shard = %s"
            " and c.updated_at >= (select max(c.updated_at) from lane_cursor c join gateway g using (gateway_id)"
            " where g.shard = %s) - interval '10 seconds'",
            (shard, shard),
        )
        self._repair.extend(row[0] for row in rows)

    def repair_some(self, conn: Connection[Any]) -> None:
        """A few gateways more, for a fraction of a second: taking a shard over must not wait for this. Of two rows of
        one moment nobody can tell here which came last, so that only a later moment counts."""
        until = time.monotonic() + _REPAIR_S
        while self._repair and time.monotonic() < until:
            conn.execute(
                "insert into last_value (series_id, ts, value, quality)"
                " select s.series_id, r.ts, r.value, r.quality from series s join device d using (device_id)"
                " cross join lateral last_true(s.series_id, now() + interval '10 minutes') r"
                " where d.gateway_id = %s on conflict (series_id) do update set ts = excluded.ts,"
                " value = excluded.value, quality = excluded.quality where excluded.ts > last_value.ts",
                (self._repair[-1],),
            )
            self._repair.pop()
