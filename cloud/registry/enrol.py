"""Enter gateways and devices by hand or by script; both may be repeated without harm."""

from __future__ import annotations

from typing import Any

import h3
from psycopg import Connection

from cloud.identity.names import allowed_name
from protocols.core.errors import ConfigError
from protocols.uplink.topics import SHARDS


def enrol_gateway(
    conn: Connection[Any], gateway_id: str, shard: int, *, zh: str, en: str, lon: float | None, lat: float | None
) -> None:
    """A gateway's shard is fixed for ever: another one is refused. Raises ConfigError."""
    if not allowed_name(gateway_id) or not 0 <= shard < SHARDS:
        raise ConfigError(
            f"gateway {gateway_id!r}, shard {shard}: lower-case letters, digits, hyphens; 0 to {SHARDS - 1}"
        )
    row = conn.execute(
        "insert into gateway (gateway_id, shard, name_zh, name_en, lon, lat) values (%s, %s, %s, %s, %s, %s)"
        " on conflict (gateway_id) do update set name_zh = excluded.name_zh, name_en = excluded.name_en,"
        " lon = excluded.lon, lat = excluded.lat returning shard",
        (gateway_id, shard, zh, en, lon, lat),
    ).fetchone()
    if row is None or row[0] != shard:
        raise ConfigError(f"gateway {gateway_id} lives in shard {row[0] if row else '?'} and stays there")


def enrol_device(
    conn: Connection[Any], device_id: str, gateway_id: str, *, zh: str, en: str, lon: float | None, lat: float | None
) -> None:
    """Name and place of a device; what it measures comes from its gateway. Raises ConfigError if another has it."""
    cell = h3.latlng_to_cell(lat, lon, 9) if lon is not None and lat is not None else None
    row = conn.execute(
        "insert into device (device_id, gateway_id, name_zh, name_en, lon, lat, h3_9)"
        " values (%s, %s, %s, %s, %s, %s, %s)"
        " on conflict (device_id) do update set name_zh = excluded.name_zh, name_en = excluded.name_en,"
        " lon = excluded.lon, lat = excluded.lat, h3_9 = excluded.h3_9 returning gateway_id",
        (device_id, gateway_id, zh, en, lon, lat, cell),
    ).fetchone()
    if row is None or row[0] != gateway_id:
        raise ConfigError(f"device {device_id} belongs to gateway {row[0] if row else '?'}")
