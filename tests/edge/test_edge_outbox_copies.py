"""An old copy of the outbox put back together with its witness: both agree, and both are behind what the core has."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.clock import WallClock
from edge.outbox import Outbox, Pending
from edge.outbox.opening import open_outbox
from edge.uplink.account import Books
from edge.uplink.answers import Answers
from edge.uplink.sender import Sender
from protocols.core.model import SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.topics import LANES, Lane
from tests.edge.test_edge_outbox import NOW_MS, columns, event

MB = 1 << 20


class Core:
    """Cursors as ingest keeps them. A row under a number that it has already is a repeat: it must be the same row, or
    one that only asks."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, Lane], list[bytes]] = defaultdict(list)
        self.reused: list[tuple[int, Lane, int]] = []

    def take(self, lane: Lane, payload: bytes) -> pb.Ack:
        found = wire.open_envelope(payload)
        rows = self.rows[found.epoch, lane]
        if found.seq == len(rows) + 1:
            rows.append(payload)
        elif found.seq <= len(rows) and payload not in (
            rows[found.seq - 1],
            wire.encode(wire.Batch(found.epoch, 1), {}),
        ):
            self.reused.append((found.epoch, lane, found.seq))
        return pb.Ack(epoch=found.epoch, lane=lane, committed=len(rows), resend=found.seq > len(rows))

    def events(self) -> list[str]:
        envelopes = [wire.open_envelope(p) for (_, lane), rows in self.rows.items() if lane == "event" for p in rows]
        return [one.id for envelope in envelopes for one in wire.decode(envelope, {}).events]


class Life:
    """A gateway's outbox from start to start; event ``n`` and reading ``n`` are made once each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        self.now_ms = NOW_MS
        self.outbox = self._open()
        self.core = Core()

    def _open(self) -> Outbox:
        self.now_ms += 1000
        return open_outbox(self.folder / "o.db", now_ms=self.now_ms, max_bytes=64 * MB)

    def restart(self) -> None:
        self.outbox.close()
        self.outbox = self._open()

    def write(self, count: int) -> None:
        alias = self.outbox.alias(SeriesInfo("m", "x"), 0)
        pending: list[Pending] = []
        for _ in range(count):
            self.made += 1
            pending.append(Pending("data", columns([(alias, NOW_MS + self.made, self.made)])))
            pending.append(Pending("event", events=[event(self.made)]))
        self.outbox.commit(pending, now_ms=self.now_ms)

    def talk(self, rounds: int = 1000) -> str:
        """A connection: rows go, answers come, until nothing moves. Why it ended, if an epoch did."""
        return asyncio.run(self._talk(rounds))

    async def _talk(self, rounds: int) -> str:
        sender = Sender(
            lambda lane, after, limit: self.outbox.rows(lane, after, limit=limit, careful=True),
            {lane: self.outbox.acked(lane) for lane in LANES}, 0,
        )  # fmt: skip
        answers = Answers(self.outbox, sender, WallClock(), 1.0, lambda *_: None, {})
        for epoch, lane in self.outbox.parked():
            assert epoch == 0
            self.outbox.carry_over(epoch, lane, 0, self.now_ms)
        for turn in range(rounds):
            rows = sender.due(turn)
            said = {row.lane: self.core.take(row.lane, row.payload) for row in rows}
            for ack in said.values():
                await answers.take(ack.SerializeToString(), turn)
                if answers.new_epoch:
                    return answers.new_epoch
            if not rows:
                break
        return ""

    def copy(self) -> None:
        (self.folder / "copy").mkdir()
        for part in self.folder.glob("o.db*"):
            shutil.copy(part, self.folder / "copy" / part.name)

    def put_back(self) -> None:
        self.outbox.close()
        for part in self.folder.glob("o.db*"):
            part.unlink()
        for part in (self.folder / "copy").iterdir():
            shutil.copy(part, self.folder / part.name)
        self.outbox = self._open()


@settings(max_examples=6, deadline=None)
@example(before=3, waiting=0, beyond=1, offline=1, restarts=0)
@example(before=3, waiting=8, beyond=30, offline=40, restarts=1)
@given(
    before=st.integers(1, 8),
    waiting=st.integers(0, 8),
    beyond=st.integers(1, 90),
    offline=st.integers(0, 90),
    restarts=st.integers(0, 2),
)
def test_whatever_was_sent_since_the_copy_no_number_says_two_things_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, before: int, waiting: int, beyond: int, offline: int, restarts: int
) -> None:
    """``beyond``: rows the core took after the copy was made; ``offline``: rows made after it was put back, before the
    core was heard of."""
    life = Life(tmp_path_factory.mktemp("life"))
    life.write(before)
    assert life.talk() == ""
    life.write(waiting)
    life.copy()
    life.write(beyond)
    assert life.talk() == "" and len(life.core.events()) == life.made
    life.put_back()
    old = life.outbox.epoch
    assert life.outbox.opening.reason == ""  # file and witness agree: only the core can tell
    for _ in range(restarts):
        life.write(offline)
        life.restart()
    life.write(offline or 1)
    assert "old copy" in life.talk()
    assert (life.outbox.epoch_reason, life.outbox.previous_epoch) == ("restored", old) and life.outbox.epoch > old
    assert life.talk() == ""
    assert life.core.reused == []
    assert set(life.core.events()) == {f"e{n}" for n in range(1, life.made + 1)}
    assert life.outbox.depth(NOW_MS).rows == dict.fromkeys(LANES, 0)
    restarted = life.outbox.epoch
    life.restart()
    life.write(3)
    assert life.talk() == "" and life.outbox.epoch == restarted  # told once, not again


def test_the_core_is_told_why(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.write(5)
    life.talk()
    life.copy()
    life.write(5)
    life.talk()
    life.put_back()
    life.write(1)
    old = life.outbox.epoch
    life.talk()
    books = Books(life.outbox, "1")
    state, account = pb.State(), pb.Account()
    state.ParseFromString(books.state(NOW_MS, online=True))
    account.ParseFromString(books.account(NOW_MS, {}))
    for said in (state, account):
        assert (said.epoch_reason, said.previous_epoch, said.epoch) == ("restored", old, life.outbox.epoch)
    assert {(one.epoch, one.lane, one.acked) for one in account.ended} == {(old, "event", 5), (old, "data", 5)}


def test_a_whole_outbox_goes_on_after_its_restart_and_asks_only_where_nothing_waits(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.write(200)
    assert life.talk(1) == ""  # some of it; the rest waits
    epoch = life.outbox.epoch
    life.restart()
    life.write(100)
    assert life.talk() == "" and life.outbox.epoch == epoch
    life.restart()
    life.write(1)
    (asks,) = life.outbox.rows("data", 300, careful=True)
    assert (asks.seq, wire.open_envelope(asks.payload).seq) == (300, 1)
    assert life.outbox.sent("data") == 300  # a question is no row
    assert life.talk() == "" and life.outbox.acked("data") == 301
    assert sorted(life.core.events()) == sorted(f"e{n}" for n in range(1, 302)) and life.core.reused == []


def test_killed_again_and_again_while_rows_are_on_their_way_is_no_copy(tmp_path: Path) -> None:
    """What was sent in one run may be answered in the next: that is no other life of the outbox."""
    life = Life(tmp_path)
    life.write(40)
    life.talk(1)
    for _ in range(4):
        life.write(30)
        for lane in LANES:  # sent, and taken by the core; the answer never came
            for row in life.outbox.rows(lane, life.outbox.acked(lane), limit=64, careful=True):
                life.core.take(lane, row.payload)
        life.restart()
        assert life.talk(2) == ""
    assert life.talk() == "" and life.outbox.epoch_reason == "new"
    assert sorted(life.core.events()) == sorted(f"e{n}" for n in range(1, life.made + 1))


def test_a_reader_that_is_not_careful_forgets_where_the_lane_began(tmp_path: Path) -> None:
    """What somebody has read may have been sent: the next start must not call that a copy."""
    life = Life(tmp_path)
    life.write(2)
    life.restart()
    life.write(5)
    assert [row.seq for row in life.outbox.rows("data", 0, careful=True)] == [1, 2]
    for row in life.outbox.rows("data", 0):
        life.core.take("data", row.payload)
    life.restart()
    assert life.talk() == "" and life.outbox.acked("data") == 7
