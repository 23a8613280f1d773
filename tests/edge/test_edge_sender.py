"""The sender against a model of broker and core that drops, repeats, reorders and delays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.outbox import MOST_ON_THEIR_WAY, Row
from edge.uplink.pace import Pace
from edge.uplink.sender import _WINDOW_BYTES, _WINDOW_ROWS, Sender
from protocols.uplink.topics import LANES, Lane

LANE = st.sampled_from(LANES)
_TIMEOUT_MS = 1500
_CORE_KEEPS = 12  # rows out of turn that the model core keeps in memory, a lane


@dataclass(frozen=True)
class Answer:
    lane: Lane
    committed: int
    resend: bool
    held: tuple[tuple[int, int], ...]


class Network(RuleBasedStateMachine):
    """``up`` and ``down`` are what is on its way; the core keeps cursors exactly as ingest does."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.outbox: dict[Lane, list[Row]] = {lane: [] for lane in LANES}
        self.written = dict.fromkeys(LANES, 0)
        self.acked = dict.fromkeys(LANES, 0)
        self.cursor = dict.fromkeys(LANES, 0)
        self.committed: dict[Lane, list[bytes]] = {lane: [] for lane in LANES}
        self.up: list[Row] = []
        self.down: list[Answer] = []
        self.kept: dict[Lane, dict[int, Row]] = {lane: {} for lane in LANES}  # in the core's memory, not committed
        self.sender = self._connected()

    def _connected(self) -> Sender:
        return Sender(self._read, dict(self.acked), self.now_ms)

    def _read(self, lane: Lane, after: int, limit: int) -> list[Row]:
        return [row for row in self.outbox[lane] if row.seq > after][:limit]

    @initialize(backlog=st.integers(0, 120))
    def offline_for_a_while(self, backlog: int) -> None:
        for _ in range(backlog):
            self.write("backfill", 40_000)

    # -- the gateway

    @rule(lane=LANE, size=st.sampled_from([10, 2000, 900_000]))
    def write(self, lane: Lane, size: int) -> None:
        self.written[lane] += 1
        seq = self.written[lane]
        self.outbox[lane].append(Row(lane, seq, seq.to_bytes(4) + bytes(size)))

    @rule()
    def send(self) -> None:
        out = self.sender.due(self.now_ms)
        ranks = [LANES.index(row.lane) for row in out]
        assert ranks == sorted(ranks)  # an alarm and fresh data before what is late
        for lane in LANES:
            seqs = [row.seq for row in out if row.lane == lane]
            assert seqs == sorted(set(seqs))  # within one sending each once, in order
        self.up += out
        for lane in LANES:  # nothing that was committed and acknowledged is sent
            assert all(row.seq > self.acked[lane] for row in out if row.lane == lane)

    @rule(ms=st.sampled_from([1, 300, 1000, 2000]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        self.sender.stalled(self.now_ms, _TIMEOUT_MS)

    @rule()
    def connection_lost(self) -> None:
        """What the broker has may still arrive; the next session begins at what was acknowledged."""
        self.sender = self._connected()

    @rule()
    def core_is_another(self) -> None:
        """What the old one had in memory is gone."""
        for kept in self.kept.values():
            kept.clear()
        self.sender.restart(self.now_ms)

    @rule()
    def core_is_another_and_its_hello_is_lost(self) -> None:
        for kept in self.kept.values():
            kept.clear()

    # -- the way

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def message_arrives_somehow(self, data: st.DataObject) -> None:
        """Mostly the oldest; it may stay on its way as well and come a second time."""
        at = data.draw(st.one_of(st.just(0), st.integers(0, len(self.up) - 1)))
        row = self.up[at]
        fate = data.draw(st.sampled_from(["arrives", "arrives", "arrives", "arrives twice", "is lost"]))
        if fate != "arrives twice":
            del self.up[at]
        if fate != "is lost":
            self._core(row)

    @precondition(lambda self: len(self.up) > 1)
    @rule()
    def everything_arrives(self) -> None:
        up, self.up = self.up, []
        for row in up:
            self._core(row)

    @precondition(lambda self: self.down)
    @rule(data=st.data())
    def acknowledgement_arrives_somehow(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.down) - 1))
        ack = self.down[at] if data.draw(st.booleans()) else self.down.pop(at)
        if data.draw(st.integers(0, 4)):
            self._acknowledged(ack)

    def _core(self, row: Row) -> None:
        lane, kept = row.lane, self.kept[row.lane]
        out_of_turn = row.seq > self.cursor[lane] + 1
        if out_of_turn and (len(kept) < _CORE_KEEPS or row.seq in kept):
            kept[row.seq] = row
        next_row: Row | None = row if row.seq == self.cursor[lane] + 1 else None
        while next_row is not None:
            self.cursor[lane] = next_row.seq
            self.committed[lane].append(next_row.payload[:4])
            next_row = kept.pop(next_row.seq + 1, None)
        for old in [seq for seq in kept if seq <= self.cursor[lane]]:
            del kept[old]
        self.down.append(Answer(lane, self.cursor[lane], out_of_turn, _ranges(sorted(kept))))

    def _acknowledged(self, ack: Answer) -> None:
        lane = ack.lane
        if ack.committed > self.acked[lane]:
            self.acked[lane] = ack.committed
            self.outbox[lane] = [row for row in self.outbox[lane] if row.seq > ack.committed]
        before, due_before = self.sender.resent, list(self.sender._flights[lane].missing)
        self.sender.acknowledged(lane, ack.committed, resend=ack.resend, now_ms=self.now_ms, held=ack.held)
        if ack.held:  # none of what the core has in memory goes again because of this answer
            assert self.sender.resent == before
            again = [seq for seq in self.sender._flights[lane].missing if seq not in due_before]
            assert not any(first <= seq <= last for seq in again for first, last in ack.held)

    # -- what must hold

    @invariant()
    def windows_are_kept(self) -> None:
        for lane in LANES:
            flight = self.sender._flights[lane]
            assert len(flight.rows) <= _WINDOW_ROWS[lane]
            sizes = [one.size for one in flight.rows]
            assert sum(sizes) == flight.in_bytes
            assert sum(sizes[:-1]) < _WINDOW_BYTES[lane]
            seqs = [one.seq for one in flight.rows]
            assert set(flight.missing) <= set(seqs) and list(flight.missing) == sorted(flight.missing)
            assert seqs == list(range(flight.acked + 1, flight.acked + 1 + len(seqs)))

    @invariant()
    def the_core_has_each_row_once_and_in_order(self) -> None:
        for lane in LANES:
            assert self.committed[lane] == [seq.to_bytes(4) for seq in range(1, self.cursor[lane] + 1)]
            assert self.acked[lane] <= self.cursor[lane] <= self.written[lane]

    def teardown(self) -> None:
        """The network heals: everything arrives, within a bounded number of rounds."""
        rows = sum(self.written.values())
        for _ in range(20 + rows):
            self.send()
            if self.up:
                self.everything_arrives()
            down, self.down = self.down, []
            for ack in down:
                self._acknowledged(ack)
            self.time_passes(500)
            if all(not waiting for waiting in self.outbox.values()):
                break
        assert self.acked == self.written
        self.the_core_has_each_row_once_and_in_order()
        assert self.sender.due(self.now_ms) == []


def _ranges(seqs: list[int]) -> tuple[tuple[int, int], ...]:
    out: list[tuple[int, int]] = []
    for seq in seqs:
        if out and out[-1][1] == seq - 1:
            out[-1] = (out[-1][0], seq)
        else:
            out.append((seq, seq))
    return tuple(out)


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def _sender(rows: dict[Lane, int], size: int = 1000) -> Sender:
    outbox = {lane: [Row(lane, seq, bytes(size)) for seq in range(1, count + 1)] for lane, count in rows.items()}
    read = lambda lane, after, limit: [r for r in outbox.get(lane, []) if r.seq > after][:limit]  # noqa: E731
    return Sender(read, dict.fromkeys(LANES, 0), 0)


def test_fresh_data_do_not_wait_behind_a_backlog_of_days() -> None:
    rows: dict[Lane, int] = {"backfill": 100_000, "evidence": 10}
    sender = _sender(rows)
    first = [row.lane for row in sender.due(0)]
    assert set(first) == {"backfill"} and len(first) == sender.backlog_window < _WINDOW_ROWS["backfill"]
    rows_now: dict[Lane, int] = {**rows, "event": 2, "data": 3}
    fresh = _sender(rows_now)
    lanes = [row.lane for row in fresh.due(0)]
    assert lanes == ["event"] * 2 + ["data"] * 3 + ["backfill"] * fresh.backlog_window


def test_pictures_wait_until_nothing_else_is_on_its_way() -> None:
    sender = _sender({"data": 1, "evidence": 9})
    assert [row.lane for row in sender.due(0)] == ["data"]
    assert sender.due(1) == []
    sender.acknowledged("data", 1, resend=False, now_ms=2)
    assert [row.lane for row in sender.due(2)] == ["evidence"] * _WINDOW_ROWS["evidence"]


def test_a_burst_of_again_sends_once() -> None:
    sender = _sender({"data": 10})
    assert len(sender.due(0)) == 10
    for _ in range(10):
        sender.acknowledged("data", 0, resend=True, now_ms=5000)
    assert len(sender.due(5000)) == 10 and sender.resent == 10
    for _ in range(10):
        sender.acknowledged("data", 0, resend=True, now_ms=5900)
    assert sender.due(5900) == []
    sender.acknowledged("data", 0, resend=True, now_ms=6000)
    assert len(sender.due(6000)) == 10


def test_silence_is_noticed_and_progress_forgives_it() -> None:
    sender = _sender({"data": 3})
    sender.due(0)
    assert not sender.stalled(7999, 8000)
    sender.acknowledged("data", 1, resend=False, now_ms=7999)
    assert not sender.stalled(15_998, 8000)
    assert sender.stalled(15_999, 8000)
    assert [row.seq for row in sender.due(15_999)] == [2, 3]
    assert not _sender({}).stalled(10**9, 8000)  # nothing on its way: nobody is silent


def test_only_what_the_core_has_not_in_memory_goes_again() -> None:
    sender = _sender({"data": 20})
    assert len(sender.due(0)) == 20
    sender.acknowledged("data", 3, resend=True, now_ms=100, held=[(6, 8), (11, 12)])
    assert [row.seq for row in sender.due(100)] == [4, 5, 9, 10]  # 13 to 20 may be just on their way
    sender.acknowledged("data", 3, resend=True, now_ms=1100, held=[(6, 8), (11, 12)])
    assert [row.seq for row in sender.due(1100)] == [4, 5, 9, 10, *range(13, 21)]
    sender.restart(1200)  # another core: what the first had in memory counts as never sent
    assert [row.seq for row in sender.due(1200)] == list(range(4, 21))


def test_the_backlog_follows_how_quickly_the_core_commits() -> None:
    sender = _sender({"backfill": 100_000}, size=500)
    now, newest, widths = 0, 0, []
    for _ in range(12):  # a quick core: 100 ms a round
        newest = max([row.seq for row in sender.due(now)], default=newest)
        now += 100
        sender.acknowledged("backfill", newest, resend=False, now_ms=now)
        widths.append(sender.backlog_window)
    assert widths == sorted(widths) and widths[-1] == MOST_ON_THEIR_WAY
    for _ in range(8):  # a core that takes 2.5 s a round
        newest = max([row.seq for row in sender.due(now)], default=newest)
        now += 2500
        sender.acknowledged("backfill", newest, resend=False, now_ms=now)
        widths.append(sender.backlog_window)
    assert min(widths[12:]) == 4
    for _ in range(30):  # it is as slow with the smallest window: then the backlog is not why
        newest = max([row.seq for row in sender.due(now)], default=newest)
        now += 2500
        sender.acknowledged("backfill", newest, resend=False, now_ms=now)
    assert sender.backlog_window > 10


def test_the_backlog_gives_way_when_live_data_get_slow() -> None:
    rows: dict[Lane, int] = {"backfill": 100_000, "data": 5000}
    sender = _sender(rows, size=500)
    now, sent = 0, {"data": 0, "backfill": 0}
    widest, least = 0, 99
    for latency in [50] * 10 + [1500] * 10:
        for row in sender.due(now):
            sent[row.lane] = row.seq
        now += latency
        sender.acknowledged("data", sent["data"], resend=False, now_ms=now)
        sender.acknowledged("backfill", sent["backfill"], resend=False, now_ms=now)
        widest, least = max(widest, sender.backlog_window), min(least, sender.backlog_window)
    assert widest > 16 and least == 4


def test_without_room_alarms_go_and_the_others_wait() -> None:
    rows: dict[Lane, int] = {"event": 3, "data": 50, "backfill": 50}
    sender = _sender(rows, size=10_000)
    lanes = [row.lane for row in sender.due(0, room_bytes=50_000)]
    assert lanes == ["event"] * 3 + ["data"] * 2
    sender = _sender(rows, size=10_000)
    assert [row.lane for row in sender.due(0, room_bytes=-5)] == ["event"] * 3
    assert [row.lane for row in sender.due(0, held_back={"backfill", "evidence"})] == ["data"] * 50


def test_a_lane_that_knows_nothing_of_the_core_begins_with_one_row() -> None:
    outbox = [Row("data", seq, bytes(10)) for seq in range(91, 200)]
    sender = Sender(
        lambda lane, after, limit: [r for r in outbox if r.lane == lane and r.seq > after][:limit],
        {"event": 0, "data": 90, "backfill": 0, "evidence": 0}, 0, sure=False,
    )  # fmt: skip
    assert [row.seq for row in sender.due(0)] == [91]
    assert sender.due(10) == []
    sender.acknowledged("data", 91, resend=False, now_ms=20)
    assert len(sender.due(20)) == MOST_ON_THEIR_WAY


def test_the_broker_is_handed_no_more_than_it_takes_in_half_a_second() -> None:
    """A line of 20 kB/s: whatever is published, an alarm waits for about half a second's bytes."""
    pace, number = Pace(), 0
    queued: deque[tuple[int, int]] = deque()
    line_free_ms, worst_ms = 0, 0
    for now in range(0, 60_000, 10):
        while pace.room() > 0:
            number += 1
            pace.handed(number, 4000, now)
            line_free_ms = max(line_free_ms, now) + 200
            queued.append((number, line_free_ms))
        if now > 20_000:
            worst_ms = max(worst_ms, line_free_ms - now)
        while queued and queued[0][1] <= now:
            pace.taken(queued.popleft()[0], now)
    assert 300 < worst_ms < 1500
    quick = Pace()
    for n in range(2000):
        quick.handed(n, 4000, n)
        quick.taken(n, n + 2)
    assert quick.limit_bytes == 1 << 20 and quick.out_bytes == 0


@pytest.mark.parametrize("number", [0, 7])
def test_an_answer_of_the_broker_to_nothing_of_ours_changes_no_book(number: int) -> None:
    pace = Pace()
    pace.taken(number, 5)
    assert pace.out_bytes == 0 and pace.room() == pace.limit_bytes
