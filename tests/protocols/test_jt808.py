"""JT/T 808: each deviation that the fact sheet lists, sub-packages, resends, datum."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.jt808 import extras, fields, gcj02, media, platform, position, terminal
from protocols.jt808.body import Body, Opaque
from protocols.jt808.endpoint import Jt808Endpoint
from protocols.jt808.explain import explain
from protocols.jt808.frame import ALTERNATIVE, Frame, bcc, bcc_slowly, build, escape, judge, raw, read
from protocols.jt808.messages import Message, frames, parse

PHONE = "013912344323"
NOW_MS = 1_772_409_600_000
HERE = position.make(lat=31.82, lon=117.22, time_ms=NOW_MS, extras=((0x01, b"\0\0\0\x64"),))


def frame_of(body: Body, serial: int = 0, version: str = "2013") -> Frame:
    phone = PHONE if version == "2013" else PHONE.rjust(20, "0")
    (one,) = frames(Message(phone, body, serial, version), serial, 1023)  # type: ignore[arg-type]
    return one


def read_one(frame: Frame) -> Message:
    (message,) = Jt808Endpoint(Role.MASTER).feed(build(frame), 0)
    assert isinstance(message, Message)
    return message


# -- frames


@given(st.binary(max_size=300))
@settings(derandomize=True, max_examples=200)
def test_the_quick_bcc_is_the_xor_of_every_byte(data: bytes) -> None:
    assert bcc(data) == bcc_slowly(data)


@pytest.mark.parametrize("version", ["2013", "2019"])
def test_version_flag_and_layout_disagree_in_both_directions(version: str) -> None:
    frame = replace(frame_of(terminal.PositionReport(HERE), 5, version), flag_wrong=True)
    message = read_one(frame)
    assert message.flag_wrong
    assert (message.version, message.serial) == (version, 5)
    assert message.body == terminal.PositionReport(HERE)
    assert any("version flag" in hint for hint in explain(Capture(build(frame))).frames[0].hints)


def test_a_length_off_by_one_costs_that_frame_only() -> None:
    plain = bytearray(raw(frame_of(terminal.PositionReport(HERE))))
    plain[3] += 1
    plain[-1] = bcc(bytes(plain[:-1]))
    wire = b"\x7e" + escape(bytes(plain)) + b"\x7e"
    error, message = Jt808Endpoint(Role.MASTER).feed(wire + build(frame_of(terminal.Heartbeat())), 0)
    assert isinstance(error, RemoteProtocolError)
    assert error.reason == "length"
    assert isinstance(message, Message)
    told = explain(Capture(wire))
    assert told.error == "length"
    assert any("off by one" in hint for hint in told.frames[0].hints)


def test_one_delimiter_may_end_a_frame_and_start_the_next() -> None:
    wires = [build(frame_of(terminal.Heartbeat(), n)) for n in range(3)]
    shared = wires[0] + wires[1][1:] + b"\x7e\x7e" + wires[2]
    found = Jt808Endpoint(Role.MASTER).feed(shared, 0)
    assert [one.serial for one in found if isinstance(one, Message)] == [0, 1, 2]
    assert len(found) == 3


def test_lines_of_text_on_the_same_port() -> None:
    wire = build(frame_of(terminal.Heartbeat()))
    found = Jt808Endpoint(Role.MASTER).feed(b"(0123456789,BASE,2,TIME)" + wire + b"(again)" + wire, 0)
    reasons = [one.reason for one in found if isinstance(one, RemoteProtocolError)]
    assert reasons == ["garbage", "garbage"]
    assert len([one for one in found if isinstance(one, Message)]) == 2


def test_trackers_that_delimit_with_e7() -> None:
    body = terminal.Transparent(0xF0, bytes.fromhex("7ee73e3de67d"))
    wire = b"\xe7" + _escape_e7(raw(frame_of(body))) + b"\xe7"
    endpoint = Jt808Endpoint(Role.MASTER)
    (message,) = [one for one in endpoint.feed(wire, 0) if isinstance(one, Message)]
    assert message.body == body
    (second,) = endpoint.feed(wire, 0)  # settled: a 7E inside is a byte like any other
    assert isinstance(second, Message)
    plain = Frame(0x0002, PHONE, 1)
    (message,) = Jt808Endpoint(Role.MASTER).feed(b"\xe7" + _escape_e7(raw(plain)) + b"\xe7", 0)
    assert isinstance(message, Message)
    told = explain(Capture(wire))
    assert told.ok
    assert any("E7" in hint for hint in told.frames[0].hints)


def _escape_e7(plain: bytes) -> bytes:
    table = {meant[0]: written for written, meant in ALTERNATIVE.escapes}
    return b"".join(table.get(byte, bytes((byte,))) for byte in plain)


def test_a_dump_that_was_unescaped_before_is_told_with_a_hint() -> None:
    plain = raw(frame_of(terminal.Transparent(0xF0, b"\x7d\x7e\x7d")))
    told = explain(Capture(b"\x7e" + plain + b"\x7e"))
    assert told.ok
    assert any("un-escaped" in hint for hint in told.frames[0].hints)
    assert not explain(Capture(b"\x7e" + plain + b"\x7e", strict=True)).ok


def test_numbers_that_are_no_bcd() -> None:
    packed_imei = Frame(0x0200, "0b3a73ce2ff2", 1, position.encode(HERE))
    assert read_one(packed_imei).phone == "0b3a73ce2ff2"
    imei = Frame(0x0002, "00000866496077582164", 1, version="2019")
    assert read_one(imei).phone == "00000866496077582164"


def test_encrypted_bodies_stay_bytes() -> None:
    frame = replace(frame_of(terminal.PositionReport(HERE)), encryption=2)
    body = read_one(frame).body
    assert isinstance(body, Opaque)
    assert (body.why, body.data) == ("encrypted", frame.body)
    assert explain(Capture(build(frame))).said()["encrypt"] == 2


def test_unknown_and_short_bodies_are_still_messages() -> None:
    unknown = read_one(Frame(0x0F77, PHONE, 9, b"abc")).body
    assert isinstance(unknown, Opaque)
    assert (unknown.why, unknown.data) == ("unknown", b"abc")
    short = read_one(Frame(0x0200, PHONE, 9, b"abc")).body
    assert isinstance(short, Opaque)
    assert short.why == "malformed"


def test_header_that_cannot_be_said() -> None:
    for frame in (
        Frame(0x0002, "123", 0),
        Frame(0x0002, "z" * 12, 0),
        Frame(0x0002, PHONE, 0, bytes(1024)),
        Frame(0x0002, PHONE, 70_000),
        Frame(0x0002, PHONE, 0, total=2, index=3),
    ):
        with pytest.raises(LocalProtocolError):
            build(frame)


# -- positions


def test_extras_that_run_over_the_end_keep_the_good_ones() -> None:
    data = position.encode(HERE) + bytes.fromhex("300119 0304 0102".replace(" ", ""))
    found = position.parse(data)
    assert found.extras == (*HERE.extras, (0x30, b"\x19"))
    assert found.tail == bytes.fromhex("03040102")
    assert position.encode(found) == data


@pytest.mark.parametrize(
    ("item", "value", "said"),
    [
        (0xEB, "0004002d0fa5", {"battery_v": 4.005}),
        (0xE1, "0072", {"power_v": 11.4}),
        (0xE1, "63", {"battery_percent": 99}),
        (0xE4, "0063", {"battery_percent": 99}),
        (0x56, "0900", {"battery_percent": 90}),
        (0x51, "80640032ffff" + "0000" * 5, {"temperatures": [-10.0, 5.0, None, 0, 0, 0, 0, 0]}),
        (0x06, "ffce", {"cabin_temperature": -50}),
        (0x18, "000000", {"abnormal_driving": 0}),
        (0x16, "01", {}),  # a standard id with a length that is not its own
        (0x01, "0102", {}),
        (0xEB, "00ff002d", {}),
        (0xEB, "000300e164", {"battery_percent": 100}),
        (0xEB, "0006002d00002db4", {"power_v": 11.7}),
        (0xEB, "00080023" + b"001.47".hex() + "0005000101a500", {"fuel2": 1.47, "fuel1": 42.1}),
        (0xEB, b"UTC+08:00".hex(), {"timezone": "UTC+08:00"}),
        (0x51, "8017", {"temp1": -2.3}),
        (0xF6, "071eff940261", {"event": 7, "temp1": -10.8, "humidity": 60.9}),
        (0xF6, "0865413057160185", {}),
        (
            0x77,
            "017e19f100384d08",
            {"tyres": [{"tyre": 1, "sensor": "7e19f1", "pressure": 1.4, "temperature": 27, "state": 8}]},
        ),
        (0x82, "0092", {"power_v": 14.6}),
        (0xD4, "64", {"battery_percent": 100}),
        (0xD5, "01a2", {"battery_v": 4.18}),
        (0xE3, "0064019a0000", {"battery_percent": 100, "battery_v": 4.1}),
        (0xE6, b"$OBD-RT,12.3,830,,\r\n".hex(), {"power_v": 12.3, "rpm": 830}),
        (0xF1, "0000308c", {"power_v": 12.428}),
        (0xFE, "45", {"battery_percent": 69}),
        (0xFE, "00000090", {}),
        (0xBC, (b"DRIVER A" + bytes(42)).hex(), {"driver": "DRIVER A"}),
    ],
)
def test_extra_items_by_maker(item: int, value: str, said: dict[str, object]) -> None:
    found = extras.meaning(item, bytes.fromhex(value))
    assert {key: found.get(key) for key in said} == said
    assert bool(found) == bool(said)


def test_south_and_west_as_bits_or_as_twos_complement() -> None:
    by_bits = position.make(lat=-33.9, lon=-70.6, time_ms=NOW_MS)
    assert (by_bits.lat, by_bits.lon, by_bits.positioned) == (-33.9, -70.6, True)
    signed = replace(by_bits, status=0b11, lat_raw=(1 << 32) - 33_900_000, lon_raw=(1 << 32) - 70_600_000)
    assert (signed.lat, signed.lon, signed.positioned) == (-33.9, -70.6, True)


@pytest.mark.parametrize(
    "change",
    [
        {"lat_raw": 117_220_000, "lon_raw": 31_820_000},  # swapped
        {"lat_raw": 0, "lon_raw": 0},  # nowhere, but "positioned"
        {"status": 0b01},  # the last fix again
        {"status": 0b10_0011},  # encrypted coordinates
    ],
)
def test_places_that_are_not_believed(change: dict[str, int]) -> None:
    assert HERE.positioned
    assert not replace(HERE, **change).positioned


def test_altitude_ffff_is_none_and_below_the_sea_is_signed() -> None:
    assert replace(HERE, altitude_m=-1).altitude is None
    assert position.parse(position.encode(replace(HERE, altitude_m=-155))).altitude == -155


@pytest.mark.parametrize("bcd", ["ffffffffffff", "000000000000", "261301000000", "1a0b0c0d0e0f", "260230000000"])
def test_clocks_that_are_not_set(bcd: str) -> None:
    assert replace(HERE, time=bytes.fromhex(bcd)).time_ms is None


def test_times_are_utc_plus_8() -> None:
    assert HERE.time_ms == NOW_MS
    assert fields.time_text(HERE.time) == "2026-03-02 08:00:00"


# -- bodies


def test_driver_card_with_plain_binary_date() -> None:
    body = bytes((2, 26, 3, 2, 8, 30, 45))
    frame = Frame(0x0702, PHONE, 1, body)
    told = explain(Capture(build(frame))).said()["body"]
    assert (told["time"], told["time_hex"]) == ("2026-03-02 08:30:45", "1a0302081e2d")


def test_properties_with_mixed_widths() -> None:
    for widths in ((5, 20, 7), (5, 30, 30), (11, 30, 30)):
        body = terminal.Properties(7, "MAKER", "M-1", "T7", "89860123456789012345", "H1.0", "F2.13", 3, 1, widths)
        for version in ("2013", "2019"):
            assert read_one(frame_of(body, 1, version)).body == body


def test_properties_without_the_module_bits() -> None:
    body = terminal.Properties(66, "12345", "M", "7654321", "11112233445566778899", "hd-v1", "fm-v3", None, None)
    assert read_one(frame_of(body, 1, "2013")).body == body


def test_transparent_lines_are_told() -> None:
    line = b"$OBD-RT,12.3,0,20,0.00,0.00,0,10.89,31.15,181.68,181,54.26,565.96,0,0,0\r\n"
    said = explain(Capture(build(Frame(0x0900, PHONE, 1, b"\x41" + line)))).said()
    assert said["vendor"]["fuel_used_l"] == 565.96
    assert said["vendor"]["obd_speed_kmh"] == 20
    assert "vendor" not in explain(Capture(build(Frame(0x0900, PHONE, 1, b"\x41\x01\x02\xff")))).said()


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        ("7e010203047e05067e0708097e", ["7e010203047e", "7e0708097e"]),
        ("7e010203047e05067e070809", ["7e010203047e"]),
        ("05067e010203047e7e0708097e05", ["7e010203047e", "7e0708097e"]),
    ],
)
def test_without_a_checksum_delimiters_go_in_pairs(stream: str, frames: list[str]) -> None:
    told = explain(Capture(bytes.fromhex(stream), extra={"chunks": [stream]})).said()
    assert told["raw_frames"] == frames
    assert told["frames"] == []


@pytest.mark.parametrize(("behind", "pending"), [("", 0), ("deadbeef", 4), ("7e0100002d", 5), ("7e", 0)])
def test_bytes_behind_a_frame_are_counted_without_its_delimiter(behind: str, pending: int) -> None:
    told = explain(Capture(bytes.fromhex("7e000200000123456789017fff0a7e" + behind))).said()
    assert (len(told["frames"]), told["pending_bytes"]) == (1, pending)


def test_a_body_that_cannot_be_read_comes_out_raw() -> None:
    told = explain(Capture(build(Frame(0x0200, PHONE, 1, bytes(20)))))
    assert told.said()["body"] == {"data_hex": "00" * 20}
    assert any("cannot be read" in hint for hint in told.frames[0].hints)
    said = explain(Capture(build(Frame(0x8103, PHONE, 1, bytes.fromhex("0200000001040000"))))).said()["body"]
    assert (said["count"], said["data_hex"]) == (2, "0200000001040000")


def test_resend_requests_with_either_count_width() -> None:
    for version in ("2013", "2019"):
        for wide in (False, True):
            body = platform.ResendRequest(4249, (1, 2, 9), wide)
            assert parse(frame_of(body, 1, version)).body == body


def test_picture_of_2011_has_no_position() -> None:
    picture = b"\xff\xd8\xff\xe0" + bytes(60)
    body = read_one(frame_of(media.MediaData(1, 0, 0, 1, 1, None, picture))).body
    assert isinstance(body, media.MediaData)
    assert (body.location, body.data) == (None, picture)
    body = read_one(frame_of(media.MediaData(1, 0, 0, 1, 1, replace(HERE, extras=()), picture))).body
    assert isinstance(body, media.MediaData)
    assert body.location == replace(HERE, extras=())


def test_texts_filled_with_spaces_or_nuls() -> None:
    raw_body = (
        bytes.fromhex("00220064") + b"MAKER" + b"M-1".ljust(20) + b"\0\0\0\0T77" + b"\x02" + "皖A12345".encode("gbk")
    )
    body = read_one(Frame(0x0100, PHONE, 1, raw_body)).body
    assert isinstance(body, terminal.Register)
    assert (body.model, body.terminal_id, body.plate, body.province) == ("M-1", "T77", "皖A12345", 34)


def test_authentication_code_is_in_no_repr() -> None:
    assert "s3cret" not in repr(terminal.Authenticate("s3cret"))
    assert "s3cret" not in repr(platform.RegisterAnswer(1, 0, "s3cret"))


def test_2019_header_with_a_bare_code() -> None:
    body = read_one(Frame(0x0102, PHONE.rjust(20, "0"), 1, b"abcdef", "2019")).body
    assert body == terminal.Authenticate("abcdef")


# -- sub-packages

PICTURE = media.MediaData(9, 0, 0, 1, 1, None, b"\xff\xd8\xff" + bytes(range(256)) * 12)


def parts_of(serial: int = 100, body: Body = PICTURE) -> list[Frame]:
    return frames(Message(PHONE, body), serial, 1000)


def fed(endpoint: Jt808Endpoint, parts: list[Frame], now_ms: int = 0) -> list[Message]:
    found = endpoint.feed(b"".join(build(part) for part in parts), now_ms)
    return [one for one in found if isinstance(one, Message)]


def answers(endpoint: Jt808Endpoint) -> list[Body]:
    found = Jt808Endpoint(Role.SLAVE).feed(endpoint.take_output(), 0)
    return [one.body for one in found if isinstance(one, Message)]


def test_parts_in_any_order_make_the_message_and_all_but_the_last_are_answered() -> None:
    parts = parts_of()
    assert len(parts) == 4
    platform_end = Jt808Endpoint(Role.MASTER)
    (message,) = fed(platform_end, [parts[2], parts[0], parts[3], parts[1]])
    assert message.body == PICTURE
    assert message.serial == 100
    assert message.ack_serial == 103  # the part that ends it: answered by who stored the message
    assert answers(platform_end) == [platform.PlatformAnswer(serial, 0x0801) for serial in (102, 100, 101)]


def test_the_last_part_sent_again_gives_the_message_again() -> None:
    parts = parts_of()
    platform_end = Jt808Endpoint(Role.MASTER)
    assert len(fed(platform_end, parts)) == 1
    (again,) = fed(platform_end, parts[-1:])
    assert again.body == PICTURE
    assert fed(platform_end, parts[:1]) == []  # another one is only answered
    assert answers(platform_end)[-1] == platform.PlatformAnswer(100, 0x0801)


def test_missing_parts_are_asked_for_three_times_then_given_up() -> None:
    parts = parts_of()
    platform_end = Jt808Endpoint(Role.MASTER)
    fed(platform_end, [parts[0], parts[3]])
    answers(platform_end)
    asked: list[Body] = []
    errors: list[object] = []
    while (deadline_ms := platform_end.deadline()) is not None:
        errors += platform_end.tick(deadline_ms)
        asked += answers(platform_end)
    assert asked == [platform.ResendRequest(100, (2, 3))] * 3
    (error,) = errors
    assert isinstance(error, RemoteProtocolError)
    assert error.reason == "split_timeout"


def test_what_was_asked_for_may_come_under_new_serials() -> None:
    parts = parts_of()
    platform_end = Jt808Endpoint(Role.MASTER)
    fed(platform_end, [parts[0], parts[1], parts[3]])
    platform_end.tick(platform_end.deadline() or 0)
    assert len(fed(platform_end, [replace(parts[2], serial=777)])) == 1


def test_a_heartbeat_between_two_parts_shifts_the_serials() -> None:
    parts = [replace(part, serial=part.serial + 2 * n) for n, part in enumerate(parts_of())]
    assert len(fed(Jt808Endpoint(Role.MASTER), parts)) == 1


def test_a_new_message_does_not_fill_the_gap_of_an_old_one() -> None:
    old, new = parts_of(100), parts_of(200, replace(PICTURE, media_id=10))
    platform_end = Jt808Endpoint(Role.MASTER)
    (message,) = fed(platform_end, old[1:] + new)
    assert message.body == replace(PICTURE, media_id=10)


def test_serials_restart_with_the_device() -> None:
    platform_end = Jt808Endpoint(Role.MASTER)
    fed(platform_end, parts_of(0)[:2])
    (message,) = fed(platform_end, parts_of(0, replace(PICTURE, media_id=11)))
    assert message.body == replace(PICTURE, media_id=11)


def test_unfinished_messages_hold_bounded_memory() -> None:
    platform_end = Jt808Endpoint(Role.MASTER, max_joined_bytes=5_000)
    overflow = 0
    for n in range(40):
        for part in parts_of(1_000 * n)[:3]:
            found = platform_end.feed(build(replace(part, msg_id=0x0900 + n)), 0)
            overflow += sum(isinstance(one, RemoteProtocolError) for one in found)
            assert platform_end._joiner.held <= 5_000
    assert overflow > 30
    many = Frame(0x0801, PHONE, 1, b"x", total=60_000, index=5)
    (error,) = platform_end.feed(build(many), 0)
    assert isinstance(error, RemoteProtocolError)


def test_parts_of_a_stranger_are_neither_held_nor_answered() -> None:
    platform_end = Jt808Endpoint(Role.MASTER, accepts=lambda phone, msg_id: phone != PHONE)
    found = platform_end.feed(build(parts_of()[0]), 0)
    assert [one.reason for one in found if isinstance(one, RemoteProtocolError)] == ["unauthenticated"]
    assert platform_end.take_output() == b""
    assert platform_end.deadline() is None


@pytest.mark.parametrize("version", ["2013", "2019"])
def test_both_ends_repair_a_lost_part(version: str) -> None:
    phone = PHONE if version == "2013" else PHONE.rjust(20, "0")
    terminal_end, platform_end = Jt808Endpoint(Role.SLAVE, max_body=500), Jt808Endpoint(Role.MASTER, max_body=500)
    pieces = terminal_end.send(Message(phone, PICTURE, 7, version), 0).split(b"\x7e\x7e")  # type: ignore[arg-type]
    lost = b"\x7e".join([*pieces[:2], b"", *pieces[3:]])  # the third is gone
    assert [one for one in platform_end.feed(lost, 0) if isinstance(one, Message)] == []
    terminal_end.feed(platform_end.take_output(), 0)
    platform_end.tick(platform_end.deadline() or 0)
    terminal_end.feed(platform_end.take_output(), 0)
    found = platform_end.feed(terminal_end.take_output(), 0)
    assert [one.body for one in found if isinstance(one, Message)] == [PICTURE]


# -- resends of a terminal


def test_the_same_frame_is_sent_again_each_wait_longer() -> None:
    terminal_end = Jt808Endpoint(Role.SLAVE, keep=10, answer_timeout_ms=10_000, resends=3)
    wire = terminal_end.send(Message(PHONE, terminal.PositionReport(HERE)), 0)
    sent_at_ms: list[int] = []
    while (deadline_ms := terminal_end.deadline()) is not None:
        terminal_end.tick(deadline_ms)
        if output := terminal_end.take_output():
            assert output == wire
            sent_at_ms.append(deadline_ms)
    assert sent_at_ms == [10_000, 30_000, 60_000]
    assert [one.body for one in terminal_end.given_up] == [terminal.PositionReport(HERE)]


def test_an_answer_ends_the_resends() -> None:
    terminal_end, platform_end = Jt808Endpoint(Role.SLAVE, keep=10), Jt808Endpoint(Role.MASTER)
    terminal_end.send(Message(PHONE, terminal.Heartbeat(), 65_535), 0)
    terminal_end.send(Message(PHONE, terminal.PositionReport(HERE)), 0)
    assert [one.serial for one in terminal_end.unanswered] == [65_535, 0]  # serials wrap
    wire = platform_end.send(Message(PHONE, platform.PlatformAnswer(0, 0x0200)), 0)
    terminal_end.feed(wire, 0)
    assert [one.serial for one in terminal_end.unanswered] == [65_535]
    assert len(terminal_end.disconnected()) == 1
    assert terminal_end.deadline() is None


# -- datum


@given(st.floats(73, 135), st.floats(4, 53))
@settings(derandomize=True, max_examples=200)
def test_gcj02_comes_back_within_a_millimetre(lon: float, lat: float) -> None:
    shifted = gcj02.to_gcj02(lon, lat)
    there_m = math.hypot((shifted[0] - lon) * 111_000 * math.cos(math.radians(lat)), (shifted[1] - lat) * 111_000)
    assert 0 < there_m < 1_500
    back = gcj02.to_wgs84(*shifted)
    assert math.hypot(back[0] - lon, back[1] - lat) * 111_000 < 0.001


def test_gcj02_against_a_published_pair() -> None:
    # Tiananmen, as the public map tools convert it.
    lon, lat = gcj02.to_gcj02(116.391263, 39.907230)
    assert lon == pytest.approx(116.397505, abs=1e-4)
    assert lat == pytest.approx(39.908633, abs=1e-4)
    assert gcj02.to_gcj02(-70.6, -33.9) == (-70.6, -33.9)


def test_explain_never_raises_and_tells_offsets_behind_escapes() -> None:
    frame = Frame(0x0200, PHONE, 0x7E7D, position.encode(HERE))
    wire = build(frame)
    told = explain(Capture(wire)).frames[0]
    serial = next(one for one in told.fields if one.name == "sn")
    assert (serial.offset, serial.length, serial.value) == (11, 4, 0x7E7D)
    status = next(one for one in told.fields if one.name == "status")
    assert wire[status.offset : (status.offset or 0) + 4].hex() == f"{HERE.status:08x}"
    assert told.checksum is not None
    assert told.checksum.ok
    for size in range(len(wire)):
        assert explain(Capture(wire[:size])) is not None
    assert isinstance(read(b""), RemoteProtocolError)
    assert isinstance(judge(b"\x7d"), RemoteProtocolError)
