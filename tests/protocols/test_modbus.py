"""Modbus beyond vectors: points, plan, and what a master does not believe."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.model import Quality
from protocols.devices import KIND_WIDTH, ModbusPoint, Point
from protocols.modbus import points
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.frame import Adu, build, crc
from protocols.modbus.messages import (
    ExceptionReply,
    Message,
    OtherRequest,
    ReadRequest,
    Reply,
    WriteRequest,
)
from protocols.modbus.plan import Plan
from protocols.modbus.slave import answer

ORDERS = ["ABCD", "CDAB", "BADC", "DCBA"]


def point(kind: str = "u16", address: int = 0, name: str = "x", *, decimals: int = 3, **binding: object) -> Point:
    modbus = ModbusPoint(address=address, kind=kind, **binding)  # type: ignore[arg-type]
    return Point(name=name, decimals=decimals, range=(-1e18, 1e18), modbus=modbus)


# -- points


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ABCD", (0xAE41, 0x5652)),
        ("CDAB", (0x5652, 0xAE41)),
        ("BADC", (0x41AE, 0x5256)),
        ("DCBA", (0x5256, 0x41AE)),
    ],
)
def test_the_four_orders(order: str, words: tuple[int, int]) -> None:
    assert int(points.raw(words, "u32", order)) == 0xAE415652
    assert points.encode(float(0xAE415652), point("u32", order=order)) == words


LIMITS = {
    "u16": (0, 2**16 - 1), "i16": (-(2**15), 2**15 - 1), "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**53), "i64": (-(2**53), 2**53),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", LIMITS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_integers_come_back(kind: str, order: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(*LIMITS[kind]))
    binding = point(kind, order=order)
    words = points.encode(float(number), binding)
    assert len(words) == KIND_WIDTH[kind]
    value, quality = points.decode(words, binding)
    assert float(value) == float(number)
    assert quality == Quality.GOOD


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["f32", "f64"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(number=st.floats(-1e6, 1e6, width=32))
def test_floats_come_back(kind: str, order: str, number: float) -> None:
    value, _ = points.decode(points.encode(number, point(kind, order=order)), point(kind, order=order))
    assert float(value) == round(number, 3)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]),
    order=st.sampled_from(ORDERS),
    data=st.data(),
)
def test_one_and_many_decode_alike(kind: str, order: str, data: st.DataObject) -> None:
    width = KIND_WIDTH[kind]
    words = tuple(data.draw(st.lists(st.integers(0, 0xFFFF), min_size=width, max_size=width)))
    invalid = tuple(data.draw(st.lists(st.sampled_from([0, 1, 0x7FFF, 0xFFFF]), max_size=2)))
    binding = point(kind, order=order, factor=0.1, offset=1.5, invalid=invalid)
    many, quality = points.decode(words, binding)
    one = points.decode_one(words, binding)
    assert math.isnan(one) == math.isnan(float(many)) == (quality == Quality.MISSING)
    assert math.isnan(one) or one == pytest.approx(float(many), rel=1e-12)


def test_factor_and_offset_round_to_the_resolution() -> None:
    temperature = point("i16", decimals=1, factor=0.1, offset=-40.0)
    assert float(points.decode((273,), temperature)[0]) == -12.7
    assert points.encode(-12.7, temperature) == (273,)
    assert float(points.decode((0xFF9B,), point("i16", decimals=1, factor=0.1))[0]) == -10.1


def test_vectorised_over_a_stack_of_images() -> None:
    pressure = point("i32", order="CDAB", factor=0.001, invalid=(0x7FFFFFFF,))
    grid = np.array([[300, 0], [0xFFFF, 0x7FFF], [0xFFFF, 0xFFFF]], dtype=np.uint16)
    values, quality = points.decode(grid, pressure)
    assert values[0] == 0.3
    assert math.isnan(values[1])
    assert values[2] == -0.001
    assert quality.tolist() == [Quality.GOOD, Quality.MISSING, Quality.GOOD]


def test_none_both_ways() -> None:
    for kind, binding in (("u16", {"invalid": (0x7FFF, 0xFFFF)}), ("i16", {"invalid": (0x8000,)}), ("f32", {})):
        words = points.encode(math.nan, point(kind, **binding))
        value, quality = points.decode(words, point(kind, **binding))
        assert math.isnan(float(value))
        assert quality == Quality.MISSING
    with pytest.raises(LocalProtocolError):
        points.encode(math.nan, point("u16"))


def test_electronics_saturate() -> None:
    assert points.encode(7_000.0, point("u16", factor=0.1)) == (0xFFFF,)
    assert points.encode(-1.0, point("u16")) == (0,)
    assert points.encode(-4e9, point("i32")) == (0x8000, 0)
    for kind, value in (("f32", 1e39), ("u16", math.inf), ("f64", -math.inf)):
        with pytest.raises(LocalProtocolError):
            points.encode(value, point(kind))


# -- plan


def spans(plan: Plan) -> list[tuple[int, int, int]]:
    return [(block.function, block.address, block.count) for block in plan.blocks]


def test_small_gaps_are_read_over_and_wide_ones_not() -> None:
    found = [point("u16", 0), point("f32", 11), point("u16", 24), point("u16", 3, function=4)]
    assert spans(Plan(found)) == [(3, 0, 13), (3, 24, 1), (4, 3, 1)]


def test_no_block_is_longer_than_the_limit_and_no_value_is_halved() -> None:
    plan = Plan([point("f32", 2 * n, f"x{n}") for n in range(200)])
    assert sum(len(block.points) for block in plan.blocks) == 200
    for block in plan.blocks:
        assert block.count <= 125
        assert block.count % 2 == 0
        for one in block.points:
            where = block.words_of(one)
            assert where.stop - where.start == 2
            assert 0 <= where.start < where.stop <= block.count


def test_refused_block_is_cut_at_its_widest_gap_then_in_the_middle() -> None:
    plan = Plan([point("u16", n, f"x{n}") for n in (0, 1, 2, 8, 9)])
    assert spans(plan) == [(3, 0, 10)]
    plan.refuse(plan.blocks[0])
    assert spans(plan) == [(3, 0, 3), (3, 8, 2)]
    plan.refuse(plan.blocks[0])
    assert spans(plan) == [(3, 0, 1), (3, 1, 2), (3, 8, 2)]
    plan.refuse(plan.blocks[-1])
    plan.refuse(plan.blocks[-1])
    assert plan.refused == ("x9",)
    assert {one.name for block in plan.blocks for one in block.points} == {"x0", "x1", "x2", "x8"}


# -- a master believes only the answer to its question


def asked(message: Message, framing: str = "rtu") -> ModbusEndpoint:
    master = ModbusEndpoint(Role.MASTER, framing=framing)  # type: ignore[arg-type]
    master.send(message, 0)
    return master


def wire(message: Message, framing: str = "rtu") -> bytes:
    return ModbusEndpoint(Role.SLAVE, framing=framing).send(message, 0)  # type: ignore[arg-type]


def reasons(found: list[Message | RemoteProtocolError]) -> list[str]:
    return [one.reason for one in found if isinstance(one, RemoteProtocolError)]


READ = ReadRequest(4, 3, 100, 2)
GOOD = Reply(4, 3, 100, 2, registers=(1, 2))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Reply(5, 3, registers=(1, 2)), "wrong_unit"),
        (Reply(4, 4, registers=(1, 2)), "wrong_function"),
        (ExceptionReply(4, 4, 2), "wrong_function"),
        (Reply(4, 3, registers=(1, 2, 3)), "byte_count"),
    ],
)
def test_what_is_not_ours_is_reported_and_waited_behind(wrong: Message, reason: str) -> None:
    master = asked(READ)
    found = master.feed(wire(wrong) + wire(GOOD), 0)
    assert reasons(found) == [reason]
    assert found[-1] == GOOD


def test_write_must_be_echoed_exactly() -> None:
    for request, other, reason in (
        (WriteRequest(4, 6, 7, (99,)), Reply(4, 6, 7, 1, registers=(98,)), "echo_mismatch"),
        (WriteRequest(4, 5, 7, (1,)), Reply(4, 5, 7, 1, bits=(False,)), "echo_mismatch"),
        (WriteRequest(4, 16, 7, (1, 2)), Reply(4, 16, 7, 1), "wrong_echo"),
        (WriteRequest(4, 15, 7, (1, 0)), Reply(4, 15, 8, 2), "wrong_echo"),
    ):
        assert reasons(asked(request).feed(wire(other), 0)) == [reason]


def test_answer_to_nothing_and_twice() -> None:
    assert reasons(ModbusEndpoint(Role.MASTER).feed(wire(GOOD), 0)) == ["unexpected"]
    assert reasons(asked(READ).feed(wire(GOOD) * 2, 0)) == ["unexpected"]


def test_unit_fe_is_whoever_answers() -> None:
    reply = Reply(1, 3, 100, 2, registers=(1, 2))
    assert asked(ReadRequest(0xFE, 3, 100, 2)).feed(wire(reply), 0) == [reply]


def test_tcp_answers_are_matched_by_transaction() -> None:
    master = ModbusEndpoint(Role.MASTER, framing="tcp")
    first = master.send(READ, 0)
    second = master.send(READ, 1_000)
    assert first[:2] != second[:2]
    late = Adu(4, bytes.fromhex("030400010002"), int.from_bytes(first[:2], "big"))
    right = Adu(0, late.pdu, int.from_bytes(second[:2], "big"))  # some boxes answer as unit 0
    found = master.feed(build(late, "tcp") + build(right, "tcp"), 1_000)
    assert reasons(found) == ["unexpected"]
    assert isinstance(found[-1], Reply)
    assert found[-1].registers == (1, 2)


@pytest.mark.parametrize("pdu", ["8302", "030400010002"])
def test_tcp_length_one_too_small_is_read(pdu: str) -> None:
    master = ModbusEndpoint(Role.MASTER, framing="tcp")
    sent = master.send(READ, 0)
    body = bytes.fromhex(pdu)
    frame = sent[:4] + len(body).to_bytes(2, "big") + b"\x04" + body  # should count the unit byte, too
    for pieces in ([frame], [frame[n : n + 1] for n in range(len(frame))]):
        master = ModbusEndpoint(Role.MASTER, framing="tcp")
        master.send(READ, 0)
        found = [one for piece in pieces for one in master.feed(piece, 0)]
        assert len(found) == 1
        assert not isinstance(found[0], RemoteProtocolError)


# -- adapters and dirt


def test_echoing_adapter_is_noticed_and_not_taken_for_a_confirmation() -> None:
    master = ModbusEndpoint(Role.MASTER)
    sent = master.send(READ, 0)
    assert master.feed(sent + wire(GOOD), 0) == [GOOD]
    assert master.echoes == 1
    request = WriteRequest(4, 6, 7, (99,))
    sent = master.send(request, 1_000)
    assert master.feed(sent, 1_000) == []  # the adapter's echo
    assert master.feed(sent, 1_050) == [Reply(4, 6, 7, 1, registers=(99,))]  # the device


def test_stray_bytes_before_and_after() -> None:
    master = asked(READ)
    found = master.feed(b"\x00\xff\x01" + wire(GOOD) + b"\x00", 0)
    assert [one for one in found if not isinstance(one, RemoteProtocolError)] == [GOOD]
    assert reasons(found) == ["garbage"]


def test_values_that_look_like_a_frame_are_not_cut_out() -> None:
    # Registers 2 to 4 hold a whole exception reply with a right CRC.
    inner = b"\x01\x83\x02" + crc(b"\x01\x83\x02") + b"\x00"
    words = (1, *(int.from_bytes(inner[n : n + 2], "big") for n in (0, 2, 4)), 2)
    reply = Reply(4, 3, 0, 5, registers=words)
    master = asked(ReadRequest(4, 3, 0, 5))
    assert [one for n in wire(reply) for one in master.feed(bytes((n,)), 0)] == [reply]


def test_swapped_crc_is_taken_in_lenient_mode_only() -> None:
    good = wire(GOOD)
    swapped = good[:-2] + good[:-3:-1]
    master = asked(READ)
    assert master.feed(swapped, 0) == []
    assert reasons(master.tick(10_000)) == ["crc"]
    lenient = ModbusEndpoint(Role.MASTER, lenient=True)
    lenient.send(READ, 0)
    assert lenient.feed(swapped, 0) == [GOOD]


def test_what_cannot_be_said() -> None:
    master = ModbusEndpoint(Role.MASTER)
    for wrong in (
        ReadRequest(4, 3, 0, 126),
        ReadRequest(4, 3, 0, 0),
        ReadRequest(4, 3, 65_535, 2),
        ReadRequest(4, 7, 0, 1),
        ReadRequest(300, 3, 0, 1),
        WriteRequest(4, 6, 0, (65_536,)),
        WriteRequest(4, 16, 0, ()),
        WriteRequest(4, 5, 0, (2,)),
        GOOD,
    ):
        with pytest.raises(LocalProtocolError):
            master.send(wrong, 0)


# -- a device


def test_device_answers_exceptions() -> None:
    def read(function: int, address: int, count: int) -> list[int] | None:
        return [7] * count if address < 10 else None

    assert answer(ReadRequest(4, 3, 0, 2), read) == Reply(4, 3, 0, 2, registers=(7, 7))
    assert answer(ReadRequest(4, 3, 10, 1), read) == ExceptionReply(4, 3, 2)
    assert answer(ReadRequest(4, 3, 0, 126), read) == ExceptionReply(4, 3, 3)
    assert answer(OtherRequest(4, b"\x2b\x0e\x01\x00"), read) == ExceptionReply(4, 0x2B, 1)
    assert answer(WriteRequest(4, 6, 0, (1,)), read) == ExceptionReply(4, 6, 1)
    assert answer(WriteRequest(0, 6, 0, (1,)), read, lambda f, a, v: True) is None
