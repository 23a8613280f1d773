"""The search for devices against simulated lines: all of them found, nothing but reads, one question at a time."""

from __future__ import annotations

import asyncio
import tomllib
from dataclasses import replace

import msgspec
import pytest

from edge.connectors.base import Link, LinkFactory
from edge.connectors.config import ConnectorConfig, check
from edge.probe.found import Found, Place, snippet
from edge.probe.scan import Scan, Wanted
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.errors import ConfigError, LinkDown
from tests.support.virtual import play

SPEED = ((2400, "E"),)
LINE = "/dev/ttyUSB0"


def line(kind: str, *devices: str, bus: str = "") -> str:
    return f'id = "x"\n[[bus]]\nid = "line"\nkind = "{kind}"\n{bus}\n' + "".join(devices)


def device(kind: str, address: str | int, signals: str = "", more: str = "") -> str:
    shown = f'"{address}"' if isinstance(address, str) else address
    head = f'[[device]]\nid = "d{address}"\ntype = "{kind}"\nbus = "line"\naddress = {shown}\n{more}\n'
    return head + (f"[device.signals]\n{signals}\n" if signals else "")


METER = "meter/electricity_three_phase"
THREE = """voltage_a = { base = 229.0 }
voltage_b = { base = 230.0 }
voltage_c = { base = 231.0 }
energy_active = { base = 5.0 }"""


SINGLE = "voltage = { base = 229.3 }\nfrequency = { base = 50.0 }"


def search(scene: str, wanted: Wanted, at: tuple[int, str] | None = None) -> tuple[Scan, MemoryLedger]:
    """``at``: the only speed and parity at which the line can be understood."""
    ledger, told = MemoryLedger(), list[str]()

    async def body(rig: VirtualRig) -> Scan:
        def opened(place: Place) -> LinkFactory:
            if at is None or (place.baud, place.parity) == at:
                return rig.link_factory("line")
            return _deaf

        scan = Scan(wanted, told.append, open_link=opened)
        await scan.run()
        return scan

    return play(scene, body, ledger=ledger), ledger


async def _deaf() -> Link:
    class Deaf:
        async def read(self) -> bytes:
            return await asyncio.get_running_loop().create_future()

        async def write(self, data: bytes) -> None: ...

        async def close(self) -> None: ...

    return Deaf()


def addresses(scan: Scan) -> set[str]:
    return {one.address for one in scan.found}


def only_reads(ledger: MemoryLedger) -> bool:
    said = {entry["what"] for entry in ledger.entries() if entry["k"] == "ans"}
    return not said & {"Command", "WriteRequest", "MaskWrite", "ReadWrite", "BroadcastTime"}


def configured(scan: Scan) -> list[ConnectorConfig]:
    tables = tomllib.loads(snippet(scan.found))["connector"]
    found = [msgspec.convert(table, ConnectorConfig) for table in tables]
    for one in found:
        check(one)
    return found


def test_a_lone_meter_is_found_by_its_own_word() -> None:
    scan, ledger = search(line("dlt645", device(METER, "000000000161", THREE)), Wanted(LINE, ("dlt645",), SPEED))
    (found,) = scan.found
    assert (found.address, found.type) == ("000000000161", "meter/electricity_three_phase_smart")
    assert scan.asked < 10
    assert only_reads(ledger)


@pytest.mark.parametrize(
    "numbers",
    [
        [f"{101 + n:012d}" for n in range(32)],
        ["100000000001", "200000000001", "300000000001"],
        ["003411001043", "171118445100", "441528063877", "000072007201", "020247020276"],
    ],
    ids=["a row of 32", "alike to the last digit", "mixed"],
)
def test_meters_that_answer_together_are_told_apart(numbers: list[str]) -> None:
    scene = line("dlt645", *(device(METER, number, THREE) for number in numbers))
    scan, ledger = search(scene, Wanted(LINE, ("dlt645",), SPEED))
    assert addresses(scan) == set(numbers)
    assert only_reads(ledger)
    (config,) = configured(scan)
    assert {one.address for one in config.device} == set(numbers)  # type: ignore[union-attr]


def test_the_same_number_twice_is_said_not_configured() -> None:
    twins = (
        device(METER, "000000000161", THREE),
        device(METER, "000000000161", THREE.replace("229", "211"), "clash = true"),
    )
    scene = line("dlt645", *twins).replace('id = "d000000000161"', 'id = "twin"', 1)
    scan, _ = search(scene, Wanted(LINE, ("dlt645",), SPEED))
    assert [one.sure for one in scan.found] in ([False], [True])
    if not scan.found[0].sure:
        assert snippet(scan.found) == ""


def test_a_meter_of_1997_is_found_with_its_edition() -> None:
    scene = line("dlt645", device(METER, "000000063295", THREE, 'options = { edition = "1997" }'))
    scan, _ = search(scene, Wanted(LINE, ("dlt645",), SPEED))
    (found,) = scan.found
    assert (found.address, found.type, found.more) == ("000000063295", "meter/electricity_1997", {"edition": "1997"})
    configured(scan)


def test_speeds_are_tried_until_somebody_answers() -> None:
    scene = line("dlt645", device(METER, "000000000161", THREE), bus="baud = 9600")
    scan, _ = search(scene, Wanted(LINE, ("dlt645", "cjt188")), at=(9600, "E"))
    assert [(one.place.baud, one.place.parity) for one in scan.found] == [(9600, "E")]


def test_a_water_meter_is_found_and_two_are_noticed() -> None:
    volume = "volume = { base = 12.3 }"
    one = device("water/cjt188_meter", "00000000012345", volume)
    scan, _ = search(line("cjt188", one), Wanted(LINE, ("cjt188",), SPEED))
    (found,) = scan.found
    assert (found.address, found.type, found.sure) == ("00000000012345", "water/cjt188_meter", True)
    configured(scan)
    two = line("cjt188", one, device("water/cjt188_meter", "00000000067890", volume))
    scan, _ = search(two, Wanted(LINE, ("cjt188",), SPEED))
    assert [one.sure for one in scan.found] == [False]


def test_modbus_units_with_their_likely_types() -> None:
    scene = line(
        "modbus-rtu",
        device("env/noise_meter", 4, "laeq = { base = 62.3 }\nlamax = { base = 70.0 }\nstatus = { base = 0 }"),
        device("meter/eastron_sdm120", 17, SINGLE, "refuse_holes = true"),
        device("io/relay_box_8", 32),
    )
    scan, ledger = search(scene, Wanted(LINE, ("modbus",), ((9600, "N"),), range(1, 40)))
    assert {one.address: one.type for one in scan.found} == {
        "4": "env/noise_meter", "17": "meter/eastron_sdm120", "32": "io/relay_box_8",
    }  # fmt: skip
    assert "simulated" in next(one.about for one in scan.found if one.address == "4")  # function 43/14
    assert only_reads(ledger)


def test_units_behind_a_modbus_tcp_host() -> None:
    crane = "load = { base = 3.2 }\nwind_speed = { base = 4.8 }"
    scene = line("modbus-tcp", device("crane/tower_crane", 1, crane), device("crane/tower_crane", 7, crane))
    scan, _ = search(scene, Wanted("192.168.1.10", units=range(1, 20)))
    assert addresses(scan) == {"1", "7"}
    (config,) = configured(replace_type(scan, "crane/tower_crane"))
    assert config.address == "192.168.1.10:502"  # type: ignore[union-attr]


def replace_type(scan: Scan, kind: str) -> Scan:
    scan.found = [replace(one, type=kind) for one in scan.found]
    return scan


def test_noise_is_not_taken_for_meters() -> None:
    """A Modbus sensor that talks at every byte it hears, at another speed: the search ends."""

    class Noisy:
        def __init__(self) -> None:
            self.waiting: asyncio.Queue[bytes] = asyncio.Queue()

        async def read(self) -> bytes:
            return await self.waiting.get()

        async def write(self, data: bytes) -> None:
            self.waiting.put_nowait(bytes(255 - byte for byte in data))

        async def close(self) -> None: ...

    async def opened() -> Link:
        return Noisy()

    async def body(rig: VirtualRig) -> Scan:
        scan = Scan(Wanted(LINE, ("dlt645",), SPEED), lambda text: None, open_link=lambda place: opened)
        await scan.run()
        return scan

    scan = play(line("dlt645"), body)
    assert scan.found == []
    assert scan.asked < 500


def test_what_was_found_before_a_stop_is_kept() -> None:
    numbers = [f"{101 + n:012d}" for n in range(32)]
    scene = line("dlt645", *(device(METER, number, THREE) for number in numbers))

    async def body(rig: VirtualRig) -> Scan:
        scan = Scan(Wanted(LINE, ("dlt645",), SPEED), lambda text: None, open_link=lambda _: rig.link_factory("line"))
        task = asyncio.create_task(scan.run())
        await rig.until_s(20)
        task.cancel()
        await asyncio.wait([task])
        return scan

    scan = play(scene, body)
    assert 0 < len(scan.found) < 32
    assert tomllib.loads(snippet(scan.found))


@pytest.mark.parametrize("target", ["tcp://nothing", "host:port", "tcp://h:x"])
def test_targets_that_cannot_be(target: str) -> None:
    with pytest.raises(ConfigError):
        asyncio.run(Scan(Wanted(target), print).run())


def test_a_line_that_cannot_be_opened_is_said() -> None:
    with pytest.raises(LinkDown, match="no such port"):
        asyncio.run(Scan(Wanted("/dev/no-such-port", settings=SPEED), lambda text: None).run())


def test_an_unknown_type_is_left_to_the_installer() -> None:
    text = snippet([Found(Place("/dev/ttyS1", "serial", 9600, "N"), "modbus", "9")])
    assert 'type = ""' in text
    assert tomllib.loads(text)["connector"][0]["device"][0]["unit"] == 9
