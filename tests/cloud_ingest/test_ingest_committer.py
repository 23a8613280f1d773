"""The commit itself, on a real database and with the clock as an argument: what rollback, takeover and midnight do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cloud.ingest.committer import Committer
from cloud.ingest.group import Inbound
from cloud.ingest.rules import Rules
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import DeviceState
from tests.cloud_ingest.site import T0_MS, declare, encode, enrol, event

GATEWAY, SHARD = "gw-t-01", 3
DAY_MS = 86_400_000
SEEN = (declare(0, "meter-1"),)


class Bench:
    """A committer with its own connection and clock, and a broker's part played by hand."""

    def __init__(self, conn: Connection[Any], now_ms: int = T0_MS) -> None:
        self.conn = conn
        self.now_ms = now_ms
        self.committer = Committer(conn, Rules([]), {}, lambda: self.now_ms)

    def commit(self, *messages: tuple[str, bytes], gateway: str = GATEWAY) -> list[pb.Ack]:
        """``messages``: (channel, payload); one group, one transaction."""
        self.now_ms += 1000
        found = [
            Inbound(f"cb/v1/{SHARD}/{gateway}/up/{channel}", payload, lambda: None) for channel, payload in messages
        ]
        return [reply.ack for reply in self.committer.commit(self.conn, found)]

    def retry(self, *messages: tuple[str, bytes]) -> list[pb.Ack]:
        """As the worker does it: a transaction that failed is tried again with empty caches."""
        try:
            return self.commit(*messages)
        except psycopg.Error:
            self.committer.forget()
            return self.commit(*messages)

    def all(self, statement: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(statement.encode()).fetchall()


@pytest.fixture
def bench(dsn: str) -> Iterator[Bench]:
    enrol(dsn, (GATEWAY, SHARD), ("gw-other", SHARD))
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Bench(conn)


@pytest.fixture
def other(dsn: str, bench: Bench) -> Iterator[Bench]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Bench(conn)


def _values(bench: Bench) -> list[float]:
    return [row[0] for row in bench.all("select value from reading order by ts, value")]


def _batches(number: int) -> list[tuple[str, bytes]]:
    first = encode(1, [(0, T0_MS, 1)], declarations=SEEN)
    return [("data", first), *(("data", encode(n, [(0, T0_MS + n, n)])) for n in range(2, number + 1))]


def test_a_worker_that_has_lost_its_shard_cannot_commit_what_the_new_owner_has(bench: Bench, other: Bench) -> None:
    """Both hold the same messages (the broker gave them to the second as well) and each remembers its own cursor."""
    batches = _batches(6)
    bench.commit(*batches[:2])
    other.commit(*batches[:2])  # repeats: its cursor is 2 now
    bench.commit(*batches[2:4])  # behind the other's back
    acks = other.retry(*batches[2:5])
    assert acks[-1].committed == 5
    acks = bench.retry(*batches[4:6])
    assert acks[-1].committed == 6
    assert _values(bench) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert bench.all("select seq, batches, readings from lane_cursor") == [(6, 6, 6)]


def test_a_repeat_seen_by_a_stale_worker_does_not_move_the_cursor_back(bench: Bench, other: Bench) -> None:
    batches = _batches(5)
    other.commit(*batches[:1])
    bench.commit(*batches[:5])
    other.retry(batches[0])
    assert bench.all("select seq from lane_cursor") == [(5,)]


@pytest.mark.parametrize("restarted", [False, True])
def test_readings_of_a_wrong_clock_do_not_block_the_day_they_claim(bench: Bench, other: Bench, restarted: bool) -> None:
    """They wait in the default partition; days later the whole city has that date."""
    ahead_ms = T0_MS + 9 * DAY_MS + 3600_000
    bench.commit(("data", encode(1, [(0, ahead_ms, 1), (0, T0_MS, 2)], declarations=SEEN)))
    assert bench.all("select count(*) from reading_other") == [(1,)]
    later = other if restarted else bench
    later.now_ms = ahead_ms
    acks = later.commit(("data", encode(2, [(0, ahead_ms + 60_000, 3)])))
    assert acks[-1].committed == 2
    assert _values(bench) == [0.2, 0.1, 0.3]
    day = datetime.fromtimestamp(ahead_ms / 1000, UTC)
    assert bench.all(f"select count(*) from reading_{day:%Y%m%d}") == [(2,)]
    assert bench.all("select count(*) from reading_other") == [(0,)]


def test_old_and_far_times_are_kept_in_the_default_partition(bench: Bench) -> None:
    far = [(0, 0, 1), (0, T0_MS - 500 * DAY_MS, 2), (0, T0_MS + 900 * DAY_MS, 3), (0, T0_MS, 4)]
    bench.commit(("data", encode(1, far, declarations=SEEN)))
    assert _values(bench) == [0.1, 0.2, 0.4, 0.3]
    assert bench.all("select count(*) from reading_other") == [(3,)]


def test_a_group_that_was_rolled_back_leaves_no_trace_in_the_last_values(bench: Bench) -> None:
    bench.commit(("data", encode(1, [(0, T0_MS, 10)], declarations=SEEN)))
    assert bench.all("select value from last_value") == [(1.0,)]
    good = ("data", encode(2, [(0, T0_MS + 1, 20)]))
    poison = ("backfill", encode(1, [(0, T0_MS + 500_000, 999)], declarations=SEEN, events=(event(1, source="a\0b"),)))
    with pytest.raises(psycopg.DataError):
        bench.commit(good, poison)
    bench.committer.forget()
    bench.commit(good)
    with pytest.raises(psycopg.DataError):
        bench.commit(poison)
    bench.committer.forget()
    inbound = Inbound(f"cb/v1/{SHARD}/{GATEWAY}/up/backfill", poison[1], lambda: None)
    replies = bench.committer.set_aside(bench.conn, inbound, ValueError("a NUL"))
    assert [(r.ack.lane, r.ack.committed, r.ack.rejected_seq) for r in replies] == [
        ("backfill", 1, 1),
        ("backfill", 1, 0),
    ]
    bench.now_ms += 10_000
    bench.committer.tick(bench.conn, [SHARD])
    assert bench.all("select value, ts from last_value") == [(2.0, datetime.fromtimestamp((T0_MS + 1) / 1000, UTC))]
    assert _values(bench) == [1.0, 2.0]


def test_last_values_are_written_in_time_even_if_nothing_more_comes(bench: Bench) -> None:
    bench.commit(("data", encode(1, [(0, T0_MS, 1)], declarations=SEEN)))
    bench.now_ms -= 1000 - 10  # within the half second in which they are collected
    bench.commit(("data", encode(2, [(0, T0_MS + 1, 2)])))
    bench.now_ms += 600
    bench.committer.tick(bench.conn, [SHARD])
    assert bench.all("select value from last_value") == [(0.2,)]


def test_what_is_set_aside_is_counted_once_and_a_repeat_of_it_is_a_repeat(bench: Bench) -> None:
    bad = ("event", encode(1, devices=(DeviceState("m\0", True, T0_MS, ""),)))
    with pytest.raises(psycopg.DataError):
        bench.commit(bad)
    bench.committer.forget()
    inbound = Inbound(f"cb/v1/{SHARD}/{GATEWAY}/up/event", bad[1], lambda: None)
    assert bench.committer.set_aside(bench.conn, inbound, ValueError("no"))[0].ack.rejected_seq == 1
    assert [ack.committed for ack in bench.commit(bad)] == [1]
    assert bench.all("select seq, batches, repeats from lane_cursor") == [(1, 1, 1)]
    assert bench.all("select count(*) from dead_letter") == [(1,)]


def test_only_its_own_gateway_may_say_how_a_device_is(bench: Bench) -> None:
    bench.commit(("event", encode(1, devices=(DeviceState("cam-1", True, T0_MS, "mine"),))))
    acks = bench.commit(
        ("event", encode(1, devices=(DeviceState("cam-1", False, T0_MS + 9, "no"),))), gateway="gw-other"
    )
    assert [(a.committed, a.rejected_seq, a.reason) for a in acks] == [(1, 1, "foreign_device"), (1, 0, "")]
    assert bench.all("select online, detail, gateway_id from device") == [(True, "mine", GATEWAY)]


def test_a_foreign_declaration_changes_nothing_about_the_device(bench: Bench) -> None:
    bench.commit(("data", encode(1, [(0, T0_MS, 1)], declarations=(declare(0, "m", kind="gas/combustible"),))))
    stolen = encode(1, [(0, T0_MS, 2)], declarations=(declare(0, "m", kind="env/noise_meter"),))
    bench.commit(("data", stolen), gateway="gw-other")
    bench.committer.forget()  # as a worker that has just started
    bench.commit(("data", encode(2, [(0, T0_MS + 1, 3)])), gateway="gw-other")
    assert bench.all("select device_type, gateway_id from device") == [("gas/combustible", GATEWAY)]
    assert _values(bench) == [0.1]
    assert bench.all("select seq, reason from dead_letter order by seq") == [
        (1, "foreign_device"),
        (2, "undeclared_series"),
    ]


@pytest.mark.parametrize("older", [True, False])
def test_an_older_state_never_overwrites_a_newer(bench: Bench, older: bool) -> None:
    states: Sequence[DeviceState] = (DeviceState("m", True, T0_MS + 5, "new"), DeviceState("m", False, T0_MS, "old"))
    for seq, state in enumerate(states if older else reversed(states), 1):
        bench.commit(("event", encode(seq, devices=(state,))))
    assert bench.all("select online, detail from device") == [(True, "new")]
