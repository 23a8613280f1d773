"""Which disks are full, or nearly: the database's, by its open alarm, and those of gateways, by what they last said.

Only what was said lately counts: a gateway that went silent months ago with a full disk is no news about disks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cloud.query.pool import Connection
from cloud.query.sight import EVERYTHING, Sight

#: Below the first a gateway's own check-up calls it nearly full, below the second low.
FULL_MB, LOW_MB = 100, 500
#: Well above the pace of heartbeats on a metered link.
_LATELY_S = 1800
_NAMED = 20

State = Literal["ok", "low", "full"]


@dataclass(frozen=True, slots=True)
class Tight:
    gateway_id: str
    name_zh: str
    name_en: str
    free_mb: float


@dataclass(frozen=True, slots=True)
class Disks:
    """``gateways``: those with least room first, 20 at most; ``count``: of all."""

    core: State = "ok"
    alarm_id: str = ""
    count: int = 0
    gateways: tuple[Tight, ...] = ()

    @property
    def fine(self) -> bool:
        return self.core == "ok" and not self.count


async def core(conn: Connection) -> tuple[State, str]:
    """The database's disk, and the alarm that says so."""
    row = await (
        await conn.execute(
            "select type, alarm_id from alarm where scenario = 'platform/store' and state <> 'cleared' limit 1"
        )
    ).fetchone()
    if row is None:
        return "ok", ""
    said = str(row[0]).rpartition(".")[2]
    return next((state for state in get_args(State) if state == said), "full"), str(row[1])


async def tight(conn: Connection, *, sight: Sight = EVERYTHING) -> Disks:
    """The gateways are those that may be seen; the database's disk is everybody's concern."""
    state, alarm_id = await core(conn)
    # What is no number fits no comparison; and only of the few that fit is the figure taken out.
    rows = await (
        await conn.execute(
            f"""
            select g.gateway_id, g.name_zh, g.name_en, (g.health ->> 'disk_free_mb')::float8 as free_mb,
                   count(*) over ()
              from gateway g
             where g.online and g.health_at > now() - make_interval(secs => %(lately)s)
               and g.health @? 'strict $.disk_free_mb ? (@ < {LOW_MB})' and {sight.where("gateway", "g")}
             order by free_mb, gateway_id limit %(named)s
            """.encode(),  # noqa: S608 - the conditions are our own text
            {"lately": _LATELY_S, "named": _NAMED, **sight.params},
        )
    ).fetchall()
    found = tuple(Tight(str(r[0]), str(r[1]), str(r[2]), float(r[3])) for r in rows)
    return Disks(state, alarm_id, int(rows[0][4]) if rows else 0, found)
