"""The OCPP central system against simulated stations in virtual time, and against a real WebSocket client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edge.connectors.base import Command, Link
from edge.connectors.ocpp_link import OcppLink
from edge.connectors.ocpp_server import OcppServer
from edge.connectors.road_config import OcppDevice, OcppServerConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.lines import LineLink
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.model import Quality
from protocols.ocpp.frame import Version
from tests.support.virtual import RecordingSink, play, running

ALL = ("reset", "start", "stop", "availability", "unlock", "power_limit", "update_firmware", "diagnostics")


def scene(version: str = "1.6", *, kind: str = "charger/ac_7kw", options: str = "", more: str = "") -> str:
    return f"""
id = "chargers"
[[bus]]
id = "pile"
kind = "ocpp-station"
[[device]]
id = "pile-1"
type = "{kind}"
bus = "pile"
address = "CP001"
interval_s = 10
options = {{ version = "{version}"{options} }}
[device.signals]
{"power" if kind.endswith("7kw") else "gun_1_power"} = {{ base = 7000.0 }}
{"voltage" if kind.endswith("7kw") else "gun_1_voltage"} = {{ base = 230.0 }}
{more}
"""


def server(rig: VirtualRig, version: Version = "1.6", kind: str = "charger/ac_7kw", **more: Any) -> OcppServer:
    async def arrive() -> Link:
        return OcppLink(LineLink(await rig.link_factory("pile")()), "CP001", version)

    device = OcppDevice(id="pile-1", type=kind, identity="CP001", allow=ALL)
    return OcppServer(OcppServerConfig(id="chargers", listen="x:1", device=(device,), **more), rig.clock, arrive)


def order(name: str, **arguments: Any) -> Command:
    return Command(f"{name}-1", "pile-1", name, arguments, 0)


def at(sink: RecordingSink, point: str) -> list[tuple[int, float]]:
    """(time, value) of a point, oldest first by the device's clock."""
    found = [(s.source_ms, float(s.values[s.points.index(point)])) for s in sink.sweeps if point in s.points]
    return sorted(found)


# -- simulated stations


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_charge_from_plug_to_unplug(version: Version) -> None:
    sink, ledger = RecordingSink(), MemoryLedger()

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig, version)], sink):
            await rig.until_s(400)

    play(scene(version, options=", charge_s = 180, idle_s = 60"), body, ledger=ledger)
    assert sink.states == [("pile-1", True)]
    active = [value for _, value in at(sink, "transaction")]
    assert 1.0 in active and active[-1] in (0.0, 1.0)
    stops = [e for e in ledger.entries() if e["k"] == "charge" and e["what"] == "stop"]
    starts = [e for e in ledger.entries() if e["k"] == "charge" and e["what"] == "start"]
    # Every watt-hour that the station counted is here, and the session is the difference.
    sessions = [value for _, value in at(sink, "session_energy")]
    assert stops[0]["wh"] - starts[0]["wh"] in sessions
    assert max(value for _, value in at(sink, "energy")) >= stops[0]["wh"] > 300
    assert {value for _, value in at(sink, "power")} == {7000.0}
    assert {value for _, value in at(sink, "voltage")} == {230.0}
    assert 2.0 in [value for _, value in at(sink, "status")]  # charging, in either version
    assert {int(q) for sweep in sink.sweeps for q in sweep.quality} == {Quality.GOOD}
    assert not sink.reports
    made = sum(1 for e in ledger.entries() if e["k"] == "up")
    acked = sum(1 for e in ledger.entries() if e["k"] == "ack")
    assert made - acked <= 1  # the one under way
    assert sink.counts["violations"] == 0


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_nothing_is_answered_before_it_is_on_disk(version: Version) -> None:
    sink, ledger = RecordingSink(durable=False), MemoryLedger()

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig, version)], sink):
            await rig.until_s(25)
            # The first state waits; a station says one thing at a time, so nothing else has come.
            assert len(sink.pending) == 1 and len(sink.sweeps) == 1
            assert not [e for e in ledger.entries() if e["k"] == "ack"]
            sink.durable = True
            sink.pending.pop()()
            await rig.until_s(60)

    play(scene(version, options=", charge_s = 1000, idle_s = 5"), body, ledger=ledger)
    assert [e for e in ledger.entries() if e["k"] == "ack"]


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_charge_while_nobody_listened_comes_late_with_its_own_times(version: Version) -> None:
    sink, ledger = RecordingSink(), MemoryLedger()

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig, version)], sink):
            await rig.until_s(30)
        await rig.hang_up("pile")
        await rig.until_s(300)  # one whole charge, 60 to 180 s, while the gateway is away
        async with running([server(rig, version)], sink):
            await rig.until_s(460)

    play(scene(version, options=", charge_s = 120, idle_s = 60"), body, ledger=ledger)
    first = next(e for e in ledger.entries() if e["k"] == "charge" and e["what"] == "start")
    stop = next(e for e in ledger.entries() if e["k"] == "charge" and e["what"] == "stop")
    active = at(sink, "transaction")
    assert (first["ms"], 1.0) in active and (stop["ms"], 0.0) in active
    late = [s for s in sink.sweeps if s.seen_ms - s.source_ms > 60_000]
    assert len(late) >= 10
    assert not [r for r in sink.reports if r.event_type == "dev.clock_skew"]  # late is not a wrong clock
    assert not [e for e in ledger.entries() if e["k"] == "gave_up"]
    assert stop["wh"] - first["wh"] in [value for _, value in at(sink, "session_energy")]


def test_what_is_repeated_has_the_same_name_and_the_same_number() -> None:
    """A station that lost our answer says it again after it has dialled again: the outbox knows it by its name."""
    sink = RecordingSink()
    fault = '[[device.fault]]\nkind = "resend"\n[[device.fault]]\nkind = "restart"\nat_s = 200\nfor_s = 10\n'

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig)], sink):
            await rig.until_s(260)

    play(scene(options=", charge_s = 60, idle_s = 60", more=fault), body)
    names = [s.exchange for s in sink.sweeps if s.exchange]
    assert len(names) > len(set(names))
    repeated = next(name for name in names if names.count(name) > 1)
    same = [s for s in sink.sweeps if s.exchange == repeated]
    assert len({(s.points, s.values.tobytes(), s.source_ms) for s in same}) == 1


@pytest.mark.parametrize(
    ("fault", "counted"), [("integer_ids", "violations"), ("no_boot", "boots_missing"), ("long_info", "violations")]
)
def test_what_real_stations_do_wrong_is_stored_and_counted(fault: str, counted: str) -> None:
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig)], sink):
            await rig.until_s(200)

    play(scene(options=", charge_s = 60, idle_s = 60", more=f'[[device.fault]]\nkind = "{fault}"\n'), body)
    assert sink.counts[counted] >= 1
    assert {value for _, value in at(sink, "status")} == {0.0, 2.0}
    assert 1.0 in [value for _, value in at(sink, "transaction")]
    assert not [r for r in sink.reports if r.event_type == "data.rejected"]


@pytest.mark.parametrize(
    ("step", "code"),
    [("offset_s = 28800", "zone"), ("offset_s = 700", "offset"), ('set_to = "1970-01-01T00:00:00Z"', "unset")],
)
def test_a_wrong_clock_is_told_and_the_gateways_time_is_used(step: str, code: str) -> None:
    sink = RecordingSink()
    step = step.replace('"', "") if "set_to" in step else step

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig)], sink):
            await rig.until_s(200)

    fault = f'[[device.fault]]\nkind = "clock_step"\n{step}\n'
    play(scene(options=", charge_s = 60, idle_s = 60", more=fault), body)
    skews = [r for r in sink.reports if r.event_type == "dev.clock_skew"]
    assert [r.code for r in skews] == [code]
    assert {s.source_ms - s.seen_ms for s in sink.sweeps} == {0}


def test_a_station_that_says_nothing_is_offline_and_comes_back() -> None:
    sink = RecordingSink()
    fault = '[[device.fault]]\nkind = "silence"\nat_s = 50\nfor_s = 200\n'

    async def body(rig: VirtualRig) -> None:
        async with running([server(rig, heartbeat_s=20, silent_s=60.0)], sink):
            await rig.until_s(330)

    play(scene(more=fault), body)
    assert sink.states == [("pile-1", True), ("pile-1", False), ("pile-1", True)]


# -- orders


Steps = Callable[[VirtualRig, OcppServer, RecordingSink], Awaitable[None]]


def ordered(version: Version, steps: Steps, *, options: str = "", more: str = "") -> RecordingSink:
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        connector = server(rig, version, settle_s=30.0)
        async with running([connector], sink):
            await rig.until_s(20)
            await steps(rig, connector, sink)

    play(scene(version, options=options, more=more), body)
    return sink


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_start_limit_and_stop_are_done_when_they_show(version: Version) -> None:
    async def steps(rig: VirtualRig, connector: OcppServer, sink: RecordingSink) -> None:
        assert (await connector.command(order("stop", connector=1))).code == "not_running"
        started = await connector.command(order("start", connector=1, card="CITY"))
        assert started.state == "done" and started.read_back["transaction"] == 1.0
        assert (await connector.command(order("start", connector=1, card="CITY"))).code == "in_use"
        limited = await connector.command(order("power_limit", connector=1, limit=3500.0))
        assert limited.state == "done" and limited.read_back["limit"] == 3500.0
        await rig.until_s(80)
        stopped = await connector.command(order("stop", connector=1))
        assert stopped.state == "done" and stopped.read_back["transaction"] == 0.0

    sink = ordered(version, steps)
    assert [value for _, value in at(sink, "limit")] == [3500.0]
    powers = [value for _, value in at(sink, "power")]
    assert powers and set(powers[-3:]) == {3500.0}


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_out_of_service_unlock_and_restart(version: Version) -> None:
    async def steps(rig: VirtualRig, connector: OcppServer, sink: RecordingSink) -> None:
        out = await connector.command(order("availability", connector=1, in_service=False))
        assert (out.state, out.read_back) == ("done", {"status": "Unavailable"})
        refused = await connector.command(order("start", connector=1, card="CITY"))
        assert (refused.state, refused.code) == ("refused", "Rejected")
        assert (await connector.command(order("availability", connector=0, in_service=True))).state == "done"
        assert (await connector.command(order("unlock", connector=1))).code == "Unlocked"
        assert (await connector.command(order("unlock", connector=9))).state == "refused"
        boots = sink.counts["boots"]
        assert (await connector.command(order("reset", mode="soft"))).state == "done"
        await rig.until_s(rig.t_s + 5)
        assert sink.counts["boots"] == boots + 1

    ordered(version, steps)


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_firmware_and_diagnostics_by_address(version: Version) -> None:
    async def steps(rig: VirtualRig, connector: OcppServer, sink: RecordingSink) -> None:
        done = await connector.command(order("update_firmware", url="https://core.example/f/1.2.bin"))
        assert (done.state, done.read_back) == ("done", {"status": "Installed"})
        failed = await connector.command(order("update_firmware", url="ftp://core.example/missing.bin"))
        assert (failed.state, failed.code) == ("failed", "DownloadFailed")
        log = await connector.command(order("diagnostics", url="https://core.example/logs/"))
        assert (log.state, log.read_back) == ("done", {"status": "Uploaded"})
        wrong = (
            "",
            "core.example",
            "file:///etc/passwd",
            "ftp://u:secret@core.example/f",
            "https://[x",
            "https://a/" + "b" * 600,
        )
        for url in wrong:
            refused = await connector.command(order("update_firmware", url=url))
            assert (refused.state, refused.code) == ("refused", "argument") and "secret" not in refused.detail
        codes = [report.code for report in sink.reports if report.event_type == "dev.maintenance"]
        assert codes == ["firmware_Installed", "firmware_DownloadFailed", "log_Uploaded"]

    ordered(version, steps)


def test_what_a_station_does_later_is_not_called_done() -> None:
    async def steps(rig: VirtualRig, connector: OcppServer, sink: RecordingSink) -> None:
        assert (await connector.command(order("start", connector=1, card="CITY"))).state == "done"
        out = await connector.command(order("availability", connector=1, in_service=False))
        assert (out.state, out.code) == ("unknown", "scheduled")

    ordered("1.6", steps)


def test_no_answer_is_unknown_and_no_connection_is_nothing_sent() -> None:
    from protocols.core.errors import LinkDown

    async def steps(rig: VirtualRig, connector: OcppServer, sink: RecordingSink) -> None:
        await rig.until_s(60)  # the cable is cut: the connection stands, nothing gets through
        outcome = await connector.command(order("unlock", connector=1))
        assert (outcome.state, outcome.code) == ("unknown", "no_answer")
        await rig.hang_up("pile")
        await rig.until_s(rig.t_s + 1)
        with pytest.raises(LinkDown):
            await connector.command(order("unlock", connector=1))

    ordered("1.6", steps, more='[[device.fault]]\nkind = "silence"\nat_s = 50\n')
