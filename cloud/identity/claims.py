"""Claims: an operator says "this gateway may come", and gets the one-time code for its label."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from cloud.audit.log import Entry, record
from cloud.identity.codes import Code, new_code
from cloud.identity.names import check_name
from cloud.registry.enrol import enrol_gateway
from protocols.core.errors import ConfigError
from protocols.uplink.topics import SHARDS


@dataclass(frozen=True, slots=True)
class Wanted:
    """``shard`` None: the one with the fewest gateways. ``admission``: whether its devices wait for a person.
    ``place``: district and department of a new gateway; one that is there must have just these. None: as it is."""

    gateway_id: str
    shard: int | None = None
    zh: str = ""
    en: str = ""
    lon: float | None = None
    lat: float | None = None
    admission: str = "auto"
    place: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Made:
    gateway_id: str
    shard: int
    code: Code
    expires_at: dt.datetime


def make(
    conn: Connection[Any],
    wanted: Wanted,
    who: str,
    now: dt.datetime,
    days: float,
    draw: Callable[[], Code] = new_code,
) -> Made:
    """Enter the gateway and make its code; earlier codes of it that nobody used are void. Raises ConfigError."""
    check_name(wanted.gateway_id)
    if wanted.shard is not None and not 0 <= wanted.shard < SHARDS:
        raise ConfigError(f"shard {wanted.shard}: 0 to {SHARDS - 1}")
    with conn.transaction():
        shard = _shard(conn, wanted)
        new = _is_new(conn, wanted)
        enrol_gateway(conn, wanted.gateway_id, shard, zh=wanted.zh, en=wanted.en, lon=wanted.lon, lat=wanted.lat)
        if new and wanted.place is not None:
            conn.execute(
                "update gateway set district = %s, department = %s where gateway_id = %s",
                (*wanted.place, wanted.gateway_id),
            )
        conn.execute("update gateway set admission = %s where gateway_id = %s", (wanted.admission, wanted.gateway_id))
        conn.execute(
            "update gateway_claim set voided_at = %s where gateway_id = %s and used_at is null and voided_at is null",
            (now, wanted.gateway_id),
        )
        expires_at = now + dt.timedelta(days=days)
        code = _enter(conn, (wanted.gateway_id, shard, who, now, expires_at), draw)
        detail = {"shard": shard, "expires_at": expires_at.isoformat(), "selector": code.selector}
        if new and wanted.place is not None:
            detail |= {"district": wanted.place[0], "department": wanted.place[1]}
        record(conn, Entry(who, "gateway.claim", f"gateway/{wanted.gateway_id}", detail))
    return Made(wanted.gateway_id, shard, code, expires_at)


def _enter(conn: Connection[Any], claim: tuple[Any, ...], draw: Callable[[], Code]) -> Code:
    """A selector is short enough to be read out: among ten thousand codes two are alike now and then. Draw again."""
    while True:
        code = draw()
        entered = conn.execute(
            "insert into gateway_claim (selector, secret_hash, gateway_id, shard, made_by, made_at, expires_at)"
            " values (%s, %s, %s, %s, %s, %s, %s) on conflict (selector) do nothing",
            (code.selector, code.hash, *claim),
        )
        if entered.rowcount:
            return code


def _is_new(conn: Connection[Any], wanted: Wanted) -> bool:
    """Raises ConfigError if the gateway lies elsewhere: whoever asked was allowed to for that place alone, and somebody
    else may have entered or moved the gateway since."""
    row = conn.execute(
        "select district, department from gateway where gateway_id = %s for update", (wanted.gateway_id,)
    ).fetchone()
    if row is not None and wanted.place is not None and tuple(row) != wanted.place:
        raise ConfigError(f"gateway {wanted.gateway_id} belongs to another district or department; move it first")
    return row is None


def _shard(conn: Connection[Any], wanted: Wanted) -> int:
    """Where the gateway lives, or shall live; two claims at a time must not both see the same emptiest shard."""
    conn.execute("select pg_advisory_xact_lock(hashtext('citybrain shard choice'))")
    row = conn.execute("select shard from gateway where gateway_id = %s", (wanted.gateway_id,)).fetchone()
    if row is not None:
        if wanted.shard not in (None, row[0]):
            raise ConfigError(f"gateway {wanted.gateway_id} lives in shard {row[0]} and stays there")
        return int(row[0])
    if wanted.shard is not None:
        return wanted.shard
    row = conn.execute(
        "select s from generate_series(0, %s) s left join gateway g on g.shard = s group by s"
        " order by count(g.gateway_id), s limit 1",
        (SHARDS - 1,),
    ).fetchone()
    if row is None:
        raise ConfigError("no shard")
    return int(row[0])
