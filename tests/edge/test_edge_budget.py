"""The byte budget of a metered link: one budget a day and hour whatever the clock does; alarms always go."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.outbox import Row
from edge.outbox.opening import open_outbox
from edge.uplink.budget import _REMEMBERED, Budget
from edge.uplink.pace import Pace
from edge.uplink.sender import Sender
from protocols.uplink.topics import LANES, Lane

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
#: 2026-03-02 00:00 in China, a new day there.
MIDNIGHT_MS = 1_772_380_800_000
_UNKNOWN = 18_262  # 2020-01-01, days: a clock before it has not been set
WAITING: set[Lane] = {"data", "backfill", "evidence"}
MB = 1_000_000


def day(saved: bytes | None = None, *, mb: float = 10) -> Budget:
    return Budget(mb, 0, saved)


# -- days and hours --------------------------------------------------------------------------------------------------


def test_a_day_begins_at_midnight_in_china_and_an_hour_with_the_hour() -> None:
    budget = Budget(10, 1, None)
    budget.spend(900_000, MIDNIGHT_MS - 1)
    assert budget.held_back(MIDNIGHT_MS - 1) == WAITING  # the hour's four fifths are gone
    assert budget.held_back(MIDNIGHT_MS) == {"backfill", "evidence"}  # of the new day nothing is free yet for a backlog
    assert (budget.spent_bytes("hour"), budget.spent_bytes()) == (0, 0)
    budget.spend(700_000, MIDNIGHT_MS)
    assert budget.held_back(MIDNIGHT_MS + HOUR_MS - 1) == {"backfill", "evidence"}  # 0.7 of the day's first 0.33 MB
    assert budget.held_back(MIDNIGHT_MS + HOUR_MS) == {"backfill", "evidence"}
    assert (budget.spent_bytes("hour"), budget.spent_bytes()) == (0, 700_000)
    # 8 MB are free over the day: 0.7 MB of them by 02:06.
    assert budget.held_back(MIDNIGHT_MS + 126 * 60_000) == {"backfill", "evidence"}  # the hour's part: 0.08 MB by then
    budget.spend(100_000, MIDNIGHT_MS + 126 * 60_000)
    assert budget.held_back(MIDNIGHT_MS + 150 * 60_000) == set()  # 0.8 < 0.833 of the day, 0.1 < 0.4 of the hour


def test_a_backlog_takes_what_the_day_has_left_over_so_far() -> None:
    budget, noon_ms = day(), MIDNIGHT_MS + DAY_MS // 2
    budget.spend(3_999_999, noon_ms)
    assert budget.held_back(noon_ms) == set()
    budget.spend(1, noon_ms)
    assert budget.held_back(noon_ms) == {"backfill", "evidence"}
    budget.spend(3_999_999, noon_ms)
    assert budget.held_back(noon_ms) == {"backfill", "evidence"}
    budget.spend(1, noon_ms)
    assert budget.held_back(noon_ms) == WAITING


@pytest.mark.parametrize("what", ["day", "hour"])
def test_either_bound_holds_alone(what: str) -> None:
    budget = Budget(1 if what == "day" else 0, 1 if what == "hour" else 0, None)
    budget.spend(800_000, MIDNIGHT_MS + HOUR_MS // 2)
    assert budget.metered and budget.held_back(MIDNIGHT_MS + HOUR_MS // 2) == WAITING


def test_no_budget_holds_nothing_back_and_writes_nothing_down() -> None:
    budget = Budget(0, 0, None)
    budget.spend(1 << 50, MIDNIGHT_MS)
    assert not budget.metered and budget.held_back(MIDNIGHT_MS) == set()
    assert budget.save() is None and budget.save(anyway=True) is None
    assert budget.spent_bytes() == 1 << 50  # the link's use is told all the same


def test_a_full_window_does_not_run_past_the_budget() -> None:
    """Rows are handed over by the dozen before any of them is counted on the link: what is on its way counts."""
    size, budget, pace = 7_000, day(mb=1), Pace()
    rows: dict[Lane, list[Row]] = {lane: [Row(lane, n, bytes(size)) for n in range(1, 401)] for lane in LANES}
    sender = Sender(lambda lane, after, most: rows[lane][after : after + most], dict.fromkeys(LANES, 0), 0)
    sent: Counter[str] = Counter()
    for turn in range(400):
        now_ms = MIDNIGHT_MS + DAY_MS - HOUR_MS + turn
        room = min(pace.room(), budget.room_bytes(now_ms) - pace.out_bytes)
        handed = sender.due(turn, room_bytes=room, held_back=budget.held_back(now_ms) | {"event"})
        for row in handed:
            pace.handed(sent.total(), size, turn)
            sent[row.lane] += 1
        assert sent.total() * size < 800_000 + size
        if turn % 3 == 0:  # the link is slow: much is handed over before it is counted
            for number in list(pace._out):
                pace.taken(number, turn)
                budget.spend(size, now_ms)
            for lane in ("data", "backfill"):
                sender.acknowledged(lane, sent[lane], resend=False, now_ms=turn)
    assert sent.total() * size >= 800_000  # and all of it is used
    alarms = sender.due(500, room_bytes=-1, held_back=budget.held_back(MIDNIGHT_MS + DAY_MS - 1))
    assert {row.lane for row in alarms} == {"event"}
    assert Budget(0, 0, None).room_bytes(MIDNIGHT_MS) > 1 << 50


# -- what lies on the disk -------------------------------------------------------------------------------------------


def test_a_restart_goes_on_with_what_was_spent(tmp_path: Path) -> None:
    budget = Budget(10, 2, None)
    budget.spend(5 * MB, MIDNIGHT_MS + HOUR_MS)
    budget.spend(1 * MB, MIDNIGHT_MS + 2 * HOUR_MS)
    outbox = open_outbox(tmp_path / "o.db", now_ms=MIDNIGHT_MS, max_bytes=64 * MB)
    outbox.put_state("uplink.budget", budget.save(anyway=True) or b"")
    outbox.close()
    outbox = open_outbox(tmp_path / "o.db", now_ms=MIDNIGHT_MS, max_bytes=64 * MB)
    again = Budget(10, 2, outbox.get_state("uplink.budget"))
    assert (again.spent_bytes(), again.spent_bytes("hour")) == (6 * MB, 1 * MB)
    assert again.held_back(MIDNIGHT_MS + 2 * HOUR_MS) == budget.held_back(MIDNIGHT_MS + 2 * HOUR_MS)
    assert again.held_back(MIDNIGHT_MS + DAY_MS) == {"backfill", "evidence"} and again.spent_bytes() == 0


def test_a_small_budget_is_written_down_more_often() -> None:
    """A power cut forgets at most a hundredth of it: being switched off each minute is no way round it."""
    small, large = day(mb=1), day(mb=100)
    for budget, least in ((small, 10_000), (large, 64 << 10)):
        budget.spend(least - 1, MIDNIGHT_MS)
        assert budget.save() is None
        budget.spend(1, MIDNIGHT_MS)
        assert budget.save() is not None and budget.save() is None
    assert day(mb=0.00001).save() is None  # nothing spent, nothing to write


@pytest.mark.parametrize(
    "saved",
    [
        b"", b"\xff\xfe", b"[]", b"7", b"null", b'{"day": 3}', b'{"day": [1]}', b'{"day": ["x", 1]}',
        b'{"day": [1, 1e999]}',
        b'{"day": [1, NaN]}', b'{"day": [20515, -9000000]}', b'{"week": [1, 900000000]}', b"[" * 5000,
    ],
)  # fmt: skip
def test_a_saved_state_that_makes_no_sense_counts_as_none(saved: bytes) -> None:
    budget = day(saved)
    assert budget.spent_bytes() == 0
    budget.spend(8 * MB, MIDNIGHT_MS)
    assert budget.held_back(MIDNIGHT_MS) == WAITING


def test_what_an_earlier_agent_wrote_is_read_and_an_earlier_agent_reads_ours() -> None:
    number = (MIDNIGHT_MS + 8 * HOUR_MS) // DAY_MS
    assert day(json.dumps({"day": [number, 9 * MB], "hour": [5, 5]}).encode()).held_back(MIDNIGHT_MS + 1) == WAITING
    budget = day()
    budget.spend(3, MIDNIGHT_MS)
    budget.spend(2, MIDNIGHT_MS - DAY_MS)
    written = json.loads(budget.save(anyway=True) or b"")
    assert all(len(pair) == 2 for pair in written.values())
    assert written["day"] == [number - 1, 5]  # what was brought along counts there too


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_of_1970_after_a_restart_is_no_second_budget() -> None:
    budget = day()
    budget.spend(7 * MB, MIDNIGHT_MS + 9 * HOUR_MS)
    again = day(budget.save(anyway=True))
    again.held_back(5000)
    again.spend(1 * MB, 6000)
    assert again.held_back(6000) == WAITING
    once_more = day(again.save(anyway=True))
    assert once_more.held_back(4000) == WAITING
    now_ms = MIDNIGHT_MS + 10 * HOUR_MS
    assert once_more.held_back(now_ms) == WAITING and once_more.spent_bytes() == 8 * MB
    assert once_more.held_back(MIDNIGHT_MS + DAY_MS) == {"backfill", "evidence"}


def test_a_night_without_power_costs_the_new_day_only_what_1970_has_spent() -> None:
    budget = day()
    budget.spend(7 * MB, MIDNIGHT_MS + 9 * HOUR_MS)
    again = day(budget.save(anyway=True))
    again.spend(20_000, 6000)
    again.held_back(MIDNIGHT_MS + DAY_MS)
    assert again.spent_bytes() == 20_000


def test_a_gateway_that_never_learns_the_time_still_gets_its_days() -> None:
    budget = day()
    for number in range(1, 9):
        budget.spend(8 * MB, number * DAY_MS)
        assert budget.held_back(number * DAY_MS) == WAITING and budget.spent_bytes() == 8 * MB


@pytest.mark.parametrize("ahead_ms", [DAY_MS, 2 * DAY_MS, 365 * DAY_MS])
def test_a_clock_that_was_ahead_comes_back_to_the_same_day(ahead_ms: int) -> None:
    budget, now_ms = day(), MIDNIGHT_MS + 9 * HOUR_MS
    budget.spend(5 * MB, now_ms)
    budget.spend(2 * MB, now_ms + ahead_ms)
    assert budget.held_back(now_ms + 1000) == {"backfill", "evidence"} and budget.spent_bytes() == 7 * MB
    budget.spend(1 * MB, now_ms + 1000)
    assert budget.held_back(now_ms + 2000) == WAITING
    assert budget.held_back(MIDNIGHT_MS + DAY_MS + HOUR_MS) == (
        set() if ahead_ms > DAY_MS else {"backfill", "evidence"}
    )


def test_a_second_back_over_midnight_opens_no_door() -> None:
    budget = day()
    budget.spend(8 * MB, MIDNIGHT_MS - 500)
    for step_ms in (500, -400, 700, -300, 900):
        budget.spend(1, MIDNIGHT_MS + step_ms)
    budget.held_back(MIDNIGHT_MS - 10)
    assert budget.held_back(MIDNIGHT_MS - 10) == WAITING
    budget.held_back(MIDNIGHT_MS + 1000)
    assert budget.spent_bytes() == 3


class Link(RuleBasedStateMachine):
    """Any order of traffic, steps of the clock and restarts. The clock may come back to the last days it has named (a
    budget remembers so many), to days it never named, and to 1970."""

    LIMIT, MOST_ROW = 100_000, 9_000

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = MIDNIGHT_MS + 5 * HOUR_MS
        self.budget = Budget(self.LIMIT / MB, 0, None)
        self.named = [self._day]  # days by the clock, the last one last
        self.sent: Counter[int] = Counter()  # by the day's name: what is no alarm

    @property
    def _day(self) -> int:
        return (self.now_ms + 8 * HOUR_MS) // DAY_MS

    def _goes_to(self, now_ms: int) -> None:
        name = (now_ms + 8 * HOUR_MS) // DAY_MS
        if name in self.sent and name not in self.named[-_REMEMBERED:]:
            return
        before, self.now_ms = self._day, now_ms
        if name == before:
            return
        self.named = [*(one for one in self.named if one != name), name]
        spent = self.budget.spent_bytes()
        self.budget.held_back(now_ms)
        if before < _UNKNOWN <= name:  # the clock has been set: the days of 1970 are no more
            for unknown in [one for one in self.sent if one < _UNKNOWN]:
                del self.sent[unknown]
        if name < before and not self.came_back:
            assert self.budget.spent_bytes() >= spent  # a step back frees nothing
        self.came_back = name < before

    came_back = False

    @rule(ms=st.sampled_from([250, 60_000, HOUR_MS, DAY_MS]))
    def time_passes(self, ms: int) -> None:
        self._goes_to(self.now_ms + ms)

    @rule(data=st.data(), within_ms=st.integers(0, DAY_MS - 1))
    def the_clock_is_set(self, data: st.DataObject, within_ms: int) -> None:
        far = [0, 20_000, 21_000, self.named[-1] + 1, self.named[-1] - 1]
        name = data.draw(st.sampled_from(self.named[-_REMEMBERED:] + far))
        self._goes_to(max(0, name) * DAY_MS - 8 * HOUR_MS + within_ms)

    @rule(lane=st.sampled_from(LANES), size=st.integers(1, MOST_ROW))
    def a_row(self, lane: Lane, size: int) -> None:
        if lane in self.budget.held_back(self.now_ms):
            return
        self.budget.spend(size, self.now_ms)
        if lane != "event":
            self.sent[self._day] += size

    @rule()
    def restart(self) -> None:
        self.budget = Budget(self.LIMIT / MB, 0, self.budget.save(anyway=True))

    @invariant()
    def alarms_are_never_held(self) -> None:
        assert "event" not in self.budget.held_back(self.now_ms)

    @invariant()
    def no_day_gets_more_than_its_budget_and_one_row(self) -> None:
        assert max(self.sent.values(), default=0) < self.LIMIT * 0.8 + self.MOST_ROW


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
