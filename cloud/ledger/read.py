"""The ledger out of its tables: a page of gateways, or one with its lanes and ranges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from psycopg.rows import class_row

from cloud.ledger import verdict
from cloud.ledger.model import Dropped, Gap, GapSum, GatewayLedger, LaneBooks, LedgerDetail, Restore, Unplaced
from cloud.query.cursor import Page, cut, decode
from cloud.query.pool import Connection
from cloud.query.sight import EVERYTHING, Sight

MOST_GAPS = 1000
DAYS = 7  # what became known longer ago does not count against a gateway any more
T = TypeVar("T")

_LANES = """
    select k.gateway_id, k.epoch, k.lane,
           k.epoch = coalesce(g.epoch, (select o.epoch from outbox_epoch o where o.gateway_id = k.gateway_id
                                         order by o.heard_at desc limit 1), k.epoch) as current,
           coalesce(c.seq, 0) as seq, coalesce(c.batches, 0) as batches, coalesce(c.readings, 0) as readings,
           coalesce(c.events, 0) as events, coalesce(c.thinned, 0) as thinned, coalesce(c.repeats, 0) as repeats,
           coalesce(c.unproven, 0) as unproven, a.seq as said_seq, a.acked as said_acked, a.readings as said_readings,
           a.events as said_events, a.thinned as said_thinned, a.oldest_at,
           coalesce(a.waiting_bytes, 0) as waiting_bytes,
           o.accounted_at as said_at, o.account_heard_at as heard_at, coalesce(a.content, '') as content,
           coalesce(a.checked_seq, 0) as checked_seq, a.checked_at, coalesce(n.reason, '') as left_because,
           n.heard_at as left_at, coalesce(f.acked, 0) as forgotten_seq, f.heard_at as forgotten_at, f.restore_id,
           r.taken_at as restore_taken_at
      from (select gateway_id, epoch, lane from lane_cursor where gateway_id = any(%(ids)s)
            union select gateway_id, epoch, lane from lane_account where gateway_id = any(%(ids)s)
            union select gateway_id, epoch, lane from lane_forgotten where gateway_id = any(%(ids)s)) k
      join gateway g on g.gateway_id = k.gateway_id
      left join lane_cursor c on (c.gateway_id, c.epoch, c.lane) = (k.gateway_id, k.epoch, k.lane)
      left join lane_account a on (a.gateway_id, a.epoch, a.lane) = (k.gateway_id, k.epoch, k.lane)
      left join lane_forgotten f on (f.gateway_id, f.epoch, f.lane) = (k.gateway_id, k.epoch, k.lane)
      left join restore_point r on r.restore_id = f.restore_id
      left join outbox_epoch o on (o.gateway_id, o.epoch) = (k.gateway_id, k.epoch)
      left join lateral (select reason, heard_at from outbox_epoch n where n.gateway_id = k.gateway_id
                           and n.previous_epoch = k.epoch order by heard_at desc limit 1) n on true
     order by k.gateway_id, current desc, o.heard_at desc nulls last,
              array_position(array['event', 'data', 'backfill', 'evidence'], k.lane)
"""


async def gateways(
    conn: Connection,
    now: datetime,
    *,
    gateway_id: str = "",
    sight: Sight = EVERYTHING,
    days: int = DAYS,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[GatewayLedger]:
    """In order of id. ``days`` 0: everything ever counts."""
    key = decode(cursor, (str,))
    query = (
        "select gateway_id, name_zh, name_en, online, (select max(account_heard_at) from outbox_epoch o"  # noqa: S608
        f" where o.gateway_id = g.gateway_id) from gateway g where {sight.where('gateway', 'g')} "
        "and (%(id)s = '' or gateway_id = %(id)s) and (%(after)s::text is null or gateway_id > %(after)s)"
        " order by gateway_id limit %(limit)s"
    )
    params = {"id": gateway_id, "after": key[0] if key else None, "limit": limit + 1} | sight.params
    rows = await (await conn.execute(query.encode(), params)).fetchall()
    found = await _ledgers(conn, rows, now, days)
    return cut(found, limit, [[row[0]] for row in rows])


async def detail(
    conn: Connection, gateway_id: str, now: datetime, *, sight: Sight = EVERYTHING, days: int = DAYS
) -> LedgerDetail | None:
    """None: not there, or not to be seen."""
    page = await gateways(conn, now, gateway_id=gateway_id, sight=sight, days=days, limit=1)
    if not page.items:
        return None
    count = await (
        await conn.execute("select count(*) from ledger_gap where gateway_id = %s", (gateway_id,))
    ).fetchone()
    gaps = await _rows(
        conn,
        Gap,
        "select x.epoch, x.lane, x.kind, x.reason, s.device_id as device, s.point, x.first_seq, x.last_seq,"
        " x.row_count, x.readings, x.first_at, x.last_at, x.told_at from ledger_gap x"
        " left join series s on s.series_id = x.series_id where x.gateway_id = any(%(ids)s)"
        " order by x.told_at desc, x.gap_id desc limit %(most)s",
        [gateway_id],
    )
    own = await lanes(conn, [gateway_id])
    restores = await _restores(conn, own)
    return LedgerDetail(
        page.items[0],
        own,
        _lost(own, restores) + gaps,
        max(0, (count[0] if count else 0) - len(gaps)),
        await _rows(
            conn,
            Dropped,
            "select epoch, reason, readings, events, changed_at from dropped_account where gateway_id = any(%(ids)s)"
            " order by changed_at desc limit %(most)s",
            [gateway_id],
        ),
        restores,
    )


async def _restores(conn: Connection, own: Sequence[LaneBooks]) -> list[Restore]:
    """Those that have cost this gateway rows."""
    rows: dict[int, int] = defaultdict(int)
    for lane in own:
        if lane.forgotten and lane.restore_id is not None:
            rows[lane.restore_id] += lane.forgotten
    found = await (
        await conn.execute(
            "select restore_id, taken_at, restored_at, greatest(0, extract(epoch from restored_at - taken_at))::bigint,"
            " source from restore_point where restore_id = any(%s) order by restored_at desc",
            (list(rows),),
        )
    ).fetchall()
    return [
        Restore(number, taken_at, restored_at, gap_s, source, rows[number])
        for number, taken_at, restored_at, gap_s, source in found
    ]


def _lost(own: Sequence[LaneBooks], restores: Sequence[Restore]) -> list[Gap]:
    """Rows that went with a database, as ranges beside the others; their times lie between backup and restore."""
    by_id = {one.restore_id: one for one in restores}
    out: list[Gap] = []
    for lane in own:
        if not lane.forgotten or lane.forgotten_at is None:
            continue
        known = by_id.get(lane.restore_id) if lane.restore_id is not None else None
        out.append(
            Gap(
                lane.epoch, lane.lane, "lost", verdict.forgotten_reason(lane), None, None, lane.seq + 1,
                lane.forgotten_seq, lane.forgotten, 0, known.taken_at if known else None,
                known.restored_at if known else None, lane.forgotten_at, lane.restore_id, known.source if known else "",
            )
        )  # fmt: skip
    return out


async def lanes(conn: Connection, ids: Sequence[str]) -> list[LaneBooks]:
    """Both books of all lanes and epochs of these gateways, the current epoch first."""
    return await _rows(conn, LaneBooks, _LANES, ids)


async def _rows(conn: Connection, kind: type[T], query: str, ids: Sequence[str]) -> list[T]:
    async with conn.cursor(row_factory=class_row(kind)) as cur:
        return await (await cur.execute(query.encode(), {"ids": list(ids), "most": MOST_GAPS})).fetchall()


async def _ledgers(conn: Connection, rows: Sequence[tuple[Any, ...]], now: datetime, days: int) -> list[GatewayLedger]:
    ids = [row[0] for row in rows]
    since = now - timedelta(days=days) if days else None
    by_lane: dict[str, list[LaneBooks]] = defaultdict(list)
    for lane in await lanes(conn, ids):
        by_lane[lane.gateway_id].append(lane)
    gaps: dict[str, list[GapSum]] = defaultdict(list)
    for gateway, *rest in await (
        await conn.execute(
            "select gateway_id, kind, reason, sum(row_count)::bigint, sum(readings)::bigint, min(first_at),"
            " max(last_at), max(told_at) from ledger_gap where gateway_id = any(%s) and series_id = 0"
            " and (%s::timestamptz is null or told_at >= %s) group by 1, 2, 3",
            (ids, since, since),
        )
    ).fetchall():
        gaps[gateway].append(GapSum(*rest))
    dropped: dict[str, list[Dropped]] = defaultdict(list)
    for gateway, *rest in await (
        await conn.execute(
            "select gateway_id, epoch, reason, readings, events, changed_at from dropped_account"
            " where gateway_id = any(%s)",
            (ids,),
        )
    ).fetchall():
        dropped[gateway].append(Dropped(*rest))
    unplaced: dict[str, list[Unplaced]] = defaultdict(list)
    for gateway, *rest in await (
        await conn.execute(
            "select gateway_id, reason, letters, last_at from dead_letter_tally where gateway_id = any(%s)"
            " and reason in ('not_protobuf', 'no_sequence', 'too_big', 'account')",
            (ids,),
        )
    ).fetchall():
        unplaced[gateway].append(Unplaced(*rest))
    return [_ledger(row, by_lane[row[0]], gaps[row[0]], dropped[row[0]], unplaced[row[0]], now, since) for row in rows]


def _ledger(
    row: tuple[Any, ...],
    own: Sequence[LaneBooks],
    gaps: Sequence[GapSum],
    dropped: Sequence[Dropped],
    unplaced: Sequence[Unplaced],
    now: datetime,
    since: datetime | None,
) -> GatewayLedger:
    gateway_id, name_zh, name_en, online, heard_at = row
    found = verdict.findings(own, gaps, dropped, unplaced, online=online, heard_at=heard_at, now=now, since=since)
    current = [lane for lane in own if lane.current]
    return GatewayLedger(
        gateway_id=gateway_id,
        name_zh=name_zh,
        name_en=name_en,
        online=online,
        state=verdict.state_of(found),
        findings=found,
        produced=sum(lane.produced for lane in current),
        committed=sum(lane.seq for lane in current),
        waiting=sum(lane.waiting for lane in own),
        readings=sum(lane.readings for lane in own),
        thinned=sum(lane.thinned for lane in own),
        lost=sum(lane.lost + lane.holes for lane in own),
        repeats=sum(lane.repeats for lane in own),
        proved_at=min(
            (lane.checked_at for lane in current if lane.content == "equal" and lane.checked_at is not None),
            default=None,
        ),
        heard_at=heard_at,
    )
