"""Rows out of turn, letters nobody can open, and the bounds of what is kept of either."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection

from cloud.ingest import deadletters
from cloud.ingest.group import Inbound
from cloud.ingest.held import LANE_ROWS, Held
from cloud.ingest.inbox import Inbox
from protocols.uplink import uplink_pb2 as pb
from tests.cloud_ingest.site import EPOCH, T0_MS, encode, enrol, event
from tests.cloud_ingest.test_ingest_committer import GATEWAY, SEEN, SHARD, Bench

KEY = ("gw", 1, "data")


@pytest.fixture
def bench(dsn: str) -> Iterator[Bench]:
    enrol(dsn, (GATEWAY, SHARD))
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Bench(conn)


def _row(n: int, **more: Any) -> tuple[str, bytes]:
    return "data", encode(n, [(0, T0_MS + n, n)], declarations=SEEN if n == 1 else (), **more)


def _inbound(size: int) -> Inbound:
    return Inbound("", bytes(size), lambda: None)


def _told(ack: pb.Ack) -> tuple[int, bool, list[tuple[int, int]]]:
    return ack.committed, ack.resend, [(r.first, r.last) for r in ack.held]


def test_rows_out_of_turn_are_kept_told_and_committed_in_order_when_the_gap_closes(bench: Bench) -> None:
    assert _told(bench.commit(_row(1), _row(3), _row(4), _row(7))[0]) == (1, True, [(3, 4), (7, 7)])
    assert _told(bench.commit(_row(2))[0]) == (4, False, [])
    assert _told(bench.commit(_row(6))[0]) == (4, True, [(6, 7)])
    assert _told(bench.commit(_row(5))[0]) == (7, False, [])
    assert bench.all("select value from reading order by ctid") == [(n / 10,) for n in range(1, 8)]
    assert bench.all("select seq, batches, readings, repeats from lane_cursor") == [(7, 7, 7, 0)]
    bench.committer.tick(bench.conn, [SHARD])
    assert bench.committer.counts["held_rows"] == bench.committer.counts["held_bytes"] == 0


def test_a_gap_that_closes_within_one_group_asks_for_nothing(bench: Bench) -> None:
    assert _told(bench.commit(_row(2), _row(3), _row(1))[0]) == (3, False, [])


def test_what_no_window_reaches_is_not_kept_and_asked_for_again(bench: Bench) -> None:
    far = LANE_ROWS + 5
    assert _told(bench.commit(_row(1), _row(far))[0]) == (1, True, [])
    assert _told(bench.commit(*[_row(n) for n in range(2, far)])[0]) == (far - 1, False, [])


@given(st.permutations(range(1, 13)), st.integers(1, 5), st.data())
def test_any_order_in_any_portions_with_any_repeats_ends_in_order_and_once(
    order: list[int], portion: int, data: st.DataObject
) -> None:
    """The memory alone, as the committer uses it."""
    held, done = Held(), [0]
    order = order + data.draw(st.lists(st.sampled_from(order), max_size=6))
    for at in range(0, len(order), portion):
        seq = done[-1]
        for n in order[at : at + portion]:
            if n > seq + 1:
                assert held.offer(KEY, n, done[-1], _inbound(n), 0)
            elif n == seq + 1:
                seq += 1
                while held.get(KEY, seq + 1) is not None:
                    seq += 1
        done.append(seq)
        held.committed(KEY, seq)
        beyond = {n for r in held.ranges(KEY, seq) for n in range(r.first, r.last + 1)}
        assert beyond == {n for n in order[: at + portion] if n > seq}
    assert done[-1] == 12 and not held.size and not len(held)


def test_a_group_that_fails_leaves_what_is_held_where_it_is(bench: Bench) -> None:
    bench.commit(_row(1), _row(3))
    poison = ("event", encode(1, events=(event(1, source="a\0b"),)))
    with pytest.raises(psycopg.DataError):
        bench.commit(_row(2), poison)
    bench.committer.forget()
    assert _told(bench.commit(_row(2))[0]) == (3, False, [])


def test_a_poison_in_memory_costs_itself_and_not_the_row_before_it(bench: Bench) -> None:
    """As the worker does it: a group that the database refuses is tried one by one, held rows among them."""
    from cloud.ingest.rules import Rules
    from cloud.ingest.worker import Worker

    bench.commit(_row(1), ("data", encode(3, [(0, T0_MS + 3, 3)], events=(event(1, source="a\0b"),))), _row(4))
    message = Inbound(f"cb/v1/{SHARD}/{GATEWAY}/up/data", _row(2)[1], lambda: None)
    replies = Worker._commit_singly(None, bench.conn, bench.committer, Rules([]), [message], ValueError())  # type: ignore[arg-type]
    assert [(r.ack.committed, r.ack.rejected_seq) for r in replies] == [(2, 0), (3, 3), (3, 0), (4, 0)]
    assert bench.all("select value from reading order by value") == [(0.1,), (0.2,), (0.4,)]
    assert bench.all("select seq, reason from dead_letter") == [(3, "database_refused")]


def test_held_rows_of_a_shard_that_is_given_away_are_forgotten(bench: Bench) -> None:
    bench.commit(_row(1), _row(3))
    bench.committer.disown(bench.conn, SHARD)
    assert _told(bench.commit(_row(2))[0]) == (2, False, [])


def test_memory_for_rows_out_of_turn_is_bounded_by_lane_and_in_all() -> None:
    held = Held(worker_bytes=100)
    assert held.offer(KEY, 2, 0, _inbound(60), 0)
    assert not held.offer(("gw", 1, "event"), 2, 0, _inbound(60), 1000)  # the other one is not stale yet
    assert held.offer(("gw", 1, "event"), 2, 0, _inbound(60), 40_000)
    assert (held.size, held.peak, held.refused, len(held)) == (60, 60, 1, 1)
    assert not held.ranges(KEY, 0)
    whole = Held()
    assert not whole.offer(KEY, 2, 0, _inbound((8 << 20) + 1), 0)
    assert not whole.offer(KEY, 1 << 62, 0, _inbound(1), 0)


def test_a_full_inbox_makes_its_filler_wait_and_holds_no_more_than_it_may() -> None:
    inbox = Inbox(messages=3, most_bytes=100)
    assert inbox.put(_inbound(500), 0)  # alone it always fits, or it could never be taken
    assert not inbox.put(_inbound(1), 0)
    assert inbox.get(0) is not None
    assert [inbox.put(_inbound(40), 0) for _ in range(3)] == [True, True, False]
    assert (inbox.size, len(inbox), inbox.peak) == (80, 2, 500)
    assert len(inbox.gather(10, 1 << 20, 0, 0)) == 2
    assert inbox.get(0) is None


def test_dead_letters_of_a_gateway_are_counted_for_ever_and_kept_to_a_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "_LETTERS", 5)
    monkeypatch.setattr(deadletters, "_ALL_BYTES", 200)
    for _ in range(9):
        bench.commit(("data", b"\xff" * 30))
    bench.commit(("data", pb.Batch(seq=1).SerializeToString()))
    for _ in range(3):
        bench.commit(("data", pb.Batch(version=1, seq=1 << 63, readings=bytes(150)).SerializeToString()))
    kept = "select reason, count(*) from dead_letter group by 1 order by 1"
    assert bench.all(kept) == [("no_sequence", 2), ("not_protobuf", 5)]
    tally = "select reason, letters, kept from dead_letter_tally where gateway_id = 'gw-t-01' order by 1"
    assert bench.all(tally) == [("no_sequence", 4, 2), ("not_protobuf", 9, 5)]
    bench.conn.execute("update dead_letter_tally set last_at = now() - interval '2 days'")
    bench.commit(("data", b"\xff" * 30))
    assert bench.all(kept) == [("no_sequence", 2), ("not_protobuf", 6)]
    assert bench.all(tally)[1] == ("not_protobuf", 10, 1)


def test_a_row_nobody_can_open_is_told_to_people_and_to_its_gateway_until_the_lane_moves(bench: Bench) -> None:
    bench.commit(("state", pb.State(online=True, epoch=EPOCH).SerializeToString()), _row(1))
    garbled = ("data", b"\xff\xff\xff")
    assert bench.commit(garbled) == [] == bench.commit(garbled)
    (ack,) = bench.commit(garbled)
    assert (ack.epoch, ack.lane, ack.committed, ack.resend, ack.rejected_seq, ack.reason) == (
        EPOCH, "data", 1, True, 0, "not_protobuf",
    )  # fmt: skip
    bench.commit(garbled)
    alarms = "select key, level, state, \"values\"->>'code' from alarm"
    assert bench.all(alarms) == [(f"{GATEWAY}:unreadable:data", "yellow", "raised", "not_protobuf")]
    bench.committer.forget()
    bench.commit(_row(2))
    assert [row[2] for row in bench.all(alarms)] == ["cleared"]


def test_last_values_that_died_with_their_worker_are_made_good_by_the_next(bench: Bench, dsn: str) -> None:
    def last(conn: Connection[Any]) -> list[float]:
        return [row[0] for row in conn.execute("select value from last_value order by series_id").fetchall()]

    bench.commit(_row(1))
    bench.now_ms -= 1000 - 10  # within the half second in which they are collected
    bench.commit(_row(2))
    assert last(bench.conn) == [0.1]
    with psycopg.connect(dsn, autocommit=True) as conn:
        heir = Bench(conn, bench.now_ms)
        heir.committer.own(conn, SHARD)
        heir.committer.tick(conn, [SHARD])
        assert last(conn) == [0.2]
