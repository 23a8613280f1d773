"""GB/T 32960: real frames both ways, both issues, values that are none, and what vehicles do beside the standard."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.gb32960 import bodies
from protocols.gb32960 import items as i
from protocols.gb32960 import messages as m
from protocols.gb32960.endpoint import LOGIN_REST_MS, LOGIN_RETRY_MS, Gb32960Endpoint
from protocols.gb32960.explain import explain
from tests.protocols import samples_gb32960 as samples
from tests.protocols.vectors import Vector, vectors

NOW_MS = 1_785_542_730_000  # 2026-08-01 08:05:30 +08:00
STAMP = m.stamp_at(NOW_MS)
VIN = m.vin_bytes("LFWADRJF011002346")


def report(*items: i.Item, command: int = m.REALTIME, stamp: bytes = STAMP, **more: Any) -> m.Message:
    return m.Message(command, VIN, bodies.report_data(stamp, items), **more)


def received(data: bytes, role: Role = Role.MASTER) -> list[m.Message | RemoteProtocolError]:
    endpoint = Gb32960Endpoint(role)
    return endpoint.feed(data, 0) + endpoint.tick(1_000_000)


def said(message: m.Message) -> dict[str, Any]:
    return explain(Capture(m.encode(message))).said()


# -- vectors


def bytes_of(row: Vector) -> bytes:
    return bytes.fromhex(row["hex"] if "hex" in row else "".join(row["chunks"]))


@pytest.mark.parametrize("row", vectors("gb32960", "frame", "stream"))
def test_frames_go_back_out_as_they_came(row: Vector) -> None:
    data = bytes_of(row)
    found = received(data)
    messages = [one for one in found if isinstance(one, m.Message)]
    if row["expect"].get("ok") is False:
        assert messages == [] and found
        return
    assert len(messages) == len(found) == row["expect"].get("frames", 1)
    assert b"".join(m.encode(message) for message in messages) == data
    for message in messages:
        body = bodies.read(message)
        if isinstance(body, bodies.Report):
            assert bodies.report_data(body.stamp, body.items) + body.rest == message.data
            for one in body.items:
                assert i.item(one.type, one.values, message.edition) == one  # rebuilt from what it says


@pytest.mark.parametrize(
    "row", [r for r in vectors("gb32960", "frame") if "reply_hex" in r.values[0].get("expect", {})]
)
def test_replies(row: Vector) -> None:
    (message,) = received(bytes_of(row))
    assert isinstance(message, m.Message)
    assert m.encode(m.reply(message)).hex() == row["expect"]["reply_hex"]


@pytest.mark.parametrize("row", vectors("gb32960", "stream"))
def test_streams_as_received(row: Vector) -> None:
    endpoint = Gb32960Endpoint(Role.MASTER)
    found = [one for chunk in row["chunks"] for one in endpoint.feed(bytes.fromhex(chunk), 0)]
    assert [one.command for one in found if isinstance(one, m.Message)] == row["expect"]["cmds"]
    assert endpoint.deadline() is None  # nothing is waiting


# -- values


@pytest.mark.parametrize("edition", ["2016", "2025"])
def test_an_item_without_values_says_invalid_everywhere(edition: i.Edition) -> None:
    table = i.ITEMS_2016 if edition == "2016" else i.ITEMS_2025
    for kind in table:
        one = i.item(kind, {}, edition)
        assert i.read_body(kind, one.body, edition) == one.values
        assert i.parse_items(one.data, edition) == ((one,), b"")
    vehicle = i.item(1, {}, edition).values
    assert {vehicle[name] for name in ("speed_kmh", "mileage_km", "soc", "state", "insulation_kohm")} == {"invalid"}


@pytest.mark.parametrize("edition", ["2016", "2025"])
def test_items_survive(edition: i.Edition) -> None:
    @given(samples.items(edition))
    @settings(max_examples=60, derandomize=True, deadline=None)
    def body(items: list[i.Item]) -> None:
        assert i.parse_items(i.join(items), edition) == (tuple(items), b"")

    body()


@given(st.binary(max_size=120), samples.editions)
@settings(max_examples=400, derandomize=True, deadline=None)
def test_any_bytes_are_items_and_a_rest(data: bytes, edition: i.Edition) -> None:
    items, rest = i.parse_items(data, edition)
    joined = i.join(items)
    assert joined + rest == data or (edition == "2025" and len(joined) + len(rest) == len(data))


def test_fefe_is_an_ordinary_absurd_value() -> None:
    (one,), _ = i.parse_items(bytes.fromhex("0201fe" + "fe" * 11))
    motor = one.values["motors"][0]
    assert (motor["state"], motor["temp_c"], motor["voltage_v"]) == ("abnormal", "abnormal", 6527.8)


def test_scaling_differs_between_issues() -> None:
    old = i.item(1, {"current_a": -12.5}, "2016").body
    assert i.read_body(1, old, "2016")["current_a"] == -12.5  # type: ignore[index]
    assert i.item(1, {"current_a": -12.5}, "2025").values["current_a"] == -12.5
    assert i.item(1, {"current_a": -12.5}, "2025").body[10:12] != old[10:12]


def test_south_and_west() -> None:
    one = i.item(5, {"status": 6, "lon": -70.5, "lat": -33.25})
    assert (one.values["lon"], one.values["lat"], one.values["valid"]) == (-70.5, -33.25, True)
    assert i.item(5, {"status": 1}).values["valid"] is False
    assert i.item(5, {"status": 0, "datum": "gcj02", "lon": 1.0, "lat": 2.0}, "2025").values["datum"] == "gcj02"


def test_a_count_of_ff_is_no_list() -> None:
    """Fault lists that a terminal does not know are counted FF, "invalid", and have no entries."""
    (one,), rest = i.parse_items(bytes.fromhex("07ff00000000ffffffff"))
    assert rest == b""
    assert (one.values["level"], one.values["battery_faults"]) == ("invalid", [])


def test_gear() -> None:
    for raw, gear in ((0x00, "N"), (0x01, "1"), (0x0C, "12"), (0x0D, "R"), (0x0E, "D"), (0x0F, "P")):
        assert i.item(1, {"gear_raw": raw}).values["gear"] == gear
    values = i.item(1, {"gear_raw": 0xAE}, "2025").values
    assert (values["gear"], values["driving"], values["braking"], values["position_valid"]) == ("D", True, False, False)


# -- deviations


def test_vendor_items_without_a_length_do_not_kill_the_frame() -> None:
    good = i.item(1, {"speed_kmh": 42.0})
    values = said(m.Message(m.REALTIME, VIN, STAMP + good.data + b"\x81" + b"\x01\x00\x05" * 10))
    assert [one["name"] for one in values["items"]] == ["vehicle"]
    assert values["items"][0]["speed_kmh"] == 42.0
    assert values["left"] == 31


def test_the_same_item_twice_and_in_any_order() -> None:
    items = (i.item(9, {}), i.item(1, {"soc": 10}), i.item(1, {"soc": 11}), i.item(5, {"status": 1}))
    found = bodies.read(report(*items))
    assert isinstance(found, bodies.Report) and found.items == items


def test_unknown_bytes_before_and_after_the_signature() -> None:
    sign = i.item(0xFF, {"algo": "rsa", "r": "aabb", "s": ""}, "2025")
    vehicle = i.item(1, {"soc": 50}, "2025")
    items, rest = i.parse_items(vehicle.data + b"\x0a\x01\x02" + sign.data, "2025")
    assert (items, rest) == ((vehicle, sign), b"\x0a\x01\x02")
    items, rest = i.parse_items(vehicle.data + sign.data + b"\x00\x07", "2025")
    assert (items, rest) == ((vehicle, sign), b"\x00\x07")


def test_a_queue_prefix_and_start_marks_inside_data() -> None:
    inside = i.item(0x80, {"hex": b"##$$##".hex() * 3})
    data = m.encode(report(inside))
    for prefix in (b"kafka-key:", b"##", b"$$\x02\xfe", data[:30]):
        found = [one for one in received(prefix + data + data) if isinstance(one, m.Message)]
        assert found == [report(inside)] * 2


def test_a_platform_with_a_chinese_name() -> None:
    message = m.Message(m.PLATFORM_LOGIN, m.vin_bytes("合肥市监控平台"), STAMP + bytes(35))
    (found,) = received(m.encode(message))
    assert isinstance(found, m.Message) and found.vin == "合肥市监控平台"


def test_an_empty_heartbeat_answer() -> None:
    """One library stumbles over it."""
    answer = m.reply(m.Message(m.HEARTBEAT, VIN))
    assert answer.data == b""
    (found,) = received(m.encode(answer), Role.SLAVE)
    assert isinstance(found, m.Message) and bodies.read(found) == bodies.Opaque()


def test_encrypted_data_are_kept_not_guessed() -> None:
    sealed = m.Message(m.REALTIME, VIN, b"\x17\x08\x01cipher", encryption=3)
    assert bodies.read(sealed) == bodies.Sealed(sealed.data)
    assert sealed.stamp == b""
    told = explain(Capture(m.encode(sealed)))
    assert told.ok and any("not readable without the key" in hint for hint in told.frames[0].hints)
    answer = m.reply(sealed, m.CANNOT_DECRYPT, now_ms=NOW_MS)
    assert (answer.answer, answer.encryption, answer.data) == (m.CANNOT_DECRYPT, m.PLAIN, STAMP)


def test_data_too_short_for_the_command() -> None:
    for command, data in (
        (m.LOGIN, STAMP),
        (m.REALTIME, b"\x1a"),
        (m.LOGOUT, STAMP),
        (m.KEY, b"\x01\x00\xff"),
        (m.SET, STAMP),
    ):
        with pytest.raises(RemoteProtocolError):
            bodies.read(m.Message(command, VIN, data))
        assert said(m.Message(command, VIN, data))["ok"]  # the frame itself is whole


# -- bodies


def test_logins() -> None:
    data = bodies.login_data(STAMP, 65531, "89860924790023166606", ["10001", "10002"])
    assert bodies.read(m.Message(m.LOGIN, VIN, data)) == bodies.Login(
        STAMP, 65531, "89860924790023166606", 5, (("10001", "10002"),)
    )
    none = bodies.read(m.Message(m.LOGIN, VIN, bodies.login_data(STAMP, 1, "1")))
    assert isinstance(none, bodies.Login) and none.packs == ((),)
    data = bodies.login_data_2025(STAMP, 12, "1", [["A" * 24], ["B" * 24, "C" * 24]])
    new = bodies.read(m.Message(m.LOGIN, VIN, data, edition="2025"))
    assert isinstance(new, bodies.Login) and [len(bms) for bms in new.packs] == [1, 2]


def test_orders() -> None:
    query = m.Message(m.QUERY, VIN, STAMP + b"\x03\x02\x09\x0f")
    assert bodies.read(query) == bodies.Query(STAMP, (2, 9, 15))
    answered = m.Message(m.QUERY, VIN, STAMP + b"\x05\x02\x00\x1e\x04\x03\x05abc\x07V1.20\x10\x01", m.OK)
    wanted = ((2, 30), (4, 3), (5, "abc"), (7, "V1.20"), (16, 1))
    assert bodies.read(answered) == bodies.Parameters(STAMP, wanted)
    assert bodies.read(m.Message(m.SET, VIN, STAMP + b"\x01\x02\x1e", edition="2025")) == bodies.Parameters(
        STAMP, ((2, 30),)
    )
    assert bodies.read(m.Message(m.CONTROL, VIN, STAMP + b"\x03")) == bodies.Control(STAMP, 3)
    with pytest.raises(RemoteProtocolError):
        bodies.read(m.Message(m.SET, VIN, STAMP + b"\x01\x77\x00"))
    key = m.Message(m.KEY, VIN, b"\x02\x00\x03key" + STAMP + STAMP, edition="2025")
    assert bodies.read(key) == bodies.KeyExchange(2, b"key", STAMP, STAMP)


def test_values_sent_with_the_flag_of_a_question() -> None:
    values = b"\x05\x01\x13\x88\x04\x03\x05abc\x0d\x02\x0e" + b"de"
    sent = m.Message(m.QUERY, VIN, STAMP + values)
    wanted = ((1, 5000), (4, 3), (5, "abc"), (13, 2), (14, "de"))
    assert bodies.read(sent) == bodies.Parameters(STAMP, wanted)
    # Bytes behind the numbers that are no such list: still the question.
    assert bodies.read(m.Message(m.QUERY, VIN, STAMP + b"\x02\x01\x02\xff")) == bodies.Query(STAMP, (1, 2))


def test_reports_without_the_time_or_under_an_answer_flag_are_told() -> None:
    items = (i.item(0x04, {"state": "on", "crank_rpm": 2000}), i.item(0x05, {"lon": 117.045208, "lat": 30.34461}))
    want = ["engine", "position"]
    for answer in (m.IS_COMMAND, m.OK):
        bare = m.Message(m.REALTIME, VIN, i.join(items), answer)
        assert [one["name"] for one in said(bare)["items"]] == want
        assert "time" not in said(bare)
        fields = explain(Capture(m.encode(bare))).frames[0].fields
        (rpm,) = [one for one in fields if one.name == "items[0].crank_rpm"]
        assert rpm.offset == 24 + 2
    answered = said(replace(report(*items), answer=m.OK))
    assert ([one["name"] for one in answered["items"]], answered["time"]) == (want, "2026-08-01 08:05:30")
    unset = said(report(*items, stamp=b"\xff" * 6))
    assert ([one["name"] for one in unset["items"]], unset["time"]) == (want, None)
    # A connector takes neither: nobody knows when that was.
    assert bodies.read(m.Message(m.REALTIME, VIN, i.join(items), m.OK)) == bodies.Stamp(i.join(items)[:6])


def test_an_encryption_byte_of_zero_is_data_in_clear() -> None:
    sent = replace(report(i.item(0x04, {"state": "on", "crank_rpm": 2000})), encryption=m.UNSAID)
    told = said(sent)
    assert (told["encrypt"], told["items"][0]["crank_rpm"]) == (0, 2000)
    assert sent.stamp == STAMP
    for asked in (sent, m.Message(m.CLOCK, VIN, encryption=m.UNSAID)):
        answer = m.reply(asked, now_ms=NOW_MS)
        assert (answer.encryption, answer.data) == (m.UNSAID, STAMP)


def test_data_that_end_early_say_what_they_say() -> None:
    whole = bodies.login_data(STAMP, 7, "89860924790023166606", ["10001", "10002"])
    told = said(m.Message(m.LOGIN, VIN, whole[:-3]))
    assert (told["time"], told["sn"], told["iccid"]) == ("2026-08-01 08:05:30", 7, "89860924790023166606")
    assert (told["battery_code_len"], told["batteries"], told["left"]) == (5, [], 7)
    for command in (m.LOGIN, m.LOGOUT, m.PLATFORM_LOGIN, m.SET):
        told = said(m.Message(command, VIN, STAMP))
        assert (told["time"], told["data_hex"]) == ("2026-08-01 08:05:30", STAMP.hex())
    assert "time" not in said(m.Message(m.KEY, VIN, STAMP[:2], edition="2025"))


def test_the_name_of_a_platform_may_be_cut_in_the_middle_of_a_character() -> None:
    raw = "合肥新能源汽车平台".encode("gb18030")[: m.VIN_BYTES]
    told = said(m.Message(m.HEARTBEAT, raw))
    assert told["ok"] and told["vin"].startswith("合肥新能源汽车平")
    assert explain(Capture(m.encode(m.Message(m.HEARTBEAT, b"\xff" * 17)))).error == "vin"


def test_times() -> None:
    assert STAMP.hex() == "1a080108051e"
    assert m.parse_time(STAMP) == datetime(2026, 8, 1, 8, 5, 30)
    assert m.time_ms(STAMP) == NOW_MS
    for unset in (b"\xff" * 6, bytes(6), b"\x1a\x02\x1e\x00\x00\x00"):
        assert m.time_ms(unset) is None
    assert m.reply(m.Message(m.CLOCK, VIN), now_ms=NOW_MS).data == STAMP
    with pytest.raises(LocalProtocolError):
        m.stamp_at(0)  # 1970: the byte counts from 2000


def test_what_cannot_be_said() -> None:
    for bad in (m.Message(m.LOGIN, b"short"), m.Message(256, VIN), m.Message(m.REALTIME, VIN, bytes(65_532))):
        with pytest.raises(LocalProtocolError):
            m.encode(bad)
    for values in ({"speed_kmh": 7000.0}, {"state": "flying"}):
        with pytest.raises(LocalProtocolError):
            i.item(1, values)
    with pytest.raises(LocalProtocolError):
        i.item(0x30, {}, "2016")
    with pytest.raises(LocalProtocolError):
        Gb32960Endpoint(Role.SLAVE).send(m.Message(m.QUERY, VIN, STAMP), 0)
    with pytest.raises(LocalProtocolError):
        Gb32960Endpoint(Role.MASTER).send(report(), 0)
    with pytest.raises(LocalProtocolError):
        m.vin_bytes("a number of far too many digits")


# -- conversation


def test_an_answer_belongs_to_the_oldest_of_that_command_and_time() -> None:
    car = Gb32960Endpoint(Role.SLAVE)
    first, second = report(i.item(8, {})), report(i.item(9, {}))  # over 200 cells: two frames of one moment
    car.send(first, 0), car.send(second, 1)
    car.feed(m.encode(m.reply(first)), 100)
    assert car.unanswered == (second,)
    car.feed(m.encode(m.reply(report(stamp=m.stamp_at(NOW_MS + 1000)))), 100)
    assert car.unanswered == (second,)  # that was for another moment


def test_unanswered_reports_come_again_as_03_with_their_own_time() -> None:
    car, platform = Gb32960Endpoint(Role.SLAVE), Gb32960Endpoint(Role.MASTER)
    car.send(m.Message(m.LOGIN, VIN, bodies.login_data(STAMP, 1, "1")), 0)
    car.send(report(i.item(1, {"soc": 50})), 0)
    car.connected(60_000)
    assert car.tick(60_000) == []
    (again,) = platform.feed(car.take_output(), 60_000)
    assert again == report(i.item(1, {"soc": 50}), command=m.RESENT)
    assert isinstance(again, m.Message)
    car.feed(platform.send(m.reply(again), 60_100), 60_100)
    assert car.unanswered == ()


def test_a_login_is_repeated_each_minute_then_rests_half_an_hour() -> None:
    car = Gb32960Endpoint(Role.SLAVE)
    login = car.send(m.Message(m.LOGIN, VIN, bodies.login_data(STAMP, 1, "1")), 0)
    now_ms = 0
    for _ in range(3):
        now_ms += LOGIN_RETRY_MS
        assert car.deadline() == now_ms
        car.tick(now_ms)
        assert car.take_output() == login
    now_ms += LOGIN_RETRY_MS
    car.tick(now_ms)
    assert car.take_output() == b"" and car.deadline() == now_ms + LOGIN_REST_MS


def test_an_order_nobody_answers_is_given_up_and_said() -> None:
    platform = Gb32960Endpoint(Role.MASTER, repeats=0)
    platform.send(m.Message(m.QUERY, VIN, STAMP + b"\x01\x09"), 0)
    (error,) = platform.tick(10_000)
    assert isinstance(error, RemoteProtocolError) and error.reason == "no_answer"
    assert platform.deadline() is None


# -- explanation


def test_what_is_wrong_is_named() -> None:
    good = m.encode(report(i.item(1, {})))

    def changed(at: int, value: int) -> str:
        data = bytearray(good)
        data[at] = value
        return explain(Capture(bytes(data))).error

    assert changed(0, 0x24) == changed(1, 0x24) == "start"
    assert [changed(*one) for one in ((2, 0x44), (3, 0x33), (21, 0x09), (5, 0x01), (31, 0x07))] == [
        "command", "answer", "encryption", "vin", "checksum"
    ]  # fmt: skip
    assert changed(22, 0x7F) == explain(Capture(good[:40])).error == explain(Capture(good[:1])).error == "truncated"
    assert explain(Capture(b"")).error == "empty"


def test_a_sum_instead_of_an_xor_is_hinted() -> None:
    data = bytearray(m.encode(report(i.item(1, {"soc": 50}))))
    data[-1] = sum(data[2:-1]) & 0xFF
    (told,) = explain(Capture(bytes(data))).frames
    assert any("added, not combined by XOR" in hint for hint in told.hints)


def test_offsets_point_at_the_bytes() -> None:
    one = report(i.item(2, {"motors": [{"no": 1, "temp_c": 20}, {"no": 2, "temp_c": 33}]}))
    data = b"prefix" + m.encode(one)
    told = explain(Capture(data)).good[0]
    field = {field.name: field for field in told.fields}["items[0].motors[1].temp_c"]
    assert field.offset is not None and data[field.offset] - 40 == field.value == 33


@given(st.binary(max_size=60), st.integers(0, 59), samples.from_vehicle, st.booleans())
@settings(max_examples=200, derandomize=True, deadline=None)
def test_explain_takes_anything(data: bytes, at: int, message: m.Message, alone: bool) -> None:
    raw = bytearray(data if alone else m.encode(replace(message, answer=m.IS_COMMAND)))
    raw[at : at + 1] = data[:1]
    told = explain(Capture(bytes(raw)))
    assert told.ok or (told.error and told.detail)
    item = explain(Capture(data, kind="item", extra={"item_type": at}))
    assert item.ok or item.error == "item"
