"""A whole gateway, without its uplink, whose clock is set while it works: nothing lost, no alarm late or false."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.agent import Parts, assemble
from edge.clock import LoopClock
from edge.pipeline import inline
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.model import Event, Sweep
from protocols.uplink import batch as wire
from protocols.uplink.batch import CLOCK_SET, CLOCK_UNKNOWN
from protocols.uplink.topics import Lane
from tests.edge.gateway import CONFIG, START_MS, batches, config

HOUR_MS = 3_600_000
RULES = """[[scenario]]
pack = "urban_mgmt/underground_pipeline"
[scenario.devices]
gas = ["gas-1"]
"""
SWINGING = CONFIG.replace('mode = "all"', 'mode = "swinging-door"\ndeadband = 0.5')


class SetClock(LoopClock):
    """A wall clock that a test sets. ``off_ms``: what it is off the time of the virtual loop."""

    def __init__(self, start_ms: int = START_MS, off_ms: int = 0) -> None:
        super().__init__(start_ms)
        self.off_ms = off_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.off_ms


class Site:
    """``gas-1`` measures once a second."""

    def __init__(self, folder: Path, clock: SetClock, text: str = CONFIG + RULES) -> None:
        self.wall = clock
        self.parts: Parts = assemble(
            config(folder, text), folder, clock, lane=lambda: "data", committed=lambda: None, offload=inline
        )

    async def measures(self, seconds: int, value: float, *, historical: bool = False) -> None:
        for _ in range(seconds):
            await asyncio.sleep(1)
            now_ms = self.parts.clock.now_ms()
            quality = np.zeros(2, dtype=np.uint8)
            sweep = Sweep(
                "gas-1", now_ms, now_ms, ("ch4_lel", "status"), np.array([value, 2.0]), quality, historical=historical
            )
            self.parts.pipeline.sweep(sweep)
            self.parts.pipeline.tick()
        assert await self.parts.pipeline.flush()

    def batches(self, lane: Lane) -> list[wire.Batch]:
        return batches(self.parts.outbox, lane)

    def events(self) -> list[Event]:
        return [event for batch in self.batches("event") for event in batch.events]

    def alarms(self) -> list[tuple[str, str]]:
        return [(e.type, e.state) for e in self.events() if e.state and not e.type.startswith("gw.")]

    def corrections(self) -> list[wire.ClockCorrection]:
        return [c for batch in self.batches("event") for c in batch.corrections]

    def true_times(self) -> list[int]:
        """Of all readings of one series, in the order of the rows, corrected as the core does it."""
        out: list[int] = []
        for batch in self.batches("data"):
            for at_ms in batch.readings.ts_ms[batch.readings.alias == 0].tolist():
                offset_ms = 0
                for told in self.corrections():
                    if told.run == batch.clock_run and told.from_ms <= at_ms < told.to_ms:
                        offset_ms = told.offset_ms
                out.append(at_ms + offset_ms)
        return out


def played(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(body(), START_MS)


@pytest.mark.parametrize("delta_ms", [HOUR_MS, -HOUR_MS])
def test_an_alarm_rises_and_clears_as_ever_after_a_step(tmp_path: Path, delta_ms: int) -> None:
    async def body() -> None:
        site = Site(tmp_path, SetClock())
        await site.measures(60, 0.0)
        site.wall.off_ms = delta_ms
        await site.measures(5, 0.0)
        assert site.alarms() == [], "a step is no silence of the device"
        depth = site.parts.outbox.depth(site.parts.clock.now_ms())
        assert 4_000 <= depth.oldest_ms <= 7_000, "no row grows old by it"
        await site.measures(90, 60.0)
        kinds = [state for _, state in site.alarms()]
        assert "raise" in kinds, "the rules are not blind after a step back"
        await site.measures(400, 0.0)
        assert [state for _, state in site.alarms()].count("clear") == kinds.count("raise")
        steps = [e for e in site.events() if e.type == "gw.clock.step"]
        assert [e.values["offset_ms"] for e in steps] == [delta_ms]
        assert all(abs(e.ts_ms - e.seen_ms) < HOUR_MS // 2 for e in site.events())
        (told,) = site.corrections()
        assert told.offset_ms == delta_ms
        times = site.true_times()
        assert len(times) == 60 + 5 + 90 + 400
        assert all(999 <= b - a <= 1001 for a, b in itertools.pairwise(times))
        assert {b.clock for b in site.batches("data")} == {CLOCK_SET}

    played(body)


def test_an_alarm_that_was_open_before_the_step_is_cleared_after_it(tmp_path: Path) -> None:
    async def body() -> None:
        site = Site(tmp_path, SetClock())
        await site.measures(90, 60.0)
        raised = [kind for kind in site.alarms() if kind[1] == "raise"]
        assert raised
        site.wall.off_ms = -HOUR_MS
        await site.measures(400, 0.0)
        assert sorted(kind for kind, state in site.alarms() if state == "clear") == sorted(k for k, _ in raised)

    played(body)


def test_a_boot_in_1970_works_is_marked_and_is_corrected(tmp_path: Path) -> None:
    async def body() -> None:
        site = Site(tmp_path, SetClock(off_ms=-START_MS + 20_000))
        await site.measures(30, 0.0)
        await site.measures(60, 60.0)
        assert "raise" in [state for _, state in site.alarms()], "alarms need no calendar"
        assert {b.clock for b in site.batches("data")} == {CLOCK_UNKNOWN}
        unset = [e for e in site.events() if e.type == "gw.clock.unset"]
        assert [e.state for e in unset] == ["raise"]
        site.parts.pipeline.report("dev.clock_skew", "gas-1", "offset", "the device says 2026")
        site.wall.off_ms = 0
        await site.measures(30, 0.0)
        unset = [e for e in site.events() if e.type == "gw.clock.unset"]
        assert [e.state for e in unset] == ["raise", "clear"]
        assert len({e.key for e in unset}) == 1
        assert not [e for e in site.events() if e.type == "dev.clock_skew"], "not judged by a clock that knows nothing"
        (told,) = site.corrections()
        assert told.reason == "boot"
        times = site.true_times()
        assert len(times) == 120
        assert times[0] == pytest.approx(START_MS + 1_000, abs=5)
        assert all(999 <= b - a <= 1001 for a, b in itertools.pairwise(times))

    played(body)


def test_what_was_held_back_before_a_step_is_sent_with_it(tmp_path: Path) -> None:
    """Swinging door: the newest point before the step is on no line that goes on."""

    async def body() -> None:
        site = Site(tmp_path, SetClock(), SWINGING)
        await site.measures(20, 5.0)
        site.wall.off_ms = -HOUR_MS
        await site.measures(20, 5.0)
        await site.measures(1, 50.0)
        await site.measures(60, 50.0)
        times = site.true_times()
        assert START_MS - HOUR_MS + 20_000 in [round(t, -3) for t in times]
        assert times == sorted(times)
        assert len(times) < 20, "report by exception still holds"

    played(body)


def test_a_device_memory_goes_into_batches_of_its_own(tmp_path: Path) -> None:
    async def body() -> None:
        site = Site(tmp_path, SetClock())
        await site.measures(3, 1.0)
        await site.measures(2, 9.0, historical=True)
        await asyncio.sleep(1)
        now_ms = site.parts.clock.now_ms()
        for past in (False, True):
            values, quality = np.array([5.0, 2.0]), np.zeros(2, dtype=np.uint8)
            sweep = Sweep("gas-1", now_ms + past, now_ms, ("ch4_lel", "status"), values, quality, historical=past)
            site.parts.pipeline.sweep(sweep)
        assert await site.parts.pipeline.flush()
        assert [(b.historical, len(b.readings)) for b in site.batches("data")] == [
            (False, 6),
            (True, 4),
            (False, 2),
            (True, 2),
        ]

    played(body)


def test_what_is_told_is_told_once_although_the_agent_is_killed(tmp_path: Path) -> None:
    """The correction and the note that it was told become durable together."""

    async def body() -> None:
        site = Site(tmp_path, SetClock())
        await site.measures(30, 0.0)
        site.wall.off_ms = HOUR_MS
        await site.measures(100, 0.0)
        assert len(site.corrections()) == 1
        state = site.parts.outbox.get_state("clock")
        assert state is not None
        site.parts.outbox.close()  # killed: no farewell, no last save
        again = Site(tmp_path, SetClock(site.wall.now_ms()))
        await again.measures(100, 0.0)
        assert len(again.corrections()) == 1

    played(body)
