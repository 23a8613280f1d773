"""Orders on polled lines, against simulated devices in virtual time: done only what is read back, unknown what nobody
answered, never two requests on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge.connectors.base import Command, Commandable, Outcome
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig, Dlt645Config, Dlt645Device, ModbusDevice, ModbusRtuConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.errors import ConfigError, LinkDown, LocalProtocolError
from protocols.devices import CommandType, load
from protocols.modbus import orders
from protocols.modbus.messages import WriteRequest
from tests.support.virtual import RecordingSink, play, running

SMART = "meter/electricity_three_phase_smart"
METER = """
id = "meters"
[[bus]]
id = "line"
kind = "dlt645"
[[device]]
id = "meter-1"
type = "meter/electricity_three_phase_smart"
bus = "line"
address = "000000000101"
options = {{ password = "123456"{options} }}
[device.signals]
energy_active = {{ counter = {{ start = 1234.5, per_hour = 3.6 }} }}
voltage_a = {{ base = 229.0 }}
current_a = {{ base = 11.2 }}
power_active = {{ base = 7.1 }}
demand_max = {{ base = 9.5 }}
{more}
"""
BOX = """
id = "box"
[[bus]]
id = "line"
kind = "modbus-rtu"
[[device]]
id = "box-1"
type = "io/relay_box_8"
bus = "line"
address = 254
{options}
"""

Body = Callable[[Commandable, RecordingSink, VirtualRig], Awaitable[Any]]


def site(scene: str, config: ConnectorConfig, body: Body, *, warm_s: float = 5.0) -> tuple[Any, RecordingSink]:
    """Run the connector against the scene; ``body`` gives the orders after ``warm_s``."""
    sink = RecordingSink()

    async def main(rig: VirtualRig) -> Any:
        connector = build(config, rig.clock, rig.link_factory("line"))
        assert isinstance(connector, Commandable)
        async with running([connector], sink):
            await asyncio.sleep(warm_s)
            return await body(connector, sink, rig)

    return play(scene, main, ledger=MemoryLedger()), sink


def meters(password: Path | str = "", **options: Any) -> Dlt645Config:
    device = Dlt645Device(id="meter-1", type=SMART, address="000000000101", poll_s=10, allow=("open_relay",))
    return Dlt645Config(id="meters", port="unused", device=(device,), password_file=str(password), **options)


def box() -> ModbusRtuConfig:
    return ModbusRtuConfig(id="box", port="x", device=(ModbusDevice(id="box-1", type="io/relay_box_8", unit=254),))


def give(name: str, device: str = "meter-1", **arguments: Any) -> Body:
    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> Outcome:
        return await connector.command(Command("c1", device, name, arguments))

    return body


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "meters.txt"
    file.write_text("02 000000  # the others\n000000000101 02 123456\n", encoding="utf-8")
    return file


# -- meters


def test_a_relay_is_opened_and_the_load_is_off(password: Path) -> None:
    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> tuple[Outcome, Outcome]:
        opened = await connector.command(Command("c1", "meter-1", "open_relay"))
        await asyncio.sleep(15)
        assert sink.values("meter-1", "current_a")[-1] == 0.0
        closed = await connector.command(Command("c2", "meter-1", "close_relay"))
        await asyncio.sleep(15)
        assert sink.values("meter-1", "current_a")[-1] == 11.2
        return opened, closed

    (opened, closed), sink = site(METER.format(options="", more=""), meters(password), body)
    assert (opened.state, opened.read_back) == ("done", {"relay_open": 1.0})
    assert (closed.state, closed.read_back) == ("done", {"relay_open": 0.0})
    assert sink.values("meter-1", "relay_open")[0] == 0.0
    assert sink.reports == []


def test_a_relay_may_take_its_time(password: Path) -> None:
    outcome, _ = site(METER.format(options=", slow_relay_s = 6.0", more=""), meters(password), give("open_relay"))
    assert (outcome.state, outcome.read_back) == ("done", {"relay_open": 1.0})


def test_a_relay_that_sticks_is_not_called_open(password: Path) -> None:
    outcome, _ = site(METER.format(options=", stuck = true", more=""), meters(password), give("open_relay"))
    assert (outcome.state, outcome.code, outcome.read_back) == ("failed", "read_back", {"relay_open": 0.0})


def test_a_wrong_password_is_the_meters_no(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("02 999999\n", encoding="utf-8")
    outcome, _ = site(METER.format(options="", more=""), meters(wrong), give("open_relay"))
    assert (outcome.state, outcome.code) == ("refused", "no_right")


@pytest.mark.parametrize("text", ["", "# nothing\n", "000000000999 02 123456\n"])
def test_without_a_password_nothing_is_sent(tmp_path: Path, text: str) -> None:
    file = tmp_path / "none.txt"
    file.write_text(text, encoding="utf-8")

    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> tuple[Outcome, int]:
        outcome = await connector.command(Command("c1", "meter-1", "open_relay"))
        assert isinstance(rig.ledger, MemoryLedger)
        return outcome, sum(entry.get("what") == "Command" for entry in rig.ledger.entries())

    (outcome, sent), _ = site(METER.format(options="", more=""), meters(file), body)
    assert (outcome.state, outcome.code, sent) == ("refused", "no_password", 0)
    assert "123456" not in outcome.detail


def test_no_answer_is_unknown_and_is_not_sent_again(password: Path) -> None:
    silence = "[[device.fault]]\nkind = 'silence'\nat_s = 30\n"

    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> tuple[Outcome, float]:
        await rig.until_s(31)
        began_s = rig.t_s
        return await connector.command(Command("c1", "meter-1", "open_relay")), rig.t_s - began_s

    (outcome, took_s), _ = site(METER.format(options="", more=silence), meters(password), body)
    assert (outcome.state, outcome.read_back) == ("unknown", {})
    assert took_s < 5  # the order once, the read-back as often as any reading


def test_a_lost_confirmation_is_unknown_with_what_the_meter_shows(password: Path) -> None:
    lost = "[[device.fault]]\nkind = 'drop'\nat_s = 12\nfor_s = 0.9\n"

    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> Outcome:
        await rig.until_s(12.05)  # between two polls
        return await connector.command(Command("c1", "meter-1", "open_relay"))

    outcome, _ = site(METER.format(options="", more=lost), meters(password), body)
    assert (outcome.state, outcome.read_back) == ("unknown", {"relay_open": 1.0})


def test_the_clock_is_set_by_two_writes(password: Path) -> None:
    outcome, _ = site(METER.format(options="", more=""), meters(password), give("set_clock"))
    assert outcome == Outcome("done")


def test_a_freeze_needs_no_password() -> None:
    outcome, _ = site(METER.format(options="", more=""), meters(), give("freeze"))
    assert outcome == Outcome("done")


def test_an_order_whose_time_ran_out_while_it_waited_is_not_sent(password: Path) -> None:
    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> Outcome:
        await rig.until_s(10.02)  # a poll is under way
        return await connector.command(Command("c1", "meter-1", "open_relay", {}, rig.clock.now_ms() + 1))

    outcome, sink = site(METER.format(options="", more=""), meters(password), body)
    assert outcome.state == "expired"
    assert set(sink.values("meter-1", "relay_open")) == {0.0}


def test_a_meter_of_1997_takes_no_orders(password: Path) -> None:
    outcome, _ = site(METER.format(options=', edition = "1997"', more=""), meters(password), give("open_relay"))
    assert (outcome.state, outcome.code) == ("refused", "not_supported")


# -- Modbus


@pytest.mark.parametrize("options", ["", "options = { single_write = false }", "options = { multiple_write = false }"])
def test_a_relay_box_switches_and_is_read_back(options: str) -> None:
    """Devices take 0FH but not 05H, or the reverse: a refused function changed nothing, so the other is tried."""

    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> list[Outcome]:
        return [await connector.command(Command(f"c{on}", "box-1", "set_relay_3", {"on": on})) for on in (True, False)]

    (on, off), sink = site(BOX.format(options=options), box(), body)
    assert (on.state, on.read_back) == ("done", {"relay_3": 1.0})
    assert (off.state, off.read_back) == ("done", {"relay_3": 0.0})
    assert sink.reports == []


def test_a_box_that_confirms_and_does_nothing_is_found_out() -> None:
    outcome, _ = site(
        BOX.format(options="options = { stuck = true }"), box(), give("set_relay_1", device="box-1", on=True)
    )
    assert (outcome.state, outcome.code) == ("failed", "read_back")


def test_both_functions_refused() -> None:
    options = "options = { single_write = false, multiple_write = false }"
    outcome, _ = site(BOX.format(options=options), box(), give("set_relay_1", device="box-1", on=True))
    assert (outcome.state, outcome.code) == ("refused", "illegal_function")


def test_orders_and_polls_take_turns() -> None:
    """Fifty orders while the line is polled without a pause: no request is sent before the last one was answered."""

    async def body(connector: Commandable, sink: RecordingSink, rig: VirtualRig) -> list[Outcome]:
        orders = [
            connector.command(Command(f"c{n}", "box-1", f"set_relay_{n % 8 + 1}", {"on": n % 3 == 0}))
            for n in range(50)
        ]
        return list(await asyncio.gather(*orders))

    config = ModbusRtuConfig(
        id="box", port="x", device=(ModbusDevice(id="box-1", type="io/relay_box_8", unit=254, poll_s=0.05),)
    )
    outcomes, sink = site(BOX.format(options=""), config, body)
    assert len(outcomes) == 50
    assert {outcome.state for outcome in outcomes} <= {"done", "failed"}  # a later order may overtake the read-back
    assert sink.counts["polls_missed"] == 0
    assert sink.reports == []


def test_a_closed_line_says_that_nothing_was_sent() -> None:
    connector = build(box(), None, None)  # type: ignore[arg-type]  # never run: needs neither clock nor link
    assert isinstance(connector, Commandable)
    with pytest.raises(LinkDown, match="not open"):
        asyncio.run(connector.command(Command("c", "box-1", "set_relay_1", {"on": True})))


# -- keys of commands


def command(key: str, *arguments: Any) -> CommandType:
    from protocols.devices import Argument

    given = tuple(Argument(name=name, kind="number", range=(-1e9, 1e9)) for name in arguments)
    return CommandType(name="x", zh="x", en="x", key=key, argument=given)


@pytest.mark.parametrize(
    ("key", "value", "function", "words"),
    [
        ("holding:100:u16", 7, 6, (7,)),
        ("holding:100:i16", -2, 6, (0xFFFE,)),
        ("holding:100:u16:ABCD:0.1", 12.3, 6, (123,)),
        ("holding:100:u32:CDAB", 0x12345678, 16, (0x5678, 0x1234)),
        ("holding:100:f32:BADC", 1.0, 16, (0x803F, 0x0000)),
        ("holding:100:f64", 1.0, 16, (0x3FF0, 0, 0, 0)),
        ("coil:5", 1, 5, (1,)),
    ],
)
def test_what_a_key_writes(key: str, value: float, function: int, words: tuple[int, ...]) -> None:
    kind = load("io/relay_box_8")
    request = orders.request(1, orders.target(command(key, "x"), kind), {"x": value})
    assert isinstance(request, WriteRequest)
    assert (request.function, request.values) == (function, words)


def test_a_fixed_value_needs_no_argument() -> None:
    request = orders.request(1, orders.target(command("holding:3:u16=2"), load("io/relay_box_8")), {})
    assert request == WriteRequest(1, 6, 3, (2,))


@pytest.mark.parametrize("value", [70_000, -1])
def test_what_does_not_fit_is_refused_before_it_is_sent(value: float) -> None:
    target = orders.target(command("holding:3:u16", "x"), load("io/relay_box_8"))
    with pytest.raises(LocalProtocolError, match="does not fit"):
        orders.request(1, target, {"x": value})


@pytest.mark.parametrize(
    "key", ["", "coil", "coil:x=1", "holding:1", "holding:1:u24", "holding:70000:u16", "point:nothing", "point:input_1"]
)
def test_keys_that_mean_nothing_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="key"):
        orders.target(command(key, "x"), load("io/relay_box_8"))
