"""The Modbus connector against simulated devices: virtual time on memory links, then a real pty and real TCP."""

from __future__ import annotations

import asyncio
import os
import socket
import tty
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Link
from edge.connectors.build import build
from edge.connectors.config import ModbusDevice, ModbusRtuConfig, ModbusTcpConfig
from edge.connectors.links import StreamLink
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown
from protocols.core.model import Quality, Sweep
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.messages import Reply
from tests.edge_connectors.peers import START_MS, ModbusPeer, dialled, serving
from tests.support.virtual import RecordingSink

NOISE = {0: 623, 1: 702, 2: 0}
CRANE = {0: 1250, 1: 874, 2: 301, 3: 0x10000 - 455, 4: 420, 5: 0, 6: 0x999A, 7: 0x4099}  # wind 4.8 m/s, CDAB


def rtu(*devices: ModbusDevice, **options: Any) -> ModbusRtuConfig:
    return ModbusRtuConfig(id="bus", port="unused", device=devices, **options)


def noise(device_id: str, unit: int, poll_s: float = 1.0) -> ModbusDevice:
    return ModbusDevice(id=device_id, type="env/noise_meter", unit=unit, poll_s=poll_s)


def crane(unit: int = 1) -> ModbusDevice:
    return ModbusDevice(id="crane", type="crane/tower_crane", unit=unit)


def play(config: ModbusRtuConfig | ModbusTcpConfig, peer: ModbusPeer, seconds: float) -> RecordingSink:
    sink = RecordingSink()

    async def main() -> None:
        connector = build(config, LoopClock(START_MS), dialled(peer.serve))
        async with serving(connector, sink):
            await asyncio.sleep(seconds)

    run_virtual(main(), START_MS)
    return sink


def test_values_are_scaled_and_timed() -> None:
    sink = play(rtu(noise("n4", 4)), ModbusPeer({4: NOISE}), 3.5)
    assert sink.values("n4", "laeq") == [62.3] * 4
    assert sink.values("n4", "lamax") == [70.2] * 4
    assert sink.states == [("n4", True)]
    assert [sweep.seen_ms - START_MS for sweep in sink.sweeps] == pytest.approx([0, 1000, 2000, 3000], abs=60)
    assert all(sweep.source_ms == sweep.seen_ms and sweep.exchange == "" for sweep in sink.sweeps)


def test_orders_signs_and_floats() -> None:
    sink = play(rtu(crane()), ModbusPeer({1: CRANE}), 0.5)
    (sweep,) = sink.sweeps
    got = dict(zip(sweep.points, sweep.values.tolist(), strict=True))
    assert got == {
        "load": 12.5,
        "moment_pct": 87.4,
        "radius": 30.1,
        "angle": -45.5,
        "height": 42.0,
        "wind_speed": 4.8,
    }
    assert set(sweep.quality.tolist()) == {Quality.GOOD}


def test_invalid_pattern_is_no_value() -> None:
    sink = play(rtu(noise("n", 4)), ModbusPeer({4: {**NOISE, 0: 0x7FFF}}), 0.5)
    (sweep,) = sink.sweeps
    at = sweep.points.index("laeq")
    assert np.isnan(sweep.values[at])
    assert sweep.quality[at] == Quality.MISSING


def test_a_dead_device_does_not_hold_up_the_rest() -> None:
    peer = ModbusPeer({4: NOISE, 5: NOISE}, silent={6})
    sink = play(rtu(noise("a", 4), noise("dead", 6), noise("b", 5)), peer, 120)
    assert ("dead", False) in sink.states
    assert [state for device, state in sink.states if device == "dead"] == [False]  # once
    # 120 polls in 120 s but for the seconds the dead one took before it was given up.
    assert len(sink.values("a", "laeq")) >= 115
    assert len(sink.values("b", "laeq")) >= 115
    asked = sum(1 for unit, _, _ in peer.asked if unit == 6)
    assert 3 <= asked <= 5 + 120 / 30


def test_lost_once_and_back_once() -> None:
    peer = ModbusPeer({4: NOISE})
    sink = RecordingSink()

    async def main() -> None:
        connector = build(rtu(noise("n", 4)), LoopClock(START_MS), dialled(peer.serve))
        async with serving(connector, sink):
            await asyncio.sleep(5.5)
            peer.silent.add(4)
            await asyncio.sleep(60)
            peer.silent.clear()
            await asyncio.sleep(35)

    run_virtual(main(), START_MS)
    assert sink.states == [("n", True), ("n", False), ("n", True)]


def test_garbled_answer_is_reported_and_asked_again() -> None:
    def spoil(data: bytes, number: int) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 0xFF,)) if number == 2 else data

    sink = play(rtu(noise("n", 4)), ModbusPeer({4: NOISE}, spoil=spoil), 3.5)
    assert [(r.event_type, r.device, r.code) for r in sink.reports] == [("data.rejected", "n", "checksum")]
    assert sink.values("n", "laeq") == [62.3] * 4
    assert sink.states == [("n", True)]


def test_answer_of_another_unit_is_not_ours() -> None:
    stranger = ModbusEndpoint(Role.SLAVE).send(Reply(9, 3, registers=(1, 2, 3)), 0)

    def spoil(data: bytes, number: int) -> bytes:
        return stranger + data if number == 1 else data

    sink = play(rtu(noise("n", 4)), ModbusPeer({4: NOISE}, spoil=spoil), 0.9)
    assert [(r.code, r.device) for r in sink.reports] == [("wrong_address", "n")]
    assert sink.values("n", "laeq") == [62.3]  # the right answer behind it was taken


def test_hole_is_cut_out_and_remembered() -> None:
    memory = {address: word for address, word in CRANE.items() if address != 5}  # 5 is not used by any point
    peer = ModbusPeer({1: memory})
    sink = play(rtu(crane()), peer, 3.5)
    assert sink.reports == []
    assert [len(sweep.points) for sweep in sink.sweeps] == [6] * 4
    assert peer.asked[:3] == [(1, 0, 8), (1, 0, 5), (1, 6, 2)]
    assert (1, 0, 8) not in peer.asked[1:]


def test_missing_register_is_reported_once() -> None:
    memory = {address: word for address, word in CRANE.items() if address < 5}
    sink = play(rtu(crane()), ModbusPeer({1: memory}), 5.5)
    assert [(r.event_type, r.code, r.point) for r in sink.reports] == [("data.rejected", "illegal_range", "wind_speed")]
    assert [len(sweep.points) for sweep in sink.sweeps] == [5] * 6


def test_late_answer_is_not_booked_on_the_next_device() -> None:
    peer = ModbusPeer({4: NOISE, 5: {0: 400, 1: 500, 2: 0}})
    held: list[bytes] = []

    class FirstAnswerLate:
        """Keeps the first answer back and delivers it glued in front of the second."""

        def __init__(self, link: Link) -> None:
            self.read, self.close, self._link = link.read, link.close, link

        async def write(self, data: bytes) -> None:
            if not held:
                held.append(data)
            else:
                await self._link.write(held.pop() + data if held[0] else data)
                held[:] = [b""]

    sink = RecordingSink()

    async def main() -> None:
        config = rtu(noise("a", 4), noise("b", 5), retries=0)
        async with serving(build(config, LoopClock(START_MS), dialled(peer.serve, FirstAnswerLate)), sink):
            await asyncio.sleep(0.9)

    run_virtual(main(), START_MS)
    assert sink.values("b", "laeq") == [40.0]
    assert ("wrong_address", "b") in [(r.code, r.device) for r in sink.reports]


def test_tcp_link_that_nobody_answers_on_is_given_up() -> None:
    peer = ModbusPeer({1: CRANE}, framing="tcp", silent={1})
    config = ModbusTcpConfig(id="tcp", address="127.0.0.1:502", device=(crane(),))

    async def main() -> None:
        connector = build(config, LoopClock(START_MS), dialled(peer.serve))
        with pytest.raises(LinkDown, match="nobody"):
            await connector.run(RecordingSink())

    run_virtual(main(), START_MS)
    assert len(peer.asked) == 5  # 3 polls: three tries, then one each


def test_link_that_stays_away_takes_its_devices_along() -> None:
    sink = RecordingSink()

    async def nothing() -> Any:
        raise LinkDown("no such port")

    async def main() -> None:
        connector = build(rtu(noise("n", 4)), LoopClock(START_MS), nothing)
        for _ in range(5):
            with pytest.raises(LinkDown):
                await connector.run(sink)

    run_virtual(main(), START_MS)
    assert sink.states == [("n", False)]


# -- real links


class Enough(RecordingSink):
    """Says when it has seen so many sweeps."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._enough = asyncio.Event()

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        super().sweep(sweep, on_durable)
        if len(self.sweeps) >= self._count:
            self._enough.set()

    async def wait(self) -> None:
        async with asyncio.timeout(10):
            await self._enough.wait()


class FdLink:
    """The device end of a pty."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)

    async def read(self) -> bytes:
        future: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, lambda: future.done() or future.set_result(None))
        try:
            await future
        finally:
            self._loop.remove_reader(self._fd)
        return os.read(self._fd, 256)

    async def write(self, data: bytes) -> None:
        for byte in data:  # as a slow line delivers it
            os.write(self._fd, bytes((byte,)))
            await asyncio.sleep(0)

    async def close(self) -> None:
        os.close(self._fd)


def test_real_frames_on_a_pty() -> None:
    sink = Enough(6)
    peer = ModbusPeer({4: NOISE, 11: {0: 12, 1: 0, 2: 251}})

    async def main() -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        config = ModbusRtuConfig(
            id="bus",
            port=os.ttyname(slave),
            parity="E",  # a pty has none; a real line would
            device=(noise("n", 4, 0.05), ModbusDevice(id="gas", type="gas/combustible", unit=11, poll_s=0.05)),
        )
        device = asyncio.create_task(peer.serve(FdLink(master)))
        async with serving(build(config, WallClock()), sink):
            await sink.wait()
        device.cancel()
        await asyncio.gather(device, return_exceptions=True)
        os.close(master)
        os.close(slave)

    asyncio.run(main())
    assert set(sink.values("n", "laeq")) == {62.3}
    assert set(sink.values("gas", "ch4_lel")) == {1.2}
    assert sink.reports == []


def test_pty_whose_other_end_is_gone_is_a_lost_link() -> None:
    async def main() -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        config = ModbusRtuConfig(id="bus", port=os.ttyname(slave), device=(noise("n", 4),))
        task = asyncio.create_task(build(config, WallClock()).run(RecordingSink()))
        assert await FdLink(master).read()  # the first request: the line is open
        os.close(slave)
        os.close(master)
        with pytest.raises(LinkDown):
            async with asyncio.timeout(5):
                await task

    asyncio.run(main())


def test_real_tcp_and_a_closed_connection() -> None:
    sink = Enough(5)
    peer = ModbusPeer({1: CRANE}, framing="tcp")

    async def main() -> None:
        served: list[Any] = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(writer)
            await peer.serve(StreamLink(reader, writer))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        device = ModbusDevice(id="crane", type="crane/tower_crane", unit=1, poll_s=0.02)
        config = ModbusTcpConfig(id="tcp", address=f"127.0.0.1:{port}", device=(device,))
        task = asyncio.create_task(build(config, WallClock()).run(sink))
        await sink.wait()
        server.close()
        served[0].close()
        with pytest.raises(LinkDown):
            async with asyncio.timeout(5):
                await task

    asyncio.run(main())
    assert set(sink.values("crane", "moment_pct")) == {87.4}


def test_refused_connection_is_a_lost_link() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = ModbusTcpConfig(id="tcp", address=address, device=(crane(),))
    with pytest.raises(LinkDown):
        asyncio.run(build(config, WallClock()).run(RecordingSink()))


def test_missing_port_is_a_lost_link_not_a_crash() -> None:
    config = ModbusRtuConfig(id="bus", port="/dev/does-not-exist", device=(noise("n", 4),))
    with pytest.raises(LinkDown, match="no such port"):
        asyncio.run(build(config, WallClock()).run(RecordingSink()))
