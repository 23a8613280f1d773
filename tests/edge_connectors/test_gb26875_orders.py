"""The fire alarm connector: orders, configuration, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Command, Commandable, Outcome
from edge.connectors.build import build
from edge.connectors.datagrams import udp_client
from edge.connectors.gb_config import Gb26875Device
from edge.connectors.links import tcp_client
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.errors import ConfigError, LinkDown, TransportError
from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.units import unit, unit_of
from tests.edge_connectors.fire_peer import ADDRESS, Transmitter, config, play, smoke
from tests.edge_connectors.peers import START_MS, Door, loop_ms, serving
from tests.support.virtual import RecordingSink

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
