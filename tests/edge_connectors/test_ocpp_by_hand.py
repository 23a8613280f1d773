"""The OCPP central system, one message at a time: what it answers, and what it makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from edge.connectors.base import Link
from edge.connectors.ocpp_link import OcppLink
from edge.connectors.ocpp_server import OcppServer
from edge.connectors.road_config import OcppDevice, OcppServerConfig
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.model import Quality
from protocols.ocpp.frame import Version
from tests.edge_connectors.peers import START_MS
from tests.support.virtual import RecordingSink, play, running


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
    told = {(r.device, r.code) for r in sink.reports if r.event_type != "device.unlisted"}
    assert told == {("chargers", "stranger")}
    assert not sink.sweeps


assert START_MS == 1_772_409_600_000  # NOW above
