"""DL/T 645 beyond vectors: values both ways, who answers whom, errors of master and meter."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.frame import Frame, build
from protocols.dlt645.messages import (
    BROADCAST,
    BroadcastTime,
    Command,
    Done,
    ErrorReply,
    Message,
    Read,
    ReadMore,
    ReadReply,
    WriteParts,
    address_matches,
    write,
    write_parts,
)
from protocols.dlt645.slave import answer, table_source
from protocols.dlt645.values import decode, encode, lookup

METER = "000000000161"

NUMERIC = [
    "00010000", "00000000", "00030000", "02010100", "02020200", "02030000", "02040300", "02060000", "02070100",
    "02080100", "02800001", "02800002", "02800003", "02800007", "04000306", "00900200", "9010", "B611", "B621", "B630",
]  # fmt: skip


# -- values


@pytest.mark.parametrize("di", NUMERIC)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_numbers_are_exact_both_ways(di: str, data: st.DataObject) -> None:
    form = lookup(di)
    assert form is not None
    top = (8 if form.signed else 10) * 10 ** (2 * form.size - 1) - 1
    digits = data.draw(st.integers(-top if form.signed else 0, top))
    number = Decimal(digits).scaleb(-form.decimals)
    (value,) = decode(di, encode(di, [number])) or []
    assert value.number == number
    assert value.unit == form.unit
    assert not value.damaged


@pytest.mark.parametrize("di", NUMERIC)
def test_no_value_and_damage_are_never_numbers(di: str) -> None:
    form = lookup(di)
    assert form is not None
    (missing,) = decode(di, encode(di, [None])) or []
    assert (missing.number, missing.damaged) == (None, False)
    for raw in (b"\x1a" + b"\x00" * (form.size - 1), b"\xff" * (form.size - 1) + b"\x12", b"\x00" * (form.size - 1)):
        (value,) = decode(di, raw) or []
        assert (value.number, value.damaged) == (None, True)


def test_sign_is_the_top_bit_only_where_there_is_one() -> None:
    assert decode("00000000", bytes.fromhex("34120080"))[0].number == Decimal("-12.34")  # type: ignore[index]
    assert decode("00010000", bytes.fromhex("34120080"))[0].number == Decimal("800012.34")  # type: ignore[index]


def test_what_does_not_fit_is_refused() -> None:
    for di, number in (("02010100", "1000.0"), ("02010100", "-1"), ("02020100", "-800"), ("02FFFF00", "1")):
        with pytest.raises(LocalProtocolError):
            encode(di, [Decimal(number)])


def test_unknown_identifiers_stay_raw() -> None:
    for di in ("028011FF", "001D0000", "04A20200", "0002FE00"):
        assert decode(di, b"\x12\x34") is None


def test_block_takes_as_many_values_as_the_data_hold() -> None:
    data = bytes.fromhex("0123FFFF9923")
    values = decode("0201FF00", data)
    assert values is not None
    assert [value.number for value in values] == [Decimal("230.1"), None, Decimal("239.9")]
    cut = decode("0201FF00", data[:5])
    assert cut is not None
    assert [value.damaged for value in cut] == [False, False, True]


def test_text_comes_last_character_first() -> None:
    values = decode("0400040B", b"BA6-1STD\x00\x00"[::1])
    assert values is not None
    assert values[0].text == "DTS1-6AB"


# -- a master believes only the answer to its question


def asked(message: Message = Read(METER, "00010000")) -> Dlt645Endpoint:  # noqa: B008  a frozen value
    master = Dlt645Endpoint(Role.MASTER)
    master.send(message, 0)
    return master


def wire(message: Message) -> bytes:
    return Dlt645Endpoint(Role.SLAVE).send(message, 0)


def reason(found: list[Message | RemoteProtocolError]) -> str:
    (error,) = found
    assert isinstance(error, RemoteProtocolError)
    return error.reason


GOOD = ReadReply(METER, "00010000", bytes.fromhex("56341200"))


def test_echo_is_dropped() -> None:
    master = asked()
    echo = Dlt645Endpoint(Role.MASTER).send(Read(METER, "00010000"), 0)
    assert master.feed(echo + wire(GOOD), 0) == [GOOD]
    assert master.echoes == 1


def test_answer_of_another_meter_then_the_right_one() -> None:
    master = asked()
    stranger = ReadReply("000000000162", "00010000", bytes(4))
    found = master.feed(wire(stranger) + wire(GOOD), 0)
    assert reason(found[:1]) == "wrong_address"
    assert found[1:] == [GOOD]


@pytest.mark.parametrize(
    "wrong",
    [
        ReadReply(METER, "00020000", bytes(4)),
        ReadReply(METER, "00010000", bytes(4), seq=1),
        Done(METER, 0x14),
        ErrorReply(METER, 0x14, 2),
    ],
)
def test_answer_to_another_question(wrong: Message) -> None:
    assert reason(asked().feed(wire(wrong), 0)) == "unexpected"


def test_answer_to_nothing() -> None:
    assert reason(Dlt645Endpoint(Role.MASTER).feed(wire(GOOD), 0)) == "unexpected"
    master = asked()
    assert master.feed(wire(GOOD), 0) == [GOOD]
    assert reason(master.feed(wire(GOOD), 0)) == "unexpected"


def test_follow_up_is_matched_by_its_number() -> None:
    for seq, expected in ((1, True), (2, False)):
        master = asked(ReadMore(METER, "00010000", 1))
        found = master.feed(wire(ReadReply(METER, "00010000", bytes(4), seq=seq)), 0)
        assert isinstance(found[0], ReadReply) is expected


def test_a_1997_meter_refuses_a_2007_read() -> None:
    error = ErrorReply(METER, 0x01, 0x02)
    assert asked().feed(wire(error), 0) == [error]


def test_error_byte_without_the_shift_is_kept_both_ways() -> None:
    raw = Frame(METER, 0xD1, bytes(((0x02 - 0x33) & 0xFF,)))  # the meter forgot the +33H
    (error,) = asked().feed(build(raw), 0)
    assert isinstance(error, ErrorReply)
    assert error.unshifted == 0x02
    assert error.no_data


def test_late_bytes_do_not_survive_the_next_question() -> None:
    master = asked()
    half = wire(GOOD)[:12]
    assert master.feed(half, 0) == []
    master.send(Read(METER, "02010100"), 1_000)
    reply = ReadReply(METER, "02010100", bytes.fromhex("0123"))
    assert master.feed(wire(reply), 1_100) == [reply]


def test_roles_do_not_mix() -> None:
    with pytest.raises(LocalProtocolError):
        Dlt645Endpoint(Role.SLAVE).send(Read(METER, "00010000"), 0)
    with pytest.raises(LocalProtocolError):
        Dlt645Endpoint(Role.MASTER).send(GOOD, 0)


@pytest.mark.parametrize("addr", ["161", "00000000016", "0000000001 1", "zzzzzzzzzzzz"])
def test_addresses_that_cannot_be_said(addr: str) -> None:
    with pytest.raises(LocalProtocolError):
        Dlt645Endpoint(Role.MASTER).send(Read(addr, "00010000"), 0)


# -- a meter


SOURCE = table_source({"00010000": Decimal("1.5"), "02010100": Decimal("230.1"), "02010200": Decimal("230.2")})


def test_meter_answers_its_address_and_wildcards() -> None:
    for addr in (METER, "AAAAAAAAAAAA", "AAAAAAAA0161"):
        assert answer(Read(addr, "00010000"), meter=METER, source=SOURCE) == ReadReply(
            METER, "00010000", bytes.fromhex("50010000")
        )
    assert answer(Read("000000000162", "00010000"), meter=METER, source=SOURCE) is None
    assert answer(BroadcastTime(datetime(2026, 3, 2)), meter=METER, source=SOURCE) is None
    assert answer(Read(BROADCAST, "00010000"), meter=METER, source=SOURCE) is None


def test_meter_blocks_and_refusals() -> None:
    block = answer(Read(METER, "0201FF00"), meter=METER, source=SOURCE)
    assert block == ReadReply(METER, "0201FF00", bytes.fromhex("01230223"))
    assert answer(Read(METER, "02060000"), meter=METER, source=SOURCE) == ErrorReply(METER, 0x11, 0x02)
    assert answer(Command(METER, 0x1C), meter=METER, source=SOURCE) == ErrorReply(METER, 0x1C, 0x01)


def test_long_data_follow_up_until_the_end() -> None:
    data = bytes(range(256)) + bytes(150)
    got = b""
    request: Read | ReadMore = Read(METER, "0506FF01")
    for seq in range(1, 10):
        reply = answer(request, meter=METER, source=lambda di: data)
        assert isinstance(reply, ReadReply)
        assert len(build(Frame(METER, 0x91, bytes(4) + reply.data))) <= 212
        got += reply.data
        if not reply.more:
            break
        request = ReadMore(METER, "0506FF01", seq)
    assert got == data


def test_write_parts_both_ways() -> None:
    parts = WriteParts("04000101", "02123456", "00000001", b"\x00\x02\x03\x26")
    assert write_parts(write(METER, parts)) == parts


def test_wildcards() -> None:
    assert address_matches("AA23456789AA", "012345678901")
    assert not address_matches("AA23456789AA", "012345678801")
    assert address_matches("3A2107000481", "3A2107000481")
