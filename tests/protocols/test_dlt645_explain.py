"""What `citybrain decode dlt645` says beyond the vectors: hints for the usual mistakes, orders, several frames."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.explain import Capture
from protocols.dlt645.explain import explain
from protocols.dlt645.frame import Frame, build
from protocols.dlt645.messages import RELAY, Command, Done, ErrorReply, to_frame
from protocols.dlt645.orders import (
    ChangeBaud,
    ChangePassword,
    Clear,
    Freeze,
    Key,
    Order,
    Relay,
    Write,
    WriteAddress,
    command,
    order,
)

METER = "000000012345"
REPLY = build(Frame(METER, 0x91, bytes.fromhex("00010102") + bytes.fromhex("0123")))


def wire(message: Command | Done | ErrorReply) -> bytes:
    return build(to_frame(message))


def with_sum(data: bytes, total: int) -> bytes:
    return data[:-2] + bytes((total & 0xFF, 0x16))


def test_fields_stand_where_the_bytes_are() -> None:
    capture = b"\xfe\xfe" + REPLY
    (told,) = explain(Capture(capture)).frames
    at = {field.name: field for field in told.fields}
    for name, expected in (("addr", "452301000000"), ("di", "33343435"), ("value", "3456"), ("cs", REPLY[-2:-1].hex())):
        field = at[name]
        assert field.offset is not None and field.length is not None
        assert capture[field.offset : field.offset + field.length].hex() == expected
    assert at["value"].value == "230.1"
    assert told.checksum is not None and told.checksum.ok
    assert all(field.zh and field.en for field in told.fields)


@pytest.mark.parametrize(
    ("total", "hint"),
    [
        (sum(REPLY[:10]) + sum(b - 0x33 for b in REPLY[10:-2]), "before +33H"),
        (sum(REPLY[1:-2]), "first 68H"),
        (-sum(REPLY[:-2]), "two's complement"),
    ],
)
def test_a_wrong_sum_says_which_mistake_fits(total: int, hint: str) -> None:
    told = explain(Capture(with_sum(REPLY, total)))
    assert told.error == "checksum"
    assert any(hint in text for text in told.frames[0].hints)


def test_wake_up_bytes_in_the_sum_are_recognised() -> None:
    told = explain(Capture(b"\xfe\xfe" + with_sum(REPLY, sum(REPLY[:-2]) + 2 * 0xFE)))
    assert any("wake-up bytes FE are summed" in text for text in told.frames[0].hints)


def test_data_that_were_never_shifted_are_recognised() -> None:
    raw = bytearray(REPLY)
    raw[10:-2] = bytes.fromhex("00010102") + bytes.fromhex("0123")
    told = explain(Capture(with_sum(bytes(raw), sum(raw[:-2]))))
    assert told.ok  # frame and sum are right
    assert any("+33H was never applied: identifier 02010100" in text for text in told.frames[0].hints)


def test_a_frame_that_ends_elsewhere_says_where() -> None:
    raw = bytearray(REPLY)
    raw[9] += 1
    told = explain(Capture(bytes(raw) + b"\x00"))
    assert told.error == "end"
    assert any("length byte of 06H" in text for text in told.frames[0].hints)


def test_good_and_bad_frames_are_told_in_order() -> None:
    bad = with_sum(REPLY, sum(REPLY[:-2]) + 1)
    told = explain(Capture(b"\x00\x11" + REPLY + bad + b"\x55" + REPLY + REPLY[:9]))
    assert [one.error for one in told.frames] == ["", "checksum", ""]
    assert [one.offset for one in told.frames] == [2, 2 + len(REPLY), 3 + 2 * len(REPLY)]
    assert told.rest == REPLY[:9]
    assert told.said()["frames"] == 2


ORDERS: list[Order] = [
    Write("04001401", b"\x05\x00", Key("123456", 4, "00000001")),
    WriteAddress("000000000161"),
    Freeze("99999900"),
    ChangeBaud(9600),
    ChangePassword("04000C03", Key("111111", 4), Key("222222", 4)),
    Clear("demand", Key("123456")),
    Clear("meter", Key("123456")),
    Clear("events", Key("123456"), "FFFFFFFF"),
    Relay("open", datetime(2026, 8, 1, 10, 45, 30), Key("123456", 2, "12345678")),
    Relay("protect_off", datetime(2026, 8, 1, 10, 45, 30)),
]


@pytest.mark.parametrize("given_order", ORDERS, ids=lambda one: type(one).__name__)
def test_orders_come_back_and_are_told(given_order: Order) -> None:
    message = command(METER, given_order)
    assert order(message) == given_order
    told = explain(Capture(wire(message)))
    assert told.ok
    assert len(told.frames[0].fields) > 5


def test_a_relay_order_on_the_wire() -> None:
    """Level, password, operator lowest byte first; N1 1A opens; the time ends the order (sheet, function 1C)."""
    message = command(METER, Relay("open", datetime(2026, 8, 1, 10, 45, 30), Key("123456", 2, "00000001")))
    assert message.function == RELAY
    assert message.data.hex() == "02563412" + "01000000" + "1a00" + "304510010826"
    values = explain(Capture(wire(message))).said()
    assert (values["relay"], values["n1"], values["valid_until"]) == ("open", "1A", "2026-08-01T10:45:30")
    assert "123456" not in str(explain(Capture(wire(message))).frames[0].fields)


def test_an_order_cut_short_is_shown_as_bytes() -> None:
    told = explain(Capture(wire(Command(METER, RELAY, b"\x02\x00"))))
    assert told.ok
    assert any("2 bytes" in field.en for field in told.frames[0].fields)


def test_error_bytes_are_shown_both_ways() -> None:
    values = explain(Capture(wire(ErrorReply(METER, 0x14, 0x04)))).said()
    assert (values["error_byte"], values["error_byte_raw"], values["error_bits"]) == ("04", "37", ["no_right"])


def test_status_bits_are_named() -> None:
    frame = build(Frame(METER, 0x91, bytes.fromhex("03050004") + b"\x50\x00"))
    names = {field.name: field.en for field in explain(Capture(frame)).frames[0].fields}
    assert names["bit4"] == "relay open"
    assert names["bit6"] == "relay ordered open"


def test_blocks_of_different_items() -> None:
    """03 01 00 00: how often and how long voltage was lost, phase by phase."""
    data = b"".join(n.to_bytes(1, "big") + b"\x00\x00" for n in (1, 0x20, 2, 0x30, 3, 0x40))
    values = explain(Capture(build(Frame(METER, 0x91, bytes.fromhex("00000103") + data)))).said()
    assert values["values"] == ["1", "20", "2", "30", "3", "40"]


@pytest.mark.parametrize("data", [b"", b"hello", b"\xfe" * 8, b"##0101QN=1"])
def test_what_is_no_frame_is_refused_with_a_reason(data: bytes) -> None:
    told = explain(Capture(data))
    assert not told.ok
    assert told.error in ("short", "start")
    assert told.detail


@given(st.binary(max_size=300) | st.lists(st.sampled_from([REPLY, b"\x68", b"\xfe", b"\x16", b"\x33"])).map(b"".join))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_nothing_raises(data: bytes) -> None:
    told = explain(Capture(data))
    assert told.ok or told.error
    explain(Capture(data, kind="value", extra={"di": data[:4].hex(), "data_after_33": data[4:].hex()}))


def _reply(di: str, data: str, ctrl: int = 0x91) -> dict[str, object]:
    frame = Frame(METER, ctrl, bytes.fromhex(di)[::-1] + bytes.fromhex(data))
    return explain(Capture(build(frame))).said()


@pytest.mark.parametrize("data", ["FFFFFFFF", "00000000", "07321359"])
def test_a_clock_that_says_no_day_has_no_date(data: str) -> None:
    said = _reply("04000101", data)
    assert said["date"] is None
    assert ("damaged" in said) is (data == "07321359")  # zeros and FF: never set; month 13: damaged


def test_an_impossible_time_of_day_is_none() -> None:
    assert _reply("04000102", "600000")["time"] is None
    assert _reply("04000102", "000000")["time"] == "00:00:00"
    assert _reply("0400010C", "30451006320826")["time"] is None


@pytest.mark.parametrize("di", ["04000401", "04000403"])
def test_text_of_ff_is_no_value(di: str) -> None:
    said = _reply(di, "FF" * (6 if di == "04000401" else 32))
    assert said["value"] is None
    assert "damaged" not in said


def test_a_block_of_one_is_a_block_all_the_same() -> None:
    assert _reply("0201FF00", "0123")["values"] == ["230.1"]  # a single-phase meter


def test_a_refusal_without_its_byte_is_a_refusal() -> None:
    said = explain(Capture(build(Frame(METER, 0xD1, b"")))).said()
    assert (said["abnormal"], said["error_byte"]) == (True, None)


@pytest.mark.parametrize(("ctrl", "data", "di"), [(0x12, "00FF0100", "0001FF00"), (0x04, "10C006010826", "C010")])
def test_the_identifier_is_told_where_the_rest_is_unusual(ctrl: int, data: str, di: str) -> None:
    assert explain(Capture(build(Frame(METER, ctrl, bytes.fromhex(data))))).said()["di"] == di


def test_a_broadcast_of_no_time_is_none() -> None:
    said = explain(Capture(build(Frame("999999999999", 0x08, bytes.fromhex("606125321326"))))).said()
    assert said["time"] is None


def test_demand_of_the_1997_edition() -> None:
    said = _reply("A010", "123400", 0x81)
    assert (said["value"], said["unit"]) == ("0.3412", "kW")


def test_an_error_byte_that_was_never_shifted_is_recognised() -> None:
    """Some meters send 02 on the wire where 35 is meant (sheet: error byte without +33H)."""
    raw = bytearray(wire(ErrorReply(METER, 0x11, 0x02)))
    raw[10] = 0x02
    told = explain(Capture(with_sum(bytes(raw), sum(raw[:-2]))))
    assert told.said()["abnormal"] is True
    assert any("02H = no_data" in hint for hint in told.frames[0].hints)
    assert explain(Capture(wire(ErrorReply(METER, 0x11, 0x02)))).frames[0].hints == ()


def test_a_refusal_without_a_reason_is_a_refusal() -> None:
    assert explain(Capture(build(Frame(METER, 0xD1)))).said()["abnormal"] is True


def test_a_meter_confirms_its_new_speed() -> None:
    assert explain(Capture(wire(Done(METER, 0x17, b"\x20")))).said()["baud"] == 9600


def test_an_order_with_codes_nobody_knows_is_told_as_far_as_it_goes() -> None:
    relay = bytes.fromhex("02000000010000004D00304510010826")
    said = explain(Capture(wire(Command(METER, RELAY, relay)))).said()
    assert (said["relay"], said["n1"]) == (None, "4D")
    forever = bytes.fromhex("02000000000000001A00000000000000")  # no time after which it is void
    said = explain(Capture(wire(Command(METER, RELAY, forever)))).said()
    assert (said["relay"], said["valid_until"]) == ("open", None)
    written = bytes.fromhex("030400A0FF332211443322110102")
    said = explain(Capture(wire(Command(METER, 0x14, written)))).said()
    assert (said["di"], said["password"], said["write_hex"]) == ("A0000403", "112233FF", "0102")
