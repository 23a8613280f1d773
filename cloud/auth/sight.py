"""From what an operator holds to what he may see, and from a thing to the place it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cloud.auth import policy
from cloud.auth.operator import Operator
from cloud.auth.rules import Scope
from cloud.query.pool import Connection
from cloud.query.sight import Sight

#: What a route may name; the second word is how its number or id is read.
Thing = Literal["gateway", "device", "series", "alarm", "case", "evidence", "command"]

#: Departments, district and helping departments of one thing, by its id as text.
_QUERY: Mapping[Thing, str] = {
    "gateway": "select array[department], district, '{}'::text[] from gateway where gateway_id = %(id)s",
    "device": "select departments_of(device_id, gateway_id), district_of(device_id, gateway_id), '{}'::text[] "
    "from device where device_id = %(id)s",
    "series": "select departments_of(d.device_id, d.gateway_id), district_of(d.device_id, d.gateway_id), '{}'::text[] "
    "from series s join device d using (device_id) where s.series_id = %(number)s::bigint",
    "alarm": "select departments_of_alarm(alarm_id, device_id, gateway_id), district_of(device_id, gateway_id), "
    "'{}'::text[] from alarm where alarm_id = %(id)s",
    "case": "select array[department], district_of(device_id, null), support from case_file "
    "where case_id = %(number)s::bigint",
    # Of the camera that took it, and of every alarm that names it.
    "evidence": "select departments_of(e.device_id, null), district_of(e.device_id, null), '{}'::text[] "
    "from evidence e where e.sha256 = %(id)s union all select departments_of_alarm(a.alarm_id, a.device_id, "
    "a.gateway_id), district_of(a.device_id, a.gateway_id), '{}'::text[] from alarm a "
    "where a.evidence @> jsonb_build_array(jsonb_build_object('sha256', %(id)s::text)) "
    "and exists (select 1 from evidence e where e.sha256 = %(id)s)",
    "command": "select departments_of(device_id, gateway_id), district_of(device_id, gateway_id), '{}'::text[] "
    "from command where command_id = %(id)s",
}
_BIGINT = 1 << 63


def of(operator: Operator, action: policy.Action = "view") -> Sight:
    """The places where he may; with it lists are filtered. Nothing at all if he may nowhere."""
    if operator.only is not None and action not in operator.only:
        return Sight(frozenset())
    return Sight(
        frozenset(
            (grant.department, grant.district) for grant in operator.grants if operator.rules.somewhere(grant, action)
        )
    )


async def place(conn: Connection, thing: Thing, id_: str) -> Scope | None:
    """Where a thing belongs; None if there is no such thing."""
    found = await places(conn, thing, id_)
    return found[0] if found else None


async def places(conn: Connection, thing: Thing, id_: str) -> list[Scope]:
    """All places a thing belongs to; evidence has more than one, and is for whoever may in any of them."""
    number = int(id_) if id_.isascii() and id_.isdecimal() and len(id_) < 20 and int(id_) < _BIGINT else None
    if "\x00" in id_ or (thing in ("case", "series") and number is None):
        return []
    rows = await (await conn.execute(_QUERY[thing].encode(), {"id": id_, "number": number})).fetchall()
    return [Scope(frozenset(r[0]) - {""}, r[1], frozenset(r[2]) - {""}) for r in rows]
