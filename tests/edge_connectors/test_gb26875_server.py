"""The fire alarm connector: confirmed when durable, parts as devices, nobody's fire lost, clocks, orders, silence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Command, Commandable, Link, Outcome
from edge.connectors.build import build
from edge.connectors.datagrams import udp_client
from edge.connectors.gb_config import Gb26875Device, Gb26875ServerConfig
from edge.connectors.links import tcp_client
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LinkDown, TransportError
from protocols.core.model import Quality
from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.endpoint import Gb26875Endpoint
from protocols.gb26875.units import Unit, content, unit, unit_of
from tests.edge_connectors.peers import START_MS, Door, loop_ms, serving
from tests.protocols.samples_gb26875 import OBJECTS
from tests.support.virtual import RecordingSink

ADDRESS = "112233445566"
SMOKE = (1, 1, 42, 131082)


def config(**options: Any) -> Gb26875ServerConfig:
    orders = ("set_clock", "read_state", "duty_check", "initialise")
    devices = (
        Gb26875Device(id="tx-1", type="fire/transmission_device", transmitter=ADDRESS, allow=orders),
        Gb26875Device(id="panel-1", type="fire/alarm_panel", transmitter=ADDRESS, part="1/1"),
        Gb26875Device(id="smoke-1", type="fire/smoke_detector", transmitter=ADDRESS.lower(), part="1/1/131082"),
        Gb26875Device(id="heat-1", type="fire/heat_detector", transmitter=ADDRESS, part="1/1/31:7"),
    )
    return Gb26875ServerConfig(**{"id": "fire", "listen": "127.0.0.1:5200", "device": devices, **options})


class Transmitter:
    """The device's end of one connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.endpoint = Gb26875Endpoint(Role.SLAVE)
        self.heard: list[m.Packet] = []
        self.news = asyncio.Event()
        self.obey: Callable[[m.Packet], m.Packet | None] = lambda packet: None
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(TransportError):
            while data := await self.link.read():
                for one in self.endpoint.feed(data, loop_ms()):
                    if isinstance(one, m.Packet):
                        self.heard.append(one)
                        self.news.set()
                        if one.wants_answer and (answer := self.obey(one)) is not None:
                            await self.link.write(m.encode(answer))

    async def push(self, kind: int, *objects: o.Object, stamp: bytes | None = None, serial: int | None = None) -> int:
        number = self.endpoint.next_serial() if serial is None else serial
        when = m.stamp_at(START_MS) if stamp is None else stamp
        packet = m.Packet(m.SEND, number, ADDRESS, "000000000001", unit(kind, objects).data, when)
        await self.link.write(self.endpoint.send(packet, loop_ms()))
        await asyncio.sleep(0.01)
        return number

    @property
    def confirmed(self) -> list[int]:
        return [packet.serial for packet in self.heard if packet.command == m.CONFIRM]


def smoke(state: int, *, text: str = "一层走廊", stamp: bytes | None = None, number: int = 131082) -> o.ComponentState:
    when = m.stamp_at(START_MS) if stamp is None else stamp
    return o.ComponentState(1, 1, 42, number, state, o.text_field(text), when)


Body = Callable[[Transmitter, LoopClock, Any], Awaitable[None]]


def play(
    body: Body, *, settings: Gb26875ServerConfig | None = None, sink: RecordingSink | None = None
) -> RecordingSink:
    kept = sink or RecordingSink()

    async def main() -> None:
        door, clock = Door(), LoopClock(START_MS)
        connector = build(settings or config(), clock, door.accept)
        async with serving(connector, kept):
            await body(Transmitter(door.dial()), clock, connector)

    run_virtual(main(), START_MS)
    return kept


def told(sink: RecordingSink, kind: str) -> list[tuple[str, str, str]]:
    return [(r.device, r.code, r.detail) for r in sink.reports if r.event_type == kind]


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


# -- orders


def order(name: str, device: str = "tx-1", **arguments: float) -> Command:
    return Command("1", device, name, arguments)


def give(obey: Callable[[m.Packet], m.Packet | None], command: Command) -> tuple[Outcome, RecordingSink]:
    outcomes: list[Outcome] = []

    async def body(tx: Transmitter, clock: LoopClock, connector: Any) -> None:
        assert isinstance(connector, Commandable)
        tx.obey = obey
        await tx.push(21, o.TransmitterState(1))
        outcomes.append(await connector.command(command))

    sink = play(body)
    return outcomes[0], sink


def obedient(packet: m.Packet, off_ms: int = 0) -> m.Packet:
    asked = unit_of(packet)
    assert asked is not None
    if packet.command == m.CONTROL:
        return m.answer(packet, m.CONFIRM)
    reply = {
        81: unit(21, [o.TransmitterState(1)]),
        88: unit(28, [o.Clock(m.stamp_at(START_MS + loop_ms() + off_ms))]),
        62: unit(2, [smoke(3)]),
        61: unit(1, [o.SystemState(1, 1, 3, m.stamp_at(START_MS))]),
    }[asked.type]
    return m.answer(packet, m.REPLY, data=reply.data)


def test_reading_a_state() -> None:
    outcome, sink = give(obedient, order("read_state"))
    assert outcome.state == "done" and outcome.read_back["running"] == 1.0
    outcome, sink = give(obedient, order("read_state", "smoke-1"))
    assert (outcome.state, outcome.read_back["fire"]) == ("done", 1.0)
    assert sink.values("smoke-1", "fire") == [1.0]  # and it is the newest reading
    outcome, sink = give(obedient, order("read_state", "panel-1"))
    assert (outcome.state, outcome.read_back["fire"]) == ("done", 1.0)


def test_the_clock_is_read_back() -> None:
    assert give(obedient, order("set_clock"))[0].state == "done"
    outcome, _ = give(lambda packet: obedient(packet, off_ms=60_000), order("set_clock"))
    assert (outcome.state, outcome.code) == ("failed", "read_back")


def test_duty_check_and_initialise() -> None:
    assert give(obedient, order("duty_check", minutes=5))[0].state == "done"
    assert give(obedient, order("initialise"))[0].state == "done"


def test_denied_unanswered_unconnected_unknown() -> None:
    assert give(lambda packet: m.answer(packet, m.DENY), order("read_state"))[0].code == "denied"
    outcome, _ = give(lambda packet: None, order("initialise"))
    assert (outcome.state, outcome.code) == ("unknown", "no_answer")
    assert give(obedient, order("open_valve"))[0].code == "unknown_command"

    async def main() -> None:
        connector: Any = build(config(), LoopClock(START_MS), Door().accept)
        async with serving(connector, RecordingSink()):
            with pytest.raises(LinkDown):
                await connector.command(order("read_state"))

    run_virtual(main(), START_MS)


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


# -- configuration and a real socket


def test_configuration_is_checked() -> None:
    own = Gb26875Device(id="tx", type="fire/transmission_device", transmitter=ADDRESS)

    def part(text: str, transmitter: str = ADDRESS) -> Gb26875Device:
        return Gb26875Device(id="s", type="fire/smoke_detector", transmitter=transmitter, part=text)

    for devices, match in (
        ((own, part("1/1/1/1")), "part"),
        ((own, part("1/300/1")), "part"),
        ((own, part("1/1/x")), "part"),
        ((own, part("1/1/1", "000000000000")), "needs a device of its own"),
        ((part("1/1/1"),), "needs a device of its own"),
        (
            (own, part("1/1/35579-1"), Gb26875Device(id="t", type="fire/pump", transmitter=ADDRESS, part="1/1/101115")),
            "2 times",
        ),
    ):
        with pytest.raises(ConfigError, match=match):
            build(config(device=devices), WallClock())


def test_over_a_real_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    sink = RecordingSink()

    async def main() -> None:
        connector = build(config(listen=f"127.0.0.1:{port}"), WallClock())
        async with serving(connector, sink):
            async with asyncio.timeout(10):
                while True:
                    try:
                        link = await tcp_client("127.0.0.1", port)()
                        break
                    except TransportError:
                        await asyncio.sleep(0.05)
                tx = Transmitter(link)
                await tx.push(2, smoke(2))
                await tx.news.wait()
                assert tx.confirmed == [1]

    asyncio.run(main())
    assert sink.values("smoke-1", "fire") == [1.0]


def test_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sink = RecordingSink()

    async def main() -> None:
        connector: Any = build(config(listen=f"127.0.0.1:{port}", transport="udp"), WallClock())
        for _ in range(2):  # the supervisor may start it again on the same port
            async with serving(connector, sink):
                for text in ("一层走廊", "二层"):  # two ports, as behind a NAT that forgot the first
                    link = await udp_client("127.0.0.1", port)()
                    tx = Transmitter(link)
                    async with asyncio.timeout(10):
                        while not tx.confirmed:  # datagrams before the port is open are lost
                            await tx.push(2, smoke(2, text=text), serial=1)
                            with contextlib.suppress(TimeoutError):
                                async with asyncio.timeout(0.2):
                                    await tx.news.wait()
                    assert set(tx.confirmed) == {1}
                    await link.close()
                assert (await connector.command(order("open_valve"))).code == "unknown_command"

    asyncio.run(main())
    assert set(sink.values("smoke-1", "fire")) == {1.0}
    assert len([state for state in sink.states if state == ("tx-1", True)]) == 1


def test_content_of_a_reply_is_what_was_asked() -> None:
    """The peer of these tests speaks as the sheet says: objects read back as they were built."""
    assert content(unit(2, [smoke(3)])).objects == (smoke(3),)
