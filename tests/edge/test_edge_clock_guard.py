"""The guard before the gateway's clock, with a clock that a test sets: 1970, steps, jumps that are taken back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock_guard import EARLIEST_MS, TOLERANCE_MS, ClockGuard, Step
from edge.clock_kernel import Kept, kept
from protocols.uplink.batch import ClockCorrection

NOW_MS = 1_772_409_600_000  # 2026-03-02 08:00 +08:00
HOUR_MS = 3_600_000


@dataclass
class Settable:
    """Time that passes when told to, and a wall clock that may be set."""

    wall: int = NOW_MS
    steady: int = 1_000_000
    name: str = "boot-1"
    kernel: Kept | None = None

    def now_ms(self) -> int:
        return self.wall

    def steady_ms(self) -> int:
        return self.steady

    def boot(self) -> str:
        return self.name

    def passes(self, ms: int) -> None:
        self.wall += ms
        self.steady += ms


@dataclass
class Bench:
    clock: Settable = field(default_factory=Settable)
    saved: bytes | None = None
    steps: list[Step] = field(default_factory=list)
    corrections: list[ClockCorrection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.guard = ClockGuard(self.clock, self.saved, kernel=lambda: self.clock.kernel, first_run=1)
        self.look()

    def look(self) -> None:
        self.guard.look()
        steps, corrections = self.guard.take()
        self.steps += steps
        self.corrections += corrections

    def passes(self, seconds: int) -> None:
        """Second by second, as the agent's tick does."""
        for _ in range(seconds):
            self.clock.passes(1000)
            self.look()

    def save(self) -> None:
        self.saved = self.guard.saved()

    def power_cut(self, wall_ms: int) -> None:
        self.clock = Settable(wall_ms, 5_000, f"{self.clock.name}+1", self.clock.kernel)
        self.start()


def test_a_clock_that_nobody_sets_says_what_it_says() -> None:
    bench = Bench()
    bench.passes(100)
    assert bench.guard.now_ms() == NOW_MS + 100_000
    assert bench.guard.known and bench.guard.run == 1
    assert not bench.steps and not bench.corrections


@pytest.mark.parametrize("delta_ms", [HOUR_MS, -HOUR_MS, 1_500, -1_500])
def test_a_step_is_seen_at_once_and_what_was_stamped_before_it_is_corrected_once(delta_ms: int) -> None:
    bench = Bench()
    bench.passes(60)
    bench.clock.wall += delta_ms
    assert bench.guard.now_ms() == NOW_MS + 60_000 + delta_ms
    bench.look()
    assert [(s.delta_ms, s.reason, s.known, s.run) for s in bench.steps] == [(delta_ms, "step", True, 2)]
    assert not bench.corrections, "it may yet be taken back"
    bench.passes(200)
    (told,) = bench.corrections
    assert (told.from_ms, told.to_ms, told.offset_ms) == (NOW_MS, NOW_MS + 60_001, delta_ms)
    assert (told.run, told.reason) == (1, "step")


def test_a_jump_that_is_taken_back_corrects_only_what_was_stamped_between() -> None:
    bench = Bench()
    bench.passes(60)
    bench.clock.wall += HOUR_MS
    bench.passes(20)
    bench.clock.wall -= HOUR_MS
    bench.passes(100)
    (told,) = bench.corrections
    assert (told.run, told.offset_ms) == (2, -HOUR_MS)
    assert (told.from_ms, told.to_ms) == (NOW_MS + 61_000 + HOUR_MS, NOW_MS + 81_001 + HOUR_MS)


def test_a_jump_taken_back_after_it_was_believed_takes_its_correction_back() -> None:
    bench = Bench()
    bench.passes(60)
    bench.clock.wall += HOUR_MS
    bench.passes(100)
    bench.clock.wall -= HOUR_MS
    bench.passes(100)
    assert [(c.run, c.offset_ms) for c in bench.corrections] == [(1, HOUR_MS), (1, 0), (2, -HOUR_MS)]


def test_a_boot_in_1970_goes_on_from_the_last_time_stored_and_is_corrected_when_the_time_comes() -> None:
    bench = Bench()
    bench.passes(60)
    bench.save()
    bench.power_cut(5_000)
    assert not bench.guard.known
    assert [(s.reason, s.known) for s in bench.steps] == [("boot", False)]
    first_ms = bench.guard.now_ms()
    assert first_ms == NOW_MS + 60_001
    bench.passes(30)
    assert bench.guard.now_ms() == first_ms + 30_000
    bench.clock.wall = NOW_MS + 12 * HOUR_MS
    bench.look()
    assert bench.guard.known and bench.guard.now_ms() == NOW_MS + 12 * HOUR_MS
    assert bench.steps[-1].reason == "set"
    (told,) = bench.corrections
    assert (told.from_ms, told.to_ms, told.reason, told.run) == (first_ms, first_ms + 30_001, "boot", 2)
    assert told.offset_ms == 12 * HOUR_MS - 60_001 - 30_000


def test_a_first_start_in_1970_begins_in_2020_and_says_so() -> None:
    bench = Bench(Settable(wall=3_000))
    assert bench.guard.now_ms() == EARLIEST_MS + 1
    assert not bench.guard.known


def test_a_battery_clock_a_few_minutes_behind_is_believed() -> None:
    bench = Bench()
    bench.save()
    bench.power_cut(NOW_MS - 300_000)
    assert bench.guard.known and bench.guard.now_ms() == NOW_MS - 300_000
    bench.save()
    bench.power_cut(NOW_MS - HOUR_MS)
    assert not bench.guard.known


def test_a_time_service_overrules_what_was_stored() -> None:
    """The clock was a year ahead when the power went; now it is kept, and earlier."""
    bench = Bench(Settable(wall=NOW_MS + 365 * 24 * HOUR_MS))
    bench.save()
    bench.power_cut(NOW_MS)
    assert not bench.guard.known
    bench.clock.kernel = Kept(True, 3)
    bench.passes(11)
    assert bench.guard.known and bench.guard.now_ms() == NOW_MS + 11_000


def test_what_a_time_service_vouched_for_is_not_corrected() -> None:
    bench = Bench(Settable(kernel=Kept(True, 3)))
    bench.passes(600)
    bench.clock.kernel = Kept(False, 16_000)
    bench.passes(600)
    bench.clock.wall += HOUR_MS
    bench.passes(100)
    (told,) = bench.corrections
    assert NOW_MS + 590_000 <= told.from_ms <= NOW_MS + 600_000
    assert told.offset_ms == HOUR_MS


def test_a_drift_is_corrected_little_by_little() -> None:
    bench = Bench(Settable(kernel=Kept(True, 3)))
    bench.passes(20)
    bench.clock.kernel = Kept(False, 16_000)
    bench.clock.passes(8 * HOUR_MS)
    bench.look()
    bench.clock.wall -= 4_000  # 140 ppm
    bench.passes(100)
    assert len(bench.corrections) == 8
    assert {c.reason for c in bench.corrections} == {"drift"}
    assert [c.offset_ms for c in bench.corrections] == [-250 - 500 * n for n in range(8)]
    assert all(a.to_ms == b.from_ms for a, b in zip(bench.corrections, bench.corrections[1:], strict=False))


def test_a_clock_lost_while_running_goes_on_by_itself() -> None:
    bench = Bench()
    bench.passes(10)
    bench.clock.wall = 0
    bench.look()
    assert not bench.guard.known
    assert bench.guard.now_ms() == NOW_MS + 10_000
    assert [(s.reason, s.delta_ms) for s in bench.steps] == [("lost", 0)]
    bench.passes(10)
    bench.clock.wall = NOW_MS + 21_500
    bench.look()
    assert bench.guard.known and bench.steps[-1].delta_ms == 1_500
    (told,) = [c for c in bench.corrections if c.run == 2]
    assert told.offset_ms == 1_500


def test_a_step_while_the_agent_was_not_running_is_seen_after_its_restart() -> None:
    bench = Bench()
    bench.passes(10)
    bench.save()
    bench.clock.passes(5_000)
    bench.clock.wall += HOUR_MS
    bench.start()
    assert [(s.delta_ms, s.run) for s in bench.steps] == [(HOUR_MS, 2)]
    bench.passes(100)
    assert [(c.run, c.offset_ms) for c in bench.corrections] == [(1, HOUR_MS)]
    bench.save()
    bench.start()
    bench.passes(100)
    assert len(bench.corrections) == 1, "told once"


def test_a_restart_without_a_step_goes_on_with_its_run() -> None:
    bench = Bench()
    bench.save()
    bench.clock.passes(90_000)
    bench.start()
    bench.passes(5)
    assert bench.guard.run == 1 and not bench.steps


def test_a_stamp_handed_over_after_the_step_belongs_to_the_run_it_was_taken_in() -> None:
    bench = Bench()
    bench.passes(60)
    before_ms = bench.guard.now_ms()
    bench.clock.passes(300)
    bench.clock.wall -= HOUR_MS
    after_ms = bench.guard.now_ms()
    assert bench.guard.run_of(before_ms).number == 1
    assert bench.guard.run_of(after_ms).number == 2
    bench.passes(61)
    assert bench.guard.run_of(bench.guard.now_ms()).number == 2


@pytest.mark.parametrize("saved", [b"", b"\xc1", b"\x00" * 9, b"\x96\xa0\x00\x00\x00\x90\x00"])
def test_state_that_is_none_is_a_first_start(saved: bytes) -> None:
    assert ClockGuard(Settable(), saved, kernel=lambda: None).known


def test_the_kernel_answers_or_nobody_does() -> None:
    found = kept()
    assert found is None or found.most_off_ms >= 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(-10 * HOUR_MS, 10 * HOUR_MS), st.booleans()), min_size=1, max_size=8
    )
)
def test_after_any_steps_every_stamp_can_be_put_right(moves: list[tuple[int, int, bool]]) -> None:
    """The last run tells the truth; corrected by what was told, later overruling earlier, so does every stamp."""
    bench = Bench()
    stamps: list[tuple[int, int, int]] = []  # run, said, steady
    for seconds, delta_ms, restart in moves:
        for _ in range(seconds):
            bench.passes(1)
            said_ms = bench.guard.now_ms()
            stamps.append((bench.guard.run, said_ms, bench.clock.steady))
        bench.save()
        bench.clock.wall += delta_ms
        if restart:
            bench.start()
        else:
            bench.look()
    bench.passes(100)
    truth_line = bench.clock.wall - bench.clock.steady
    for run, said_ms, steady_ms in stamps:
        offset_ms = 0
        for told in bench.corrections:
            if told.run == run and told.from_ms <= said_ms < told.to_ms:
                offset_ms = told.offset_ms
        # Steps below the tolerance are followed without a word; up to so many of them add up.
        assert abs(said_ms + offset_ms - (steady_ms + truth_line)) <= (len(moves) + 1) * TOLERANCE_MS
