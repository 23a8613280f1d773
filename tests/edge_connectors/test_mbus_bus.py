"""M-Bus meters on a simulated line, and real telegrams through the connector."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.clock import LoopClock
from edge.connectors.base import Command, Commandable, Link
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig, check
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError
from protocols.core.model import Quality
from protocols.mbus import messages as m
from protocols.mbus import vif
from protocols.mbus.endpoint import MbusEndpoint
from tests.edge_connectors.peers import START_MS, dialled, loop_ms, serving
from tests.protocols.vectors import HERE
from tests.support.virtual import RecordingSink, play, running

HEAT, WATER = "heat/mbus_meter", "water/mbus_meter"
BUS = 'id = "s"\n[[bus]]\nid = "line"\nkind = "mbus"\n'
NUMBERS = {
    "heat": 123456.0, "volume": 3456.789, "power": -1.234, "flow": 0.543, "supply_temperature": 101.69,
    "return_temperature": 46.16, "status": 4.0,
}  # fmt: skip


def meter(name: str, address: int = 5, kind: str = HEAT, more: str = "", **numbers: float) -> str:
    signals = ", ".join(f"{key} = {{ base = {value} }}" for key, value in (numbers or NUMBERS).items())
    head = f'\n[[device]]\nid = "{name}"\ntype = "{kind}"\nbus = "line"\naddress = {address}\n'
    return f"{head}signals = {{ {signals} }}\n{more}\n"


def config(*devices: dict[str, Any], **options: Any) -> ConnectorConfig:
    rows = [{"id": "m", "type": HEAT, "poll_s": 60.0, **(one or {"address": 5})} for one in devices or ({},)]
    table = {"id": "c", "kind": "mbus", "port": "x", "device": rows, **options}
    wanted: ConnectorConfig = msgspec.convert(table, ConnectorConfig)
    return wanted


def run(devices: str, wanted: ConnectorConfig, seconds: float = 30, bus: str = "") -> RecordingSink:
    sink = RecordingSink()

    async def main(rig: VirtualRig) -> None:
        async with running([build(wanted, rig.clock, rig.link_factory("line"))], sink):
            await rig.until_s(seconds)

    play(BUS + bus + devices, main)
    return sink


def shown(sink: RecordingSink, device: str = "m") -> dict[str, float]:
    sweep = next(one for one in sink.sweeps if one.device == device)
    return dict(zip(sweep.points, sweep.values.tolist(), strict=True))


def test_a_heat_meter_is_read() -> None:
    sink = run(meter("m"), config())
    assert shown(sink) == pytest.approx(NUMBERS)
    assert sink.states == [("m", True)]
    assert sink.reports == []


def test_what_a_meter_does_not_say_is_missing() -> None:
    sink = run(meter("m", volume=1.0), config())
    (sweep,) = sink.sweeps
    assert shown(sink)["volume"] == 1.0
    missing = [name for name, value in zip(sweep.points, sweep.values, strict=True) if np.isnan(value)]
    assert missing == ["heat", "power", "flow", "supply_temperature", "return_temperature"]
    assert {int(sweep.quality[sweep.points.index(name)]) for name in missing} == {Quality.MISSING}


def test_several_telegrams_are_one_reading() -> None:
    """60 further records: three telegrams; the points are in the first, the last ones prove that all were fetched."""
    sink = run(meter("m", more="options = { pad = 60 }"), config({"address": 5, "poll_s": 10.0}), seconds=100)
    assert len(sink.sweeps) == 10
    assert shown(sink) == pytest.approx(NUMBERS)


def test_a_lost_answer_in_the_middle_of_several_telegrams_loses_no_reading() -> None:
    drop = '[[device.fault]]\nkind = "drop"\nevery = 3\n'
    more = f"options = {{ pad = 60 }}\n{drop}"
    sink = run(meter("m", more=more), config({"address": 5, "poll_s": 20.0}), seconds=200)
    assert len(sink.sweeps) == 10
    assert set(sink.values("m", "heat")) == {123456.0}


def test_a_meter_is_selected_by_its_secondary_address() -> None:
    devices = meter("a", 0, more='options = { serial = "12345678" }') + meter(
        "b", 7, more='options = { serial = "12349999", maker = "KAM" }', volume=7.0
    )
    wanted = config(
        {"id": "a", "secondary": "12345678FFFFFFFF", "poll_s": 10.0},
        {"id": "b", "secondary": "12349999FFFFFFFF", "poll_s": 10.0},
    )
    sink = run(devices, wanted, seconds=60)
    assert set(sink.values("a", "volume")) == {3456.789}
    assert set(sink.values("b", "volume")) == {7.0}
    assert len(sink.sweeps) == 12
    assert sink.reports == []


def test_a_selection_that_means_two_is_garbled_and_nothing_is_booked() -> None:
    devices = meter("a", 1, more='options = { serial = "12345678" }') + meter(
        "b", 2, more='options = { serial = "12349999" }', volume=7.0
    )
    sink = run(devices, config({"secondary": "1234FFFFFFFFFFFF"}))
    assert sink.sweeps == []
    assert {one.code for one in sink.reports} <= {"checksum", "end", "length", "short", "garbage", "start"}
    assert sink.reports


def test_another_meter_at_the_old_address_is_refused() -> None:
    devices = meter("m", more='options = { serial = "00000077" }')
    sink = run(devices, config({"address": 5, "serial": "00000005"}))
    assert sink.sweeps == []
    assert [one.code for one in sink.reports] == ["other_meter"]
    assert "00000077" in sink.reports[0].detail
    assert run(devices, config({"address": 5, "serial": "00000077"})).reports == []


def test_records_that_end_in_the_middle_keep_what_came_before() -> None:
    sink = run(meter("m", more='[[device.fault]]\nkind = "records_cut"\n'), config())
    assert [one.code for one in sink.reports] == ["records"]
    found = shown(sink)
    assert found["heat"] == NUMBERS["heat"]
    assert np.isnan(found["return_temperature"])  # the last record


def test_echo_garble_and_silence() -> None:
    sink = run(meter("m"), config(), bus="echo = true\n")
    assert shown(sink) == pytest.approx(NUMBERS)
    assert sink.reports == []
    garbled = run(
        meter("m", more='[[device.fault]]\nkind = "garble"\nevery = 4\n'), config({"address": 5, "poll_s": 10.0}), 200
    )
    assert set(garbled.values("m", "heat")) == {123456.0}
    assert len(garbled.sweeps) >= 19
    silent = run(
        meter("m", more='[[device.fault]]\nkind = "silence"\nfor_s = 100\n'),
        config({"address": 5, "poll_s": 10.0}, slow_poll_s=30.0),
        200,
    )
    assert silent.states == [("m", False), ("m", True)]


def test_there_are_no_orders() -> None:
    async def main() -> None:
        connector = build(config(), LoopClock(START_MS), dialled(Recorded(b"").serve))
        assert isinstance(connector, Commandable)
        outcome = await connector.command(Command("1", "m", "valve_close"))
        assert (outcome.state, outcome.code) == ("refused", "unknown_command")

    run_virtual(main(), START_MS)


# -- real telegrams


class Recorded:
    """A meter that answers with recorded frames, one after the other; E5 to everything but a question."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = frames
        self.asked: list[m.Message] = []

    async def serve(self, link: Link) -> None:
        endpoint, number = MbusEndpoint(Role.SLAVE), 0
        while data := await link.read():
            for request in endpoint.feed(data, loop_ms()):
                assert not isinstance(request, Exception)
                self.asked.append(request)
                if isinstance(request, m.ReadData):
                    await link.write(self.frames[number % len(self.frames)])
                    number += 1
                else:
                    await link.write(b"\xe5")


def vector(vector_id: str) -> bytes:
    rows = json.loads((HERE / "mbus.json").read_text(encoding="utf-8"))
    return bytes.fromhex(next(row["hex"] for row in rows if row["id"] == vector_id))


def recorded(kind: str, address: int, *frames: bytes) -> RecordingSink:
    sink = RecordingSink()
    wanted = config({"type": kind, "address": address})

    async def main() -> None:
        async with serving(build(wanted, LoopClock(START_MS), dialled(Recorded(*frames).serve)), sink):
            await asyncio.sleep(10)

    run_virtual(main(), START_MS)
    return sink


def test_a_multical_601_as_it_was_recorded() -> None:
    sink = recorded("heat/kamstrup_multical_601", 17, vector("mbus-007"))
    assert shown(sink) == pytest.approx(
        {
            "heat": 37351.0, "heat_settlement": 33361.0, "volume": 561.08, "power": 34.7, "power_maximum": 44.8,
            "flow": 0.543, "supply_temperature": 101.69, "return_temperature": 46.16, "hours": 985.0, "status": 0.0,
        }
    )  # fmt: skip
    assert sink.reports == []


def test_a_cyble_module_as_it_was_recorded() -> None:
    sink = recorded("water/itron_cyble_mbus", 8, vector("mbus-005"))
    assert shown(sink) == {"volume": 453.5, "volume_settlement": 453.5, "status": 0.0}


def test_an_ultraheat_says_no_temperature_where_it_says_a_time() -> None:
    sink = recorded(HEAT, 0, vector("mbus-015"))
    found = shown(sink)
    assert (found["supply_temperature"], found["return_temperature"], found["status"]) == (19.5, 19.7, 16.0)
    assert found["heat"] == 0.0


@pytest.mark.parametrize(
    ("row", "address", "code"),
    [("mbus-046", 1, "refused"), ("mbus-001", 5, "unknown_layout"), ("mbus-030", 2, "records")],
)
def test_what_cannot_be_booked_is_reported(row: str, address: int, code: str) -> None:
    sink = recorded(WATER, address, vector(row))
    assert [one.code for one in sink.reports] == [code]


def test_a_meter_without_end_is_stopped() -> None:
    more = bytes.fromhex("68040468080578") + b"\x1f" + bytes(((0x08 + 0x05 + 0x78 + 0x1F) & 0xFF, 0x16))
    sink = recorded(WATER, 5, more)
    assert [one.code for one in sink.reports] == ["length"]


# -- configuration


def test_what_is_refused_when_checked() -> None:
    check(config({"secondary": "12345678FFFFFFFF"}))
    with pytest.raises(ConfigError, match="either address or secondary"):
        check(config({"id": "x"}))
    with pytest.raises(ConfigError, match="either address or secondary"):
        check(config({"address": 5, "secondary": "12345678FFFFFFFF"}))
    with pytest.raises(ConfigError, match="used 2 times"):
        check(config({"address": 5}, {"id": "n", "address": 5}))
    with pytest.raises(ConfigError, match="speaks cjt188"):
        check(config({"address": 5, "type": "water/cjt188_meter"}))


def test_without_the_library_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "meterbus.core_objects", None)
    vif._table.cache_clear()
    vif.meaning.cache_clear()
    try:
        check(config())  # a configuration can be checked without it

        async def main() -> None:
            with pytest.raises(ConfigError, match=r"citybrain\[meters\]"):
                build(config(), LoopClock(START_MS), dialled(Recorded(b"").serve))

        run_virtual(main(), START_MS)
    finally:
        vif._table.cache_clear()
        vif.meaning.cache_clear()


@pytest.mark.parametrize("bad", [{"address": 251}, {"secondary": "12"}, {"address": 5, "serial": "7"}])
def test_what_is_refused_when_read(bad: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        config(bad)
