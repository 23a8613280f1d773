"""CJ/T 188: every vector both ways, and what makers do that the standard does not say."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.cjt188.endpoint import SILENCE_MS, Cjt188Endpoint
from protocols.cjt188.explain import explain
from protocols.cjt188.frame import Found, Frame, Scanner, build
from protocols.cjt188.messages import (
    ANYBODY,
    AddressReply,
    Command,
    Done,
    ErrorReply,
    Message,
    Read,
    ReadAddress,
    ReadReply,
    from_frame,
    to_frame,
    valve,
    write_address,
)
from protocols.cjt188.slave import Meter, answer
from protocols.cjt188.units import UNITS
from protocols.cjt188.values import Status, clock_bytes, decode, encode, layout_of
from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from tests.protocols.vectors import Vector, data_of, vectors

WATER = "78330011223344"
GOOD_REPLY = bytes.fromhex("FEFEFEFE68104433221100337881161F9000007766552C007766552C3101221105152021841316")


def one_frame(data: bytes) -> Frame:
    (found,) = Scanner().feed(data)
    assert isinstance(found, Found)
    return found.frame


def reasons(found: list[Message | RemoteProtocolError]) -> list[str]:
    return [one.reason for one in found if isinstance(one, RemoteProtocolError)]


# -- vectors, both ways


@pytest.mark.parametrize("row", vectors("cjt188", "frame"))
def test_frame_both_ways(row: Vector) -> None:
    data, expect = data_of(row), row["expect"]
    scanner = Scanner()
    found = scanner.feed(data)
    if not expect["ok"]:
        found += scanner.idle()
        assert isinstance(found[0], RemoteProtocolError)
        assert found[0].reason == expect["error"]
        assert not any(isinstance(one, Found) for one in found)
        return
    (one,) = found
    assert isinstance(one, Found)
    frame = one.frame
    assert one.offset == frame.preamble == expect.get("preamble", 0)
    assert build(frame) == data
    message = from_frame(frame)
    assert build(to_frame(message, frame.preamble)) == data


@pytest.mark.parametrize("row", vectors("cjt188", "frame"))
def test_readings_encode_to_the_same_bytes(row: Vector) -> None:
    if not row["expect"]["ok"]:
        return
    message = from_frame(one_frame(data_of(row)))
    if not isinstance(message, ReadReply) or message.di != "901F":
        return
    reading = decode(message.di, message.data, heat=message.type.startswith("2"))
    numbers = {value.item.name: value.based for value in reading.values if value.number is not None}
    units = {value.item.name: value.unit for value in reading.values if value.unit is not None}
    time, status = reading.get("time"), reading.get("status")
    assert time is not None and status is not None
    when = datetime.fromisoformat(time.text) if time.text else None
    again = encode(
        reading.layout, numbers, time=when, status=bytes.fromhex(status.text), place=reading.place, units=units
    )
    assert again == message.data


# -- what makers do


@pytest.mark.parametrize("count", [0, 2, 3, 4, 11, 24])
def test_any_number_of_wake_up_bytes(count: int) -> None:
    bare = GOOD_REPLY.lstrip(b"\xfe")
    for pieces in ([b"\xfe" * count + bare], [bytes((byte,)) for byte in b"\xfe" * count + bare]):
        scanner = Scanner()
        (found,) = [one for piece in pieces for one in scanner.feed(piece)]
        assert isinstance(found, Found)
        assert (found.frame.preamble, found.offset) == (count, count)


def test_both_orders_of_the_identifier_are_read_and_said_again() -> None:
    for order, wire in (("901F", "901f"), ("1F90", "1f90")):
        request = Read("10", WATER, "901F", 3, order)  # type: ignore[arg-type]
        frame = to_frame(request)
        assert frame.data[:2].hex() == wire
        assert from_frame(frame) == request


def test_a_reply_in_the_other_order_answers_all_the_same() -> None:
    master = Cjt188Endpoint(Role.MASTER)
    master.send(Read("10", WATER, "901F", 0, "901F"), 0)
    (reply,) = master.feed(GOOD_REPLY, 0)
    assert isinstance(reply, ReadReply)
    assert reply.order == "1F90"


def test_a_fixed_ser_is_told_from_a_late_answer_only_by_who_knows_the_meter() -> None:
    strict, lenient = Cjt188Endpoint(Role.MASTER), Cjt188Endpoint(Role.MASTER, check_ser=False)
    for master in (strict, lenient):
        master.send(Read("10", WATER, "901F", 9), 0)
    assert reasons(strict.feed(GOOD_REPLY, 0)) == ["wrong_ser"]
    (reply,) = lenient.feed(GOOD_REPLY, 0)
    assert isinstance(reply, ReadReply) and reply.ser == 0


def test_an_answer_without_ser_is_read() -> None:
    clock = clock_bytes(datetime(2026, 1, 8, 14, 30))
    message = from_frame(Frame("10", WATER, 0x81, b"\x90\x7f" + clock))
    assert message == ReadReply("10", WATER, "907F", clock, None)
    assert to_frame(message).data == b"\x90\x7f" + clock


@pytest.mark.parametrize(
    ("raw", "when", "damaged"),
    [
        ("00000000000000", "", False),
        ("ffffffffffffff", "", False),
        ("60012211051520", "", True),  # second 60
        ("31012200051520", "", True),  # day 00
        ("3101221105152a", "", True),
        ("31012211051520", "2015-05-11T22:01:31", False),
    ],
)
def test_a_clock_that_is_none_is_no_time_and_the_reading_counts(raw: str, when: str, damaged: bool) -> None:
    reading = decode("901F", bytes.fromhex("007766552c007766552c" + raw + "00ff"))
    time, current = reading.get("time"), reading.get("current")
    assert time is not None and (time.text, time.damaged) == (when, damaged)
    assert current is not None and current.number == Decimal("556677.00")


def test_no_value_is_never_a_number() -> None:
    for digits, damaged in (("ffffffff", False), ("0a000000", True), ("aaaaaaaa", True)):
        value = decode("901F", bytes.fromhex(digits + "2c" + "000000002c" + "00" * 9)).get("current")
        assert value is not None
        assert (value.number, value.damaged) == (None, damaged)


@pytest.mark.parametrize("byte", range(4))
def test_valve_bits(byte: int) -> None:
    assert Status(bytes((byte, 0xFF))).valve == ("open", "closed", "", "faulty")[byte]
    assert Status(bytes((byte | 4, 0))).battery_low


def test_an_ascii_modem_header_costs_nothing() -> None:
    told = explain(Capture(b"CTRL:R201810000001696" + GOOD_REPLY))
    assert told.ok
    assert told.said()["current"] == "556677.00"
    assert any("CTRL:R2018" in hint for hint in told.good[0].hints)
    found = Scanner().feed(b"CTRL:R201810000001696" + GOOD_REPLY)
    assert [type(one) for one in found] == [RemoteProtocolError, Found]


def test_type_27_is_a_heat_meter_and_an_address_may_hold_ff() -> None:
    numbers = {"heat": Decimal("540.6"), "supply_temp": Decimal("19.14")}
    reply = ReadReply("27", "20691530F1FFFF", "901F", encode("heat_2004", numbers), 1)
    assert len(to_frame(reply).data) == 46
    said = explain(Capture(build(to_frame(reply)))).said()
    assert said["addr"] == "20691530F1FFFF"
    assert said["heat_fields"]["heat"] == ["540.60", "05"]
    assert said["supply_temp"] == "19.14"
    master = Cjt188Endpoint(Role.MASTER)
    master.send(Read("20", "20691530F1FFFF", "901F", 1), 0)
    assert master.feed(build(to_frame(reply)), 0) == [reply]


def test_a_unit_in_front_of_the_digits_is_found() -> None:
    numbers = {"settlement_heat": Decimal("20"), "heat": Decimal("1234560"), "volume": Decimal("3456.78")}
    for place in ("after", "before"):
        units = {"settlement_heat": 0x08, "heat": 0x08}
        data = encode("heat_2004", numbers, place=place, units=units)
        reading = decode("901F", data, heat=True)
        assert reading.place == place
        found = {value.item.name: value.based for value in reading.values if value.item.name in numbers}
        assert found == numbers
    # A number whose highest digits look like a unit: 54060.00 kWh is 00 60 40 05, and 05 is kWh.
    for place in ("after", "before"):
        data = encode("heat_2004", {"heat": Decimal("54060"), "power": Decimal("1.23")}, place=place)  # type: ignore[arg-type]
        assert decode("901F", data, heat=True).get("heat") is not None
        assert decode("901F", data, heat=True).place == place
    # The published example: 08 02 00 00 00 = 0.02 MWh.
    value = decode("D120", bytes.fromhex("0802000000"), heat=True).values[0]
    assert (value.number, value.unit, value.based) == (Decimal("0.02"), 8, Decimal("20"))


def test_heat_layouts_are_told_by_length() -> None:
    for layout, size in (("heat_2004", 43), ("heat_2018", 40)):
        numbers = {"power": Decimal("1.23"), "flow": Decimal("1.2345"), "hours": Decimal(1234)}
        data = encode(layout, numbers)
        assert len(data) == size
        reading = decode("901F", data, heat=True)
        assert reading.layout == layout
        assert {value.item.name: value.based for value in reading.values if value.number is not None} == numbers
    assert layout_of("901F", 30, heat=True) == ""
    assert layout_of("911F", 59, heat=True) == ""


def test_units_are_what_the_sheet_says() -> None:
    wanted = {
        0x02: "Wh", 0x05: "kWh", 0x08: "MWh", 0x0A: "MWh x100", 0x01: "J", 0x0B: "kJ", 0x0E: "MJ", 0x11: "GJ",
        0x13: "GJ x100", 0x14: "W", 0x17: "kW", 0x1A: "MW", 0x29: "L", 0x2C: "m3", 0x32: "L/h", 0x35: "m3/h",
    }  # fmt: skip
    assert {code: UNITS[code].symbol for code in wanted} == wanted
    assert UNITS[0x08].factor == 1000
    assert round(UNITS[0x11].factor, 6) == Decimal("277.777778")
    assert 0x1D not in UNITS


def test_a_valve_command_under_control_aa_is_told_by_its_identifier() -> None:
    data = build(Frame("10", WATER, 0xAA, bytes.fromhex("a0170099")))
    said = explain(Capture(data)).said()
    assert (said["ctrl"], said["di"], said["valve"]) == ("AA", "A017", "close")
    assert reasons(Cjt188Endpoint(Role.MASTER, listen=True).feed(data, 0)) == ["unknown_function"]


def test_a_wrong_checksum_is_refused_and_the_likely_rule_named() -> None:
    wake = b"\xfe\xfe\xfe\xfe"
    bare = bytearray(GOOD_REPLY[4:])
    bare[-2] = sum(wake + bare[:-2]) & 0xFF
    told = explain(Capture(wake + bytes(bare)))
    assert told.error == "checksum"
    assert told.frames[0].checksum is not None and told.frames[0].checksum.computed == "13"
    assert "4 wake-up bytes" in told.frames[0].hints[0]
    bare[-2] = sum(bare[1:-2]) & 0xFF
    assert "start byte" in explain(Capture(bytes(bare))).frames[0].hints[0]


def test_neighbouring_protocols_are_named() -> None:
    dlt645 = bytes.fromhex("FEFEFEFE68431000113400681104333434354D16")
    assert any("DL/T 645" in hint for one in explain(Capture(dlt645)).frames for hint in one.hints)
    mbus = bytes.fromhex("68040468080170027B16")
    assert any("M-Bus" in hint for one in explain(Capture(mbus)).frames for hint in one.hints)


def test_data_may_hold_start_end_and_wake_up_bytes() -> None:
    reply = ReadReply("10", WATER, "D120", bytes.fromhex("6816fe681668"), 0x68)
    data = build(to_frame(reply, 4))
    master = Cjt188Endpoint(Role.MASTER, listen=True)
    assert [one for byte in data for one in master.feed(bytes((byte,)), 0)] == [reply]


# -- a conversation


def test_the_master_believes_only_its_own_answer() -> None:
    master = Cjt188Endpoint(Role.MASTER)
    sent = master.send(Read("10", WATER, "901F", 0), 0)
    other = build(to_frame(ReadReply("10", "78330099999999", "901F", b"", 0)))
    gas = build(to_frame(ReadReply("30", WATER, "901F", b"", 0)))
    history = build(to_frame(ReadReply("10", WATER, "D120", b"", 0)))
    found = master.feed(sent + other + gas + history + GOOD_REPLY, 0)
    assert master.echoes == 1
    assert reasons(found) == ["wrong_address", "wrong_address", "unexpected"]
    assert isinstance(found[-1], ReadReply)
    assert reasons(master.feed(GOOD_REPLY, 0)) == ["unexpected"]


def test_half_a_reply_is_void_after_the_silence() -> None:
    master = Cjt188Endpoint(Role.MASTER)
    master.send(Read("10", WATER, "901F", 0), 0)
    assert master.feed(GOOD_REPLY[:20], 100) == []
    assert master.tick(100 + SILENCE_MS - 1) == []
    assert reasons(master.tick(100 + SILENCE_MS)) == ["short"]
    (reply,) = master.feed(GOOD_REPLY, 2_000)
    assert isinstance(reply, ReadReply)


def test_a_meter_answers_what_is_meant_for_it() -> None:
    meter = Meter("10", WATER)
    data = encode("volume", {"current": Decimal("12.34")})

    def ask(request: Read | ReadAddress | Command) -> object:
        return answer(request, meter=meter, source=lambda di: data if di == "901F" else None, obey=obey)

    def obey(command: Command) -> bytes | None:
        return b"\x01\0" if command.di == "A017" else None

    assert ask(Read("10", WATER, "901F", 5, "1F90")) == ReadReply("10", WATER, "901F", data, 5, "1F90")
    assert ask(Read("10", WATER, "D120", 5)) == ErrorReply("10", WATER, 1, 5, b"\0\0")
    assert ask(Read("30", WATER, "901F", 5)) is None
    assert ask(Read("10", "00000000000001", "901F", 5)) is None
    assert ask(ReadAddress(ser=2)) == AddressReply("10", WATER, 2)
    assert ask(valve("10", WATER, shut=True, ser=1)) == Done("10", WATER, 4, "A017", b"\x01\0", 1)
    assert ask(write_address("10", WATER, "78330000000001")) == ErrorReply("10", WATER, 0x15, 0, b"\0\0")
    assert ask(Read("AA", ANYBODY, "901F", 0)) == ReadReply("10", WATER, "901F", data, 0)


def test_what_cannot_be_said() -> None:
    master = Cjt188Endpoint(Role.MASTER)
    for wrong in (
        Read("1", WATER, "901F"),
        Read("10", "1234", "901F"),
        Read("10", "X" * 14, "901F"),
        Read("10", WATER, "90"),
        Read("10", WATER, "901F", 300),
        Command("10", WATER, 1, "901F"),
        Command("10", WATER, 4, "A010", bytes(253)),
        ReadReply("10", WATER, "901F", b""),
    ):
        with pytest.raises(LocalProtocolError):
            master.send(wrong, 0)
    with pytest.raises(LocalProtocolError):
        write_address("10", WATER, "12")
    with pytest.raises(LocalProtocolError):
        encode("volume", {"current": Decimal("1000000")})


# -- captures


@given(
    data=st.binary(max_size=120), cut=st.integers(0, 60), flip=st.integers(0, 38), kind=st.sampled_from(["", "value"])
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_capture_is_told_and_never_raises(data: bytes, cut: int, flip: int, kind: str) -> None:
    damaged = bytearray(GOOD_REPLY)
    damaged[flip] ^= 0x41
    for capture in (data, bytes(damaged), GOOD_REPLY[:cut], data + GOOD_REPLY):
        extra = {"type": "20", "di": data[:2].hex(), "payload": data.hex()}
        told = explain(Capture(capture, kind=kind, extra=extra))
        assert told.ok or told.error
    assert explain(Capture(data + GOOD_REPLY)).ok or b"\x68" in data


def test_a_cut_capture_says_how_much_is_missing() -> None:
    told = explain(Capture(GOOD_REPLY[:-6]))
    assert told.error == "short"
    assert "35 bytes" in told.detail
    assert told.said()["frames"] == 0


def test_a_clock_of_another_century_is_no_time() -> None:
    for clock in ("00000001012600", "20160715095959"):  # century 00 and 59
        frame = Frame("10", "11002034127856", 0x81, bytes.fromhex("901F01" + "563412002C" * 2 + clock + "0000"))
        said = explain(Capture(build(frame))).said()
        assert (said["time"], said["current"]) == (None, "1234.56")


def test_a_refusal_is_abnormal_and_keeps_its_status() -> None:
    said = explain(Capture(build(Frame("10", "11002034127856", 0xC1, bytes.fromhex("011122"))))).said()
    assert (said["abnormal"], said["ser"], said["status"]) == (True, 1, "1122")


def test_what_holds_no_start_byte_is_refused_as_that() -> None:
    assert explain(Capture(b"\x01\x02\x03")).error == "start"
