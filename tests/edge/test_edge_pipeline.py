"""From sweeps to durable batches, in virtual time and on a real outbox."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from edge import waiting as waiting_module
from edge.agent import assemble, run_parts
from edge.clock import LoopClock
from edge.outbox import Outbox
from edge.pipeline import inline
from edge.uplink.account import losses
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import load_scene
from protocols.core.model import Quality, Sweep
from protocols.hj212.messages import parse_time
from protocols.uplink.batch import to_float
from tests.edge.gateway import CONFIG, START_MS, Rig, batches, config, full_disk
from tests.support.virtual import play

DISTRICT = Path(__file__).resolve().parents[2] / "firmware-sim" / "scenes" / "district.toml"


def in_virtual_time(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    run_virtual(main(), START_MS)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    task = asyncio.create_task(rig.pipeline.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_device_is_told_only_when_its_data_are_on_disk(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        told: list[int] = []

        def done() -> None:
            with sqlite3.connect(f"file:{rig.path}?mode=ro", uri=True) as other:  # what another process sees
                told.append(other.execute("select sum(readings) from batch").fetchone()[0])

        async with running(rig):
            await asyncio.sleep(1)
            rig.sweep(1.0, done=done)
            rig.sweep(2.0, exchange="push-1", done=done)
            rig.pipeline.commits._urgent.clear()  # the device's first word is news; here only readings count
            await asyncio.sleep(0.45)
            assert told == []
            await asyncio.sleep(0.1)
            assert told == [2, 2]

    in_virtual_time(body)


def test_readings_wait_for_each_other_and_an_event_for_nobody(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            rig.sweep(0.0)
            await asyncio.sleep(1)
            commits = rig.pipeline.counters["commits"]
            for n in range(40):  # 0.4 s of readings
                rig.sweep(float(n))
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert rig.pipeline.counters["commits"] - commits == 1
            assert len(rig.batches()[-1].readings) == 40
            rig.sweep(41.0)
            rig.pipeline.report("data.rejected", "gas-1", "checksum", "x")
            await asyncio.sleep(0.03)
            assert [e.type for e in rig.events()] == ["data.rejected"]
            assert rig.values()[-1] == 41.0  # it took the readings along

    in_virtual_time(body)


def test_a_repeated_push_is_recognised_waiting_on_its_way_and_after_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        told: list[str] = []
        rig.sweep(1.0, exchange="a", done=lambda: told.append("first"))
        rig.sweep(1.0, exchange="a", done=lambda: told.append("again"))
        assert told == []
        assert await rig.pipeline.flush()
        assert told == ["first", "again"]
        rig.sweep(1.0, exchange="a", done=lambda: told.append("late"))
        assert told[-1] == "late"
        assert rig.pipeline.counters["repeats"] == 2
        rig.outbox.acknowledge(rig.outbox.epoch, "data", 1)  # the core has it: still a repeat
        rig.outbox.close()

        again = Rig(tmp_path)
        again.sweep(1.0, exchange="a", done=lambda: told.append("after the restart"))
        again.sweep(2.0, exchange="b")
        assert told[-1] == "after the restart"
        assert await again.pipeline.flush()
        assert again.values() == [2.0]

    in_virtual_time(body)


def test_a_repeat_that_comes_during_the_commit_is_one(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        told: list[str] = []

        async def while_writing(function: Callable[[], None], /) -> None:
            rig.sweep(1.0, exchange="a", done=lambda: told.append("again"))
            function()

        rig.pipeline.commits._offload = while_writing
        rig.sweep(1.0, exchange="a", done=lambda: told.append("first"))
        assert await rig.pipeline.flush()
        assert told == ["first"]
        rig.pipeline.commits._offload = inline
        assert await rig.pipeline.flush()
        assert told == ["first", "again"] and rig.values() == [1.0]

    in_virtual_time(body)


def test_a_disk_that_refuses_keeps_everything_for_later(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        told: list[str] = []
        async with running(rig):
            rig.sweep(1.0, exchange="a", done=lambda: told.append("a"))
            await asyncio.sleep(1)
            assert told == ["a"]
            with full_disk():
                rig.sweep(2.0, exchange="b", done=lambda: told.append("b"))
                rig.pipeline.report("dev.fault", "gas-1", "sensor")
                await asyncio.sleep(2)
                rig.sweep(3.0, done=lambda: told.append("c"))
                rig.sweep(2.0, exchange="b", done=lambda: told.append("b again"))
                await asyncio.sleep(5)
                assert told == ["a"]
                refused = rig.pipeline.counters["commits_refused"]
                assert 4 <= refused <= 9  # about once a second, not in a spin
                assert rig.values() == [1.0]
            await asyncio.sleep(2)
            assert sorted(told) == ["a", "b", "b again", "c"]
            assert rig.values() == [1.0, 2.0, 3.0]
            assert [e.type for e in rig.events()] == ["dev.fault"]
            assert rig.pipeline.counters["commits_refused"] == refused

    in_virtual_time(body)


def test_memory_is_bounded_while_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "_MOST_WAITING", 50)

    async def body() -> None:
        rig = Rig(tmp_path)
        rig.sweep(0.0)
        assert await rig.pipeline.flush()
        with full_disk():
            for n in range(1, 121):
                rig.sweep(float(n))
                if n % 30 == 0:
                    assert not await rig.pipeline.flush()
        assert losses(rig.pipeline.counters) == {"memory_full": (70, 0)}
        assert await rig.pipeline.flush()
        assert rig.values() == [0.0, *(float(n) for n in range(71, 121))]

    in_virtual_time(body)


@pytest.mark.parametrize("days", [24, 25, 30, 20_000, -400])
def test_a_logger_with_old_data_or_a_wrong_clock_stops_nothing(tmp_path: Path, days: int) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        rig.sweep(1.5, lag_ms=days * 86_400_000)
        assert await rig.pipeline.flush()
        (batch,) = rig.batches()
        assert batch.readings.ts_ms.tolist() == [START_MS - days * 86_400_000]
        assert batch.readings.lag_ms.tolist() == [min(max(days * 86_400_000, -(2**31 - 1)), 2**31 - 1)]
        assert rig.values() == [1.5]

    in_virtual_time(body)


def test_a_series_keeps_the_resolution_it_was_declared_with(tmp_path: Path) -> None:
    """An update that gives a type another number of decimals must not become a silent factor of ten."""

    async def body() -> None:
        rig = Rig(tmp_path)
        rig.sweep(12.3)
        assert await rig.pipeline.flush()
        (declared,) = rig.outbox.series()
        rig.outbox._db.execute("update series set decimals = decimals + 2")  # as if made by an agent of that opinion
        rig.outbox.close()
        again = Rig(tmp_path)
        again.sweep(45.6)
        assert await again.pipeline.flush()
        (now,) = again.outbox.series()
        assert now.decimals == declared.decimals + 2
        assert again.values()[-1] == pytest.approx(45.6)

    in_virtual_time(body)


def test_what_has_no_value_is_missing_and_costs_no_rule(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        for value in (np.nan, np.inf, -np.inf, 1e300, 7.0):
            rig.sweep(float(value))
        assert await rig.pipeline.flush()
        quality = [grade for batch in rig.batches() for grade in batch.readings.quality.tolist()]
        assert sorted(quality) == [0, 5, 5, 5, 5]
        assert [v for v in rig.values() if v == v] == [7.0]

    in_virtual_time(body)


def test_report_by_exception_and_snapshot(tmp_path: Path) -> None:
    text = CONFIG.replace('mode = "all"', 'mode = "deadband"\ndeadband = 0.5\nsnapshot_s = 10')

    async def body() -> None:
        rig = Rig(tmp_path, text)
        for value in (1.0, 1.2, 1.5, 1.6, 2.2, 2.1):
            rig.sweep(value)
            await asyncio.sleep(1)
        await asyncio.sleep(10)
        rig.sweep(2.1)
        rig.sweep(2.1, quality=[int(Quality.MAINTENANCE)])
        assert await rig.pipeline.flush()
        assert rig.values() == [1.0, 1.6, 2.2, 2.1, 2.1]
        assert (rig.pipeline.counters["readings_seen"], rig.pipeline.counters["readings_kept"]) == (8, 5)

    in_virtual_time(body)


def test_a_device_nobody_configured_is_counted_and_leaves_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        rig.sweep(1.0, device="gas-9")
        points, values = ("ch4_lel", "co_ppm", "o2_vol"), np.array([1.0, np.nan, 20.9])
        rig.pipeline.sweep(Sweep("gas-9", 0, 0, points, values, np.zeros(3, np.uint8)))
        rig.pipeline.sweep(Sweep("", 0, 0, (), np.zeros(0), np.zeros(0, np.uint8)))
        # The core is told of readings, not of the sweeps they came in: its ledger adds them up with the others.
        assert losses(rig.pipeline.counters) == {"unknown_device": (1 + 3, 0)}
        assert rig.pipeline.counters["readings_seen"] == 0
        assert await rig.pipeline.flush()
        assert rig.outbox.totals()["data"]["seq"] == 0 and rig.outbox.series() == []

    in_virtual_time(body)


def test_online_and_offline_are_each_said_once(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        for online in (True, True, False, False, False, True):
            rig.pipeline.device_state("gas-1", online=online, detail="no answer" if not online else "")
        rig.pipeline.device_state("gas-1", online=False, detail="again")
        rig.sweep(1.0)  # a device that says something is there
        assert await rig.pipeline.flush()
        states = [(d.online, d.detail) for batch in rig.batches("event") for d in batch.devices]
        assert states == [(True, ""), (False, "no answer"), (True, ""), (False, "again"), (True, "")]

    in_virtual_time(body)


def test_happenings_are_told_at_once_then_counted_by_the_minute(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)

        async def for_s(seconds: int, reports_a_second: int) -> None:
            for _ in range(seconds):
                for _ in range(reports_a_second):
                    rig.pipeline.report("data.rejected", "gas-1", "checksum", "frame 01 03", point="ch4_lel")
                await asyncio.sleep(1)
                rig.pipeline.tick()

        await for_s(90, 3)
        rig.pipeline.report("data.rejected", "gas-1", "length")  # another kind is told at once
        await for_s(90, 0)
        rig.pipeline.report("data.rejected", "gas-1", "checksum", point="ch4_lel")
        assert await rig.pipeline.flush()
        said = [(e.values["code"], e.values["n"], e.source, (e.ts_ms - START_MS) // 1000) for e in rig.events()]
        assert said == [
            ("checksum", 1, "gas-1/ch4_lel", 0),
            ("checksum", 179, "gas-1/ch4_lel", 60),
            ("length", 1, "gas-1", 90),
            ("checksum", 90, "gas-1/ch4_lel", 120),
            ("checksum", 1, "gas-1/ch4_lel", 180),
        ]
        assert all(e.location == (117.31, 31.81) for e in rig.events())
        assert len({e.id for e in rig.events()}) == 5

    in_virtual_time(body)


def test_happenings_of_strangers_do_not_fill_the_memory(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        for n in range(6000):
            rig.pipeline.report("data.rejected", f"stranger-{n}", "x")
        assert len(rig.pipeline.commits.waiting.events) == 5000

    in_virtual_time(body)


def test_the_lane_is_the_one_of_the_moment_of_the_commit(tmp_path: Path) -> None:
    async def body() -> None:
        rig = Rig(tmp_path)
        for lane, value in (("data", 1.0), ("backfill", 2.0), ("data", 3.0)):
            rig.lane = lane  # type: ignore[assignment]
            rig.sweep(value)
            assert await rig.pipeline.flush()
        assert rig.values("data") == [1.0, 3.0] and rig.values("backfill") == [2.0]
        assert [len(b.declarations) for b in rig.batches("data")] == [1, 0]
        assert [len(b.declarations) for b in rig.batches("backfill")] == [1]

    in_virtual_time(body)


def test_the_agent_killed_and_started_again_keeps_what_the_station_was_answered_for(tmp_path: Path) -> None:
    """Half an hour in virtual time: whatever the station's ledger says was answered is in the outbox, each once."""
    ledger = MemoryLedger()
    text = CONFIG.split('[[connector]]\nid = "gas"')[0] + '\n[[report]]\ndevice = "*"\nmode = "all"\n'
    text = text.replace("dust-1", "site-1-dust")
    lives = 0

    async def body(rig: VirtualRig) -> None:
        nonlocal lives
        while rig.t_s < 1500:
            lives += 1
            parts = assemble(
                config(tmp_path, text),
                tmp_path,
                rig.clock,
                lane=lambda: "data",
                committed=lambda: None,
                offload=inline,
                links={"dust": rig.link_factory("site-hj212")},
            )
            task = asyncio.create_task(run_parts(parts))
            await asyncio.sleep(150 + 37 * lives)
            if lives % 2:
                parts.outbox._db.close()  # killed: what had not been committed is gone with the process
            task.cancel()
            await asyncio.wait([task])
            if not lives % 2:
                parts.outbox.close()
            await rig.hang_up("site-hj212")

    play(load_scene(DISTRICT), body, ledger=ledger)
    assert lives >= 4
    outbox = Outbox(tmp_path / "state" / "outbox.db", now_ms=0)
    named = {d.alias: d for d in outbox.series()}
    stored: list[tuple[int, str, float]] = []
    for batch in batches(outbox, "data"):
        found = batch.readings
        for alias, ts_ms, integer, grade in zip(
            found.alias.tolist(), found.ts_ms.tolist(), found.integer, found.quality, strict=True
        ):
            value = to_float(np.array([integer]), np.array([grade]), named[alias].decimals)[0]
            stored.append((ts_ms, named[alias].point, float(value)))
    answered = {parse_time(moment) for cn, moment in ledger.totals()["site-1-dust"].acknowledged if cn == "2011"}
    assert len(answered) > 1000
    assert answered <= {ts_ms for ts_ms, _, _ in stored}
    keys = [(ts_ms, point) for ts_ms, point, _ in stored]
    assert len(keys) == len(set(keys))
    assert outbox.epoch == START_MS // 1000


def test_the_clock_of_the_loop_is_the_one_everything_uses(tmp_path: Path) -> None:
    async def body() -> None:
        clock = LoopClock(START_MS)
        await asyncio.sleep(12.345)
        assert clock.now_ms() == START_MS + 12_345

    in_virtual_time(body)
