"""The figures of the header strip, in a handful of queries.

``lost`` is counted, not assumed: within a lane sequence numbers have no gaps, and ingest counts each batch it has
dealt with (committed, or set aside as a dead letter). A cursor that stands higher than that count has lost the rest.
"""

from __future__ import annotations

from datetime import datetime

from cloud.query import fleet
from cloud.query.cases import DONE
from cloud.query.pool import Connection, one
from cloud.query.rows import Summary


async def summary(conn: Connection, now: datetime) -> Summary:
    alarms = await (
        await conn.execute(
            "select level, count(*), count(*) filter (where state = 'raised') "
            "from alarm where state <> 'cleared' group by level"
        )
    ).fetchall()
    cases = await one(
        conn,
        "select count(*), count(*) filter (where close_due < %(now)s and state not in ('suspended', 'mediated') "
        "or accepted_at is null and accept_due < %(now)s) from case_file where not state = any(%(done)s)",
        {"now": now, "done": list(DONE)},
    )
    gateways = await one(conn, "select count(*), count(*) filter (where online) from gateway")
    letters = await one(conn, "select count(*) from dead_letter")
    lanes = await fleet.lanes(conn)
    return Summary(
        open_by_level={str(r[0]): int(r[1]) for r in alarms},
        waiting_by_level={str(r[0]): int(r[2]) for r in alarms},
        devices_by_state=await fleet.device_states(conn, now),
        gateways=int(gateways[0]),
        gateways_online=int(gateways[1]),
        open_cases=int(cases[0]),
        overdue_cases=int(cases[1]),
        readings=sum(lane.readings for lane in lanes),
        events=sum(lane.events for lane in lanes),
        thinned=sum(lane.thinned for lane in lanes),
        repeats=sum(lane.repeats for lane in lanes),
        dead_letters=int(letters[0]),
        lost=sum(lane.lost for lane in lanes),
        committed_at=max((lane.updated_at for lane in lanes), default=None),
    )
