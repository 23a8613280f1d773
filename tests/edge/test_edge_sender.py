"""The sender against a model of broker and core that drops, repeats, reorders and delays."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.outbox import Row
from edge.uplink.sender import _WINDOW_BYTES, _WINDOW_ROWS, Sender
from protocols.uplink.topics import LANES, Lane

LANE = st.sampled_from(LANES)
_TIMEOUT_MS = 1500


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
        self.down: list[tuple[Lane, int, bool]] = []
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
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
        self.up += out

    @rule(ms=st.sampled_from([1, 300, 1000, 2000]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        self.sender.stalled(self.now_ms, _TIMEOUT_MS)

    @rule()
    def connection_lost(self) -> None:
        """What the broker has may still arrive; the next session begins at what was acknowledged."""
        self.sender = self._connected()

    @rule()
    def core_says_hello(self) -> None:
        self.sender.restart(self.now_ms)

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
        lane, resend = row.lane, False
        if row.seq == self.cursor[lane] + 1:
            self.cursor[lane] = row.seq
            self.committed[lane].append(row.payload[:4])
        elif row.seq > self.cursor[lane]:
            resend = True
        self.down.append((lane, self.cursor[lane], resend))

    def _acknowledged(self, ack: tuple[Lane, int, bool]) -> None:
        lane, committed, resend = ack
        if committed > self.acked[lane]:
            self.acked[lane] = committed
            self.outbox[lane] = [row for row in self.outbox[lane] if row.seq > committed]
        self.sender.acknowledged(lane, committed, resend=resend, now_ms=self.now_ms)

    # -- what must hold

    @invariant()
    def windows_are_kept(self) -> None:
        for lane in LANES:
            flight = self.sender._flights[lane]
            assert len(flight.rows) <= _WINDOW_ROWS[lane]
            sizes = [size for _, size in flight.rows]
            assert sum(sizes) == flight.in_bytes
            assert sum(sizes[:-1]) < _WINDOW_BYTES[lane]
            seqs = [seq for seq, _ in flight.rows]
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


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def _sender(rows: dict[Lane, int], size: int = 1000) -> Sender:
    outbox = {lane: [Row(lane, seq, bytes(size)) for seq in range(1, count + 1)] for lane, count in rows.items()}
    read = lambda lane, after, limit: [r for r in outbox.get(lane, []) if r.seq > after][:limit]  # noqa: E731
    return Sender(read, dict.fromkeys(LANES, 0), 0)


def test_fresh_data_do_not_wait_behind_a_backlog_of_days() -> None:
    rows: dict[Lane, int] = {"backfill": 100_000, "evidence": 10}
    sender = _sender(rows)
    assert [row.lane for row in sender.due(0)] == ["backfill"] * _WINDOW_ROWS["backfill"]
    rows_now: dict[Lane, int] = {**rows, "event": 2, "data": 3}
    fresh = _sender(rows_now)
    lanes = [row.lane for row in fresh.due(0)]
    assert lanes == ["event"] * 2 + ["data"] * 3 + ["backfill"] * _WINDOW_ROWS["backfill"]


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
