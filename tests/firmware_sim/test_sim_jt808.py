"""Simulated vehicle terminals and the real connector in virtual time: what is acknowledged is kept, whatever goes
wrong on the way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.config import ConnectorConfig
from edge.connectors.jt808_server import Jt808Server
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.errors import ConfigError
from protocols.jt808.fields import time_bcd, time_text
from tests.support.virtual import RecordingSink, play, running

PHONE, WIDE = "013912344323", "00000000013912344329"
SCENE = """
id = "fleet"
seed = 3
[[bus]]
id = "road"
kind = "jt808-client"
[[device]]
id = "truck"
type = "%s"
bus = "road"
address = "%s"
interval_s = 10
%s
[device.signals]
lat = { ramp = [[0, 31.820000], [600, 31.860000]] }
lon = { base = 117.227000 }
speed = { base = 36.0 }
mileage = { counter = { start = 1000.0, per_hour = 36.0 } }
"""


def scene(fault: str = "", *, kind: str = "vehicle/terminal", phone: str = PHONE) -> str:
    return SCENE % (kind, phone, "") + (f"\n[[device.fault]]\n{fault}\n" if fault else "")


def server(rig: VirtualRig, **device: Any) -> Jt808Server:
    row = {"id": "truck", "type": "vehicle/terminal", "phone": PHONE, **device}
    config = {"id": "fleet", "kind": "jt808-server", "listen": "127.0.0.1:808", "device": [row]}
    found = build(msgspec.convert(config, ConnectorConfig), rig.clock, rig.link_factory("road"))
    assert isinstance(found, Jt808Server)
    return found


def drive(
    text: str, until_s: float, *, sink: RecordingSink | None = None,
    during: Callable[[VirtualRig, Jt808Server], Awaitable[Any]] | None = None, **device: Any,
) -> tuple[RecordingSink, MemoryLedger, Any]:  # fmt: skip
    kept = sink or RecordingSink()

    async def body(rig: VirtualRig) -> Any:
        connector = server(rig, **device)
        async with running([connector], kept):
            result = await during(rig, connector) if during is not None else None
            await rig.until_s(until_s)
        assert isinstance(rig.ledger, MemoryLedger)
        return rig.ledger, result

    ledger, result = play(text, body)
    return kept, ledger, result


def kept_times(sink: RecordingSink) -> set[str | None]:
    """Times of the positions that the sink has, as the terminal names them."""
    return {time_text(time_bcd(sweep.source_ms)) for sweep in sink.sweeps}


def acknowledged_is_kept(sink: RecordingSink, ledger: MemoryLedger) -> int:
    truck = ledger.totals()["truck"]
    assert {moment for _, moment in truck.acknowledged} <= kept_times(sink)
    return len(truck.acknowledged)


@pytest.mark.parametrize("phone", [PHONE, WIDE])
def test_registers_authenticates_and_pushes(phone: str) -> None:
    sink, ledger, _ = drive(scene(phone=phone), 305, phone=phone)
    assert acknowledged_is_kept(sink, ledger) == 30
    lats = sink.values("truck", "lat")
    assert lats == sorted(lats)
    assert lats[0] == pytest.approx(31.82, abs=0.001)
    assert set(sink.values("truck", "lon")) == {117.227}
    assert set(sink.values("truck", "speed")) == {36.0}
    assert sink.states == [("truck", True)]
    assert not sink.reports


def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    _, ledger, _ = drive(scene(), 65, sink=RecordingSink(durable=False))
    truck = ledger.totals()["truck"]
    assert len(truck.uploads) == 6
    assert not truck.acknowledged
    assert max(truck.sent.values()) > 1  # and so it sends them again


def test_terminal_that_never_authenticates_gets_nothing_accepted() -> None:
    sink, ledger, _ = drive(scene('kind = "no_auth"'), 305)
    assert not sink.sweeps
    assert sink.states == [("truck", False)]
    assert not ledger.totals()["truck"].acknowledged
    assert sink.counts["messages_unauthenticated"] >= 30
    assert {report.code for report in sink.reports} == {"unauthenticated"}


def test_a_resent_serial_is_the_same_upload() -> None:
    sink, ledger, _ = drive(scene('kind = "resend_serial"'), 305)
    assert acknowledged_is_kept(sink, ledger) == 30
    names = [sweep.exchange for sweep in sink.sweeps]
    assert len(names) >= 60  # every frame came twice
    assert len(set(names)) == 30  # and carries the name by which the outbox knows it


@pytest.mark.parametrize("kind", ["drop", "garble", "truncate", "wrong_checksum", "wrong_address"])
def test_damaged_frames_cost_time_and_nothing_else(kind: str) -> None:
    sink, ledger, _ = drive(scene(f'kind = "{kind}"\nevery = 4\nat_s = 15\nfor_s = 200'), 600)
    assert acknowledged_is_kept(sink, ledger) >= 57
    assert len(ledger.totals()["truck"].open) <= 2


def test_positions_resent_late_are_no_wrong_clock() -> None:
    sink, ledger, _ = drive(scene('kind = "silence"\nat_s = 100\nfor_s = 400'), 900)
    truck = ledger.totals()["truck"]
    assert len(truck.uploads) == 90
    assert len(truck.open) <= 1
    acknowledged_is_kept(sink, ledger)
    assert not [report for report in sink.reports if report.event_type == "dev.clock_skew"]


def test_blind_zone_positions_come_with_their_own_times_in_sub_packages() -> None:
    async def during(rig: VirtualRig, connector: Jt808Server) -> None:
        await rig.until_s(100)
        await rig.hang_up("road")  # no coverage, and nobody to dial
        await rig.until_s(1100)
        rig.on_dial("road", None)  # type: ignore[arg-type]  # there again, as before

    sink, ledger, _ = drive(scene('kind = "missing_part"'), 1500, during=during)
    truck = ledger.totals()["truck"]
    assert len(truck.uploads) == 150
    assert len(truck.open) <= 1
    acknowledged_is_kept(sink, ledger)
    old = [sweep for sweep in sink.sweeps if sweep.historical]
    assert len({sweep.source_ms for sweep in old}) >= 90
    assert all(sweep.seen_ms - sweep.source_ms > 5_000 for sweep in old)
    assert not [report for report in sink.reports if report.event_type == "dev.clock_skew"]


def test_gcj02_terminals_are_put_right() -> None:
    sink, _, _ = drive(scene(kind="vehicle/terminal_gcj02"), 305, type="vehicle/terminal_gcj02")
    assert all(abs(lon - 117.227) < 2e-6 for lon in sink.values("truck", "lon"))
    shifted, _, _ = drive(scene(kind="vehicle/terminal_gcj02"), 305, type="vehicle/terminal_gcj02", datum="wgs84")
    east_m = [(lon - 117.227) * 111_000 * math.cos(math.radians(31.8)) for lon in shifted.values("truck", "lon")]
    assert all(300 < away < 700 for away in east_m)  # what it costs to believe them


def test_unset_clock_keeps_the_gateways_time_and_says_so() -> None:
    sink, ledger, _ = drive(scene('kind = "clock_step"\nset_to = 2001-01-01T00:00:00+08:00'), 305)
    assert len(sink.sweeps) == 30
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)
    assert {report.code for report in sink.reports} == {"offset"}
    assert len({sweep.exchange for sweep in sink.sweeps}) == 30
    assert len(ledger.totals()["truck"].acknowledged) == 30


def test_a_wrong_code_is_refused_and_the_terminal_registers_again() -> None:
    async def during(rig: VirtualRig, connector: Jt808Server) -> None:
        await rig.until_s(35)
        connector._key = b"another key, as after a start without a key file"
        await rig.hang_up("road")
        rig.on_dial("road", None)  # type: ignore[arg-type]  # listen again, as before

    sink, ledger, _ = drive(scene(), 205, during=during)
    assert [report.code for report in sink.reports] == ["authentication"]
    acknowledged_is_kept(sink, ledger)
    assert len(ledger.totals()["truck"].open) <= 1


# -- orders


def order(name: str, **arguments: Any) -> Command:
    return Command("1", "truck", name, arguments)


def ordered(command: Command, fault: str = "", **device: Any) -> tuple[Outcome, RecordingSink, MemoryLedger]:
    async def during(rig: VirtualRig, connector: Jt808Server) -> Outcome:
        await rig.until_s(15)
        return await connector.command(command)

    phone = device.get("phone", PHONE)
    sink, ledger, outcome = drive(scene(fault, phone=phone), 100, during=during, **device)
    return outcome, sink, ledger


@pytest.mark.parametrize("phone", [PHONE, WIDE])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("send_text", {"text": "前方道路施工，请绕行"}),
        ("follow", {"interval_s": 5, "duration_s": 60}),
        ("confirm_alarm", {"alarm": 1}),
        ("restart_terminal", {}),
    ],
)
def test_orders_that_the_terminal_confirms(name: str, arguments: dict[str, Any], phone: str) -> None:
    outcome, _, ledger = ordered(order(name, **arguments), phone=phone)
    assert outcome.state == "done"
    acts = [entry["cn"] for entry in ledger.entries() if entry["k"] == "order"]
    assert len(acts) == 1


def test_doors_are_read_back_from_the_answer() -> None:
    for phone in (PHONE, WIDE):
        outcome, _, _ = ordered(order("unlock_doors"), phone=phone)
        assert (outcome.state, outcome.read_back) == ("done", {"doors_locked": 0.0})


def test_a_position_asked_for_is_shown_and_kept() -> None:
    outcome, sink, _ = ordered(order("query_position"))
    assert outcome.state == "done"
    assert outcome.read_back["lon"] == 117.227
    assert any(sweep.seen_ms % 10_000 > 4_000 for sweep in sink.sweeps)  # the one between two reports


def test_a_parameter_is_read_back() -> None:
    outcome, _, _ = ordered(order("set_interval", seconds=20))
    assert (outcome.state, outcome.read_back) == ("done", {"default_interval_s": 20.0})


def test_a_late_answer_is_unknown_and_never_sent_twice() -> None:
    outcome, sink, ledger = ordered(order("send_text", text="x"), 'kind = "late_ack"')
    assert (outcome.state, outcome.code) == ("unknown", "no_answer")
    assert len([entry for entry in ledger.entries() if entry["k"] == "order"]) == 1
    assert sink.counts["answers_received"] == 1  # when it came at last


def test_orders_that_cannot_be_said_are_refused() -> None:
    outcome, _, ledger = ordered(order("send_text", text="测" * 600))
    assert (outcome.state, outcome.code) == ("refused", "argument")
    assert not [entry for entry in ledger.entries() if entry["k"] == "order"]
    outcome, _, _ = ordered(order("engine_cut"))
    assert (outcome.state, outcome.code) == ("refused", "unknown_command")


def test_a_terminal_number_has_twelve_or_twenty_digits() -> None:
    async def body(rig: VirtualRig) -> None:
        await asyncio.sleep(0)

    with pytest.raises(ConfigError, match="12 digits"):
        play(scene(phone="139"), body)
