"""Both books side by side: what a gateway says it has produced, what the core has, and what is said of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from cloud.ledger import read
from cloud.ledger.model import GatewayLedger, LedgerDetail
from cloud.query.summary import summary
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import Thinned, ThinnedSeries
from protocols.uplink.digest import add, digest, series_hash
from tests.cloud_ingest.site import EPOCH, T0_MS, columns, declare, encode, enrol, event
from tests.cloud_ingest.test_ingest_committer import Bench

GATEWAY, SHARD = "gw-t-01", 3
SEEN = (declare(0, "meter-41", "power"), declare(1, "meter-42", "power"))
NEXT = EPOCH + 1000


@pytest.fixture
def bench(dsn: str) -> Iterator[Bench]:
    enrol(dsn, (GATEWAY, SHARD))
    with psycopg.connect(dsn, autocommit=True) as conn:
        bench = Bench(conn)
        bench.dsn = dsn  # type: ignore[attr-defined]
        yield bench


def rows_digest(rows: list[tuple[int, int, int]]) -> int:
    """SPEC.md section 6, from the rows of (alias, ms, integer) themselves."""
    import numpy as np

    cut = columns(rows)
    names = {d.alias: series_hash(d.device, d.point) for d in SEEN}
    hashes = np.array([names[int(alias)] for alias in cut.alias], dtype=np.uint64)
    return digest(hashes, cut.ts_ms, cut.integer, cut.quality)


def lane(name: str, seq: int, rows: list[tuple[int, int, int]], **more: int) -> pb.LaneAccount:
    fields: dict[str, Any] = {"readings": len(rows), "digest": rows_digest(rows), "acked": 0} | more
    return pb.LaneAccount(lane=name, seq=seq, **fields)


def account(*lanes: pb.LaneAccount, epoch: int = EPOCH, **more: Any) -> tuple[str, bytes]:
    return "account", pb.Account(epoch=epoch, at_ms=T0_MS, lanes=lanes, **more).SerializeToString()


def state(epoch: int, previous: int = 0, reason: str = "") -> tuple[str, bytes]:
    said = pb.State(online=True, epoch=epoch, previous_epoch=previous, epoch_reason=reason, at_ms=T0_MS)
    return "state", said.SerializeToString()


def ledger(bench: Bench, *, later: timedelta = timedelta(0)) -> LedgerDetail:
    async def ask() -> LedgerDetail:
        async with await psycopg.AsyncConnection.connect(bench.dsn, autocommit=True) as conn:  # type: ignore[attr-defined]
            found = await read.detail(conn, GATEWAY, datetime.now(UTC) + later)
        assert found is not None
        return found

    return asyncio.run(ask())


def lost_on_the_first_page(bench: Bench) -> int:
    async def ask() -> int:
        async with await psycopg.AsyncConnection.connect(bench.dsn, autocommit=True) as conn:  # type: ignore[attr-defined]
            return (await summary(conn, datetime.now(UTC))).lost

    return asyncio.run(ask())


def said(found: GatewayLedger) -> list[tuple[str, str]]:
    return [(finding.state, finding.en) for finding in found.findings]


def row(n: int) -> list[tuple[int, int, int]]:
    return [(0, T0_MS + n, n), (1, T0_MS + n, -n)]


def send(bench: Bench, *numbers: int, epoch: int = EPOCH) -> list[pb.Ack]:
    return bench.commit(
        *(
            ("data", encode(n, row(n), epoch=epoch, declarations=SEEN if n == 1 else ()))
            for n in numbers
        )
    )  # fmt: skip


def test_a_gateway_that_keeps_no_book_is_unknown_and_one_that_does_is_complete(bench: Bench) -> None:
    send(bench, 1, 2)
    assert said(ledger(bench).gateway) == [("unknown", "the gateway has sent no account yet")]
    bench.commit(state(EPOCH), account(lane("data", 2, row(1) + row(2))))
    found = ledger(bench)
    assert (found.gateway.state, found.gateway.findings) == ("complete", [])
    assert [(one.content, one.checked_seq) for one in found.lanes] == [("equal", 2)]
    assert found.gateway.proved_at is not None
    late = ledger(bench, later=timedelta(minutes=9)).gateway
    assert said(late) == [("unknown", "online, but no account for 9 minutes")]


def test_the_books_are_compared_at_the_very_row_of_the_account_while_more_goes_by(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 3, row(1) + row(2) + row(3))))
    assert said(ledger(bench).gateway) == [("waiting", "live data: rows 1-3 still wait on the gateway")]
    send(bench, 1, 2, 3, 4, 5)
    (found,) = ledger(bench).lanes
    assert (found.content, found.checked_seq, found.seq) == ("equal", 3, 5)


@pytest.mark.parametrize("wrong", ["readings", "events", "digest"])
def test_books_that_differ_are_told_whatever_differs(bench: Bench, wrong: str) -> None:
    book = lane("data", 2, row(1) + row(2))
    setattr(book, wrong, getattr(book, wrong) + 1)
    bench.commit(state(EPOCH), account(book))
    send(bench, 1, 2)
    found = ledger(bench)
    assert found.gateway.state == "missing"
    assert said(found.gateway) == [("missing", "live data: up to row 2 both books differ")]


def test_a_transaction_that_fails_compares_again(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 2, row(1) + row(2))))
    send(bench, 1)
    poison = ("event", encode(1, events=(event(1, source="a\0b"),)))
    with pytest.raises(psycopg.DataError):
        bench.commit(("data", encode(2, row(2))), poison)
    bench.committer.forget()
    assert ledger(bench).lanes[0].content == ""
    send(bench, 2)
    assert ledger(bench).lanes[0].content == "equal"


def test_thinned_rows_are_named_by_series_and_rows_and_are_part_of_the_proof(bench: Bench) -> None:
    everything = [one for n in range(1, 13) for one in row(n)]
    bench.commit(state(EPOCH), account(lane("data", 12, everything, thinned=10)))
    send(bench, 1, 2)
    for n in range(3, 8):
        parts = tuple(ThinnedSeries(alias, 1, T0_MS + n, T0_MS + n) for alias in (0, 1))
        stone = Thinned(2, "outbox_full", T0_MS + n, T0_MS + n, rows_digest(row(n)), parts)
        bench.commit(("data", encode(n, thinned=(stone,))))
    send(bench, *range(8, 13))
    found = ledger(bench)
    assert [(one.content, one.thinned) for one in found.lanes] == [("equal", 10)]
    ranges = {(g.device, g.point): (g.first_seq, g.last_seq, g.row_count, g.readings, g.reason) for g in found.gaps}
    assert ranges == {
        (None, None): (3, 7, 5, 10, "outbox_full"),
        ("meter-41", "power"): (3, 7, 5, 5, "outbox_full"),
        ("meter-42", "power"): (3, 7, 5, 5, "outbox_full"),
    }
    assert said(found.gateway) == [("explained", "10 readings thinned: outbox full")]
    assert found.gateway.findings[0].zh == "抽稀 10 条数据：发件箱已满"


def test_a_stone_without_digest_cannot_be_proved_and_says_so(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 2, row(1), readings=5)))
    send(bench, 1)
    bench.commit(("data", encode(2, thinned=(Thinned(3, "row_damaged", 0, 0),))))
    found = ledger(bench)
    assert [one.content for one in found.lanes] == ["not_comparable"]
    assert found.gateway.state == "explained"


def test_times_of_a_clock_that_was_never_set_are_in_doubt(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 2, row(1) + row(2))))
    bench.commit(("data", encode(1, row(1), declarations=SEEN, clock=1)), ("data", encode(2, row(2), clock=1)))
    found = ledger(bench)
    assert said(found.gateway) == [("explained", "times of 4 readings in doubt: clock not set")]
    assert [(g.kind, g.first_seq, g.last_seq) for g in found.gaps] == [("clock_unknown", 1, 2)]


def test_an_outbox_that_was_lost_is_told_with_the_rows_that_went_with_it(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 5, [one for n in range(1, 6) for one in row(n)])))
    send(bench, 1, 2)
    bench.commit(state(NEXT, EPOCH, "damaged"), account(epoch=NEXT, previous_epoch=EPOCH, epoch_reason="damaged"))
    found = ledger(bench)
    assert said(found.gateway) == [("explained", "live data: rows 3-5 lost: outbox damaged")]
    assert found.gateway.lost == 3
    # Rows that the broker still had come late, and are lost no more.
    send(bench, 3, 4, 5)
    assert ledger(bench).gateway.lost == 0
    assert ledger(bench).gateway.state == "complete"


def test_an_outbox_that_is_replaced_without_a_word_is_not_explained(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("event", 4, [])))
    bench.commit(state(NEXT), account(epoch=NEXT))
    assert said(ledger(bench).gateway) == [("missing", "events: rows 1-4 lost: no reason given")]


def restored(bench: Bench) -> None:
    """What `cloud restore` leaves behind: this database is the backup of a moment ago."""
    bench.all("update lane_cursor set restored_seq = seq returning 1")
    bench.all("insert into restore_point (taken_at, source) values ('2026-03-01 04:05+00', 'city.backup') returning 1")


_RESTORED = "core restored from a backup of 2026-03-01 04:05 UTC"


def ended(acked: int, *, epoch: int = EPOCH, lane: str = "data") -> pb.EndedLane:
    return pb.EndedLane(epoch=epoch, lane=lane, acked=acked)


def test_after_a_restore_what_had_been_acknowledged_is_lost_and_what_waited_is_not(bench: Bench) -> None:
    send(bench, 1, 2)
    restored(bench)
    bench.commit(state(EPOCH), account(lane("data", 9, [], acked=6)))
    found = ledger(bench)  # no new epoch yet: a gateway that has nothing to send does not notice
    assert said(found.gateway) == [
        ("explained", f"live data: rows 3-6 lost: {_RESTORED}"),
        ("waiting", "live data: rows 7-9 still wait on the gateway"),
    ]
    assert (found.gateway.lost, found.gateway.waiting) == (4, 3)
    book = lane("data", 3, row(1) + row(2) + row(3))
    bench.commit(state(NEXT, EPOCH, "core_forgot"), account(book, epoch=NEXT, ended=[ended(6)]))
    send(bench, 1, 2, 3, epoch=NEXT)
    found = ledger(bench)
    assert said(found.gateway) == [("explained", f"live data: rows 3-6 lost: {_RESTORED}")]
    assert found.gateway.findings[0].zh == "实时数据：第 3–6 行丢失：中心数据库由 2026-03-01 04:05 UTC 的备份恢复"
    assert found.gateway.lost == 4
    (restore,) = found.restores
    assert (restore.source, restore.lost_rows) == ("city.backup", 4)
    (gap,) = [one for one in found.gaps if one.kind == "lost"]
    assert (gap.epoch, gap.lane, gap.first_seq, gap.last_seq) == (EPOCH, "data", 3, 6)
    assert gap.source == restore.source
    assert (gap.first_at, gap.last_at, gap.restore_id) == (restore.taken_at, restore.restored_at, restore.restore_id)
    send(bench, 3, 4, 5, 6)  # the broker had them all the time
    assert (ledger(bench).gateway.state, ledger(bench).gateway.lost) == ("complete", 0)


def test_an_epoch_that_ended_unheard_is_known_by_what_the_gateway_keeps_of_it(bench: Bench) -> None:
    """All of it lay between backup and crash, or the account before the crash was lost with the broker."""
    send(bench, 1, 2)
    restored(bench)
    said_of = [ended(5), ended(7, epoch=EPOCH + 1), ended(2, epoch=EPOCH + 1, lane="event")]
    bench.commit(state(NEXT, EPOCH + 1, "core_forgot"), account(epoch=NEXT, ended=said_of))
    bench.commit(account(epoch=NEXT, ended=said_of))
    found = ledger(bench)
    assert sorted(said(found.gateway)) == [
        ("explained", f"events: rows 1-2 lost: {_RESTORED}"),
        ("explained", f"live data: rows 1-7 lost: {_RESTORED}"),
        ("explained", f"live data: rows 3-5 lost: {_RESTORED}"),
    ]
    assert found.gateway.lost == found.restores[0].lost_rows == 3 + 7 + 2
    assert lost_on_the_first_page(bench) == 12
    restored(bench)  # a second one later takes the first one's losses for what they are
    assert [one.lost_rows for one in ledger(bench).restores] == [12]


def test_rows_that_went_with_the_core_and_rows_that_went_with_the_outbox_are_told_apart(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 5, [])))
    send(bench, 1, 2)
    restored(bench)
    bench.commit(state(NEXT, EPOCH, "damaged"), account(epoch=NEXT, ended=[ended(4)]))
    found = ledger(bench)
    assert said(found.gateway) == [
        ("explained", f"live data: rows 3-4 lost: {_RESTORED}"),
        ("explained", "live data: row 5 lost: outbox damaged"),
    ]
    assert (found.gateway.lost, found.restores[0].lost_rows) == (3, 2)


def test_acknowledged_rows_that_no_restore_explains_are_missing(bench: Bench) -> None:
    why = "acknowledged once and not here, no restore on record"
    send(bench, 1, 2)
    bench.commit(state(NEXT, EPOCH, "core_forgot"), account(epoch=NEXT, ended=[ended(6)]))
    assert said(ledger(bench).gateway) == [("missing", f"live data: rows 3-6 lost: {why}")]
    restored(bench)
    send(bench, 1, 2, epoch=NEXT)  # this lane has gone on since: what it lacks beyond went later
    bench.commit(account(lane("data", 5, [], acked=4), epoch=NEXT))
    assert said(ledger(bench).gateway)[:2] == [
        ("missing", f"live data: rows 3-4 lost: {why}"),
        ("missing", f"live data: rows 3-6 lost: {why}"),
    ]
    assert ledger(bench).restores == []


def test_a_gateway_that_says_nothing_of_ended_epochs_is_taken_by_its_last_account(bench: Bench) -> None:
    send(bench, 1, 2)
    restored(bench)
    bench.commit(state(EPOCH), account(lane("data", 9, [], acked=6)))
    bench.commit(state(NEXT, EPOCH, "core_forgot"), account(epoch=NEXT))
    assert said(ledger(bench).gateway) == [("explained", f"live data: rows 3-6 lost: {_RESTORED}")]


def test_what_never_became_a_row_is_counted_by_reason(bench: Bench) -> None:
    drops = [pb.Dropped(reason="memory_full", readings=7), pb.Dropped(reason="unknown_device", events=2)]
    bench.commit(state(EPOCH), account(dropped=drops))
    bench.commit(account(dropped=drops))
    assert sorted(said(ledger(bench).gateway)) == [
        ("explained", "dropped before the outbox: 0 readings, 2 events: unknown device"),
        ("explained", "dropped before the outbox: 7 readings, 0 events: memory full"),
    ]


def test_an_old_account_that_comes_late_takes_nothing_back(bench: Bench) -> None:
    bench.commit(state(EPOCH), account(lane("data", 5, [])))
    bench.commit(account(lane("data", 3, [])))
    assert ledger(bench).lanes[0].said_seq == 5


_BAD_ACCOUNTS = [
    b"\xff\xff",
    b"",
    pb.Account(at_ms=1).SerializeToString(),
    pb.Account(epoch=1, at_ms=-1).SerializeToString(),
    pb.Account(epoch=1, lanes=[pb.LaneAccount(lane="data"), pb.LaneAccount(lane="data")]).SerializeToString(),
    pb.Account(epoch=1, lanes=[pb.LaneAccount(lane="gold")]).SerializeToString(),
    pb.Account(epoch=1, lanes=[pb.LaneAccount(lane="data", seq=1, acked=2)]).SerializeToString(),
    pb.Account(epoch=1, lanes=[pb.LaneAccount(lane="data", readings=1 << 63)]).SerializeToString(),
    pb.Account(epoch=1, lanes=[pb.LaneAccount(lane="data", oldest_ms=1 << 62)]).SerializeToString(),
    pb.Account(epoch=1, dropped=[pb.Dropped(reason="a\0b")]).SerializeToString(),
    pb.Account(epoch=1, dropped=[pb.Dropped(reason="a"), pb.Dropped(reason="a")]).SerializeToString(),
    pb.Account(epoch=1, dropped=[pb.Dropped(reason=str(n)) for n in range(65)]).SerializeToString(),
    pb.Account(epoch=1, ended=[ended(3, epoch=1)]).SerializeToString(),
    pb.Account(epoch=1, ended=[ended(3, epoch=0)]).SerializeToString(),
    pb.Account(epoch=1, ended=[ended(3), ended(4)]).SerializeToString(),
    pb.Account(epoch=1, ended=[ended(3, lane="gold")]).SerializeToString(),
    pb.Account(epoch=1, ended=[ended(1 << 63)]).SerializeToString(),
    pb.Account(epoch=1, ended=[ended(1, epoch=n + 2) for n in range(65)]).SerializeToString(),
]


def test_an_account_that_cannot_be_one_is_set_aside_and_changes_nothing(bench: Bench) -> None:
    for number, bad in enumerate(_BAD_ACCOUNTS, 1):
        bench.commit(("account", bad))
        assert (
            bench.all("select count(*) from lane_account") == bench.all("select count(*) from outbox_epoch") == [(0,)]
        )
        assert bench.all("select count(*) from dead_letter") == [(number,)], bad


def test_digests_of_stones_and_rows_add_up_beyond_64_bits(bench: Bench) -> None:
    """The account's digest is of everything, so both parts are summed modulo 2^64."""
    total = 0
    for n in range(1, 31):
        total = add(total, rows_digest(row(n)))
    assert total == rows_digest([one for n in range(1, 31) for one in row(n)])
