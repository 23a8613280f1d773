"""Another implementation at the other end: pymodbus's server for our connector, its client for our devices."""

from __future__ import annotations

import asyncio

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer

from edge.clock import WallClock
from edge.connectors.base import Command
from edge.connectors.build import build
from edge.connectors.config import ModbusDevice, ModbusRtuConfig, ModbusTcpConfig
from edge.connectors.links import StreamLink
from edge.connectors.modbus_bus import ModbusBus
from tests.edge_connectors.peers import ModbusPeer
from tests.edge_connectors.test_line_faults import Counting

#: pymodbus counts a data block's addresses from 1.
_FIRST = 1


def device() -> ModbusDeviceContext:
    registers = ModbusSequentialDataBlock(_FIRST, [623, 702, 0])
    coils = ModbusSequentialDataBlock(_FIRST, [False] * 8)
    inputs = ModbusSequentialDataBlock(_FIRST, [True] * 8)
    return ModbusDeviceContext(hr=registers, co=coils, di=inputs)


def noise_server(framer: FramerType) -> ModbusTcpServer:
    context = ModbusServerContext(devices={4: device(), 5: device()}, single=False)
    return ModbusTcpServer(context, framer=framer, address=("127.0.0.1", 0))


async def listening(server: ModbusTcpServer) -> int:
    await server.listen()
    assert server.transport is not None
    port: int = server.transport.sockets[0].getsockname()[1]
    return port


@pytest.mark.parametrize("framer", [FramerType.SOCKET, FramerType.RTU])
def test_our_connector_reads_and_orders_their_server(framer: FramerType) -> None:
    sink = Counting(3)

    async def main() -> tuple[object, object]:
        server = noise_server(framer)
        port = await listening(server)
        devices = (
            ModbusDevice(id="noise", type="env/noise_meter", unit=4, poll_s=0.05),
            ModbusDevice(id="box", type="io/relay_box_8", unit=5, poll_s=0.05),
        )
        config: ModbusTcpConfig | ModbusRtuConfig
        if framer is FramerType.SOCKET:
            config = ModbusTcpConfig(id="x", address=f"127.0.0.1:{port}", device=devices)
        else:
            config = ModbusRtuConfig(id="x", port=f"tcp://127.0.0.1:{port}", device=devices)
        bus = build(config, WallClock())
        assert isinstance(bus, ModbusBus)
        running = asyncio.create_task(bus.run(sink))
        async with asyncio.timeout(15):
            await sink.enough.wait()
            on = await bus.command(Command("c1", "box", "set_relay_3", {"on": True}))
            off = await bus.command(Command("c2", "box", "set_relay_3", {"on": False}))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.shutdown()
        return on, off

    on, off = asyncio.run(main())
    assert (on.state, on.read_back) == ("done", {"relay_3": 1.0})  # type: ignore[attr-defined]
    assert (off.state, off.read_back) == ("done", {"relay_3": 0.0})  # type: ignore[attr-defined]
    assert set(sink.values("noise", "laeq")) == {62.3}
    assert sink.reports == []


def test_their_client_reads_our_devices() -> None:
    peer = ModbusPeer({1: {n: 100 + n for n in range(40)}}, framing="tcp")

    async def main() -> list[int]:
        server = await asyncio.start_server(lambda r, w: peer.serve(StreamLink(r, w)), "127.0.0.1", 0)
        async with server:
            client = AsyncModbusTcpClient("127.0.0.1", port=server.sockets[0].getsockname()[1])
            await client.connect()
            found = await client.read_holding_registers(3, count=30, device_id=1)
            refused = await client.read_holding_registers(500, count=1, device_id=1)
            client.close()
            assert refused.exception_code == 2
            return list(found.registers)

    assert asyncio.run(main()) == [103 + n for n in range(30)]
