"""One gateway's books laid side by side.

```
 produced   the outbox file, else the gateway's last account
    = committed + thinned            lane by lane, at the row both have reached: number and digest
 committed  the cursors, moved in the transactions of the rows
    = rows                           recounted: number and digest, once each, in order
```
A difference is either explained (thinned, set aside, dropped, an outbox that was lost) or it is *missing*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from citybrain_cli.proof.books import Book, OutboxBook, read_outbox
from citybrain_cli.proof.rows import Recount, recount
from cloud.ingest.group import LaneTotals
from cloud.ledger import read
from cloud.ledger.accounts import LaneBook, compare
from cloud.ledger.model import Finding, Gap, LaneBooks, Restore
from cloud.ledger.verdict import forgotten_words, reason_words
from protocols.uplink.digest import add

_64 = (1 << 64) - 1
#: (epoch, lane)
Cursors = dict[tuple[int, str], LaneTotals]


@dataclass(slots=True)
class LaneProof:
    """``rows`` are rows of the outbox; ``source``: outbox | account | core (the gateway has never said anything)."""

    epoch: int
    lane: str
    source: str
    produced_rows: int
    committed_rows: int
    waiting_rows: int
    lost_rows: int
    produced: int | None  # readings; None: not known
    committed: int
    thinned: int
    events: int
    repeats_recognised: int
    content: str  # equal | differs | not_comparable | not_at_rest | not_compared
    ranges: list[str] = field(default_factory=list)
    untold_rows: int = 0  # of the lost ones: acknowledged, by the outbox file, and the core has not heard of it yet


@dataclass(slots=True)
class GatewayProof:
    gateway: str
    lanes: list[LaneProof]
    produced: int  # readings, of all lanes and epochs that the gateway's book still knows
    committed: int  # readings in the books of the core
    rows: int | None  # counted in the table; None: not counted
    thinned: int
    waiting_rows: int
    lost: int  # readings or rows that are not there and nobody knows why, or whose outbox is gone
    unexplained: int
    duplicated: int
    reordered: int | None
    late: int | None
    content_equal: bool | None
    notes: list[str]
    problems: list[str]
    restores: list[Restore] = field(default_factory=list)  # those that have cost this gateway rows

    @property
    def sound(self) -> bool:
        return not self.problems


def gateways_of(conn: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in conn.execute("select gateway_id from gateway order by gateway_id")]


def ledger_of(dsn: str, gateway: str) -> tuple[list[LaneBooks], list[Gap], list[Finding], list[Restore]]:
    """Both books as the core has them, its ranges, what it says of them, and the restores that have cost rows."""

    async def ask() -> tuple[list[LaneBooks], list[Gap], list[Finding], list[Restore]]:
        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        async with conn:
            found = await read.detail(conn, gateway, datetime.now(UTC), days=0)
        return (found.lanes, found.gaps, found.gateway.findings, found.restores) if found else ([], [], [], [])

    return asyncio.run(ask())


def prove(
    conn: psycopg.Connection[Any], dsn: str, gateway: str, outbox: Path | None, *, count_rows: bool = True
) -> GatewayProof:
    """``outbox``: the gateway's file, where it can be read from here."""
    book = read_outbox(outbox) if outbox is not None else None
    lanes, gaps, findings, restores = ledger_of(dsn, gateway)
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")  # one moment, while gateways go on
        cursors = _cursors(conn, gateway)
        found = recount(conn, gateway) if count_rows else None
    proofs = [_lane(lane, book, cursors, gaps) for lane in lanes]
    proofs += [_untold(book, name, own) for name, own in _only_in_outbox(book, lanes)]
    proof = _gateway(gateway, proofs, book, found, findings, cursors)
    proof.restores = restores
    proof.notes += [_restore(one) for one in restores]
    return proof


def _restore(one: Restore) -> str:
    minutes = -(-one.gap_s // 60)
    return (
        f"core restored at {one.restored_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC from {one.source}, {minutes} min"
        f" after it was made: {one.lost_rows} rows of this gateway lost"
    )


def _cursors(conn: psycopg.Connection[Any], gateway: str) -> Cursors:
    return {
        (epoch, lane): LaneTotals(seq, readings, events, total & _64, thinned, thinned_total & _64, unproven)
        for epoch, lane, seq, readings, events, total, thinned, thinned_total, unproven in conn.execute(
            "select epoch, lane, seq, readings, events, digest, thinned, thinned_digest, unproven from lane_cursor"
            " where gateway_id = %s",
            (gateway,),
        )
    }


def _only_in_outbox(book: OutboxBook | None, lanes: Sequence[LaneBooks]) -> list[tuple[str, Book]]:
    if book is None:
        return []
    known = {lane.lane for lane in lanes if lane.epoch == book.epoch}
    return [(name, own) for name, own in book.lanes.items() if own.seq and name not in known]


def _untold(book: OutboxBook | None, name: str, own: Book) -> LaneProof:
    """Nothing of this lane has ever reached the core."""
    assert book is not None  # noqa: S101 - it is where the lane comes from
    return LaneProof(
        book.epoch, name, "outbox", own.seq, 0, own.seq, 0, own.readings, 0, own.thinned, own.events, 0, "not_at_rest",
        [f"rows 1-{own.seq} wait on the gateway"],
    )  # fmt: skip


def _lane(
    lane: LaneBooks,
    book: OutboxBook | None,
    cursors: Cursors,
    gaps: Sequence[Gap],
) -> LaneProof:
    own = book.lanes.get(lane.lane) if book is not None and book.epoch == lane.epoch else None
    cursor = cursors.get((lane.epoch, lane.lane), LaneTotals())
    produced_rows = max(lane.produced, own.seq if own else 0)
    beyond = produced_rows - lane.seq
    acked = own.acked if own is not None else 0
    forgotten = max(lane.forgotten, acked - lane.seq)  # the outbox file may know it before the core was told
    lost = lane.lost + lane.holes if own is None else forgotten + lane.holes
    waiting = beyond - forgotten if own is not None else lane.waiting
    if own is not None:
        produced: int | None = own.readings
        content = _compare(own, cursor)
    else:
        produced = lane.said_readings
        content = lane.content or "not_compared"
    out = LaneProof(
        lane.epoch, lane.lane, "outbox" if own else "account" if lane.said_seq is not None else "core", produced_rows,
        lane.seq, waiting, lost, produced, lane.readings, lane.thinned, lane.events, lane.repeats, content,
    )  # fmt: skip
    if waiting:
        out.ranges.append(f"rows {lane.seq + forgotten + 1}-{produced_rows} wait on the gateway")
    if forgotten:
        why = forgotten_words(lane)[1]
        out.ranges.append(f"rows {lane.seq + 1}-{lane.seq + forgotten} lost: {why}")
        out.untold_rows = forgotten - lane.forgotten
    if lane.left_behind and own is None:
        why = reason_words(lane.left_because)[1]
        out.ranges.append(f"rows {lane.seq + forgotten + 1}-{lane.produced} lost: {why}")
    out.ranges += [
        _range(gap) for gap in gaps if (gap.epoch, gap.lane) == (lane.epoch, lane.lane) and gap.kind != "lost"
    ]
    return out


def _compare(own: Book, cursor: LaneTotals) -> str:
    if own.seq != cursor.seq:
        return "not_at_rest"
    return compare(LaneBook(own.seq, own.readings, own.events, own.digest), cursor)


def _range(gap: Gap) -> str:
    """``meter-41/power, rows 318-322, thinned: outbox full``"""
    name = f"{gap.device}/{gap.point}" if gap.device else "lane"
    rows = f"row {gap.first_seq}" if gap.first_seq == gap.last_seq else f"rows {gap.first_seq}-{gap.last_seq}"
    readings = f", {gap.readings} readings" if gap.readings else ""
    return f"{name}, {rows}{readings}, {gap.kind.replace('_', ' ')}: {reason_words(gap.reason)[1]}"


def _gateway(
    gateway: str,
    lanes: list[LaneProof],
    book: OutboxBook | None,
    found: Recount | None,
    findings: Sequence[Finding],
    cursors: Cursors,
) -> GatewayProof:
    committed = sum(own.readings for own in cursors.values())
    total = 0
    for own in cursors.values():
        total = add(total, own.digest)
    historic = any(own.readings for (_, lane), own in cursors.items() if lane == "backfill")
    notes: list[str] = []
    problems = [finding.en for finding in findings if finding.state == "missing" and finding.kind != "unplaced"]
    notes += [finding.en for finding in findings if finding.state == "explained" or finding.kind == "unplaced"]
    notes += [finding.en for finding in findings if finding.kind == "silent" and book is None]
    problems += [
        f"{lane.lane}: outbox and database differ at row {lane.committed_rows}"
        for lane in lanes
        if lane.content == "differs" and lane.source == "outbox"
    ]
    problems += [
        f"{lane.lane}: {lane.untold_rows} rows had been acknowledged, are not there, and the core was not told yet"
        for lane in lanes
        if lane.untold_rows
    ]
    duplicated, reordered, equal, lost_rows = 0, None, None, 0
    if found is not None:
        equal, lost_rows, duplicated = _rows_against_books(found, committed, total, notes, problems)
        reordered = _order(found, historic, notes)
        if reordered:
            problems.append(f"{reordered} rows were stored after newer ones of their series")
    if book is not None and book.parked:
        notes.append(f"{book.parked} rows of an earlier epoch wait for the core's word")
    comparable = [lane.content for lane in lanes if lane.content in ("equal", "differs")]
    if "differs" in comparable:
        equal = False
    return GatewayProof(
        gateway=gateway,
        lanes=lanes,
        produced=sum(lane.produced or 0 for lane in lanes),
        committed=committed,
        rows=found.rows if found else None,
        thinned=sum(lane.thinned for lane in lanes),
        waiting_rows=sum(lane.waiting_rows for lane in lanes) + (book.parked if book else 0),
        lost=lost_rows + sum(lane.lost_rows for lane in lanes),
        unexplained=len(problems),
        duplicated=duplicated,
        reordered=reordered,
        late=found.late if found else None,
        content_equal=equal,
        notes=notes,
        problems=problems,
    )


def _rows_against_books(
    found: Recount, committed: int, total: int, notes: list[str], problems: list[str]
) -> tuple[bool | None, int, int]:
    """(content equal, lost, duplicated): the table against what the transactions say they wrote."""
    if found.rows == committed and found.digest == total:
        if found.repeated:
            notes.append(f"{found.repeated} rows say what another says: devices told it twice")
        return True, 0, 0
    if found.ambiguous and found.rows == committed:
        notes.append(f"{found.ambiguous} series have changed their resolution: contents not compared, numbers equal")
        return None, 0, 0
    distinct = found.rows - found.repeated
    if found.rows > committed:
        problems.append(f"{found.rows - committed} rows more than were committed")
        return False, max(0, committed - distinct), found.rows - committed
    if found.rows < committed and found.removed:
        notes.append(f"storage policy has removed {committed - found.rows} rows: the rest is not compared")
        return None, 0, 0
    if found.rows < committed:
        problems.append(f"{committed - found.rows} rows fewer than were committed")
        return False, committed - found.rows, found.repeated if distinct < committed else 0
    problems.append("as many rows as were committed, but other ones")
    return False, max(0, committed - distinct), found.repeated


def _order(found: Recount, historic: bool, notes: list[str]) -> int | None:
    if found.late is None:
        notes.append("order not looked at: this storage does not keep the order in which rows came")
        return None
    if found.late and historic:
        notes.append(f"{found.late} rows came after newer ones of their series: a backlog was sent beside live data")
        return 0
    return found.late
