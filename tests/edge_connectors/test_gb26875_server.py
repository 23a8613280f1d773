"""The fire alarm connector: confirmed when durable, parts as devices, nobody's fire lost, clocks, silence."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock import LoopClock
from edge.connectors.gb_config import Gb26875Device
from protocols.core.model import Quality
from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.units import Unit, unit
from tests.edge_connectors.fire_peer import ADDRESS, Transmitter, config, play, smoke, told
from tests.edge_connectors.peers import START_MS, loop_ms
from tests.protocols.samples_gb26875 import OBJECTS
from tests.support.virtual import RecordingSink

# -- readings


def test_a_component_is_a_device_of_its_own() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(1), smoke(2, number=131082))
        await tx.push(3, o.Analog(1, 1, 31, 7, 3, 285, m.stamp_at(START_MS)))
        await tx.push(1, o.SystemState(1, 1, 1 | 1 << 9, m.stamp_at(START_MS)))
        await tx.push(21, o.TransmitterState(9, m.stamp_at(START_MS)))
        assert tx.confirmed == [1, 2, 3, 4]

    sink = play(body)
    assert [sweep.device for sweep in sink.sweeps] == ["smoke-1", "smoke-1", "heat-1", "panel-1", "tx-1"]
    assert sink.values("smoke-1", "fire") == [0.0, 1.0]
    assert sink.values("heat-1", "temperature") == [28.5]
    assert sink.values("panel-1", "backup_power_fault") == [1.0]
    assert sink.values("tx-1", "main_power_fault") == [1.0]
    assert {int(grade) for sweep in sink.sweeps for grade in sweep.quality} == {Quality.GOOD}
    assert len({sweep.exchange for sweep in sink.sweeps}) == 5


def test_confirmed_only_when_all_of_it_is_durable() -> None:
    kept = RecordingSink(durable=False)

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(2), o.ComponentState(1, 1, 31, 7, 1, stamp=m.stamp_at(START_MS)))
        await asyncio.sleep(5)
        kept.pending[0]()
        await asyncio.sleep(1)
        assert tx.confirmed == []
        kept.pending[1]()
        await asyncio.sleep(1)
        assert tx.confirmed == [1] and tx.endpoint.unanswered == ()

    play(body, sink=kept)


def test_a_repeat_has_the_same_exchange_and_is_no_second_alarm() -> None:
    kept = RecordingSink(durable=False)

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(2))
        await asyncio.sleep(11)
        tx.endpoint.tick(loop_ms())
        await tx.link.write(tx.endpoint.take_output())
        await asyncio.sleep(0.1)

    play(body, sink=kept)
    first, second = kept.sweeps
    assert first.exchange == second.exchange != ""
    assert told(kept, "fire.alarm") == [("smoke-1", "fire", "点型光电感烟火灾探测器 一层走廊")]


def test_without_any_time_nothing_passes_for_a_repeat() -> None:
    """Serial numbers start over with every power-up: a fire must not look like last year's."""

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for _ in range(2):
            await tx.push(2, smoke(2, stamp=m.NO_TIME), stamp=m.NO_TIME, serial=1)

    sink = play(body)
    assert [sweep.exchange for sweep in sink.sweeps] == ["", ""]
    assert [sweep.source_ms for sweep in sink.sweeps] == [sweep.seen_ms for sweep in sink.sweeps]
    assert told(sink, "dev.clock_skew")[0][:2] == ("tx-1", "unset")


def test_alarms_begin_end_and_begin_again() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for state in (1, 3, 3, 1, 3, 1 | 1 << 2, 1 | 1 << 3):
            await tx.push(2, smoke(state))

    sink = play(body)
    assert len(told(sink, "fire.alarm")) == 2
    assert [code for _, code, _ in told(sink, "fire.fault")] == ["fault", "shielded"]
    assert {report.point for report in sink.reports if report.event_type == "fire.alarm"} == {"fire"}


def test_two_detectors_of_one_panel_are_two_alarms() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(2), o.ComponentState(1, 1, 31, 7, 2, stamp=m.stamp_at(START_MS)))

    assert [device for device, _, _ in told(play(body), "fire.alarm")] == ["smoke-1", "heat-1"]


def test_a_state_of_zero_is_a_test() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(0))

    sink = play(body)
    assert {int(grade) for grade in sink.sweeps[0].quality} == {Quality.MAINTENANCE}
    assert told(sink, "dev.maintenance") == [("smoke-1", "test", "点型光电感烟火灾探测器 一层走廊")]


# -- strangers


def test_the_fire_of_a_part_nobody_configured_reaches_somebody() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(2, number=999, text="地下车库"))
        await tx.push(2, smoke(2, number=1000, text="地下车库二"))
        await tx.push(2, smoke(1, number=999))
        assert len(tx.confirmed) == 3

    sink = play(body)
    fires = told(sink, "fire.alarm")
    assert [(device, code) for device, code, _ in fires] == [("tx-1", "unconfigured")] * 2
    assert "地下车库" in fires[0][2]
    assert {report.point for report in sink.reports if report.event_type == "fire.alarm"} == {"1-1-999", "1-1-1000"}
    unknown = told(sink, "data.rejected")
    assert [code for _, code, _ in unknown] == ["unknown_part"] * 2  # each once
    assert 'part = "1/1/999"' in unknown[0][2]
    assert sink.values("tx-1", "stray_fires") == [1.0, 2.0, 1.0]


def test_a_stray_fire_is_confirmed_when_durable() -> None:
    kept = RecordingSink(durable=False)

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(2, smoke(2, number=999))
        await asyncio.sleep(1)
        assert tx.confirmed == []
        kept.pending[0]()
        await asyncio.sleep(1)
        assert tx.confirmed == [1]

    play(body, sink=kept)


def test_invented_addresses_do_not_fill_the_memory() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for block in range(100):
            await tx.push(2, *(smoke(2, number=block * 20 + n + 1_000_000) for n in range(20)))
        station = connector.stations[ADDRESS]
        assert len(station.strays.known) == len(station.strays.fires) == 1024

    play(body)


def test_a_transmitter_nobody_configured_gets_no_answer() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        stranger = m.Packet(m.SEND, 1, "665544332211", m.NOBODY, unit(21, [o.TransmitterState(1)]).data)
        await tx.link.write(m.encode(stranger))
        await asyncio.sleep(1)
        assert tx.heard == []

    (report,) = play(body).reports
    assert report.code == "stranger" and "other way round" in report.detail


# -- private objects, heartbeats


def test_private_units_are_confirmed_counted_and_not_guessed() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for found in (Unit(10, 0), Unit(9, 0), Unit(150, 1, bytes(16)), Unit(2, 1, bytes(44))):
            packet = m.Packet(m.SEND, tx.endpoint.next_serial(), ADDRESS, m.NOBODY, found.data, m.stamp_at(START_MS))
            await tx.link.write(tx.endpoint.send(packet, loop_ms()))
        await asyncio.sleep(0.1)
        assert tx.confirmed == [1, 2, 3, 4]

    sink = play(body)
    assert sink.sweeps == []
    assert [code for _, code, _ in told(sink, "data.rejected")] == ["private_object"]


def test_components_of_50_bytes() -> None:
    devices = (
        Gb26875Device(id="tx-1", type="fire/transmission_device", transmitter=ADDRESS),
        Gb26875Device(id="smoke-1", type="fire/smoke_detector", transmitter=ADDRESS, part="1/1/10101013"),
    )

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        one = o.NumberedComponentState(1, 1, 78, b"10101013", 2, o.text_field("一层", 32), m.stamp_at(START_MS))
        await tx.push(2, one, stamp=m.NO_TIME)

    sink = play(body, settings=config(device=devices))
    assert sink.values("smoke-1", "fire") == [1.0]


# -- clocks


def test_a_wrong_clock_is_told_and_set() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        future = m.stamp_at(START_MS + 3_600_000)
        await tx.push(2, smoke(1, stamp=future), stamp=future)

    sink = play(body, settings=config(set_clock=True))
    assert [(device, code) for device, code, _ in told(sink, "dev.clock_skew")] == [("tx-1", "offset")]
    assert sink.sweeps[0].source_ms == sink.sweeps[0].seen_ms


def test_set_clock_sends_type_90_at_the_first_packet() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        await tx.push(21, o.TransmitterState(1, m.stamp_at(START_MS)))
        (order,) = [packet for packet in tx.heard if packet.command == m.CONTROL]
        assert (order.destination, order.source) == (ADDRESS, "000000000001")
        assert order.data == unit(90, [o.Clock(m.stamp_at(START_MS))]).data

    play(body, settings=config(set_clock=True))


def test_late_data_keep_their_time() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        old = m.stamp_at(START_MS - 7_200_000)
        await tx.push(2, smoke(2, stamp=old), stamp=old)

    (sweep,) = play(body).sweeps
    assert sweep.source_ms == START_MS - 7_200_000


# -- silence


def test_silence_after_three_usual_gaps() -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for _ in range(18):
            await tx.push(21, o.TransmitterState(1))
            await asyncio.sleep(120)
        await asyncio.sleep(200)
        assert sink.states == [(device, True) for device in devices]
        await asyncio.sleep(60)
        assert sink.states[4:] == [(device, False) for device in devices]  # its parts cannot be heard either

    sink, devices = RecordingSink(), ("tx-1", "panel-1", "smoke-1", "heat-1")
    play(body, sink=sink)


# -- whatever comes


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=90), st.binary(min_size=6, max_size=6)), max_size=30))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_nothing_a_transmitter_says_ends_the_connector(said: list[tuple[int, bytes, bytes]]) -> None:
    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for number, (command, data, stamp) in enumerate(said):
            await tx.link.write(m.encode(m.Packet(command, number, ADDRESS, m.NOBODY, data, stamp)))
        serial = await tx.push(21, o.TransmitterState(1, m.stamp_at(START_MS)), serial=0xFFFF)
        assert serial in tx.confirmed

    play(body)


@given(st.lists(st.one_of(*(st.lists(kind, min_size=1, max_size=3) for kind in OBJECTS.values())), max_size=12))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_every_kind_of_object_with_any_values(units: list[list[o.Object]]) -> None:
    kinds = {kind: number for number, kind in reversed(o.OBJECTS.items())}

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        for objects in units:
            await tx.push(kinds[type(objects[0])], *objects)
        await asyncio.sleep(0.1)
        assert len(tx.confirmed) == len(units)

    play(body)
