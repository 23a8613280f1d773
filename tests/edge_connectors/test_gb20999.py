"""The signal controller's connector: read-only by default, orders that go back by themselves, reports in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Command, Commandable, Outcome
from edge.connectors.build import build
from edge.connectors.config import check
from edge.connectors.gb20999 import Gb20999
from edge.connectors.signal_orders import check_orders
from edge.connectors.street_config import Gb20999Config, SignalDevice
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LinkDown
from protocols.core.model import Quality
from protocols.devices import load
from protocols.traffic_signal.endpoint import SignalEndpoint
from protocols.traffic_signal.messages import Address, Item, Kind, Message
from tests.edge_connectors.peers import serving
from tests.support.virtual import RecordingSink, play, running

SCENE = """
id = "signal"
start = 2026-03-02T08:00:00+08:00
[[bus]]
id = "cabinet"
kind = "gb20999"
[[device]]
id = "crossing-1"
type = "roadside/signal_controller"
bus = "cabinet"
address = 1
options = { controller = 805116 }
signals.supply_voltage = { base = 228.0 }
signals.temperature = { base = -7.0 }
signals.faults = { base = 0.0 }
"""
CROSSING = "crossing-1"


def config(**options: Any) -> Gb20999Config:
    device = SignalDevice(id=CROSSING, type="roadside/signal_controller", controller=805116)
    return Gb20999Config(**{"id": "cabinet", "address": "tcp://127.0.0.1:5050", "device": (device,), **options})


Body = Callable[[VirtualRig, Gb20999], Awaitable[None]]


def run(body: Body, faults: str = "", **options: Any) -> RecordingSink:
    sink = RecordingSink()

    async def main(rig: VirtualRig) -> None:
        connector = build(config(**options), rig.clock, rig.link_factory("cabinet"))
        assert isinstance(connector, Gb20999) and isinstance(connector, Commandable)
        async with running([connector], sink):
            await body(rig, connector)

    play(SCENE + faults, main)
    return sink


def fault(kind: str, at_s: float = 0.0, for_s: float = 1e6, more: str = "") -> str:
    return f'[[device.fault]]\nkind = "{kind}"\nat_s = {at_s}\nfor_s = {for_s}\n{more}\n'


async def a_minute(rig: VirtualRig, connector: Gb20999) -> None:
    await asyncio.sleep(60)


def hold(stage: int = 3, for_s: float = 30.0, confirm: str = CROSSING, **more: Any) -> Command:
    return Command("1", CROSSING, "hold_stage", {"stage": stage, "for_s": for_s, "confirm": confirm}, **more)


# -- reading


def test_mode_plan_and_stage_every_second_the_rest_rarely() -> None:
    sink = run(a_minute)
    assert sink.states == [(CROSSING, True)]
    assert set(sink.values(CROSSING, "mode")) == {23.0}
    stages = sink.values(CROSSING, "stage")
    assert len(stages) >= 58 and set(stages) == {1.0, 2.0, 3.0}
    assert len(sink.values(CROSSING, "temperature")) == 12 and set(sink.values(CROSSING, "temperature")) == {-7.0}
    assert [abs(off) < 1.0 for off in sink.values(CROSSING, "clock_offset")] == [True]
    assert {int(q) for sweep in sink.sweeps for q in sweep.quality} == {Quality.GOOD}


def test_what_the_controller_does_not_have_is_left_out_and_said_once() -> None:
    sink = run(a_minute)
    missing = [report.detail for report in sink.reports if report.code == "no_data"]
    assert sorted(missing) == [f"{a}: value_does_not_exist" for a in ("13.1.1.0", "13.1.3.0", "15.1.0.0")]
    assert sink.values(CROSSING, "door_open") == []
    assert sink.counts["values_refused"] == 3  # not asked again within the hour


def test_a_busy_controller_is_not_written_off() -> None:
    sink = run(a_minute, fault("busy", 10, 10))
    assert sink.states == [(CROSSING, True)]
    assert 40 <= len(sink.values(CROSSING, "mode")) <= 52
    assert all("general_error" in r.detail or "does_not_exist" in r.detail for r in sink.reports)


def test_wrong_checksums_cost_a_repeat_and_are_counted() -> None:
    sink = run(a_minute, fault("wrong_checksum", more="every = 5"))
    assert sink.counts["frames_rejected"] >= 5
    assert len(sink.values(CROSSING, "mode")) >= 35 and sink.states == [(CROSSING, True)]


def test_answers_said_twice_and_late_answers_are_not_booked_on_the_next_question() -> None:
    sink = run(a_minute, fault("repeat") + fault("delay", 20, 10, "delay_s = 2.0"))
    assert {report.code for report in sink.reports} <= {"unexpected", "no_data", "wrong_address"}
    assert set(sink.values(CROSSING, "mode")) == {23.0}
    assert set(sink.values(CROSSING, "plan")) == {1.0}
    assert set(sink.values(CROSSING, "stage")) <= {1.0, 2.0, 3.0}


def test_an_answer_of_another_controller_is_refused() -> None:
    sink = run(a_minute, fault("wrong_address", 10, 1e6))
    assert "wrong_address" in {report.code for report in sink.reports}
    assert sink.states == [(CROSSING, True), (CROSSING, False)]


def test_silence_is_lost_once_and_back_once() -> None:
    sink = run(a_minute, fault("silence", 10, 20))
    assert sink.states == [(CROSSING, True), (CROSSING, False), (CROSSING, True)] or sink.states == [
        (CROSSING, True),
        (CROSSING, False),
    ]


def test_a_wrong_clock_is_told_and_not_used() -> None:
    sink = run(a_minute, fault("clock_step", 0, 1e6, "set_to = 1970-01-01T00:00:00+00:00"))
    assert "dev.clock_skew" in {report.event_type for report in sink.reports}
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)


def test_a_green_conflict_is_told_when_the_controller_reports_it() -> None:
    sink = run(a_minute, fault("green_conflict", 30))
    told = [report for report in sink.reports if report.event_type == "traffic.signal.fault"]
    assert [(report.device, report.code) for report in told] == [(CROSSING, "green_conflict")]
    assert "yellow_flash" in told[0].detail
    assert sink.values(CROSSING, "mode")[-1] == 31.0


# -- orders


def ordered(command: Command, wait_s: float, faults: str = "", **options: Any) -> tuple[Outcome, RecordingSink]:
    outcomes: list[Outcome] = []

    async def body(rig: VirtualRig, connector: Gb20999) -> None:
        await asyncio.sleep(5)
        outcomes.append(await connector.command(command))
        await asyncio.sleep(wait_s)

    sink = run(body, faults, **options)
    return outcomes[0], sink


def test_a_stage_is_held_shown_and_let_go() -> None:
    outcome, sink = ordered(hold(stage=3, for_s=20), 60)
    assert (outcome.state, outcome.read_back) == ("done", {"stage": 3.0})
    modes = sink.values(CROSSING, "mode")
    assert 15.0 in modes and modes[-1] == 23.0  # the local mode it had before, not another one
    assert 15 <= modes.count(15.0) <= 22
    assert sink.counts["releases"] == 1


def test_without_the_devices_name_nothing_is_sent() -> None:
    outcome, sink = ordered(hold(confirm="yes"), 5)
    assert (outcome.state, outcome.code) == ("refused", "confirm")
    assert set(sink.values(CROSSING, "mode")) == {23.0}


def test_a_controller_that_refuses_is_believed() -> None:
    outcome, _ = ordered(hold(), 5, fault("refuse_set"))
    assert (outcome.state, outcome.code) == ("refused", "set_failed")
    assert "control_failed" in outcome.detail
    outcome, _ = ordered(hold(stage=9), 5)
    assert "out_of_range" in outcome.detail


def test_a_stage_that_does_not_come_is_failed_and_let_go_all_the_same() -> None:
    outcome, sink = ordered(hold(stage=3, for_s=5), 30, settle_s=1.0)
    assert (outcome.state, outcome.code) == ("failed", "read_back")
    assert sink.values(CROSSING, "mode")[-1] == 23.0


def test_an_order_without_an_answer_is_unknown_and_goes_back() -> None:
    # Every answer is lost from second 4.5 on: the order arrives, nobody hears of it.
    outcome, sink = ordered(hold(for_s=10), 60, fault("drop", 4.5, 6))
    assert (outcome.state, outcome.code) == ("unknown", "no_answer")
    assert 15.0 in sink.values(CROSSING, "mode")
    assert sink.values(CROSSING, "mode")[-1] == 23.0


def test_a_release_that_is_refused_is_told_and_tried_again() -> None:
    outcome, sink = ordered(hold(stage=3, for_s=10), 60, fault("refuse_set", 12, 20))
    assert outcome.state == "done"
    assert "release" in {report.code for report in sink.reports if report.event_type == "traffic.signal.fault"}
    assert sink.values(CROSSING, "mode")[-1] == 23.0


def test_when_the_agent_stops_the_controller_is_sent_back() -> None:
    modes: list[int] = []

    async def main(rig: VirtualRig) -> None:
        connector = build(config(), rig.clock, rig.link_factory("cabinet"))
        assert isinstance(connector, Gb20999)
        async with serving(connector, RecordingSink()):
            await asyncio.sleep(5)
            assert (await connector.command(hold(for_s=600))).state == "done"
        await asyncio.sleep(1)
        (controller,) = rig._polled["cabinet"].slaves.devices
        modes.append(controller._mode)

    play(SCENE, main)
    assert modes == [0x23]


def test_expired_and_unconnected_orders_are_never_sent() -> None:
    outcome, _ = ordered(hold(expires_ms=1), 1)
    assert outcome.state == "expired"
    connector = build(config(), WallClock(), None)
    assert isinstance(connector, Gb20999)
    with pytest.raises(LinkDown):
        asyncio.run(connector.command(hold()))


# -- UDP, real


def test_over_udp_on_the_loopback() -> None:
    """A controller that answers 17 bytes of escapes unescaped, reports between, and sends a heartbeat."""
    answered = asyncio.Event()

    class Controller(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.endpoint = SignalEndpoint(Role.SLAVE, framing="datagram")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            for request in self.endpoint.feed_datagram(data, 0):
                assert isinstance(request, Message)
                if request.kind is Kind.HEARTBEAT_REPLY:
                    answered.set()
                if request.kind is not Kind.QUERY:
                    return
                items = tuple(replace(item, data=b"\x23") for item in request.items)
                self.transport.sendto(b"\x7e\x00", addr)  # a torn datagram must not spoil the next
                for message in (
                    Message(Kind.HEARTBEAT, controller=805116),
                    Message(Kind.REPORT, (Item(Address(13, 2, 4, 1), b"\x7d"),), 805116, 1),
                    replace(request, kind=Kind.QUERY_REPLY, items=items, sequence=0x7D),
                ):
                    self.transport.sendto(self.endpoint.send(message, 0), addr)

    async def main() -> RecordingSink:
        sink = RecordingSink()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Controller, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        connector = build(config(address=f"udp://127.0.0.1:{port}"), LoopClock(0))
        async with serving(connector, sink):
            async with asyncio.timeout(10):
                await answered.wait()
                while not sink.values(CROSSING, "mode"):  # noqa: ASYNC110 - the sink is no part of the loop
                    await asyncio.sleep(0.01)
        transport.close()
        return sink

    sink = asyncio.run(main())
    assert sink.values(CROSSING, "mode")[0] == 23.0
    assert 125.0 in sink.values(CROSSING, "stage")


# -- configuration


def test_what_is_wrong_is_named() -> None:
    for options, text in (
        ({"address": "127.0.0.1:5050"}, "udp://host:port"),
        ({"address": "udp://127.0.0.1"}, "host:port"),
        ({"device": config().device * 2}, "used 2 times"),
    ):
        with pytest.raises(ConfigError, match=text):
            check(config(**options))


def test_a_command_that_leaves_the_street_as_it_set_it_is_no_device_type() -> None:
    (first, *_) = load("roadside/signal_controller").commands
    for key, arguments, text in (
        (first.key, first.argument[:1], "for_s"),
        (first.key, first.argument[:2], "confirm"),
        ("17.2.1.1={phase}", first.argument, "no byte"),
        ("17.2=x", first.argument, "address=value"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_orders((msgspec.structs.replace(first, key=key, argument=arguments),), "x")
