"""The simulated electric vehicle against the real connector, in virtual time: every fault, nothing lost."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from edge.connectors.base import Command
from edge.connectors.build import build
from edge.connectors.gb_config import Gb32960Device, Gb32960ServerConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.errors import ConfigError
from tests.support.virtual import RecordingSink, play, running

VIN = "LFWADRJF011002346"
SCENE = """
id = "ev"
seed = 3
[[bus]]
id = "ev"
kind = "gb32960-client"
[[device]]
id = "bus-1"
type = "vehicle/electric"
bus = "ev"
address = "LFWADRJF011002346"
interval_s = 10
options = { edition = "%(edition)s", cells = 96 }
[device.signals]
state = { base = 1 }
charging = { base = 3 }
speed = { sine = { mean = 30.0, amplitude = 25.0, period_s = 300 } }
soc = { ramp = [[0, 80], [3600, 60]] }
current = { base = -45.5, noise = 1.0 }
lon = { ramp = [[0, 117.20], [3600, 117.30]] }
lat = { base = 31.820567 }
cell_v_max = { base = 3.9 }
cell_v_min = { base = 3.7 }
motor_t_max = { base = 61 }
alarm_level = { steps = [[0, 0], [300, 3], [400, 0]] }
%(fault)s
"""


def run(
    fault: str = "", *, until_s: float = 600, edition: str = "2016", orders: list[Command] | None = None
) -> tuple[RecordingSink, MemoryLedger]:
    sink, ledger = RecordingSink(), MemoryLedger()
    table = "\n".join(["[[device.fault]]", fault]) if fault else ""
    vehicle = Gb32960Device(id="bus-1", type="vehicle/electric", vin=VIN)
    config = Gb32960ServerConfig(id="ev", listen="127.0.0.1:32960", device=(vehicle,))

    async def body(rig: VirtualRig) -> None:
        connector: Any = build(config, rig.clock, rig.link_factory("ev"))
        async with running([connector], sink):
            await rig.until_s(until_s)
            for order in orders or []:
                outcome = await connector.command(order)
                assert outcome.state == "done", outcome
            await asyncio.sleep(45)

    play(SCENE % {"fault": table, "edition": edition}, body, ledger=ledger)
    return sink, ledger


def nothing_lost(sink: RecordingSink, ledger: MemoryLedger, unanswered: int = 4) -> None:
    """Each report arrived (its time tells it from others); the last ones may still be under way."""
    made = ledger.totals()["bus-1"]
    assert len(made.uploads) > 40 and not made.given_up
    assert len(made.open) <= unanswered
    times = {sweep.source_ms for sweep in sink.sweeps}
    assert all(int(moment) // 1000 * 1000 in times for _, moment in made.acknowledged)
    assert len({sweep.exchange for sweep in sink.sweeps}) >= len(made.acknowledged)


@pytest.mark.parametrize("edition", ["2016", "2025"])
def test_a_drive(edition: str) -> None:
    sink, ledger = run(edition=edition)
    nothing_lost(sink, ledger, unanswered=1)
    assert not any(sweep.historical for sweep in sink.sweeps)
    assert min(sink.values("bus-1", "speed")) >= 4.9 and max(sink.values("bus-1", "speed")) <= 55.1
    assert set(sink.values("bus-1", "cell_v_max")) == {3.9}  # from the extremes, or from 96 cells
    assert set(sink.values("bus-1", "motor_t_max")) == {61.0}
    assert sink.values("bus-1", "lon")[0] == pytest.approx(117.2, abs=0.001)
    assert [(r.event_type, r.code) for r in sink.reports] == [("dev.fault", "level_3")]


@pytest.mark.parametrize(
    "fault",
    [
        'kind = "wrong_checksum"\nevery = 3',
        'kind = "drop"\nevery = 3',
        'kind = "garble"\nevery = 3',
        'kind = "truncate"\nevery = 4\nat_s = 50\nfor_s = 300',
        'kind = "restart"\nat_s = 200\nfor_s = 60',
        'kind = "silence"\nat_s = 200\nfor_s = 100',
        'kind = "ack_lost"\nat_s = 200\nfor_s = 100',
        'kind = "sticky"\nfor_s = 400',
        'kind = "vendor_item"',
    ],
    ids=lambda text: text.split('"')[1],
)
def test_nothing_is_lost_whatever_goes_wrong(fault: str) -> None:
    nothing_lost(*run(fault))


def test_a_cut_link_makes_stored_reports() -> None:
    """Nobody answers for a while and the vehicle dials again: what waited comes as 03, with its own time."""
    sink, ledger = run(
        'kind = "restart"\nat_s = 205\nfor_s = 5\n[[device.fault]]\nkind = "ack_lost"\nat_s = 100\nfor_s = 100'
    )
    nothing_lost(sink, ledger)
    stored = [sweep for sweep in sink.sweeps if sweep.historical]
    assert stored and all(sweep.source_ms < sweep.seen_ms for sweep in stored)
    live = {sweep.exchange for sweep in sink.sweeps if not sweep.historical}
    assert {sweep.exchange for sweep in stored} <= live  # known as repeats of what is on disk


def test_a_truncated_list_costs_the_list_only() -> None:
    sink, ledger = run('kind = "truncated_list"')
    nothing_lost(sink, ledger, unanswered=1)
    assert len(sink.values("bus-1", "soc")) > 50
    assert ("data.rejected", "unknown_item") in {(r.event_type, r.code) for r in sink.reports}


def test_no_fix_at_0_0() -> None:
    sink, _ = run('kind = "no_fix"')
    assert all(math.isnan(lon) for lon in sink.values("bus-1", "lon"))


def test_a_clock_that_was_never_set() -> None:
    sink, _ = run('kind = "no_time"')
    assert len(sink.sweeps) > 40 and all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)
    assert ("dev.clock_skew", "unset") in {(r.event_type, r.code) for r in sink.reports}


def test_encrypted_reports_are_refused_and_said() -> None:
    sink, ledger = run('kind = "encrypted"')
    assert sink.sweeps == []
    assert ("data.rejected", "encrypted") in {(r.event_type, r.code) for r in sink.reports}
    made = ledger.totals()["bus-1"]
    assert made.acknowledged == set()  # "ok" was never said


@pytest.mark.parametrize("edition", ["2016", "2025"])
def test_orders(edition: str) -> None:
    orders = [
        Command("1", "bus-1", "set_report_period", {"seconds": 20}),
        Command("2", "bus-1", "reset_terminal"),
    ]
    run(edition=edition, orders=orders)


def test_a_vin_that_is_too_long_is_named() -> None:
    async def nothing(rig: VirtualRig) -> None:
        del rig

    with pytest.raises(ConfigError, match="at most 17"):
        play(SCENE.replace(VIN, VIN + "0") % {"fault": "", "edition": "2016"}, nothing)
