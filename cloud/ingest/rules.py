"""The cloud side of the scenarios: one engine a shard, fed with what was just committed.

The engine's state is stored with the transaction in which it said something, and every few seconds, so a worker that
takes a shard over goes on where the last one stood.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from cloud.ingest.copy import Rows
from protocols.core.model import Event, SeriesBatch, SeriesInfo
from scenarios.engine import Engine
from scenarios.packs import BoundPack

log = logging.getLogger("citybrain.cloud.rules")

_SNAPSHOT_EVERY_MS = 10_000


class ShardRules:
    """Rules of one shard."""

    def __init__(self, conn: Connection[Any], shard: int, packs: Sequence[BoundPack]) -> None:
        self._shard = shard
        self._engine = Engine(packs, "cloud")
        self._known: set[int] = set()
        self._saved_ms = 0
        for device, lon, lat in conn.execute(
            "select device_id, coalesce(d.lon, g.lon), coalesce(d.lat, g.lat) from device d"
            " join gateway g using (gateway_id) where g.shard = %s and coalesce(d.lon, g.lon) is not null",
            (shard,),
        ):
            self._engine.set_location(device, lon, lat)
        row = conn.execute("select snapshot from engine_state where shard = %s", (shard,)).fetchone()
        if row is not None:
            self._engine.restore(row[0])

    def step(self, rows: Rows, infos: dict[int, SeriesInfo], now_ms: int) -> list[Event]:
        """``rows`` sorted by time within each series; ``infos``: what each series id is."""
        if len(self._known) < len(infos):
            for series_id in infos.keys() - self._known:
                self._engine.add_series(series_id, infos[series_id])
                self._known.add(series_id)
        return self._engine.step(SeriesBatch(rows.series_id, rows.ts_ms, rows.value, rows.quality), now_ms)

    def events(self, events: Sequence[Event], now_ms: int) -> list[Event]:
        return self._engine.events(events, now_ms)

    def tick(self, now_ms: int) -> list[Event]:
        return self._engine.tick(now_ms)

    def save(self, conn: Connection[Any], now_ms: int, *, always: bool) -> None:
        """In the caller's transaction."""
        if not always and now_ms - self._saved_ms < _SNAPSHOT_EVERY_MS:
            return
        conn.execute(
            "insert into engine_state (shard, snapshot, at) values (%s, %s, now())"
            " on conflict (shard) do update set snapshot = excluded.snapshot, at = excluded.at",
            (self._shard, self._engine.snapshot()),
        )
        self._saved_ms = now_ms
