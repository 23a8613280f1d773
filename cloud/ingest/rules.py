"""The cloud side of the scenarios: one engine a gateway, fed with what was just committed.

An engine's clock is its gateway's own progress: how far the gateway has told us everything, not the time on our wall.
So a night offline, drained in the morning, makes no device look silent; that the gateway itself is gone is said once,
by ``presence.py``. The state is stored with the transaction in which an engine said something, and every few seconds;
a worker that takes a shard over goes on where the last one stood.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import Connection

from cloud.ingest.copy import Rows
from protocols.core.model import Event, SeriesBatch, SeriesInfo
from scenarios.binding import ScenarioBinding
from scenarios.engine import Engine
from scenarios.packs import bind_all

log = logging.getLogger("citybrain.cloud.rules")

_SNAPSHOT_EVERY_MS = 10_000


class _GatewayRules:
    def __init__(self, engine: Engine, devices: frozenset[str]) -> None:
        self.engine = engine
        self.devices = devices
        self.known: set[int] = set()
        self.complete_ms: int | None = None
        self.saved_ms = 0


class Rules:
    """All engines of one worker. ``bindings``: the scenarios of the whole city; each gateway gets its share of them."""

    def __init__(self, bindings: Sequence[ScenarioBinding]) -> None:
        self._bindings = bindings
        self._bound = sorted({d for binding in bindings for ids in binding.devices.values() for d in ids})
        self._gateways: dict[str, _GatewayRules] = {}
        self._shards: set[int] = set()

    def own(self, conn: Connection[Any], shard: int) -> None:
        self._shards.add(shard)
        self.refresh(conn)

    def disown(self, conn: Connection[Any], shard: int, now_ms: int) -> None:
        """The next owner goes on where these engines stand."""
        self._shards.discard(shard)
        gone = {row[0] for row in conn.execute("select gateway_id from gateway where shard = %s", (shard,))}
        self.save(conn, gone & self._gateways.keys(), now_ms, always=True)
        for gateway in gone:
            self._gateways.pop(gateway, None)

    def reload(self, conn: Connection[Any]) -> None:
        """A transaction was rolled back: back to the state in the tables."""
        self._gateways.clear()
        self.refresh(conn)

    def refresh(self, conn: Connection[Any]) -> None:
        """Devices have come: build the engines whose devices changed, each from its stored state."""
        placed: dict[str, dict[str, tuple[float, float] | None]] = {}
        for device, gateway, lon, lat in conn.execute(
            "select d.device_id, d.gateway_id, coalesce(d.lon, g.lon), coalesce(d.lat, g.lat) from device d"
            " join gateway g using (gateway_id) where d.device_id = any(%s) and g.shard = any(%s)",
            (self._bound, sorted(self._shards)),
        ):
            placed.setdefault(gateway, {})[device] = (lon, lat) if lon is not None else None
        for gateway, places in placed.items():
            present = frozenset(places)
            found = self._gateways.get(gateway)
            if found is None or found.devices != present:
                self._gateways[gateway] = self._build(conn, gateway, places, found)

    def _build(
        self,
        conn: Connection[Any],
        gateway: str,
        places: Mapping[str, tuple[float, float] | None],
        before: _GatewayRules | None,
    ) -> _GatewayRules:
        mine: list[ScenarioBinding] = []
        for binding in self._bindings:
            roles = {role: tuple(d for d in ids if d in places) for role, ids in binding.devices.items()}
            roles = {role: ids for role, ids in roles.items() if ids}
            if roles:
                mine.append(ScenarioBinding(pack=binding.pack, devices=roles, params=binding.params))
        rules = _GatewayRules(Engine(bind_all(mine), "cloud"), frozenset(places))
        for device, place in places.items():
            if place is not None:
                rules.engine.set_location(device, *place)
        if before is not None:
            rules.engine.restore(before.engine.snapshot())
            rules.complete_ms = before.complete_ms
        else:
            row = conn.execute("select snapshot from gateway_rules where gateway_id = %s", (gateway,)).fetchone()
            if row is not None:
                rules.engine.restore(row[0])
        return rules

    def has(self, gateway: str) -> bool:
        return gateway in self._gateways

    def step(self, gateway: str, rows: Rows, infos: Mapping[int, SeriesInfo], now_ms: int) -> list[Event]:
        """``rows`` of this gateway, sorted by time within each series; ``infos``: what each series id is."""
        rules = self._gateways.get(gateway)
        if rules is None:
            return []
        if len(rules.known) < len(infos):
            for series_id in infos.keys() - rules.known:
                if infos[series_id].device in rules.devices:
                    rules.engine.add_series(series_id, infos[series_id])
                rules.known.add(series_id)
        return rules.engine.step(SeriesBatch(rows.series_id, rows.ts_ms, rows.value, rows.quality), now_ms)

    def events(self, events: Sequence[Event], now_ms: int) -> list[Event]:
        """What gateways reported, told to every engine: a fire at one gateway concerns the lane at another."""
        return [said for rules in self._gateways.values() for said in rules.engine.events(events, now_ms)]

    def clock_stepped(self, gateway: str, delta_ms: int) -> None:
        """The gateway's clock was set: what it told before was as long ago as ever."""
        rules = self._gateways.get(gateway)
        if rules is None:
            return
        rules.engine.clock_stepped(delta_ms)
        if rules.complete_ms is not None:
            rules.complete_ms += delta_ms

    def progress(self, gateway: str, complete_ms: int) -> None:
        """The gateway has told us everything up to here."""
        rules = self._gateways.get(gateway)
        if rules is not None:
            rules.complete_ms = max(complete_ms, rules.complete_ms or 0)

    def tick(self) -> dict[str, list[Event]]:
        """Absence rules, each gateway at its own time."""
        said = {
            gateway: rules.engine.tick(rules.complete_ms)
            for gateway, rules in self._gateways.items()
            if rules.complete_ms is not None
        }
        return {gateway: events for gateway, events in said.items() if events}

    def save(self, conn: Connection[Any], gateways: Iterable[str], now_ms: int, *, always: bool) -> None:
        """In the caller's transaction."""
        for gateway in gateways:
            rules = self._gateways.get(gateway)
            if rules is None or (not always and now_ms - rules.saved_ms < _SNAPSHOT_EVERY_MS):
                continue
            conn.execute(
                "insert into gateway_rules (gateway_id, snapshot, at) values (%s, %s, now())"
                " on conflict (gateway_id) do update set snapshot = excluded.snapshot, at = excluded.at",
                (gateway, rules.engine.snapshot()),
            )
            rules.saved_ms = now_ms
