"""The simulated fire alarm transmitter against the real connector, in virtual time: every fault, nothing lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from edge.connectors.base import Command
from edge.connectors.build import build
from edge.connectors.gb_config import Gb26875Device, Gb26875ServerConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError
from tests.support.virtual import RecordingSink, play, running

ADDRESS = "112233445566"
SCENE = """
id = "fire"
seed = 3
[[bus]]
id = "tx"
kind = "gb26875-client"
[[device]]
id = "tx-1"
type = "fire/transmission_device"
bus = "tx"
address = "112233445566"
interval_s = 60
options = { layout = "%(layout)s" }
[device.signals]
main_power_fault = { steps = [[0, 0], [300, 1], [600, 0]] }
%(fault)s
[[device]]
id = "panel-1"
type = "fire/alarm_panel"
bus = "tx"
address = "112233445566/1/1"
[device.signals]
fire = { steps = [[0, 0], [400, 1], [900, 0]] }
[[device]]
id = "smoke-1"
type = "fire/smoke_detector"
bus = "tx"
address = "112233445566/1/1/131082"
options = { text = "一层走廊" }
[device.signals]
fire = { steps = [[0, 0], [390, 1], [900, 0]] }
[[device]]
id = "heat-1"
type = "fire/heat_detector"
bus = "tx"
address = "112233445566/1/1/7"
[device.signals]
temperature = { base = 24.5 }
"""


def config(**options: Any) -> Gb26875ServerConfig:
    kinds = {"panel-1": ("fire/alarm_panel", "1/1"), "smoke-1": ("fire/smoke_detector", "1/1/131082")}
    kinds["heat-1"] = ("fire/heat_detector", "1/1/7")
    parts = [Gb26875Device(id=n, type=kind, transmitter=ADDRESS, part=part) for n, (kind, part) in kinds.items()]
    own = Gb26875Device(id="tx-1", type="fire/transmission_device", transmitter=ADDRESS)
    return Gb26875ServerConfig(**{"id": "fire", "listen": "127.0.0.1:5200", "device": (own, *parts), **options})


def run(
    fault: str = "",
    *,
    until_s: float = 1200,
    layout: str = "standard",
    orders: list[Command] | None = None,
    **options: Any,
) -> tuple[RecordingSink, MemoryLedger]:
    sink, ledger = RecordingSink(), MemoryLedger()
    table = "\n".join(["[[device.fault]]", fault]) if fault else ""

    async def body(rig: VirtualRig) -> None:
        connector: Any = build(config(**options), rig.clock, rig.link_factory("tx"))
        async with running([connector], sink):
            await rig.until_s(until_s)
            for order in orders or []:
                outcome = await connector.command(order)
                assert outcome.state == "done", outcome
            await asyncio.sleep(30)

    play(SCENE % {"fault": table, "layout": layout}, body, ledger=ledger)
    return sink, ledger


def nothing_lost(sink: RecordingSink, ledger: MemoryLedger) -> None:
    """Each record was confirmed but the last ones, and each fire is known once."""
    totals = ledger.totals()
    for device in ("tx-1", "smoke-1", "panel-1", "heat-1"):
        assert totals[device].uploads
        assert len(totals[device].open) <= 1
    fires = [(r.device, r.code) for r in sink.reports if r.event_type == "fire.alarm" and r.code == "fire"]
    assert fires == [("smoke-1", "fire"), ("panel-1", "fire")] or fires == [("panel-1", "fire"), ("smoke-1", "fire")]


def test_a_fire_from_the_first_smoke_to_the_reset() -> None:
    sink, ledger = run()
    nothing_lost(sink, ledger)
    assert sink.values("smoke-1", "fire") == [0.0, 1.0, 0.0]
    assert sink.values("panel-1", "fire") == [0.0, 1.0, 0.0]
    assert set(sink.values("heat-1", "temperature")) == {24.5}
    assert set(sink.values("tx-1", "main_power_fault")) == {0.0, 1.0}
    told = Counter((r.event_type, r.device, r.code) for r in sink.reports)
    assert told["dev.fault", "tx-1", "main_power_fault"] == 1
    assert [r.detail for r in sink.reports if r.device == "smoke-1"] == ["点型光电感烟火灾探测器 一层走廊"]
    exchanges = [sweep.exchange for sweep in sink.sweeps]
    assert len(set(exchanges)) == len(exchanges)  # no record came twice


@pytest.mark.parametrize(
    "fault",
    [
        'kind = "wrong_checksum"\nevery = 3',
        'kind = "drop"\nevery = 2',
        'kind = "garble"\nevery = 2',
        'kind = "truncate"\nevery = 3\nat_s = 100\nfor_s = 700',
        'kind = "restart"\nat_s = 410\nfor_s = 100',
        'kind = "silence"\nat_s = 380\nfor_s = 200',
        'kind = "ack_lost"\nat_s = 300\nfor_s = 300',
        'kind = "resend"',
        'kind = "sticky"\nfor_s = 800',
        'kind = "clock_step"\noffset_s = 86400',
    ],
    ids=lambda text: text.split('"')[1],
)
def test_nothing_is_lost_whatever_goes_wrong(fault: str) -> None:
    nothing_lost(*run(fault))


def test_a_resent_serial_number_is_known_as_a_repeat() -> None:
    sink, _ = run('kind = "resend"')
    by_exchange = Counter(sweep.exchange for sweep in sink.sweeps)
    assert set(by_exchange.values()) == {2}


def test_a_clock_that_was_never_set() -> None:
    sink, ledger = run('kind = "no_time"')
    nothing_lost(sink, ledger)
    assert {sweep.exchange for sweep in sink.sweeps} == {""}
    assert {r.code for r in sink.reports if r.event_type == "dev.clock_skew"} == {"unset"}
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)


def test_a_clock_of_1970_is_told_and_set_by_us() -> None:
    sink, ledger = run('kind = "clock_step"\nset_to = 2003-01-01T00:00:00+08:00', set_clock=True)
    nothing_lost(sink, ledger)
    skews = [r for r in sink.reports if r.event_type == "dev.clock_skew"]
    assert len(skews) <= 1  # the clock was set at the first packet
    late = [sweep for sweep in sink.sweeps if sweep.seen_ms - sweep.source_ms > 2_000]
    assert late == []


def test_private_objects_and_heartbeats_disturb_nobody() -> None:
    sink, ledger = run('kind = "private"')
    nothing_lost(sink, ledger)
    assert sink.counts["units_private"] > 15


def test_a_stray_fire_is_an_event_of_the_transmitter() -> None:
    sink, ledger = run('kind = "stray"\nat_s = 200\nfor_s = 100')
    nothing_lost(sink, ledger)
    (stray,) = [r for r in sink.reports if r.code == "unconfigured"]
    assert (stray.event_type, stray.device, stray.point) == ("fire.alarm", "tx-1", "1-9-999")
    assert "未登记部件" in stray.detail
    assert 1.0 in sink.values("tx-1", "stray_fires")


def test_components_of_50_bytes() -> None:
    nothing_lost(*run(layout="ascii8"))


def test_orders() -> None:
    orders = [
        Command("1", "tx-1", "read_state"),
        Command("2", "tx-1", "set_clock"),
        Command("3", "tx-1", "duty_check", {"minutes": 5}),
        Command("4", "smoke-1", "read_state"),
        Command("5", "heat-1", "read_value"),
        Command("6", "panel-1", "read_state"),
    ]
    sink, _ = run(orders=orders)
    assert 1.0 in sink.values("tx-1", "guard_confirmed")  # the guard pressed the key


def test_scene_mistakes_are_named() -> None:
    text = SCENE % {"fault": "", "layout": "standard"}
    for wrong, match in (
        (text.replace('"112233445566/1/1/7"', '"112233445566/1/x"'), "address"),
        (text.replace('"112233445566/1/1/7"', '"000000000000/1/1/7"'), "no transmitter"),
        (
            text.replace('address = "112233445566"\n', 'address = "12"\n').replace("112233445566/", "12/"),
            "12 hex digits",
        ),
    ):
        with pytest.raises(ConfigError, match=match):
            play(wrong, _nothing)
    with pytest.raises(ConfigError, match="devices on a bus of kind gb26875-client"):
        parse_scene(SCENE % {"fault": '[[device.fault]]\nkind = "no_fix"', "layout": "standard"}, "x.toml")


async def _nothing(rig: VirtualRig) -> None:
    del rig
