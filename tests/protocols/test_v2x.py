"""V2X: both message sets both ways, wrappers, what may be wrong with a datagram, how long hostile bytes may take."""

from __future__ import annotations

import contextlib
import time
from importlib import resources
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.v2x import frame, schema
from protocols.v2x.build import frame_of
from protocols.v2x.endpoint import REPEAT_MS, Heard, V2xEndpoint
from protocols.v2x.explain import explain
from protocols.v2x.messages import (
    LIGHTS,
    Crossing,
    Notice,
    Notices,
    Participant,
    Phase,
    Place,
    RoadMap,
    RoadUsers,
    Signals,
    Vehicle,
    from_csae53,
    from_j2735,
    made_ms,
)
from tests.protocols.vectors import Vector, vectors

HEFEI = (116.6, 30.9, 117.97, 32.6)
HERE = Place(117.2272, 31.8206)

quick = settings(max_examples=120, deadline=None, derandomize=True)


def which_of(row: Vector) -> schema.Set:
    return "j2735" if row["schema"].startswith("SAE") else "csae53"


# -- vectors, both ways


def good(*, framed: bool) -> list[Any]:
    rows = [one for one in vectors("v2x", "uper") if one.values[0].get("expect", {}).get("ok", True)]
    return [one for one in rows if not framed or one.values[0].get("type") in (None, "MessageFrame")]


@pytest.mark.parametrize("row", good(framed=False))
def test_decoded_and_encoded_again_it_is_the_same_bytes(row: Vector) -> None:
    data = bytes.fromhex(row["hex"])
    if which_of(row) == "csae53":
        read = schema.decode("csae53", row["type"], data)
        assert (read.bits + 7) // 8 == len(data)
        assert schema.encode("csae53", row["type"], read.value) == data
        return
    found = frame.j2735(data)
    read = schema.decode("j2735", found.type_name, found.body)
    body = schema.encode("j2735", found.type_name, read.value)
    assert body == found.body
    # A zero behind the declared length is normal in captures.
    assert frame.j2735_frame(found.message_id, body) + found.trailing == data
    assert not any(found.trailing)


@pytest.mark.parametrize("row", vectors("v2x", "uper-wrapped"))
def test_a_vendors_wrapper_comes_off_and_goes_on(row: Vector) -> None:
    data = bytes.fromhex(row["hex"])
    wrapped = frame.unwrap(data)
    assert wrapped.device_id == row["expect"]["device_id"]
    again = frame.wrap(
        wrapped.device_id.encode(), wrapped.time_ms, [body for _, body in wrapped.frames], batch=wrapped.batch
    )
    assert again == data


@pytest.mark.parametrize("row", good(framed=True))
def test_no_part_of_a_frame_is_taken_for_the_whole(row: Vector) -> None:
    data = bytes.fromhex(row["hex"])
    for cut in range(1, len(data) - 1):
        endpoint = V2xEndpoint(Role.MASTER, which=which_of(row))
        heard = endpoint.feed(data[:cut], 0)
        assert not any(isinstance(one, Heard) for one in heard)


# -- our types

_places = st.builds(
    Place,
    st.integers(1_166_000_000, 1_179_700_000).map(lambda n: n / 1e7),
    st.integers(309_000_000, 326_000_000).map(lambda n: n / 1e7),
)
_speed = st.none() | st.integers(0, 8_190).map(lambda n: n * 0.02)
_heading = st.none() | st.integers(0, 28_799).map(lambda n: n * 0.0125)
_left = st.none() | st.integers(0, 36_000).map(lambda n: n * 0.1)
_id = st.binary(min_size=8, max_size=8)
_count = st.integers(0, 127)
_participant = st.builds(
    Participant,
    st.sampled_from(["unknown", "motor", "non-motor", "pedestrian", "rsu"]),
    st.integers(0, 65_535),
    st.sampled_from(["video", "lidar", "integrated"]),
    st.none() | _places,
    _speed,
    _heading,
)


@st.composite
def _phases(draw: st.DrawFn) -> Phase:
    left = draw(_left)
    more = _left if left is not None else st.none()
    return Phase(draw(st.integers(0, 255)), draw(st.sampled_from(LIGHTS)), left, draw(more), draw(more))


_crossing = st.builds(
    Crossing,
    st.none() | st.integers(0, 65_535),
    st.integers(0, 65_535),
    st.lists(_phases(), min_size=1, max_size=16).map(tuple),
    st.sets(st.integers(0, 13)).map(lambda bits: tuple(sorted(bits))),
)
_notice = st.one_of(
    st.builds(
        Notice,
        st.just("event"),
        st.integers(0, 255),
        st.integers(0, 65_535),
        st.sampled_from(["police", "detection"]),
        st.none() | _places,
        st.none() | st.integers(0, 7),
        st.sampled_from(["", "ROADWORKS", "前方施工"]),
    ),
    st.builds(Notice, st.just("sign"), st.integers(0, 255), st.integers(0, 65_535)),
)


@st.composite
def _notices(draw: st.DrawFn) -> Notices:
    found = draw(st.lists(_notice, max_size=6))
    ordered = tuple(sorted(found, key=lambda one: one.kind))  # events are before signs on the wire
    return Notices(draw(_count), draw(_id).hex(), draw(_places), ordered)


_messages = st.one_of(
    st.builds(
        RoadUsers, _count, _id.map(bytes.hex), _places, st.lists(_participant, min_size=1, max_size=16).map(tuple)
    ),
    st.builds(
        Signals,
        _count,
        st.lists(_crossing, min_size=1, max_size=4).map(tuple),
        st.none() | st.integers(0, 527_040),
        st.none() | st.integers(0, 60_999),
    ),
    _notices(),
    st.builds(Vehicle, _count, _id, _places, _speed, _heading),
    st.builds(
        RoadMap,
        _count,
        st.lists(st.tuples(st.none() | st.integers(0, 65_535), st.integers(0, 65_535)), min_size=1, max_size=5).map(
            tuple
        ),
    ),
)


def near(found: Any, wanted: Any) -> bool:
    """Equal at the wire's resolution."""
    if isinstance(wanted, float):
        return isinstance(found, float) and abs(found - wanted) < 1e-6
    if isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(near(a, b) for a, b in zip(found, wanted, strict=True))
    if hasattr(wanted, "__slots__"):
        return type(found) is type(wanted) and all(
            near(getattr(found, name), getattr(wanted, name)) for name in wanted.__slots__
        )
    return bool(found == wanted)


@given(_messages)
@quick
def test_round_trip(message: Any) -> None:
    station, listener = V2xEndpoint(Role.SLAVE), V2xEndpoint(Role.MASTER, area=HEFEI)
    (heard,) = listener.feed(station.send(message, 0), 0)
    assert isinstance(heard, Heard)
    assert near(heard.message, message)


def test_a_batch_in_a_wrapper() -> None:
    cars = [Vehicle(n, bytes((n,)) * 8, HERE, 10.0 + n, 90.0) for n in range(3)]
    station = V2xEndpoint(Role.SLAVE, wrapping="vendor", device_id=b"rsu-7")
    data = station.send(list(cars), 1_772_409_600_000)
    heard = V2xEndpoint(Role.MASTER, wrapping="vendor").feed(data, 0)
    assert [one.message.count for one in heard if isinstance(one, Heard)] == [0, 1, 2]
    assert {(one.device_id, one.time_ms) for one in heard if isinstance(one, Heard)} == {("rsu-7", 1_772_409_600_000)}
    with pytest.raises(LocalProtocolError):
        V2xEndpoint(Role.SLAVE).send(list(cars), 0)


def test_times_in_the_hour_become_times_left() -> None:
    body = {
        "intersections": [
            {
                "id": {"id": 7},
                "revision": 1,
                "status": (b"\0\0", 16),
                "moy": 60 * 24 * 3 + 59,
                "timeStamp": 50_000,
                "states": [
                    {
                        "signalGroup": 2,
                        "state-time-speed": [
                            {"eventState": "stop-And-Remain", "timing": {"minEndTime": 100, "maxEndTime": 36_001}}
                        ],
                    }
                ],
            }
        ]
    }
    message = from_j2735("SPAT", body)
    assert isinstance(message, Signals)
    # 59:50 now, the mark says 0:10: over the hour's edge.
    assert message.crossings[0].phases == (Phase(2, "red", 20.0, 20.0, None),)


def test_when_a_message_was_made_also_at_new_year() -> None:
    new_year_ms = 1_767_225_600_000  # 2026-01-01
    late = Signals(1, (), moy=525_599, second_ms=59_500)
    assert made_ms(late, new_year_ms + 200) == new_year_ms - 500
    early = Signals(1, (), moy=0, second_ms=300)
    assert made_ms(early, new_year_ms - 100) == new_year_ms + 300
    assert made_ms(Signals(1, (), moy=527_040, second_ms=1), new_year_ms) is None
    assert made_ms(Signals(1, (), moy=5, second_ms=65_535), new_year_ms) is None


def test_of_a_forecast_only_the_present_state_counts() -> None:
    row = next(one.values[0] for one in vectors("v2x", "uper") if one.id == "v2x-003-spat-frame-with-name")
    value = schema.decode("csae53", "MessageFrame", bytes.fromhex(row["hex"])).value
    message = from_csae53(value)
    assert isinstance(message, Signals)
    assert message.crossings[0].phases[0] == Phase(2, "red", 18.0)
    later = dict(value[1]["intersections"][0]["phases"][0]["phaseStates"][1])
    value[1]["intersections"][0]["phases"][0]["phaseStates"] = [later]
    message = from_csae53(value)
    assert isinstance(message, Signals)
    assert message.crossings[0].phases[0].light == "unavailable"


def test_unknown_stays_unknown() -> None:
    lost = Vehicle(1, b"12345678", None, None, None)
    (heard,) = V2xEndpoint(Role.MASTER, area=HEFEI).feed(frame_of(lost), 0)
    assert isinstance(heard, Heard) and heard.message == lost


def test_an_identity_is_not_shown() -> None:
    assert "secret" not in repr(Vehicle(1, b"secret!!", HERE))


# -- what may be wrong


def reason(endpoint: V2xEndpoint, data: bytes) -> str:
    (one,) = endpoint.feed(data, 0)
    assert isinstance(one, RemoteProtocolError)
    return one.reason


GOOD = frame_of(Vehicle(5, b"12345678", HERE, 10.0, 90.0))


def test_what_may_be_wrong_has_a_name() -> None:
    assert reason(V2xEndpoint(Role.MASTER), b"") == "decode"
    assert reason(V2xEndpoint(Role.MASTER), GOOD[:-4]) == "decode"
    assert reason(V2xEndpoint(Role.MASTER), GOOD + b"\x01") == "length"
    assert reason(V2xEndpoint(Role.MASTER), b"\x80" + GOOD) == "extension"
    assert reason(V2xEndpoint(Role.MASTER), bytes(schema.MAX_BYTES + 1)) == "length"
    assert reason(V2xEndpoint(Role.MASTER, area=(100.0, 20.0, 101.0, 21.0)), GOOD) == "position"
    assert reason(V2xEndpoint(Role.MASTER, which="j2735"), b"\x00\x63\x04aaaa") == "message_id"
    assert reason(V2xEndpoint(Role.MASTER, which="j2735"), b"\x00\x14\x04aaa") == "length"
    assert reason(V2xEndpoint(Role.MASTER, wrapping="vendor"), GOOD[:12]) == "short"
    assert reason(V2xEndpoint(Role.MASTER, wrapping="vendor"), GOOD) == "time"
    wrapped = frame.wrap(b"rsu", 1_772_409_600_000, [GOOD])
    assert reason(V2xEndpoint(Role.MASTER, wrapping="vendor"), wrapped[:-1]) == "length"
    # Padding to a fixed size is no fault.
    (heard,) = V2xEndpoint(Role.MASTER).feed(GOOD + bytes(9), 0)
    assert isinstance(heard, Heard)


def test_the_same_datagram_again_is_one() -> None:
    endpoint = V2xEndpoint(Role.MASTER)
    assert len(endpoint.feed(GOOD, 0)) == 1
    assert endpoint.feed(GOOD, 100) == [] and endpoint.repeats == 1
    assert len(endpoint.feed(GOOD, 100, "another unit")) == 1
    assert len(endpoint.feed(GOOD, 101 + REPEAT_MS)) == 1  # the counter has come round
    for number in range(2_000):
        endpoint.feed(number.to_bytes(4, "big"), number)
    assert len(endpoint._seen) <= 256


def test_a_unit_with_newer_fields_is_read_all_the_same() -> None:
    """What a later edition adds behind an extension mark is skipped, the rest is read."""
    import asn1tools

    text = (resources.files("protocols.v2x") / "csae53.asn").read_text(encoding="utf-8")
    newer = text.replace(
        "vehicleClass VehicleClassification OPTIONAL, ... }",
        "vehicleClass VehicleClassification OPTIONAL, ..., more INTEGER (0..300) }",
    )
    assert newer != text
    message = RoadUsers(3, "00" * 8, HERE, (Participant("motor", 9, "video", HERE, 5.0, 90.0),))
    value = schema.decode("csae53", "MessageFrame", frame_of(message)).value
    value[1]["participants"][0]["more"] = 299
    data = bytes(asn1tools.compile_string(newer, "uper").encode("MessageFrame", value))
    (heard,) = V2xEndpoint(Role.MASTER).feed(data, 0)
    assert isinstance(heard, Heard) and near(heard.message, message)


def test_behind_what_is_not_carried_nothing_is_believed() -> None:
    row = next(one.values[0] for one in vectors("v2x", "uper") if one.id == "v2x-017-j2735-sdsm")
    found = frame.j2735(bytes.fromhex(row["hex"]))
    value = schema.decode("j2735", found.type_name, found.body).value
    value["objects"][0]["detObjOptData"] = None
    data = frame.j2735_frame(41, schema.encode("j2735", found.type_name, value))
    told = explain(Capture(data, extra={"schema": "SAE J2735", "type": "MessageFrame"}))
    assert told.error == "not_carried"


@pytest.mark.parametrize("row", [one for one in good(framed=True) if which_of(one.values[0]) == "j2735"])
def test_a_link_set_up_for_the_other_set_does_not_tell_nonsense(row: Vector) -> None:
    told = explain(Capture(bytes.fromhex(row["hex"]), extra={"schema": "T/CSAE 53", "type": "MessageFrame"}))
    assert told.error == "decode" and any("J2735" in hint for hint in told.frames[0].hints)


@pytest.mark.parametrize(
    "header",
    [
        b"\x03\x80\x2f",
        b"\x03\x00\x20\x32\x03\x80\x2f",
        b"\x01\x03\x00\x20\x32\x03\x80\x2f",  # some radios begin with a byte of their own
        b"\x0b\x03\x0f\x01\xb4\x10\x01\x0c\x04\x01\x8d\x00\xe0\x00\x00\x17\x32\x03\x80\x2f",
        b"\x03\x81\x00\x40\x03\x80\x2f",
    ],
)
def test_radio_headers_come_off(header: bytes) -> None:
    body = bytes.fromhex("00142c") + bytes(44)
    at, inner = frame.payload_of_radio(header + body)
    assert (at, inner) == (len(header), body)
    assert frame.payload_of_radio(body) == (0, body)


@pytest.mark.parametrize("row", good(framed=False))
def test_each_field_says_where_it_is(row: Vector) -> None:
    """The places are right if the bits there, read alone as a number, are the field."""
    told = explain(Capture(bytes.fromhex(row["hex"]), kind="uper", extra=row)).frames[0]
    assert all(one.offset is not None and one.length for one in told.fields)
    assert [one.offset for one in told.fields] == sorted(one.offset or 0 for one in told.fields)
    which = which_of(row)
    data = bytes.fromhex(row["hex"])
    body = data if which == "csae53" else frame.j2735(data).body
    type_name = row["type"] if which == "csae53" else frame.j2735(data).type_name
    plain_read, traced = schema.decode(which, type_name, body), schema.decode(which, type_name, body, spans=True)
    assert plain_read.value == traced.value and plain_read.spans == ()
    assert len(traced.spans) == len(told.fields) and traced.spans[-1][1] <= traced.bits
    assert all(a[1] <= b[0] for a, b in pairwise(traced.spans))


def test_json_of_a_unit_is_shown_and_other_json_is_not_taken() -> None:
    told = explain(Capture(b'{"msgCnt": 1, "participants": [{"speed": 100}]}', topic="V2X/RSU/R1/RSM/UP"))
    assert told.ok and told.frames[0].title == "OpenV2X RSM"
    assert [one.value for one in told.frames[0].fields if one.name == "participants[0].speed"] == ["2 m/s"]
    assert not explain(Capture(b'{"deviceInfo": {}}')).ok
    assert not explain(Capture(b'[2,"1","Heartbeat",{}]')).ok


# -- hostile input


@given(st.binary(max_size=120), st.sampled_from(["csae53", "j2735"]), st.sampled_from(["none", "vendor"]))
@quick
def test_random_bytes_raise_nothing(data: bytes, which: Any, wrapping: Any) -> None:
    for prefix in (b"", b"\x00\x12\x60", b"\x00\x1f\x60"):
        for one in V2xEndpoint(Role.MASTER, which=which, wrapping=wrapping).feed(prefix + data, 0):
            assert isinstance(one, Heard | RemoteProtocolError)
        told = explain(Capture(prefix + data))
        assert told.ok or (told.error and told.detail)


@pytest.mark.parametrize("pattern", [b"\x00", b"\x10", b"\x20", b"\x30", b"\x40", b"\x55", b"\xff", b"\x12\x34\x56"])
@pytest.mark.parametrize("which", ["csae53", "j2735"])
def test_hostile_bytes_take_bounded_time(which: Any, pattern: bytes) -> None:
    data = (pattern * schema.MAX_BYTES)[: schema.MAX_BYTES]
    for kind in ("MapData", "SPAT", "BasicSafetyMessage", "MessageFrame"):
        if kind not in schema.types(which):
            continue
        begin_s = time.process_time()
        with contextlib.suppress(RemoteProtocolError):
            schema.decode(which, kind, data)
        # 8 kB take about 10 ms; a list without a bound, or one of elements without bits, would take seconds.
        assert time.process_time() - begin_s < 1.0
