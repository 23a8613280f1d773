"""Simulated SL 651 stations and the agent's real connector, in virtual time: nothing lost, orders carried out."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.connectors.base import Command, Commandable, Outcome
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError
from protocols.core.model import Quality
from tests.support.virtual import RecordingSink, play, running

SCENE = """
id = "river"
start = "2026-03-02T08:00:00+08:00"
seed = 3
[[bus]]
id = "water"
kind = "sl651-client"
[[device]]
id = "river-1"
type = "hydro/river_station"
bus = "water"
address = "0012345678"
password = "04D2"
interval_s = 300
%s
[device.signals]
level = { ramp = [[0, 3.0], [36000, 8.0]] }
rain_total = { counter = { start = 120.0, per_hour = 4.0 } }
rain_5min_series = { base = 0.4, noise = 0.0 }
battery_voltage = { base = 12.6, noise = 0.0 }
battery_low = { steps = [[0, 0.0], [3000, 1.0]], noise = 0.0 }
door_open = { base = 0.0, noise = 0.0 }
%s
"""
SERVER = {
    "id": "hydro", "kind": "sl651-server", "listen": "127.0.0.1:9651",
    "device": [{"id": "river-1", "type": "hydro/river_station", "station": "0012345678", "password": "04D2"}],
}  # fmt: skip


def fault(kind: str, **more: object) -> str:
    lines = [f'kind = "{kind}"', *(f"{key} = {value}" for key, value in more.items())]
    return "[[device.fault]]\n" + "\n".join(lines)


def run(until_s: float, *, options: str = "", faults: str = "", then: Any = None) -> tuple[RecordingSink, MemoryLedger]:
    """The scene with the connector joined to it; ``then(rig, connector)`` is awaited at the end."""
    ledger = MemoryLedger()

    async def body(rig: VirtualRig) -> RecordingSink:
        sink = RecordingSink()
        connector = build(msgspec.convert(SERVER, ConnectorConfig), rig.clock, rig.link_factory("water"))
        async with running([connector], sink):
            await rig.until_s(until_s)
            if then is not None:
                await then(rig, connector)
        return sink

    return play(SCENE % (options, faults), body, ledger=ledger), ledger


def labels(ledger: MemoryLedger, kind: str) -> list[tuple[str, str]]:
    return [(line["cn"], line["dt"]) for line in ledger.entries() if line["k"] == kind]


def distinct(sink: RecordingSink) -> dict[str, tuple[int, ...]]:
    return {sweep.exchange: (sweep.source_ms,) for sweep in sink.sweeps}


def test_a_day_of_reports_becomes_readings() -> None:
    sink, ledger = run(2 * 3600 + 30)
    assert labels(ledger, "up") == labels(ledger, "ack")  # every report was confirmed
    timed = [sweep for sweep in sink.sweeps if "level" in sweep.points]
    assert len(timed) == 24
    assert timed[0].values[timed[0].points.index("level")] == pytest.approx(3.0 + 300 * 5 / 36000, abs=0.001)
    slots = [sweep for sweep in sink.sweeps if sweep.points == ("rain_5min_series",)]
    # Two hourly reports of twelve slots; the first one's hour began with the scene.
    times = [sweep.source_ms for sweep in slots]
    assert len(times) == 24
    assert {b - a for a, b in pairwise(times)} == {300_000}
    assert {float(sweep.values[0]) for sweep in slots} == {0.4}
    # From 3000 s on: when it began, and once an hour.
    assert [(r.event_type, r.code) for r in sink.reports] == [("dev.low_battery", "battery")] * 2


def test_nothing_is_lost_over_an_outage_and_a_restart() -> None:
    sink, ledger = run(
        7260, faults=fault("silence", at_s=1000, for_s=900) + "\n" + fault("restart", at_s=4000, for_s=700)
    )
    assert set(labels(ledger, "up")) == set(labels(ledger, "ack"))
    levels = {sweep.source_ms for sweep in sink.sweeps if "level" in sweep.points}
    assert len(levels) == len([one for one in labels(ledger, "up") if one[0] == "32"])
    assert [r.code for r in sink.reports if r.event_type == "dev.clock_skew"] == []  # late, not wrong


@pytest.mark.parametrize("kind", ["resend", "wrong_checksum", "garble", "truncate", "drop"])
def test_what_happens_to_frames_loses_and_doubles_nothing(kind: str) -> None:
    sink, ledger = run(3 * 3600 + 60, faults=fault(kind, at_s=0, **({} if kind == "resend" else {"every": 3})))
    done = {label for label in labels(ledger, "up") if label not in labels(ledger, "ack")}
    assert len(done) <= 1  # the last one may be on its way
    names = [sweep.exchange for sweep in sink.sweeps if "level" in sweep.points]
    assert len(set(names)) == len([one for one in labels(ledger, "up") if one[0] == "32"]) - len(done)
    if kind == "resend":
        assert len(names) > len(set(names))  # a repeat says the same name again
    if kind == "wrong_checksum":
        assert {r.code for r in sink.reports if r.event_type == "data.rejected"} == {"checksum"}


def test_elements_without_a_value_are_missing_and_never_a_number() -> None:
    sink, _ = run(1200, faults=fault("no_value", at_s=0))
    for sweep in sink.sweeps:
        for point, value, quality in zip(sweep.points, sweep.values, sweep.quality, strict=True):
            if point not in ("battery_low", "door_open", "mains_off"):  # those are bits of the status
                assert np.isnan(value) and quality == Quality.MISSING


def test_a_packet_that_was_lost_is_asked_for() -> None:
    sink, ledger = run(1800, options="options = { answer_s = 120 }", faults=fault("lost_packet", at_s=0))
    assert set(labels(ledger, "up")[:-1]) <= set(labels(ledger, "ack"))
    assert len({sweep.exchange for sweep in sink.sweeps}) >= 5
    assert sink.reports == []


def test_a_clock_of_2059_is_told_and_times_are_moved() -> None:
    sink, _ = run(1900, faults=fault("clock_step", at_s=0, set_to="2059-10-11T15:49:00+08:00"))
    assert [r.code for r in sink.reports if r.event_type == "dev.clock_skew"] == ["offset"]
    timed = [sweep for sweep in sink.sweeps if "level" in sweep.points]
    assert [sweep.source_ms - sweep.seen_ms for sweep in timed] == [0] * 6
    # In its own time an hour ends meanwhile; the slots of that hour are moved by as much.
    slots = [sweep.seen_ms - sweep.source_ms for sweep in sink.sweeps if "level" not in sweep.points]
    assert slots and max(slots) < 3_600_000


def test_a_frame_of_another_station_is_a_stranger() -> None:
    sink, ledger = run(900, faults=fault("wrong_address", at_s=0))
    assert {r.code for r in sink.reports if r.event_type != "device.unlisted"} == {"stranger"}
    assert sink.sweeps == [] and labels(ledger, "ack") == []


# -- orders


def order(name: str, **arguments: Any) -> Command:
    return Command(f"id-{name}", "river-1", name, arguments)


def ordered(command: Command, *, faults: str = "", until_s: float = 700.0) -> tuple[Outcome, RecordingSink]:
    got: list[Outcome] = []

    async def then(rig: VirtualRig, connector: Commandable) -> None:
        got.append(await connector.command(command))

    sink, _ = run(until_s, faults=faults, then=then)
    return got[0], sink


def test_read_now_gives_readings() -> None:
    outcome, sink = ordered(order("read_now"))
    assert (outcome.state, outcome.read_back) == ("done", {"elements": 4.0})
    assert "level" in sink.sweeps[-1].points


def test_the_clock_is_set_and_read_back() -> None:
    outcome, _ = ordered(order("set_clock"), faults=fault("clock_step", at_s=0, offset_s=-3600))
    assert outcome.state == "done"
    assert str(outcome.read_back["time"]).startswith("2026-03-02T08:11:40")


def test_a_parameter_is_set_and_read_back() -> None:
    outcome, _ = ordered(order("set_alarm_level", metres=6.25))
    assert (outcome.state, outcome.read_back) == ("done", {"38": "6.25"})
    asked, _ = ordered(order("read_settings"))
    assert asked.read_back == {"20": "1", "21": "5", "23": "300", "27": "2"}


def test_history_becomes_readings_of_their_own_time() -> None:
    outcome, sink = ordered(
        order("fetch_history", begin="2026-03-02T08:00", end="2026-03-02T10:00"), until_s=2 * 3600 + 700
    )
    assert outcome.state == "done"
    times = [sweep.source_ms - sink.sweeps[-1].seen_ms for sweep in sink.sweeps[-3:]]
    assert [round(time / 3_600_000) for time in times] == [-2, -1, 0]


def test_version() -> None:
    assert ordered(order("read_version"))[0].read_back == {"version": "CITYBRAIN-SIM-1.0"}


def test_no_answer_is_unknown_and_a_bad_argument_is_refused() -> None:
    outcome, _ = ordered(order("read_clock"), faults=fault("mute", at_s=0))
    assert (outcome.state, outcome.code) == ("unknown", "no_answer")
    outcome, _ = ordered(order("fetch_history", begin="yesterday", end="now"))
    assert (outcome.state, outcome.code) == ("refused", "argument")


def test_an_order_waits_for_a_station_that_is_away_or_expires() -> None:
    async def body(rig: VirtualRig) -> tuple[Outcome, Outcome]:
        connector: Any = build(msgspec.convert(SERVER, ConnectorConfig), rig.clock, rig.link_factory("water"))
        async with running([connector], RecordingSink()):
            await rig.until_s(2000)  # off since 1000 s
            late = Command("a", "river-1", "read_clock", {}, rig.clock.now_ms() + 100_000)
            patient = Command("b", "river-1", "read_clock", {}, rig.clock.now_ms() + 3_600_000)
            first, second = await asyncio.gather(connector.command(late), connector.command(patient))
        return first, second

    first, second = play(SCENE % ("", fault("restart", at_s=1000, for_s=2000)), body)
    assert first.state == "expired"
    assert second.state == "done"


def test_a_scene_is_checked() -> None:
    with pytest.raises(ConfigError, match="ten digits"):
        play((SCENE % ("", "")).replace("0012345678", "123"), lambda rig: asyncio.sleep(0))
    with pytest.raises(ConfigError, match="lost_packet"):
        parse_scene(SCENE % ("", fault("split", at_s=0)), "river.toml")


def test_a_station_of_mode_m1_sends_once_and_is_not_answered() -> None:
    ledger = MemoryLedger()
    server = msgspec.convert(SERVER, ConnectorConfig)
    silent = msgspec.structs.replace(server.device[0], confirm="none")

    async def body(rig: VirtualRig) -> RecordingSink:
        sink = RecordingSink()
        connector = build(msgspec.structs.replace(server, device=(silent,)), rig.clock, rig.link_factory("water"))
        async with running([connector], sink):
            await rig.until_s(1510)
        return sink

    sink = play(SCENE % ('options = { mode = "M1" }', ""), body, ledger=ledger)
    assert len(labels(ledger, "sent")) == len(labels(ledger, "up")) == 5
    assert labels(ledger, "ack") == []
    assert len(sink.sweeps) == 5
