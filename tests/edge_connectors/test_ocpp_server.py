"""The OCPP central system against simulated stations in virtual time, and against a real WebSocket client."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.connectors.base import Command, Link
from edge.connectors.config import check
from edge.connectors.ocpp_link import OcppLink, identity_of, password_fits
from edge.connectors.ocpp_server import OcppServer
from edge.connectors.road_config import OcppDevice, OcppServerConfig
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.lines import LineLink
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.errors import ConfigError
from protocols.core.model import Quality
from protocols.ocpp.frame import Version
from tests.edge_connectors.peers import START_MS
from tests.support.virtual import RecordingSink, play, running

ALL = ("reset", "start", "stop", "availability", "unlock", "power_limit")


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


# -- one message at a time, by hand


class Cable:
    """A link whose other end is the test."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[bytes] = asyncio.Queue()
        self.said: list[Any] = []

    async def read(self) -> bytes:
        return await self.to_server.get()

    async def write(self, data: bytes) -> None:
        self.said += [json.loads(line) for line in data.split(b"\n") if line]

    async def close(self) -> None:
        self.to_server.put_nowait(b"")

    async def say(self, *message: Any) -> Any:
        self.to_server.put_nowait(json.dumps(message).encode())
        await asyncio.sleep(0.01)
        answers = [one for one in self.said if one[0] != 2]  # questions of the server's own set aside
        return answers[-1] if answers else None


def by_hand(
    steps: Callable[[Cable, RecordingSink], Awaitable[None]],
    *,
    version: Version = "1.6",
    kind: str = "charger/dc_120kw",
    identity: str = "CP001",
    base: Path = Path(),
    **more: Any,
) -> RecordingSink:
    sink = RecordingSink()

    async def body(rig: VirtualRig) -> None:
        links: asyncio.Queue[Link] = asyncio.Queue()
        cable = Cable()
        links.put_nowait(OcppLink(cable, identity, version))
        device = OcppDevice(id="pile-1", type=kind, identity="CP001")
        config = OcppServerConfig(id="chargers", listen="x:1", device=(device,), **more)
        async with running([OcppServer(config, rig.clock, links.get, base=base)], sink):
            await steps(cable, sink)

    play('id = "none"\nbus = []\n', body)
    return sink


NOW = "2026-03-02T00:00:00.000Z"


def test_the_number_of_a_transaction_survives_a_restart_of_ours() -> None:
    start = {"connectorId": 2, "idTag": "A", "meterStart": 100, "timestamp": NOW}
    numbers = []

    async def begin(cable: Cable, sink: RecordingSink) -> None:
        answer = await cable.say(2, "1", "StartTransaction", start)
        numbers.append(answer[2]["transactionId"])

    async def end(cable: Cable, sink: RecordingSink) -> None:
        # Another server, which never heard of the start: the number itself says which connector it is.
        stop = {"transactionId": numbers[0], "meterStop": 900, "timestamp": NOW}
        assert await cable.say(2, "2", "StopTransaction", stop) == [3, "2", {}]

    by_hand(begin)
    by_hand(begin)
    assert numbers[0] == numbers[1] and 0 < numbers[0] < 2**31
    sink = by_hand(end)
    assert sink.values("pile-1", "gun_2_transaction") == [0.0]
    assert sink.values("pile-1", "gun_2_energy") == [900.0]


def test_a_stop_of_nothing_is_confirmed_all_the_same() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        for number in (-1, 0, 2**63 - 1, 77):
            stop = {"transactionId": number, "meterStop": 5, "timestamp": NOW}
            assert await cable.say(2, f"s{number}", "StopTransaction", stop) == [3, f"s{number}", {}]

    assert by_hand(steps).counts["transactions_without_place"] >= 3


def test_a_refused_card_gets_a_number_and_no_transaction(tmp_path: Path) -> None:
    (tmp_path / "cards").write_text("# staff\nGOOD\n")

    async def steps(cable: Cable, sink: RecordingSink) -> None:
        start = {"connectorId": 1, "idTag": "BAD", "meterStart": 0, "timestamp": NOW}
        answer = await cable.say(2, "1", "StartTransaction", start)
        assert answer[2]["idTagInfo"] == {"status": "Invalid"} and answer[2]["transactionId"] > 0
        assert sink.values("pile-1", "gun_1_transaction") == [0.0]
        assert (await cable.say(2, "2", "Authorize", {"idTag": "BAD"}))[2] == {"idTagInfo": {"status": "Invalid"}}
        assert (await cable.say(2, "3", "Authorize", {"idTag": "GOOD"}))[2] == {"idTagInfo": {"status": "Accepted"}}
        start["idTag"] = "GOOD"
        await cable.say(2, "4", "StartTransaction", start)
        assert sink.values("pile-1", "gun_1_transaction") == [0.0, 1.0]

    by_hand(steps, base=tmp_path, cards_file="cards")


def test_a_fault_is_an_event_once_and_again_after_it_was_over() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        for number, (status, code) in enumerate(
            [
                ("Faulted", "GroundFailure"),
                ("Faulted", "GroundFailure"),
                ("Available", "NoError"),
                ("Faulted", "GroundFailure"),
            ]
        ):
            told = {"connectorId": 1, "status": status, "errorCode": code}
            await cable.say(2, str(number), "StatusNotification", told)

    sink = by_hand(steps)
    assert [(r.event_type, r.code, r.point) for r in sink.reports] == [
        ("ev.charger.fault", "GroundFailure", "gun_1_status")
    ] * 2
    assert sink.values("pile-1", "gun_1_error") == [3.0, 3.0, 0.0, 3.0]


def test_a_connector_the_type_does_not_have() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        told = {"connectorId": 7, "status": "Charging", "errorCode": "NoError"}
        assert await cable.say(2, "1", "StatusNotification", told) == [3, "1", {}]

    sink = by_hand(steps)
    assert [(r.event_type, r.code) for r in sink.reports] == [("data.rejected", "unknown_connector")]
    assert not sink.sweeps


def test_an_unknown_state_is_no_number() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        told = {"connectorId": 1, "status": "Faultd", "errorCode": "NoError"}
        assert await cable.say(2, "1", "StatusNotification", told) == [3, "1", {}]

    sink = by_hand(steps)
    (sweep,) = sink.sweeps
    assert sweep.quality[sweep.points.index("gun_1_status")] == Quality.MISSING
    assert sink.counts["violations"] >= 1


def test_what_cannot_be_used_is_refused_with_the_standards_code() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        assert (await cable.say(2, "1", "StatusNotification", {"status": "Charging"}))[:3] == [
            4,
            "1",
            "OccurenceConstraintViolation",
        ]
        assert (await cable.say(2, "2", "Nonsense", {}))[:3] == [4, "2", "NotImplemented"]
        assert (await cable.say(2, "3", "DataTransfer", {"vendorId": "x"})) == [3, "3", {"status": "UnknownVendorId"}]
        assert (await cable.say(2, "4", "GetConfiguration", {}))[:3] == [4, "4", "NotSupported"]

    sink = by_hand(steps)
    assert {r.code for r in sink.reports} == {"OccurenceConstraintViolation", "NotImplemented"}


def test_three_phases_without_a_total_are_added() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        sampled = [
            {"value": "1.5", "unit": "kW", "measurand": "Power.Active.Import", "phase": f"L{n}"} for n in (1, 2, 3)
        ]
        sampled += [{"value": "99", "unit": "kW", "measurand": "Power.Active.Import", "context": "PowerMax"}]
        metered = [{"timestamp": NOW, "sampledValue": sampled}]
        await cable.say(2, "1", "MeterValues", {"connectorId": 1, "meterValue": metered})

    assert by_hand(steps).values("pile-1", "gun_1_power") == [4500.0]


def test_a_register_that_falls_is_told() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        start = {"connectorId": 1, "idTag": "A", "meterStart": 5000, "timestamp": NOW}
        number = (await cable.say(2, "1", "StartTransaction", start))[2]["transactionId"]
        stop = {"transactionId": number, "meterStop": 40, "timestamp": "2026-03-02T00:00:01Z"}
        await cable.say(2, "2", "StopTransaction", stop)

    sink = by_hand(steps)
    assert [(r.event_type, r.code) for r in sink.reports] == [("dev.fault", "meter_reset")]


def test_lost_events_of_a_transaction_are_counted() -> None:
    def event(kind: str, number: int) -> dict[str, Any]:
        return {
            "eventType": kind,
            "timestamp": f"2026-03-02T00:00:{number:02d}Z",
            "triggerReason": "Authorized",
            "seqNo": number,
            "transactionInfo": {"transactionId": "t1"},
            "evse": {"id": 1},
        }

    async def steps(cable: Cable, sink: RecordingSink) -> None:
        for kind, number in (("Started", 0), ("Updated", 1), ("Updated", 4), ("Updated", 4), ("Ended", 5)):
            await cable.say(2, f"m{number}{len(cable.said)}", "TransactionEvent", event(kind, number))

    sink = by_hand(steps, version="2.0.1")
    assert sink.counts["transaction_events_missing"] == 2
    assert sink.values("pile-1", "gun_1_transaction")[-1] == 0.0


def test_a_stranger_is_told_so_and_stores_nothing() -> None:
    async def steps(cable: Cable, sink: RecordingSink) -> None:
        boot = {"chargePointVendor": "x", "chargePointModel": "y"}
        assert (await cable.say(2, "1", "BootNotification", boot))[2]["status"] == "Rejected"
        stop = {"transactionId": 5, "meterStop": 5, "timestamp": NOW}
        assert (await cable.say(2, "2", "StopTransaction", stop))[:3] == [4, "2", "SecurityError"]

    sink = by_hand(steps, identity="CP666")
    assert {(r.device, r.code) for r in sink.reports} == {("chargers", "stranger")}
    assert not sink.sweeps


# -- a real socket


def test_names_and_passwords() -> None:
    assert identity_of("/ocpp/CP%20001/") == "CP 001"
    assert identity_of("/") == ""

    def header(user: bytes, password: bytes) -> str:
        return "Basic " + base64.b64encode(user + b":" + password).decode()

    assert password_fits(header(b"CP1", b"0123456789abcdef"), "CP1", "0123456789abcdef")
    assert password_fits(header(b"CP1", bytes(range(20))), "CP1", bytes(range(20)).hex())
    assert not password_fits(header(b"CP2", b"0123456789abcdef"), "CP1", "0123456789abcdef")
    assert not password_fits(header(b"CP1", b""), "CP1", "")
    assert not password_fits("Basic ###", "CP1", "x") and not password_fits("", "CP1", "x")


@asynccontextmanager
async def listening(sink: RecordingSink, base: Path, **more: Any) -> AsyncIterator[OcppServer]:
    from edge.clock import WallClock

    device = OcppDevice(id="pile-1", type="charger/ac_7kw", identity="CP001")
    config = OcppServerConfig(id="chargers", listen="127.0.0.1:0", device=(device,), **more)
    connector = OcppServer(config, WallClock(), base=base)
    task = asyncio.create_task(connector.run(sink))
    try:
        for _ in range(1_000):  # at most ten seconds
            if connector.port or task.done():
                break
            await asyncio.sleep(0.01)
        yield connector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_handshake_decides_version_name_and_password(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    (tmp_path / "passwords").write_text("CP001 0123456789abcdef\n")
    sink = RecordingSink()
    login = {"Authorization": "Basic " + base64.b64encode(b"CP001:0123456789abcdef").decode()}

    async def body() -> None:
        async with listening(sink, tmp_path, passwords_file="passwords") as connector:
            url = f"ws://127.0.0.1:{connector.port}/ocpp/CP001"
            for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"CP001:wrong").decode()}):
                with pytest.raises(InvalidStatus):
                    async with connect(url, subprotocols=["ocpp1.6"], additional_headers=headers):  # type: ignore[list-item]
                        pass
            async with connect(url, subprotocols=["ocpp2.0.1", "ocpp1.6"], additional_headers=login) as socket:  # type: ignore[list-item]
                assert socket.subprotocol == "ocpp2.0.1"
                await socket.send('[2,"1","Heartbeat",{}]')
                assert json.loads(await socket.recv())[0] == 3
            async with connect(url, subprotocols=["ocpp1.6"], additional_headers=login) as socket:  # type: ignore[list-item]
                told = '[2,1,"StatusNotification",{"connectorId":1,"status":"Charging","errorCode":"NoError"}]'
                await socket.send(told)
                await socket.send("\x01")
                await socket.send("")
                await socket.send('[2,"2","Heartbeat",{}]')
                answers = [json.loads(await socket.recv()) for _ in range(2)]
                assert answers[0] == [3, 1, {}] and answers[1][:2] == [3, "2"]
            async with connect(url, additional_headers=login) as socket:
                await asyncio.wait_for(socket.wait_closed(), 5)  # no common sub-protocol

    asyncio.run(asyncio.wait_for(body(), 30))
    assert sink.values("pile-1", "status") == [2.0]
    assert {r.code for r in sink.reports} == {"password", "subprotocol", "not_json"}


def test_it_ends_while_stations_are_connected_and_while_one_is_at_the_door(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect

    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink, tmp_path) as connector:
            url = f"ws://127.0.0.1:{connector.port}/CP001"
            talking = await connect(url, subprotocols=["ocpp1.6"])  # type: ignore[list-item]
            await talking.send('[2,"1","Heartbeat",{}]')
            await talking.recv()
            silent = await connect(url, subprotocols=["ocpp1.6"])  # type: ignore[list-item]
        async with asyncio.timeout(5):
            await talking.wait_closed()
            await silent.wait_closed()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_an_encrypted_line_with_the_stations_certificate(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    for name in ("server", "station"):
        subject = f"/CN={name}"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", subject),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    sink = RecordingSink()

    async def body() -> None:
        tls = {"tls_cert_file": "server.pem", "tls_key_file": "server.key", "client_ca_file": "station.pem"}
        async with listening(sink, tmp_path, **tls) as connector:
            url = f"wss://127.0.0.1:{connector.port}/CP001"
            context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
            with pytest.raises((OSError, WebSocketException)):
                async with connect(url, subprotocols=["ocpp1.6"], ssl=context) as socket:  # type: ignore[list-item]
                    await socket.send('[2,"1","Heartbeat",{}]')
                    await socket.recv()
            context.load_cert_chain(tmp_path / "station.pem", tmp_path / "station.key")
            async with connect(url, subprotocols=["ocpp1.6"], ssl=context) as socket:  # type: ignore[list-item]
                await socket.send('[2,"1","Heartbeat",{}]')
                assert json.loads(await socket.recv())[:2] == [3, "1"]

    asyncio.run(asyncio.wait_for(body(), 30))


def test_an_independent_station_charges_through_a_real_socket(tmp_path: Path) -> None:
    """The library's own charge point class, not our codec, at the other end."""
    import ocpp.messages
    from ocpp.v16 import ChargePoint, call
    from websockets.asyncio.client import connect

    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink, tmp_path) as connector:
            url = f"ws://127.0.0.1:{connector.port}/CP001"
            async with connect(url, subprotocols=["ocpp1.6"]) as socket:  # type: ignore[list-item]
                station = ChargePoint("CP001", socket)
                reader = asyncio.create_task(station.start())
                boot = await station.call(call.BootNotification(charge_point_model="m", charge_point_vendor="v"))
                assert boot.status == "Accepted" and boot.interval == 300
                await station.call(call.StatusNotification(connector_id=1, error_code="NoError", status="Charging"))
                begun = await station.call(
                    call.StartTransaction(connector_id=1, id_tag="A", meter_start=10, timestamp="2026-03-02T00:00:00Z")
                )
                ended = await station.call(
                    call.StopTransaction(
                        transaction_id=begun.transaction_id, meter_stop=1510, timestamp="2026-03-02T01:00:00Z"
                    )
                )
                assert ended is not None
                reader.cancel()

    ocpp.messages.ASYNC_VALIDATION = False
    asyncio.run(asyncio.wait_for(body(), 30))
    assert sink.values("pile-1", "status") == [2.0]
    assert sink.values("pile-1", "transaction") == [1.0, 0.0]
    assert sink.values("pile-1", "session_energy")[-1] == 1500.0
    assert sink.states[0] == ("pile-1", True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tls_cert_file": "a"}, "belong together"),
        ({"client_ca_file": "a"}, "needs tls_cert_file"),
        ({"heartbeat_s": 900}, "longer than heartbeat_s"),
    ],
)
def test_what_a_site_may_get_wrong(more: dict[str, Any], said: str) -> None:
    device = OcppDevice(id="pile-1", type="charger/ac_7kw", identity="CP001")
    with pytest.raises(ConfigError, match=said):
        check(OcppServerConfig(id="chargers", listen="127.0.0.1:1", device=(device,), **more))


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_simulated_station_over_a_real_socket(tmp_path: Path, version: str) -> None:
    from edge.clock import WallClock
    from firmware_sim.devices.world import World
    from firmware_sim.live import live_bus
    from firmware_sim.scene import parse_scene

    (tmp_path / "passwords").write_text("CP001 0123456789abcdef\n")
    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink, tmp_path, passwords_file="passwords") as connector:
            text = scene(version, options=', charge_s = 1000, idle_s = 1, password = "0123456789abcdef"')
            text = text.replace("interval_s = 10", "interval_s = 1")
            place = f'kind = "ocpp-station"\nconnect = "127.0.0.1:{connector.port}"'
            found = parse_scene(text.replace('kind = "ocpp-station"', place), "test.toml")
            clock = WallClock()
            bus = live_bus(found.bus[0], found, World(clock, clock.now_ms(), MemoryLedger()))
            await bus.open()
            run = asyncio.create_task(bus.run())
            try:
                for _ in range(1_000):
                    if len(sink.values("pile-1", "power")) >= 2:
                        break
                    await asyncio.sleep(0.02)
            finally:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
                await bus.close()

    asyncio.run(asyncio.wait_for(body(), 60))
    assert set(sink.values("pile-1", "power")) == {7000.0}
    assert sink.values("pile-1", "transaction")[0] == 1.0
    assert not sink.reports


assert START_MS == 1_772_409_600_000  # NOW above
