"""What the worker must know to place a batch: gateways, series by alias, how far each lane has come.

Everything here is a cache of tables, filled on first use and thrown away after any failed transaction, so it can never
claim more than was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h3
import numpy as np
from psycopg import Connection

from cloud.identity import admission
from cloud.ingest.group import LaneTotals
from protocols.core.errors import ContractError
from protocols.core.model import Int32s, Int64s, SeriesInfo
from protocols.uplink.batch import Declaration
from protocols.uplink.columns import SeriesCode
from protocols.uplink.digest import series_hash
from protocols.uplink.varint import UInt64s

_64 = (1 << 64) - 1
_DENSE = 1 << 16  # aliases up to here are looked up in an array; a gateway that counts otherwise costs time, not memory


@dataclass(slots=True)
class AliasTable:
    """The dictionary of one (gateway, epoch): plain for decoding, arrays for mapping whole columns.

    ``series_id``, ``decimals`` and ``hashes`` are indexed by :meth:`places`. ``foreign``: aliases declared for a device
    of another gateway.
    """

    codes: dict[int, SeriesCode] = field(default_factory=dict)
    foreign: set[int] = field(default_factory=set)
    series_id: Int32s = field(default_factory=lambda: np.empty(0, np.int32))
    decimals: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    hashes: UInt64s = field(default_factory=lambda: np.empty(0, np.uint64))
    _place: dict[int, int] = field(default_factory=dict)
    _dense: Int32s = field(default_factory=lambda: np.empty(0, np.int32))

    def put(self, alias: int, series_id: int, code: SeriesCode, series: int) -> None:
        place = self._place.setdefault(alias, len(self._place))
        if place >= len(self.series_id):
            more = max(64, place)
            self.series_id = np.concatenate([self.series_id, np.zeros(more, np.int32)])
            self.decimals = np.concatenate([self.decimals, np.zeros(more, np.int64)])
            self.hashes = np.concatenate([self.hashes, np.zeros(more, np.uint64)])
        if len(self._dense) <= alias < _DENSE:
            grown = np.zeros(min(_DENSE, max(64, 2 * alias)), np.int32)
            grown[: len(self._dense)] = self._dense
            self._dense = grown
        if alias < _DENSE:
            self._dense[alias] = place
        self.codes[alias] = code
        self.foreign.discard(alias)
        self.series_id[place], self.decimals[place], self.hashes[place] = series_id, code.decimals, series

    def places(self, alias: Int32s) -> Int32s:
        """Where each alias of a column stands in the arrays; every one of them has been put."""
        if int(alias.max()) < len(self._dense):
            return self._dense[alias]
        return np.array([self._place[one] for one in alias.tolist()], dtype=np.int32)

    def known_series(self, alias: int) -> int:
        """0: never declared, or another gateway's."""
        place = self._place.get(alias)
        return 0 if place is None else int(self.series_id[place])

    def series_of(self, alias: int) -> int:
        return int(self.series_id[self._place[alias]])


@dataclass(slots=True)
class Gateway:
    gateway_id: str
    shard: int
    location: tuple[float, float] | None


class Registry:
    """``series_infos``: what each series id is, for the scenario engine."""

    def __init__(self) -> None:
        self._gateways: dict[str, Gateway | None] = {}
        self._tables: dict[tuple[str, int], AliasTable] = {}
        self._totals: dict[tuple[str, int, str], LaneTotals] = {}
        self._devices: dict[str, str] = {}  # device -> its gateway
        self._waiting: set[str] = set()  # devices nobody has accepted yet
        self.grown = False  # devices seen for the first time since somebody looked
        self.series_infos: dict[int, SeriesInfo] = {}

    def forget(self) -> None:
        """A transaction failed: nothing cached may be believed."""
        self._gateways.clear()
        self._tables.clear()
        self._totals.clear()
        self._devices.clear()
        self._waiting.clear()

    def gateway(self, conn: Connection[Any], gateway_id: str) -> Gateway | None:
        """None for a stranger (asked again each time, in case it has been enrolled since)."""
        found = self._gateways.get(gateway_id)
        if found is None:
            row = conn.execute("select shard, lon, lat from gateway where gateway_id = %s", (gateway_id,)).fetchone()
            if row is not None:
                place = (row[1], row[2]) if row[1] is not None else None
                found = self._gateways[gateway_id] = Gateway(gateway_id, row[0], place)
        return found

    def epoch(self, conn: Connection[Any], gateway_id: str) -> int:
        """Which life of its outbox a gateway has last said to be in; 0: it has not said."""
        row = conn.execute("select coalesce(epoch, 0) from gateway where gateway_id = %s", (gateway_id,)).fetchone()
        return int(row[0]) if row else 0

    def totals(self, conn: Connection[Any], gateway_id: str, epoch: int, lane: str) -> LaneTotals:
        """What has been committed of a lane; all zero if nothing has."""
        key = (gateway_id, epoch, lane)
        found = self._totals.get(key)
        if found is None:
            row = conn.execute(
                "select seq, readings, events, digest, thinned, thinned_digest, unproven from lane_cursor"
                " where gateway_id = %s and epoch = %s and lane = %s",
                key,
            ).fetchone()
            if row is None:
                found = LaneTotals()
            else:
                seq, readings, events, total, thinned, thinned_digest, unproven = row
                found = LaneTotals(seq, readings, events, total & _64, thinned, thinned_digest & _64, unproven)
            self._totals[key] = found
        return found

    def advance(self, key: tuple[str, int, str], totals: LaneTotals) -> None:
        self._totals[key] = totals

    def aliases(self, conn: Connection[Any], gateway_id: str, epoch: int) -> AliasTable:
        key = (gateway_id, epoch)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = AliasTable()
            for alias, series_id, decimals, reference, device, point, unit, kind in conn.execute(
                "select a.alias, a.series_id, a.decimals, a.reference, s.device_id, s.point, s.unit, d.device_type"
                " from series_alias a join series s using (series_id) join device d using (device_id)"
                " where a.gateway_id = %s and a.epoch = %s",
                key,
            ):
                found.put(alias, series_id, SeriesCode(decimals, reference), series_hash(device, point))
                self.series_infos[series_id] = SeriesInfo(device, point, unit, decimals, kind)
        return found

    def declare(self, conn: Connection[Any], gateway: Gateway, epoch: int, declarations: Sequence[Declaration]) -> None:
        """Enter new series; those of another gateway's device stay out, as ``foreign``.

        Raises ContractError if an alias would change its meaning."""
        table = self.aliases(conn, gateway.gateway_id, epoch)
        for d in declarations:
            known = table.codes.get(d.alias)
            if known is not None:
                info = self.series_infos[table.series_of(d.alias)]
                if known != d.code or (info.device, info.point) != (d.device, d.point):
                    raise ContractError(f"alias {d.alias} was {info.device}/{info.point}", reason="declaration")
                continue
            if not self.device(conn, gateway, d.device, d.device_type):
                if d.device not in self._waiting:  # one that waits stays undeclared, and is declared again
                    table.foreign.add(d.alias)
                continue
            row = conn.execute(
                "insert into series (device_id, point, unit, decimals) values (%s, %s, %s, %s)"
                " on conflict (device_id, point) do update set unit = excluded.unit, decimals = excluded.decimals"
                " returning series_id",
                (d.device, d.point, d.unit, d.decimals),
            ).fetchone()
            assert row is not None  # noqa: S101 - "returning" always gives the row
            conn.execute(
                "insert into series_alias values (%s, %s, %s, %s, %s, %s)",
                (gateway.gateway_id, epoch, d.alias, row[0], d.reference, d.decimals),
            )
            table.put(d.alias, row[0], d.code, series_hash(d.device, d.point))
            self.series_infos[row[0]] = SeriesInfo(d.device, d.point, d.unit, d.decimals, d.device_type)

    def device(self, conn: Connection[Any], gateway: Gateway, device_id: str, device_type: str = "") -> bool:
        """Enter a device on first sight. False if it belongs to another gateway; then nothing is changed.

        Raises ContractError for a name that cannot be one."""
        if self._devices.get(device_id) == gateway.gateway_id and not device_type:
            return True
        if not device_id or len(device_id) > 128:
            raise ContractError(f"an impossible device name {device_id[:40]!r}", reason="declaration")
        if device_id not in self._devices:
            if not admission.may_enter(conn, gateway.gateway_id, device_id, device_type):
                self._waiting.add(device_id)
                return False
            self._waiting.discard(device_id)
        lon, lat = gateway.location or (None, None)
        cell = h3.latlng_to_cell(lat, lon, 9) if lon is not None and lat is not None else None
        row = conn.execute(
            "insert into device (device_id, gateway_id, device_type, lon, lat, h3_9) values (%s, %s, %s, %s, %s, %s)"
            " on conflict (device_id) do update set device_type ="
            " coalesce(nullif(excluded.device_type, ''), device.device_type)"
            " where device.gateway_id = excluded.gateway_id returning gateway_id",
            (device_id, gateway.gateway_id, device_type, lon, lat, cell),
        ).fetchone()
        if row is None:
            return False
        self.grown = self.grown or device_id not in self._devices
        self._devices[device_id] = gateway.gateway_id
        return True

    def foreign(self, conn: Connection[Any], gateway: Gateway, device_ids: set[str]) -> set[str]:
        """Those of the names that are devices of another gateway."""
        unsure = [name for name in device_ids if self._devices.get(name) != gateway.gateway_id]
        if not unsure:
            return set()
        rows = conn.execute(
            "select device_id from device where device_id = any(%s) and gateway_id <> %s", (unsure, gateway.gateway_id)
        )
        return {row[0] for row in rows}
