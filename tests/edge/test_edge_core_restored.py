"""A core that came back from a backup: the epoch ends when nothing is on its way that the core may still commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.clock import WallClock
from edge.outbox import Outbox, Pending
from edge.uplink.answers import Answers
from edge.uplink.sender import Sender
from protocols.core.model import SeriesInfo
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.topics import LANES, Lane
from tests.edge.test_edge_outbox import NOW_MS, columns

_TIMEOUT_S = 1.5


class Line:
    """An outbox with its sender and what it makes of answers; the core is the test."""

    def __init__(self, path: Path) -> None:
        self.outbox = Outbox(path, now_ms=NOW_MS)
        self.epoch = self.outbox.epoch
        self.now_ms = 1000
        self.write("data", 15)
        self.outbox.acknowledge(self.epoch, "data", 15)
        self.sender = Sender(
            lambda lane, after, limit: self.outbox.rows(lane, after, limit=limit),
            {lane: self.outbox.acked(lane) for lane in LANES},
            self.now_ms,
        )
        self.answers = Answers(self.outbox, self.sender, WallClock(), _TIMEOUT_S, lambda *_: None, {})

    def write(self, lane: Lane, rows: int) -> None:
        alias = self.outbox.alias(SeriesInfo("m", "a"), 0)
        for n in range(rows):
            self.outbox.commit([Pending(lane, columns([(alias, NOW_MS + n, n)]))], now_ms=NOW_MS)

    def sent(self) -> list[tuple[Lane, int]]:
        return [(row.lane, row.seq) for row in self.sender.due(self.now_ms)]

    def hears(self, lane: Lane, committed: int, *, resend: bool = False) -> None:
        said = pb.Ack(epoch=self.epoch, lane=lane, committed=committed, resend=resend).SerializeToString()
        asyncio.run(self.answers.take(said, self.now_ms))

    def is_asked_for_what_is_gone(self) -> None:
        """The core has ``data`` up to row 10, for long enough."""
        for _ in range(5):
            self.now_ms += 1200
            self.hears("data", 10, resend=True)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "o.db")
    yield line
    line.outbox.close()


def test_a_lane_with_nothing_on_its_way_holds_nobody_up(line: Line) -> None:
    line.write("data", 3)
    assert line.sent() == [("data", 16), ("data", 17), ("data", 18)]
    line.is_asked_for_what_is_gone()
    assert line.answers.new_epoch and line.outbox.epoch != line.epoch
    assert line.outbox.ended() == {line.epoch: {"data": 15}}


def test_what_the_core_may_still_commit_is_waited_for_and_nothing_more_goes(line: Line) -> None:
    line.write("data", 1)
    line.write("backfill", 3)
    assert line.sent() == [("data", 16), ("backfill", 1), ("backfill", 2), ("backfill", 3)]
    line.is_asked_for_what_is_gone()
    assert not line.answers.new_epoch
    line.write("backfill", 2)
    assert line.sent() == [("data", 16)]  # asked for again
    line.hears("backfill", 2)
    assert not line.answers.new_epoch and line.sent() == []
    line.hears("backfill", 3)
    assert line.answers.new_epoch
    assert line.outbox.ended() == {line.epoch: {"data": 15, "backfill": 3}}
    carried = {lane: line.outbox.carry_over(epoch, lane, 0, NOW_MS) for epoch, lane in line.outbox.parked()}
    assert carried == {"data": 1, "backfill": 2}  # none of what the core has acknowledged


def test_a_core_that_never_answers_for_the_rest_is_not_waited_for_for_ever(line: Line) -> None:
    line.write("data", 1)
    line.write("backfill", 1)
    line.sent()
    line.is_asked_for_what_is_gone()
    line.now_ms += 2 * 1500
    line.hears("data", 10, resend=True)
    assert not line.answers.new_epoch
    line.now_ms += 1500
    line.hears("data", 10, resend=True)
    assert line.answers.new_epoch


def test_rows_that_the_broker_had_after_all_end_nothing(line: Line) -> None:
    line.write("data", 1)
    line.write("backfill", 1)
    line.sent()
    line.is_asked_for_what_is_gone()
    line.hears("data", 16)
    line.write("backfill", 1)
    assert not line.answers.new_epoch and line.sent() == [("backfill", 2)]
    line.hears("backfill", 2)
    assert line.outbox.epoch == line.epoch and not line.answers.new_epoch
