"""What goes wrong on RS-485 and nowhere else: echo, two devices with one address, a lost first byte, answers that come
late; and two editions of DL/T 645 on one line. Simulated devices, real connectors, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edge.clock import WallClock
from edge.connectors.build import build
from edge.connectors.config import (
    ConnectorConfig,
    Dlt645Config,
    Dlt645Device,
    ModbusDevice,
    ModbusRtuConfig,
    check,
)
from edge.connectors.links import StreamLink
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.errors import ConfigError
from protocols.core.model import Sweep
from tests.edge_connectors.peers import ModbusPeer, serving
from tests.support.virtual import RecordingSink, play, running

METER_TYPE = "meter/electricity_three_phase"
SIGNALS = """
[device.signals]
energy_active = { counter = { start = 1234.5, per_hour = 3.6 } }
voltage_a = { base = %s }
voltage_b = { base = 230.0 }
voltage_c = { base = 231.0 }
current_a = { base = 11.2 }
power_active = { base = 7.1 }
power_factor = { base = 0.95 }
frequency = { base = 50.0 }
"""


def meter(name: str, address: int, *, voltage: float = 229.0, extra: str = "", fault: str = "") -> str:
    head = f'[[device]]\nid = "{name}"\ntype = "{METER_TYPE}"\nbus = "line"\naddress = "{address:012d}"\n{extra}\n'
    return head + SIGNALS % voltage + (f"[[device.fault]]\n{fault}\n" if fault else "")


def meters(*devices: str, bus: str = "") -> str:
    return f'id = "x"\n[[bus]]\nid = "line"\nkind = "dlt645"\nbaud = 9600\n{bus}\n' + "".join(devices)


def noise(*, bus: str = "", fault: str = "", more: str = "") -> str:
    device = '[[device]]\nid = "noise"\ntype = "env/noise_meter"\nbus = "line"\naddress = 4\n'
    signals = "[device.signals]\nlaeq = { base = 62.3 }\nlamax = { base = 70.0 }\nstatus = { base = 0 }\n"
    faults = f"[[device.fault]]\n{fault}\n" if fault else ""
    return f'id = "x"\n[[bus]]\nid = "line"\nkind = "modbus-rtu"\n{bus}\n{device}{signals}{faults}{more}'


class Counting(RecordingSink):
    """Says when so many sweeps have come."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted
        self.enough = asyncio.Event()

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        super().sweep(sweep, on_durable)
        if len(self.sweeps) == self.wanted:
            self.enough.set()


def run(scene: str, config: ConnectorConfig, seconds: float) -> RecordingSink:
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        async with running([build(config, rig.clock, rig.link_factory("line"))], sink):
            await rig.until_s(seconds)

    play(scene, body)
    return sink


def dlt645(*addresses: int, **options: Any) -> Dlt645Config:
    devices = tuple(
        Dlt645Device(id=f"m{n}", type=METER_TYPE, address=f"{n:012d}", poll_s=5.0, **options) for n in addresses
    )
    return Dlt645Config(id="line", port="x", device=devices, baud=9600)


def modbus(poll_s: float = 1.0, **options: Any) -> ModbusRtuConfig:
    device = ModbusDevice(id="noise", type="env/noise_meter", unit=4, poll_s=poll_s)
    return ModbusRtuConfig(id="line", port="x", device=(device,), **options)


def test_an_adapter_that_echoes_is_no_answer() -> None:
    sink = run(noise(bus="echo = true"), modbus(), 10.5)
    assert sink.values("noise", "laeq") == [62.3] * 11
    assert sink.reports == []
    sink = run(meters(meter("m1", 1), bus="echo = true"), dlt645(1), 14)
    assert sink.values("m1", "voltage_a") == [229.0] * 3
    assert sink.reports == []


def test_two_meters_with_one_address_are_noticed() -> None:
    clash = meters(meter("m1", 1), meter("twin", 1, voltage=211.7, extra="clash = true"), meter("m2", 2))
    sink = run(clash, dlt645(1, 2), 30)
    assert {report.code for report in sink.reports if report.device == "m1"} & {"checksum", "start", "end", "length"}
    assert set(sink.values("m1", "voltage_a")) <= {229.0, 211.7}  # never a mixture of both
    assert len(sink.values("m2", "voltage_a")) >= 4  # the others are read as before


def test_one_address_twice_is_refused_unless_it_is_meant() -> None:
    with pytest.raises(ConfigError, match="used twice"):
        play(meters(meter("m1", 1), meter("twin", 1)), lambda rig: asyncio.sleep(0))


def test_a_lost_first_byte_costs_that_answer_only() -> None:
    # The meter's wake-up bytes are there for this: nothing is lost.
    sink = run(meters(meter("m1", 1, fault="kind = 'first_byte'")), dlt645(1), 14)
    assert sink.values("m1", "voltage_a") == [229.0] * 3
    assert sink.reports == []
    # Modbus has none: the answer is lost, the next try brings it.
    sink = run(noise(fault="kind = 'first_byte'\nevery = 2"), modbus(), 10.5)
    assert sink.values("noise", "laeq") == [62.3] * 11
    assert sink.counts["frames_rejected"] > 0
    assert sink.states == [("noise", True)]


def test_a_slow_device_is_waited_for() -> None:
    fault = "kind = 'delay'\ndelay_s = 0.25"
    sink = run(noise(fault=fault), modbus(timeout_s=0.4), 10.5)
    assert len(sink.values("noise", "laeq")) == 11
    assert sink.counts["polls_missed"] == 0


def test_an_answer_after_the_time_out_is_not_the_next_ones() -> None:
    """The answer to a block that was given up arrives while the next one is asked for: it must not be taken for it."""
    other = (
        '[[device]]\nid = "crane"\ntype = "crane/tower_crane"\nbus = "line"\naddress = 1\n'
        "[device.signals]\nload = { base = 3.21 }\n"
    )
    fault = "kind = 'delay'\ndelay_s = 0.45\nevery = 3"
    config = ModbusRtuConfig(
        id="line",
        port="x",
        device=(
            ModbusDevice(id="noise", type="env/noise_meter", unit=4, poll_s=1.0),
            ModbusDevice(id="crane", type="crane/tower_crane", unit=1, poll_s=1.0),
        ),
        timeout_s=0.3,
        retries=0,
    )
    sink = run(noise(fault=fault, more=other), config, 60)
    assert set(sink.values("noise", "laeq")) == {62.3}
    assert set(sink.values("crane", "load")) == {3.21}
    assert {report.code for report in sink.reports} <= {"wrong_address", "unexpected", "byte_count"}


def test_meters_of_both_editions_hang_on_one_line() -> None:
    old = meter("m1", 1, extra='options = { edition = "1997" }')
    sink = run(meters(old, meter("m2", 2)), dlt645(1, 2), 32)
    assert set(sink.values("m1", "voltage_a")) == {229.0}
    assert sink.values("m1", "energy_active")[0] == pytest.approx(1234.5, abs=0.01)
    assert len(sink.values("m2", "frequency")) >= 1
    # The older meter has no frequency: said once.
    assert [(r.device, r.code, r.point) for r in sink.reports] == [("m1", "no_data", "frequency")]
    assert [state for device, state in sink.states if device == "m1"] == [True]


def test_an_edition_that_is_given_is_not_looked_for() -> None:
    sink = run(meters(meter("m1", 1, extra='options = { edition = "1997" }')), dlt645(1, edition="1997"), 12)
    assert set(sink.values("m1", "voltage_b")) == {230.0}
    assert sink.counts["frames_rejected"] == 0


def test_rtu_through_a_transparent_serial_server() -> None:
    """``port = "tcp://..."``: RTU frames with their CRC over a real TCP connection."""
    peer = ModbusPeer({4: {0: 623, 1: 702, 2: 0}})
    sink = Counting(3)

    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: peer.serve(StreamLink(r, w)), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = ModbusRtuConfig(
            id="line", port=f"tcp://127.0.0.1:{port}", device=modbus(poll_s=0.02).device, gap_s=0.0
        )
        async with server, serving(build(config, WallClock()), sink):
            async with asyncio.timeout(10):
                await sink.enough.wait()

    asyncio.run(main())
    assert sink.values("noise", "laeq")[:3] == [62.3] * 3


@pytest.mark.parametrize("port", ["tcp://", "tcp://host", "tcp://host:x", ""])
def test_ports_that_cannot_be(port: str) -> None:
    with pytest.raises(ConfigError, match="port"):
        check(ModbusRtuConfig(id="line", port=port, device=modbus().device))
