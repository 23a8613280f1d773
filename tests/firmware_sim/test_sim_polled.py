"""Polled devices on memory links: register images, meters, addresses, faults; and a line of 32 meters in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols import devices
from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import LinkDown, RemoteProtocolError
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.messages import AddressReply, ErrorReply, Read, ReadAddress, ReadReply
from protocols.dlt645.values import decode as dlt645_decode
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.messages import ExceptionReply, ReadRequest, Reply, WriteRequest
from protocols.modbus.points import decode as modbus_decode
from tests.support.virtual import play

SITE = """
id = "site"
[[bus]]
id = "line"
kind = "%s"
[[device]]
id = "noise"
type = "env/noise_meter"
bus = "line"
address = 4
[device.signals]
laeq = { steps = [[0, 62.3], [10, 71.8]] }
[[device]]
id = "crane"
type = "crane/tower_crane"
bus = "line"
address = 1
[device.signals]
load = { base = 3.21 }
angle = { base = -101.0 }
wind_speed = { base = 7.5 }
"""
METERS = """
id = "meters"
[[bus]]
id = "line"
kind = "dlt645"
baud = 2400
pace = %s
[[device]]
id = "meter"
count = 32
type = "meter/electricity_three_phase"
bus = "line"
address = "000000000101"
[device.signals]
energy_active = { counter = { start = 1234.5, per_hour = 3.6 } }
voltage_a = { base = 229.0, noise = 0.5 }
voltage_b = { base = 230.04 }
current_a = { base = -11.2 }
power_active = { base = 7.1 }
"""


class Master:
    """Asks one thing at a time, as the agent would: what is wrong is no answer, and the waiting goes on. After
    ``timeout_s`` the first thing that was wrong is the result, or None for silence."""

    def __init__(self, rig: VirtualRig, endpoint: Endpoint[Any], timeout_s: float = 1.0) -> None:
        self.rig = rig
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.link: Any = None

    async def ask(self, request: Any) -> Any:
        if self.link is None:
            self.link = await self.rig.link_factory("line")()
        now_ms = self.rig.clock.now_ms
        await self.link.write(self.endpoint.send(request, now_ms()))
        wrong: list[RemoteProtocolError] = []
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    data = await self.link.read()
                    if not data:
                        raise LinkDown("closed")
                    for found in self.endpoint.feed(data, now_ms()):
                        if not isinstance(found, RemoteProtocolError):
                            return found
                        wrong.append(found)
        except TimeoutError:
            wrong += self.endpoint.tick(now_ms() + 10_000)
            return wrong[0] if wrong else None


def ask(scene: str, requests: list[Any], make: Callable[[], Endpoint[Any]]) -> tuple[list[Any], MemoryLedger]:
    """The answers to ``requests``; a number among them is a second of the scene to wait for."""

    async def body(rig: VirtualRig) -> tuple[list[Any], MemoryLedger]:
        master, answers = Master(rig, make()), []
        for request in requests:
            if isinstance(request, int | float):
                await rig.until_s(request)
            else:
                answers.append(await master.ask(request))
        assert isinstance(rig.ledger, MemoryLedger)
        return answers, rig.ledger

    return play(scene, body)


FRAMINGS: dict[str, Callable[[], Endpoint[Any]]] = {
    "modbus-rtu": lambda: ModbusEndpoint(Role.MASTER),
    "modbus-tcp": lambda: ModbusEndpoint(Role.MASTER, framing="tcp"),
}


@pytest.mark.parametrize("kind", FRAMINGS)
def test_registers_say_what_the_signals_say(kind: str) -> None:
    [early, crane, late], ledger = ask(
        SITE % kind, [ReadRequest(4, 3, 0, 3), ReadRequest(1, 3, 0, 8), 10, ReadRequest(4, 3, 0, 1)], FRAMINGS[kind]
    )
    assert early.registers == (623, 0x7FFF, 0)  # no signal: the type's "no value"; a status without one is 0
    assert late.registers == (718,)
    crane_type = devices.load("crane/tower_crane")
    values = {}
    for name in ("load", "angle", "wind_speed"):
        point = crane_type.point(name)
        assert point.modbus is not None
        at = point.modbus.address
        values[name] = float(modbus_decode(crane.registers[at : at + point.modbus.width], point)[0])
    assert values == pytest.approx({"load": 3.21, "angle": -101.0, "wind_speed": 7.5})
    assert [entry["what"] for entry in ledger.entries() if entry["k"] == "ans"] == ["3:0+3", "3:0+8", "3:0+1"]


def test_device_refuses_what_it_has_not() -> None:
    requests = [
        ReadRequest(4, 3, 0, 4),  # one register too far
        ReadRequest(4, 4, 0, 1),  # holding registers, not input
        ReadRequest(4, 3, 0, 126),
        WriteRequest(4, 6, 0, (1,)),
        ReadRequest(5, 3, 0, 1),  # nobody
        ReadRequest(1, 3, 5, 1),  # a hole between two points of the crane
    ]
    answers, _ = ask(
        SITE % "modbus-rtu", [requests[0], requests[1], requests[3], requests[4], requests[5]], FRAMINGS["modbus-rtu"]
    )
    codes = [answer.code if isinstance(answer, ExceptionReply) else answer for answer in answers]
    assert codes[:4] == [2, 2, 1, None]
    assert answers[4].registers == (0,)
    refusing = SITE.replace('type = "crane/tower_crane"', 'type = "crane/tower_crane"\nrefuse_holes = true')
    [hole, beside], _ = ask(refusing % "modbus-rtu", [requests[5], ReadRequest(1, 3, 0, 5)], FRAMINGS["modbus-rtu"])
    assert hole.code == 2
    assert isinstance(beside, Reply)


FAULT = '[[device.fault]]\nkind = "%s"\nat_s = 100\nfor_s = 50\n%s'


@pytest.mark.parametrize(
    ("fault", "more", "reason"),
    [
        ("wrong_checksum", "", "crc"),
        ("wrong_address", "", "wrong_unit"),
        ("drop", "", None),
        ("silence", "", None),
        ("restart", "", None),
        ("delay", "delay_s = 1.5\n", None),
    ],
)
def test_fault_holds_for_its_span_only(fault: str, more: str, reason: str | None) -> None:
    scene = SITE % "modbus-rtu" + FAULT % (fault, more)  # the crane's, it comes last
    crane, noise = ReadRequest(1, 3, 0, 1), ReadRequest(4, 3, 0, 1)
    [before, during, neighbour, after], ledger = ask(
        scene, [99, crane, 100, crane, 120, noise, 150, crane], FRAMINGS["modbus-rtu"]
    )
    assert before.registers == after.registers == (321,)
    assert neighbour.registers == (718,)
    if reason is None:
        assert during is None
    else:
        assert isinstance(during, RemoteProtocolError)
        assert during.reason == reason
    totals = ledger.totals()
    assert dict(totals["crane"].faults) == {fault: 1}
    answered = {"drop": (3, 2), "silence": (2, 2), "restart": (2, 2), "delay": (3, 3)}.get(fault, (3, 2))
    assert (totals["crane"].answers, totals["crane"].answers_intact) == answered


def test_tcp_box_without_power_drops_its_connections() -> None:
    # Both devices of the box have to be off; one alone is merely silent.
    first, second = (SITE % "modbus-tcp").split('[[device]]\nid = "crane"')
    fault = FAULT % ("restart", "")
    scene = first + fault + '[[device]]\nid = "crane"' + second + fault

    async def body(rig: VirtualRig) -> list[str]:
        master, seen = Master(rig, FRAMINGS["modbus-tcp"]()), []
        for second in (50, 99, 101, 149, 151):
            await rig.until_s(second)
            try:
                seen.append(type(await master.ask(ReadRequest(1, 3, 0, 1))).__name__)
            except LinkDown as error:
                seen.append("down" if master.link is not None else str(error))
                master.link = None
        return seen

    assert play(scene, body) == ["Reply", "Reply", "down", "line: no power, connection refused", "Reply"]


def test_serial_line_is_taken_over_by_whoever_opens_it_again() -> None:
    async def body(rig: VirtualRig) -> bytes:
        first = await rig.link_factory("line")()
        second = await rig.link_factory("line")()
        endpoint = ModbusEndpoint(Role.MASTER)
        await second.write(endpoint.send(ReadRequest(4, 3, 0, 1), 0))
        assert endpoint.feed(await second.read(), 0)
        return await first.read()

    assert play(SITE % "modbus-rtu", body) == b""


# -- meters ---------------------------------------------------------------------------------------------------------


def test_meter_shows_its_signals_singly_and_in_blocks() -> None:
    addr = "000000000107"
    requests = [3600] + [Read(addr, di) for di in ("00010000", "0201FF00", "02020100", "02030000", "02800002")]
    answers, _ = ask(
        METERS % "false", [*requests, Read(addr, "04AB0101"), ReadAddress(addr)], lambda: Dlt645Endpoint(Role.MASTER)
    )
    shown: list[list[Decimal | None]] = []
    for answer in answers[:5]:
        assert isinstance(answer, ReadReply)
        values = dlt645_decode(answer.di, answer.data)
        assert values is not None
        shown.append([value.number for value in values])
    assert shown[0] == [Decimal("1238.10")]  # an hour at 3.6 kWh
    assert shown[1][0] is not None
    assert abs(shown[1][0] - 229) < 3
    assert shown[1][1:] == [Decimal("230.0"), None]  # phase C has no signal: FF, which is no number
    assert shown[2:] == [[Decimal("-11.200")], [Decimal("7.1000")], [None]]
    assert isinstance(answers[5], ErrorReply)
    assert answers[5].no_data
    assert answers[6] == AddressReply(addr, addr)


def test_32_meters_on_one_line_take_the_time_of_the_real_one() -> None:
    """Voltage block of each: 20 bytes out, 26 back at 11 bits and 2400 baud, 20 ms to turn round."""
    numbers = [f"{100 + n:012d}" for n in range(1, 33)]
    byte_s = 11 / 2400

    async def body(rig: VirtualRig) -> tuple[float, float, int, MemoryLedger]:
        master = Master(rig, Dlt645Endpoint(Role.MASTER), timeout_s=2.0)
        began_s = asyncio.get_running_loop().time()
        answers = [await master.ask(Read(number, "0201FF00")) for number in numbers]
        took_s = asyncio.get_running_loop().time() - began_s
        line = rig.line_time("line")
        assert line is not None
        assert [answer.addr for answer in answers] == numbers
        assert isinstance(rig.ledger, MemoryLedger)
        return took_s, line.busy_s, len(master.endpoint.send(Read(numbers[0], "0201FF00"), 0)), rig.ledger

    took_s, busy_s, request_bytes, ledger = play(METERS % "true", body)
    assert request_bytes == 20
    assert busy_s == pytest.approx(32 * (20 + 26) * byte_s)
    assert took_s == pytest.approx(busy_s + 32 * 0.020, rel=0.002)
    assert busy_s / took_s > 0.9  # share of the physical time of the line that carried bytes
    totals = ledger.totals()
    assert {name: device.answers_intact for name, device in totals.devices.items()} == {
        f"meter-{n:02d}": 1 for n in range(1, 33)
    }


def test_same_seed_same_bytes_from_polled_devices() -> None:
    def run() -> list[Any]:
        requests = [Read("000000000107", "02010100") for _ in range(50)]
        spread = [part for n, request in enumerate(requests) for part in (n * 10, request)]
        answers, ledger = ask(
            METERS % "false" + FAULT % ("garble", "every = 3\n"), spread, lambda: Dlt645Endpoint(Role.MASTER)
        )
        return [*map(repr, answers), ledger.lines]

    assert run() == run()
