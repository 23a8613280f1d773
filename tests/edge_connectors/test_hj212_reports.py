"""HJ 212 beyond real-time data: samples with a time of their own, period data, what a station says of itself, rules of
checksums, heartbeats."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from edge.clock import LoopClock
from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.config import Hj212Device, Hj212ServerConfig
from edge.connectors.durable import after_all
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.hj212.messages import Packet, format_qn, format_time, upload
from tests.edge_connectors.peers import START_MS, Door, StationPeer, serving
from tests.edge_connectors.test_hj212_server import play
from tests.support.virtual import RecordingSink

MN = "WATER01"
HOUR_MS = 3_600_000


def config(kind: str = "env/water_quality_station") -> Hj212ServerConfig:
    return Hj212ServerConfig(id="air", listen="127.0.0.1:9001", device=(Hj212Device(id="water-1", type=kind, mn=MN),))


def pushed(*packets: Packet, kind: str = "env/water_quality_station", sink: RecordingSink | None = None) -> Any:
    heard: list[Packet] = []

    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for packet in packets:
            await station.push(packet)
        heard.extend(station.heard)

    return play(body, settings=config(kind), sink=sink), heard


def data(cn: str, factors: dict[str, dict[str, str]], *, ms: int = START_MS, n: int = 0, **more: Any) -> Packet:
    return replace(upload(cn, MN, factors, data_time_ms=ms, qn_ms=START_MS + n, st="21"), **more)


def test_a_sample_has_its_own_time_and_is_kept_once() -> None:
    taken = format_time(START_MS - 2 * HOUR_MS)
    factors = {"w01001": {"Rtd": "7.1"}, "w21003": {"SampleTime": taken, "Rtd": "0.15"}}
    sink, heard = pushed(*(data("2011", factors, ms=START_MS + n * 1000, n=n) for n in range(3)))
    samples = [sweep for sweep in sink.sweeps if sweep.points == ("ammonia_nitrogen",)]
    assert {sweep.source_ms for sweep in samples} == {START_MS - 2 * HOUR_MS}
    assert len({sweep.exchange for sweep in samples}) == 1  # three uploads, one sample
    assert len({sweep.exchange for sweep in sink.sweeps if sweep.points == ("ph",)}) == 3
    assert [packet.cn for packet in heard] == ["9014"] * 3


def test_the_answer_waits_for_every_sweep_of_an_upload() -> None:
    sink = RecordingSink(durable=False)
    factors = {"w01001": {"Rtd": "7.1"}, "w21003": {"SampleTime": format_time(START_MS - HOUR_MS), "Rtd": "0.15"}}
    answered: list[list[str]] = []

    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(data("2011", factors))
        for pending in list(sink.pending):
            pending()
            await station.tick()
            answered.append(list(station.answered))

    play(body, settings=config(), sink=sink)
    assert [len(one) for one in answered] == [0, 1]


@pytest.mark.parametrize("taken", ["", "yesterday", format_time(START_MS + HOUR_MS), "19700101000000"])
def test_a_time_of_sampling_that_cannot_be_is_not_used(taken: str) -> None:
    sink, _ = pushed(data("2011", {"w01001": {"SampleTime": taken, "Rtd": "7.1"}}))
    (sweep,) = sink.sweeps
    assert sweep.source_ms == START_MS


def test_period_data_are_points_of_their_own() -> None:
    factors = {"w00000": {"Cou": "151.2", "Avg": "17.5"}, "w01018": {"Avg": "40.1", "Cou": "2.14"}}
    sink, _ = pushed(data("2061", factors, ms=START_MS - HOUR_MS), kind="env/waste_water_outlet")
    (sweep,) = sink.sweeps
    assert dict(zip(sweep.points, sweep.values.tolist(), strict=True)) == {
        "flow_1h": 151.2, "cod_1h": 40.1, "cod_load_1h": 2.14,
    }  # fmt: skip
    assert sweep.source_ms == START_MS - HOUR_MS


def test_noise_levels_and_the_night() -> None:
    levels = {code: {"Data": "50.1"} for code in ("L5", "L10", "L50", "L90", "L95", "Leq", "LMx", "LMn")}
    night = {"Ldn": {"Data": "55.0"}, "Ld": {"DayData": "56.0"}, "Ln": {"NightData": "47.5"}}
    sink, _ = pushed(
        data("2051", levels), data("2031", night, ms=START_MS - 24 * HOUR_MS, n=1), kind="env/noise_station"
    )
    assert set(sink.sweeps[0].points) == {"l5", "l10", "l50", "l90", "l95", "leq", "lmax", "lmin"}
    assert dict(zip(sink.sweeps[1].points, sink.sweeps[1].values.tolist(), strict=True)) == {
        "ldn": 55.0, "ld": 56.0, "ln": 47.5,
    }  # fmt: skip


def test_what_a_station_says_of_itself() -> None:
    started = data("2081", {}, fields={"DataTime": format_time(START_MS), "RestartTime": "20260302075900"})
    note = data("3020", {"i11001": {"Info": "//filter changed//"}, "i12001": {"Info": "1"}}, n=1)
    serials = [
        data("3019", {"w21003": {"SN": f"//{serial}//"}}, n=2 + n) for n, serial in enumerate(["A1", "A1", "B2"])
    ]
    sink, heard = pushed(started, note, *serials)
    assert [(r.event_type, r.code) for r in sink.reports] == [
        ("dev.maintenance", "restarted"),
        ("dev.maintenance", "log"),
        ("dev.tamper", "serial_changed"),
    ]
    assert "filter changed" in sink.reports[1].detail
    assert [packet.cn for packet in heard] == ["9014"] * 5


def test_a_heartbeat_is_a_sign_of_life() -> None:
    beat = Packet(cn="9015", mn=MN, st="91", qn=format_qn(START_MS), pw="1", flag=9)
    sink, heard = pushed(beat)
    assert [(packet.cn, packet.qn) for packet in heard] == [("9013", beat.qn)]
    assert sink.states == [("water-1", True)]
    assert sink.sweeps == []


def test_the_rule_that_auto_found_is_written_down_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edge.connectors.hj212_server"):
        pushed(*(data("2011", {"w01001": {"Rtd": "7.1"}}, n=n, crc_variant="modbus") for n in range(3)))
    assert [record.message for record in caplog.records] == ["air: water-1 makes its checksums by the rule 'modbus'"]


def test_after_all() -> None:
    done: list[int] = []
    one = after_all(3, lambda: done.append(1))
    one()
    one()
    assert done == []
    one()
    one()
    assert done == [1]


# -- orders to instruments


@pytest.mark.parametrize(("name", "sent"), [("sample_now", 1), ("clean", 1), ("read_clock", 4)])
def test_what_makes_an_instrument_work_is_said_once(name: str, sent: int) -> None:
    asked: list[Packet] = []
    outcomes: list[Outcome] = []

    async def body() -> None:
        door, clock = Door(), LoopClock(START_MS)
        connector: Any = build(config(), clock, door.accept)
        async with serving(connector, RecordingSink()):
            station = StationPeer(door.dial())
            await station.push(data("2011", {"w01001": {"Rtd": "7.1"}}))
            arguments = {} if name == "read_clock" else {"factor": "w21003"}
            outcomes.append(await connector.command(Command("1", "water-1", name, arguments)))
            asked.extend(packet for packet in station.heard if packet.cn != "9014")

    run_virtual(body(), START_MS)
    assert (outcomes[0].state, outcomes[0].code) == ("unknown", "no_answer")
    assert len(asked) == sent
    assert len({packet.qn for packet in asked}) == 1  # repeats are the same exchange
    assert asked[0].fields == ({} if name == "read_clock" else {"PolId": "w21003"})


def test_an_argument_that_cannot_be_said_is_refused() -> None:
    async def body() -> Outcome:
        door, clock = Door(), LoopClock(START_MS)
        connector: Any = build(config(), clock, door.accept)
        async with serving(connector, RecordingSink()):
            station = StationPeer(door.dial())
            await station.push(data("2011", {"w01001": {"Rtd": "7.1"}}))
            outcome: Outcome = await connector.command(
                Command("1", "water-1", "sample_now", {"factor": "w21003;CN=1072"})
            )
            assert [packet.cn for packet in station.heard] == ["9014"]  # nothing was sent
        return outcome

    outcome = run_virtual(body(), START_MS)
    assert (outcome.state, outcome.code) == ("refused", "argument")
