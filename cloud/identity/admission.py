"""Devices nobody has entered: whether they come in by themselves or wait for a person, and the list of those that wait.

```
 gateway ── series of an unknown device ──▶ admission 'auto'   ─▶ entered
         └─ event device.unlisted ────────▶ admission 'accept' ─▶ device_pending ─▶ accepted | rejected
```
A waiting device's readings are set aside as ``foreign_device`` rows of the dead-letter table, so that nothing is lost
silently; from its acceptance on it is stored.
"""

from __future__ import annotations

from typing import Any, Literal

from psycopg import Connection

from cloud.audit.log import Entry, record
from cloud.notify import notify
from protocols.core.errors import ConfigError
from protocols.core.model import Event

Decision = Literal["accepted", "rejected"]
Mode = Literal["auto", "accept"]
UNLISTED = "device.unlisted"
_MOST_PENDING = 1000  # a gateway: a stranger that dials in under ever new names fills no table


def wait_for(
    conn: Connection[Any], gateway_id: str, device_id: str, *, device_type: str = "", source: str, detail: str = ""
) -> None:
    """Put a device on the list, or count that it showed itself again."""
    conn.execute(
        "insert into device_pending as p (gateway_id, device_id, device_type, source, detail)"
        " select %(gateway)s, %(device)s, %(type)s, %(source)s, %(detail)s"
        " where exists (select from device_pending where gateway_id = %(gateway)s and device_id = %(device)s)"
        " or (select count(*) from device_pending where gateway_id = %(gateway)s) < %(most)s"
        " on conflict (gateway_id, device_id) do update set last_at = now(), times = p.times + 1,"
        " device_type = coalesce(nullif(excluded.device_type, ''), p.device_type),"
        " detail = coalesce(nullif(excluded.detail, ''), p.detail)",
        {
            "gateway": gateway_id, "device": device_id[:128], "type": device_type[:128], "source": source,
            "detail": detail[:300], "most": _MOST_PENDING,
        },
    )  # fmt: skip


def may_enter(conn: Connection[Any], gateway_id: str, device_id: str, device_type: str) -> bool:
    """Whether a device that is in no table may be entered now; else it has been put on the list."""
    row = conn.execute(
        "select g.admission, p.state, exists (select from device d where d.device_id = %(device)s) from gateway g"
        " left join device_pending p on p.gateway_id = g.gateway_id and p.device_id = %(device)s"
        " where g.gateway_id = %(gateway)s",
        {"gateway": gateway_id, "device": device_id},
    ).fetchone()
    if row is None or row[0] == "auto" or row[1] == "accepted" or row[2]:
        return True
    wait_for(conn, gateway_id, device_id, device_type=device_type, source="series")
    return False


def heard(conn: Connection[Any], gateway_id: str, event: Event) -> None:
    """An event ``device.unlisted``: its code is the station's name as its protocol says it."""
    station = str(event.values.get("code", ""))[:100].replace("\x00", "")
    if event.type == UNLISTED and station:
        wait_for(conn, gateway_id, station, source="unlisted", detail=str(event.values.get("detail", "")))


def decide(conn: Connection[Any], gateway_id: str, device_id: str, decision: Decision, who: str) -> bool:
    """False if there is no such entry. An accepted device is in the registry at once. Raises ConfigError when another
    gateway has a device of that name."""
    with conn.transaction():
        row = conn.execute(
            "update device_pending set state = %s, decided_by = %s, decided_at = now()"
            " where gateway_id = %s and device_id = %s returning device_type, source",
            (decision, who, gateway_id, device_id),
        ).fetchone()
        if row is None:
            return False
        if decision == "accepted":
            owner = conn.execute(
                "insert into device (device_id, gateway_id, device_type, lon, lat)"
                " select %s, gateway_id, %s, lon, lat from gateway where gateway_id = %s"
                " on conflict (device_id) do update set device_id = excluded.device_id returning gateway_id",
                (device_id, row[0], gateway_id),
            ).fetchone()
            if owner is None or owner[0] != gateway_id:
                raise ConfigError(f"device {device_id} belongs to gateway {owner[0] if owner else '?'}")
            notify(conn, "device", device_id)
        record(conn, Entry(who, f"device.{decision}", f"device/{device_id}", {"gateway": gateway_id, "seen": row[1]}))
    return True


def set_mode(conn: Connection[Any], gateway_id: str, mode: Mode, who: str) -> bool:
    """Whether new devices of a gateway wait. False if there is no such gateway."""
    with conn.transaction():
        if not conn.execute("update gateway set admission = %s where gateway_id = %s", (mode, gateway_id)).rowcount:
            return False
        record(conn, Entry(who, "gateway.admission", f"gateway/{gateway_id}", {"admission": mode}))
    return True
