"""The figures of the header strip, in a handful of queries.

``lost`` is counted, not assumed: within a lane sequence numbers have no gaps, and ingest counts each batch it has
dealt with (committed, or set aside as a dead letter). A cursor that stands higher than that count has lost the rest;
one that stands lower than what gateways were told has lost it with a restore (cloud/ledger/forgotten.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.rows import TupleRow

from cloud.query import fleet
from cloud.query.cases import DONE
from cloud.query.pool import Connection
from cloud.query.rows import Summary
from cloud.query.sight import EVERYTHING, Sight
from protocols.core.errors import StoreError


async def summary(conn: Connection, now: datetime, *, sight: Sight = EVERYTHING) -> Summary:
    """Of what may be seen; the figures of an operator with one district are those of his district."""
    params = {"now": now, "done": list(DONE)} | sight.params
    alarms = await (
        await conn.execute(
            (
                "select level, count(*), count(*) filter (where state = 'raised') "  # noqa: S608 - from constants
                f"from alarm where state <> 'cleared' and {sight.where('alarm', 'alarm')} group by level"
            ).encode(),
            params,
        )
    ).fetchall()
    cases = await _row(
        conn,
        "select count(*), count(*) filter (where close_due < %(now)s and state not in ('suspended', 'mediated') "  # noqa: S608
        "or accepted_at is null and accept_due < %(now)s) from case_file where not state = any(%(done)s) "
        f"and {sight.where('case', 'case_file')}",
        params,
    )
    gateways = await _row(
        conn,
        f"select count(*), count(*) filter (where online) from gateway g where {sight.where('gateway', 'g')}",  # noqa: S608
        params,
    )
    letters = await _row(
        conn,
        f"select count(*) from dead_letter x where {sight.where('dead_letter', 'x')}",  # noqa: S608
        params,
    )
    lanes = await fleet.lanes(conn, sight=sight)
    return Summary(
        open_by_level={str(r[0]): int(r[1]) for r in alarms},
        waiting_by_level={str(r[0]): int(r[2]) for r in alarms},
        devices_by_state=await fleet.device_states(conn, now, sight=sight),
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


async def _row(conn: Connection, query: str, params: dict[str, Any]) -> TupleRow:
    row = await (await conn.execute(query.encode(), params)).fetchone()
    if row is None:
        raise StoreError("database: an aggregate gave no row")
    return row
