"""OCPP: frames read strictly, reports read tolerantly, both ends against each other, hostile texts."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, from_vector
from protocols.ocpp import times
from protocols.ocpp.endpoint import REMEMBERED, OcppEndpoint, Unanswered
from protocols.ocpp.explain import explain
from protocols.ocpp.frame import MAX_BYTES, Call, CallError, CallResult, FrameError, encode, parse
from protocols.ocpp.reports import Meter, Status, Transaction, understand
from protocols.ocpp.samples import ENERGY
from protocols.ocpp.schema import actions, check
from tests.protocols.vectors import Vector, vectors

STATUS = {"connectorId": 1, "status": "Charging", "errorCode": "NoError", "timestamp": "2026-03-02T08:00:00.000Z"}


def call(action: str, payload: Any, message_id: str | int = "7") -> Call:
    return Call(message_id, action, payload)


# -- vectors


def expecting(key: str) -> list[Any]:
    """The vectors that expect something under that key."""
    return [one for one in vectors("ocpp", "ocpp") if key in one.values[0].get("expect", {})]


@pytest.mark.parametrize("row", vectors("ocpp", "ocpp"))
def test_what_can_be_read_is_written_back_the_same(row: Vector) -> None:
    try:
        message = parse(row["text"].encode())
    except FrameError:
        assert not row["expect"]["ok"]
        return
    assert json.loads(encode(message)) == json.loads(row["text"])


@pytest.mark.parametrize(
    "row", [one for one in vectors("ocpp", "ocpp") if "tolerant" in one.values[0].get("expect", {})]
)
def test_a_tolerant_server_makes_of_it_what_the_vector_says(row: Vector) -> None:
    said = explain(from_vector(row)).said()["tolerant"]
    for key, wanted in row["expect"]["tolerant"].items():
        if key != "values":
            assert said[key] == wanted, key
            continue
        assert len(said["values"]) == len(wanted)
        for found, sample in zip(said["values"], wanted, strict=True):
            assert Decimal(str(found["value"])) == Decimal(str(sample["value"]))
            assert (found["unit"], found["context"]) == (sample["unit"], sample["context"])


@pytest.mark.parametrize(
    "row", [one for one in vectors("ocpp", "ocpp") if "reply_text" in one.values[0].get("expect", {})]
)
def test_the_answer_is_the_vectors(row: Vector) -> None:
    wanted = json.loads(row["expect"]["reply_text"])
    request = parse(row["text"].encode())
    server = OcppEndpoint(Role.MASTER, version=row["version"])
    heard = server.feed(row["text"].encode(), 0)
    if wanted[0] == 3:
        assert heard == [request] and isinstance(request, Call)
        assert json.loads(server.send(CallResult(request.id, wanted[2], request.action), 0)) == wanted
        return
    found = json.loads(server.take_output())
    assert found[:2] == wanted[:2]
    assert found[2] in row["expect"]["call_error_codes"]


# -- frames


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not_json"),
        ('[2,"1","Heartbeat",{}', "not_json"),
        ('{"a":1}', "not_a_message_array"),
        ("[2]", "not_a_message_array"),
        ('[2,"1"]', "not_a_message_array"),
        ('[2,null,"Heartbeat",{}]', "not_a_message_array"),
        ('[true,"1","Heartbeat",{}]', "not_a_message_array"),
        ('[2,"1",{},{}]', "malformed_call"),
        ('[2,"1","Heartbeat",{},{}]', "malformed_call"),
        ('[2,"1","Authorize",{"idTag":"a","idTag":"b"}]', "duplicate_key"),
        ('[2,"1","MeterValues",{"value":NaN}]', "not_json"),
        ("[" * 100_000, "not_json"),
        ('[2,"1","Heartbeat",{"x":' + "9" * 5_000 + "}]", "not_json"),
        ('[2,"1","Heartbeat",{"x":"' + "a" * MAX_BYTES + '"}]', "size"),
    ],
)
def test_what_is_no_frame_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        parse(text.encode())
    assert caught.value.reason == reason


def test_a_broken_call_is_answered_if_its_id_can_be_read() -> None:
    server = OcppEndpoint(Role.MASTER)
    (error,) = server.feed(b'[2,"abc2","Heartbeat",{', 0)
    assert isinstance(error, RemoteProtocolError)
    assert json.loads(server.take_output())[:3] == [4, "abc2", "FormationViolation"]
    server.feed(b'[3,"abc2",{', 0)
    server.feed(b"\x01", 0)
    assert server.take_output() == b""  # results and noise are never answered


@pytest.mark.parametrize("number", ["1e999999999", "1" * 40, "-1e400", "1e-999999999", "0.1e-30", "1" * 24, "9e23"])
def test_a_number_out_of_all_proportion_harms_nothing(number: str) -> None:
    text = (
        '[2,"1","SetChargingProfile",{"connectorId":1,"csChargingProfiles":{"chargingProfileId":1,"stackLevel":0,'
        '"chargingProfilePurpose":"TxProfile","chargingProfileKind":"Relative","chargingSchedule":{"chargingRateUnit":"A",'
        f'"chargingSchedulePeriod":[{{"startPeriod":0,"limit":{number}}}]}}}}}}]'
    )
    told = explain(Capture(text.encode()))
    assert told.ok or told.error in ("FormationViolation", "PropertyConstraintViolation")
    for one in OcppEndpoint(Role.MASTER).feed(text.encode(), 0):
        assert isinstance(one, Call | RemoteProtocolError)


@pytest.mark.parametrize("text", ['[2,"x","Heartbeat"]', '[2,"x","Heartbeat",null]', '[2,"x","Heartbeat",[]]'])
def test_a_call_without_a_payload_is_answered(text: str) -> None:
    assert explain(Capture(text.encode())).error == "FormationViolation"
    server = OcppEndpoint(Role.MASTER)
    (heard,) = server.feed(text.encode(), 0)
    assert isinstance(heard, Call)
    assert understand(heard, "1.6").report is None


def test_a_limit_keeps_its_one_decimal() -> None:
    profile: dict[str, Any] = {
        "connectorId": 1,
        "csChargingProfiles": {
            "chargingProfileId": 1,
            "stackLevel": 0,
            "chargingProfilePurpose": "TxDefaultProfile",
            "chargingProfileKind": "Relative",
            "chargingSchedule": {
                "chargingRateUnit": "A",
                "chargingSchedulePeriod": [{"startPeriod": 0, "limit": Decimal("21.4")}],
            },
        },
    }
    assert check("SetChargingProfile", profile, "1.6") == []
    assert b'"limit":21.4}' in encode(call("SetChargingProfile", profile))
    profile["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"] = Decimal("21.44")
    (broken,) = check("SetChargingProfile", profile, "1.6")
    assert broken.code == "PropertyConstraintViolation"


def test_the_library_has_the_actions_of_both_versions() -> None:
    assert {"BootNotification", "StopTransaction", "ExtendedTriggerMessage"} <= actions("1.6")
    assert {"TransactionEvent", "NotifyReport", "SetVariables"} <= actions("2.0.1")
    assert "TransactionEvent" not in actions("1.6") and "StopTransaction" not in actions("2.0.1")


# -- both ends


def test_both_ends_ask_and_answer() -> None:
    station, server = OcppEndpoint(Role.SLAVE), OcppEndpoint(Role.MASTER)
    (heard,) = server.feed(station.send(call("StatusNotification", STATUS), 0), 5)
    assert heard == call("StatusNotification", STATUS)
    (answer,) = station.feed(server.send(CallResult("7", {}, "StatusNotification"), 6), 7)
    assert answer == CallResult("7", {}, "StatusNotification")
    (reset,) = station.feed(server.send(call("Reset", {"type": "Soft"}, "s1"), 8), 9)
    assert isinstance(reset, Call)
    (error,) = server.feed(station.send(CallError("s1", "InternalError", "busy"), 9), 9)
    assert error == CallError("s1", "InternalError", "busy")
    assert not server.busy and not station.busy


def test_one_call_at_a_time_and_none_for_ever() -> None:
    server = OcppEndpoint(Role.MASTER)
    first = call("Reset", {"type": "Soft"}, "a")
    server.send(first, 1_000)
    with pytest.raises(LocalProtocolError, match="unanswered"):
        server.send(call("ClearCache", {}, "b"), 1_001)
    assert server.deadline() == 31_000
    assert server.tick(30_999) == []
    assert server.tick(31_000) == [Unanswered(first)]
    (late,) = server.feed(b'[3,"a",{"status":"Accepted"}]', 31_001)
    assert isinstance(late, RemoteProtocolError) and late.reason == "unexpected"
    assert server.deadline() is None


def test_what_we_send_is_strict() -> None:
    server = OcppEndpoint(Role.MASTER)
    with pytest.raises(LocalProtocolError, match="type"):
        server.send(call("Reset", {"type": "Gently"}), 0)
    with pytest.raises(LocalProtocolError):
        server.send(CallResult("1", {"status": "Perhaps"}, "Authorize"), 0)
    assert not server.busy


def test_a_repeated_call_gets_the_stored_answer_again() -> None:
    server = OcppEndpoint(Role.MASTER)
    frame = encode(call("StatusNotification", STATUS))
    assert server.feed(frame, 0)
    assert server.feed(frame, 1) == []  # still being stored: no second report, no answer yet
    assert server.take_output() == b""
    answer = server.send(CallResult("7", {}, "StatusNotification"), 2)
    assert server.feed(frame, 3) == []
    assert server.take_output() == answer
    assert server.violations == {"repeated": 2}


def test_one_id_for_two_calls_at_once_is_refused_later_reuse_is_counted() -> None:
    server = OcppEndpoint(Role.MASTER)
    server.feed(encode(call("StatusNotification", STATUS)), 0)
    (error,) = server.feed(encode(call("Heartbeat", {})), 1)
    assert isinstance(error, RemoteProtocolError)
    assert json.loads(server.take_output())[2] == "ProtocolError"
    server.send(CallResult("7", {}, "StatusNotification"), 2)
    assert server.feed(encode(call("Heartbeat", {})), 3) == [call("Heartbeat", {})]
    assert server.violations == {"id_reused": 1}


def test_integer_ids_are_answered_as_integers() -> None:
    server = OcppEndpoint(Role.MASTER)
    assert server.feed(b'[2,1,"Heartbeat",{}]', 0) == [call("Heartbeat", {}, 1)]
    assert server.violations == {"message_id": 1}
    now = {"currentTime": times.write(0)}
    assert json.loads(server.send(CallResult(1, now, "Heartbeat"), 0))[1] == 1


def test_a_bad_result_ends_the_call_without_an_answer() -> None:
    server = OcppEndpoint(Role.MASTER)
    server.send(call("Reset", {"type": "Hard"}, "a"), 0)
    (bad,) = server.feed(b'[3,"a",7]', 1)
    assert isinstance(bad, RemoteProtocolError)
    assert not server.busy and server.take_output() == b""
    server.send(call("Reset", {"type": "Hard"}, "b"), 2)
    (odd,) = server.feed(b'[4,"b","418","teapot",{}]', 3)
    assert isinstance(odd, CallError) and not odd.known_code


# -- tolerance


def notes(action: str, payload: dict[str, Any], version: Any = "1.6") -> dict[str, Any]:
    return dict(understand(call(action, payload), version).notes)


def report(action: str, payload: dict[str, Any], version: Any = "1.6") -> Any:
    return understand(call(action, payload), version).report


@pytest.mark.parametrize("number", [-1, 0, 2**63 - 1, "none", None, 1.5])
def test_numbers_that_mean_no_transaction(number: Any) -> None:
    found = report("StopTransaction", {"transactionId": number, "meterStop": 5, "timestamp": "2026-03-02T08:00:00Z"})
    assert isinstance(found, Transaction) and found.key == "" and found.meter_wh == 5


def test_objects_where_arrays_belong_and_empty_arrays() -> None:
    one = {"timestamp": "2026-03-02T08:00:00Z", "sampledValue": {"value": "7", "unit": "kWh"}}
    found = report("MeterValues", {"connectorId": 1, "meterValue": one})
    (sample,) = found.metered[0].samples
    assert (sample.value, sample.unit, sample.measurand) == (7000, "Wh", ENERGY)
    assert notes("MeterValues", {"connectorId": 1, "meterValue": one})["wrapped"] == ["meterValue", "sampledValue"]
    empty = report("MeterValues", {"connectorId": 1, "meterValue": [{"timestamp": "x", "sampledValue": []}]})
    assert isinstance(empty, Meter) and empty.metered[0].samples == () and empty.metered[0].time is None


def test_values_of_both_versions_come_out_in_base_units() -> None:
    sample = {"value": 7.4, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "W", "multiplier": 3}}
    meter = {"evseId": 1, "meterValue": [{"timestamp": "2026-03-02T08:00:00Z", "sampledValue": [sample]}]}
    assert report("MeterValues", meter, "2.0.1").metered[0].samples[0].value == 7400
    phase = {"value": "230.1", "measurand": "Voltage", "phase": "L1-N", "unit": "V"}
    meter = {"connectorId": 1, "meterValue": [{"timestamp": "2026-03-02T08:00:00Z", "sampledValue": [phase]}]}
    assert report("MeterValues", meter).metered[0].samples[0].phase == "L1"


@pytest.mark.parametrize("value", ["", "abc", "NaN", "1e999", "Infinity", None, [], True])
def test_what_is_no_number_is_no_sample(value: Any) -> None:
    meter = {
        "connectorId": 1,
        "meterValue": [{"timestamp": "2026-03-02T08:00:00Z", "sampledValue": [{"value": value}]}],
    }
    assert report("MeterValues", meter).metered[0].samples == ()


def test_a_status_in_another_case_is_the_status() -> None:
    assert report("StatusNotification", {**STATUS, "status": "CHARGING"}) == report("StatusNotification", STATUS)
    odd = report("StatusNotification", {**STATUS, "status": "Faultd"})
    assert isinstance(odd, Status) and odd.status == "Faultd"
    assert notes("StatusNotification", {**STATUS, "status": "Faultd"})["unknown"] == {"status": "Faultd"}


def test_without_a_place_or_a_state_there_is_nothing_to_store() -> None:
    assert report("StatusNotification", {"status": "Charging"}) is None
    assert report("StatusNotification", {"connectorId": 1, "errorCode": "NoError"}) is None
    assert report("TransactionEvent", {"eventType": "Started"}, "2.0.1") is None


@pytest.mark.parametrize(
    ("text", "ms", "strict"),
    [
        ("2024-04-26T14:35:02+02", 1_714_134_902_000, False),
        ("2024-04-26T14:35:02+0200", 1_714_134_902_000, False),
        ("2024-04-26 12:35:02Z", 1_714_134_902_000, False),
        ("2024-04-26T12:35:02.123456789Z", 1_714_134_902_123, False),
        ("2024-04-26T12:35:02.5Z", 1_714_134_902_500, True),
        ("2024-04-26T12:35:02", 1_714_134_902_000, False),
        ("1970-01-01T00:00:10Z", 10_000, True),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000, True),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000, True),
    ],
)
def test_odd_times_are_read(text: str, ms: int, strict: bool) -> None:
    found = times.read(text)
    assert found is not None and (found.ms, found.strict) == (ms, strict)
    assert found.unset == (ms < 946_684_800_000)


def test_a_clock_in_the_year_one_is_written_with_four_digits() -> None:
    assert times.short(-62_135_596_800_000) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("message_id", "note"), [("", {"reply_id": ""}), (5, {"reply_id": 5}), ("a" * 37, {"long_id": 37})]
)
def test_ids_that_the_standard_does_not_allow_are_noted(message_id: str | int, note: dict[str, Any]) -> None:
    notes = understand(call("Heartbeat", {}, message_id), "1.6").notes
    assert {key: notes[key] for key in note} == note


def test_a_log_with_a_message_in_each_line() -> None:
    lines = b'[2,"x","Heartbeat",{}]\r\n\r\n[2,"y","Authorize",{"idTag":null}]\n[3,"x",{}]\n'
    told = explain(Capture(lines))
    assert [(one.offset, one.error) for one in told.frames] == [(0, ""), (26, "TypeConstraintViolation"), (61, "")]
    assert all(one.offset is None or one.offset >= 26 for one in told.frames[1].fields)


@pytest.mark.parametrize(
    ("base", "identity", "uri"),
    [
        ("ws://test.uri.com/path/", "cp0001", "ws://test.uri.com/path/cp0001"),
        ("ws://test.uri.com/path/cp0001", "cp0001", "ws://test.uri.com/path/cp0001"),
        ("test.uri.com/path/", "cp0001", "ws://test.uri.com/path/cp0001"),
        ("ws:test.uri.com", "cp0001", ""),
        ("://invalid", "cp0001", ""),
        ("ws://test.uri.com", "", ""),
        ("ws://test.uri.com", "cp0001\x7f", ""),
    ],
)
def test_where_a_station_connects(base: str, identity: str, uri: str) -> None:
    told = explain(Capture(kind="ocpp-uri", extra={"base": base, "identity": identity, "security_profile": 1}))
    assert told.said().get("uri", "") == uri and told.ok == bool(uri)


@pytest.mark.parametrize(
    "text", ["", "now", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "20240426T123502Z", 5, None]
)
def test_no_times(text: Any) -> None:
    assert times.read(text) is None


@given(st.integers(0, 4_102_444_800_000))
def test_times_round_trip(ms: int) -> None:
    found = times.read(times.write(ms))
    assert found is not None and found.ms == ms and found.strict and not found.zone_missing


# -- hostile input

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_action = st.sampled_from(sorted(actions("1.6") | actions("2.0.1")))
quick = settings(max_examples=150, deadline=None, derandomize=True)


@given(st.binary(max_size=200) | st.lists(_json, max_size=5).map(lambda one: json.dumps(one).encode()))
@quick
def test_nothing_a_station_sends_raises(data: bytes) -> None:
    told = explain(Capture(data))
    assert told.ok or (told.error and told.detail)
    for role in Role:
        endpoint = OcppEndpoint(role)
        for one in endpoint.feed(data, 0):
            assert isinstance(one, Call | CallResult | CallError | RemoteProtocolError)


@given(_action, st.dictionaries(st.sampled_from(["connectorId", "meterValue", "timestamp", "status", "evse"]), _json))
@quick
def test_no_payload_raises(action: str, payload: dict[str, Any]) -> None:
    data = json.dumps([2, "1", action, payload]).encode()
    for version in ("1.6", "2.0.1"):
        told = explain(Capture(data, extra={"version": version}))
        assert told.frames


def test_memory_stays_bounded() -> None:
    server = OcppEndpoint(Role.MASTER)
    for number in range(1_000):
        server.feed(encode(call("Heartbeat", {}, f"id-{number}")), number)
        server.feed(f'[2,"x{number}","Nothing",{{}}]'.encode(), number)
    assert len(server._taken) <= REMEMBERED
    assert server.take_output().count(b"\n") <= REMEMBERED
