"""PDUs against pymodbus's, functions 22, 23 and 43/14, bit fields and packed digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.pdu import DecodePDU

from protocols.core.errors import ConfigError
from protocols.devices import KIND_WIDTH, parse
from protocols.modbus import points
from protocols.modbus.messages import (
    ExceptionReply,
    Identification,
    Identify,
    MaskWrite,
    ReadRequest,
    ReadWrite,
    Reply,
    WriteRequest,
    decode_reply,
    decode_request,
    encode_pdu,
)
from protocols.modbus.plan import block_of
from protocols.modbus.reader import Reader
from protocols.modbus.slave import answer
from tests.protocols.test_modbus import point

quick = settings(max_examples=60, deadline=None, derandomize=True)
_address = st.integers(0, 60_000)
_words = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=120).map(tuple)
_bits = st.lists(st.integers(0, 1), min_size=1, max_size=300).map(tuple)

REQUESTS = st.one_of(
    st.builds(ReadRequest, st.just(1), st.sampled_from([1, 2, 3, 4]), _address, st.integers(1, 125)),
    st.builds(WriteRequest, st.just(1), st.just(5), _address, st.tuples(st.integers(0, 1))),
    st.builds(WriteRequest, st.just(1), st.just(6), _address, st.tuples(st.integers(0, 0xFFFF))),
    st.builds(WriteRequest, st.just(1), st.just(15), _address, _bits),
    st.builds(WriteRequest, st.just(1), st.just(16), _address, _words),
    st.builds(MaskWrite, st.just(1), _address, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    st.builds(ReadWrite, st.just(1), _address, st.integers(1, 125), _address, _words),
    st.builds(Identify, st.just(1), st.integers(1, 4), st.integers(0, 255)),
)
REPLIES = st.one_of(
    st.builds(lambda words: Reply(1, 3, 0, len(words), words), _words),
    st.builds(lambda words: Reply(1, 23, 0, len(words), words), _words),
    st.builds(
        lambda bits: Reply(1, 1, 0, len(bits), (), bits),
        st.lists(st.booleans(), min_size=8, max_size=160).map(lambda bits: tuple(bits[: len(bits) // 8 * 8])),
    ),
    st.builds(lambda a, n: Reply(1, 16, a, n), _address, st.integers(1, 123)),
    st.builds(lambda a, w: Reply(1, 6, a, 1, (w,)), _address, st.integers(0, 0xFFFF)),
    st.builds(lambda a, b: Reply(1, 5, a, 1, (), (b,)), _address, st.booleans()),
    st.builds(lambda a, w, v: Reply(1, 22, a, 1, (w, v)), _address, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    st.builds(ExceptionReply, st.just(1), st.sampled_from([1, 3, 16]), st.integers(1, 11)),
)


def again(pdu: bytes, *, server: bool) -> bytes:
    """The same PDU read and said again by pymodbus."""
    found: Any = DecodePDU(server).decode(pdu)
    assert found is not None
    return bytes((found.function_code,)) + bytes(found.encode())


@given(REQUESTS)
@quick
def test_requests_are_those_of_pymodbus(request: Any) -> None:
    pdu = encode_pdu(request)
    assert again(pdu, server=True) == pdu
    assert decode_request(1, pdu) == request


@given(REPLIES)
@quick
def test_replies_are_those_of_pymodbus(reply: Any) -> None:
    pdu = encode_pdu(reply)
    assert again(pdu, server=False) == pdu
    assert decode_reply(1, pdu) == reply


def memory() -> tuple[dict[int, int], Any, Any]:
    cells = {4: 0x0012, 5: 7}

    def read(function: int, address: int, count: int) -> list[int] | None:
        wanted = range(address, address + count)
        return [cells[n] for n in wanted] if all(n in cells for n in wanted) else None

    def write(function: int, address: int, values: Any) -> bool:
        if any(n not in cells for n in range(address, address + len(values))):
            return False
        cells.update(enumerate(values, address))
        return True

    return cells, read, write


def test_mask_write_as_the_specification_prints_it() -> None:
    """Modbus application protocol 1.1b3, 6.16: current 12H, AND F2H, OR 25H gives 17H."""
    cells, read, write = memory()
    assert answer(MaskWrite(1, 4, 0x00F2, 0x0025), read, write) == Reply(1, 22, 4, 1, (0x00F2, 0x0025))
    assert cells[4] == 0x0017
    assert answer(MaskWrite(1, 9, 0, 0), read, write) == ExceptionReply(1, 22, 2)
    assert answer(MaskWrite(1, 4, 0, 0), read) == ExceptionReply(1, 22, 1)


def test_read_write_writes_first() -> None:
    _, read, write = memory()
    assert answer(ReadWrite(1, 4, 2, 5, (99,)), read, write) == Reply(1, 23, 4, 2, (0x0012, 99))
    assert answer(ReadWrite(1, 4, 2, 8, (99,)), read, write) == ExceptionReply(1, 23, 2)


def test_identification_goes_on_where_it_stopped() -> None:
    identity = {n: bytes((65 + n,)) * 100 for n in range(4)}
    _, read, _ = memory()
    first = answer(Identify(1, 2), read, identity=identity)
    assert isinstance(first, Identification)
    assert ([number for number, _ in first.objects], first.next_object) == ([0, 1], 2)
    rest = answer(Identify(1, 2, 2), read, identity=identity)
    assert isinstance(rest, Identification)
    assert ([number for number, _ in rest.objects], rest.next_object) == ([2, 3], None)
    assert answer(Identify(1), read) == ExceptionReply(1, 43, 1)


# -- bit fields, packed digits, texts


@pytest.mark.parametrize(
    ("binding", "words", "value"),
    [
        ({"kind": "u16", "bit": 3}, (0x0008,), 1.0),
        ({"kind": "u16", "bit": 3}, (0xFFF7,), 0.0),
        ({"kind": "u16", "mask": 0x0F00}, (0xA5C3,), 5.0),
        ({"kind": "u32", "bit": 31, "order": "CDAB"}, (0x0000, 0x8000), 1.0),
        ({"kind": "bcd16", "factor": 0.1}, (0x1234,), 123.4),
        ({"kind": "bcd32"}, (0x1234, 0x5678), 12345678.0),
        ({"kind": "bcd32", "order": "CDAB"}, (0x5678, 0x1234), 12345678.0),
        ({"kind": "bcd16"}, (0x12A4,), math.nan),
        ({"kind": "bcd16", "invalid": (0x9999,)}, (0x9999,), math.nan),
    ],
)
def test_bit_fields_and_packed_digits(binding: dict[str, Any], words: tuple[int, ...], value: float) -> None:
    made = point(binding.pop("kind"), **binding)
    one = points.decode_one(words, made)
    many, _ = points.decode([words, words], made)
    assert [one, *many.tolist()] == pytest.approx([value] * 3, nan_ok=True)


@pytest.mark.parametrize(
    "binding", [{"kind": "bcd16"}, {"kind": "bcd32", "order": "DCBA"}, {"kind": "u16", "mask": 0xF0}]
)
@given(number=st.integers(0, 9_999))
@quick
def test_what_is_written_is_read(binding: dict[str, Any], number: int) -> None:
    made = point(**binding)
    number = min(number, 15) if "mask" in binding else number
    assert points.decode_one(points.encode(float(number), made), made) == number


def test_texts_are_no_readings_but_can_be_read() -> None:
    assert points.text((0x4142, 0x4344, 0x4500, 0)) == "ABCDE"
    assert points.text((0x4241, 0x4443), "BADC") == "ABCD"


TYPE = """
[device]
id = "a/b"
zh = "x"
en = "x"
protocol = "modbus"
provenance = "simulated; for this test"
[[point]]
name = "x"
range = [0.0, 1.0]
modbus = {{ address = 0, {binding} }}
"""


@pytest.mark.parametrize(
    "binding",
    [
        'kind = "i16", bit = 3',
        'kind = "u16", bit = 16',
        'kind = "u16", bit = 1, mask = 2',
        'kind = "u16", mask = 65536',
    ],
)
def test_bit_fields_that_cannot_be(binding: str) -> None:
    with pytest.raises(ConfigError, match="bit or mask"):
        parse(TYPE.format(binding=binding), type_id="a/b", where="a/b.toml")


# -- a whole answer at once


_orders = st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"])
_kinds = st.sampled_from(["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd16", "bcd32"])
_bindings = st.fixed_dictionaries(
    {
        "kind": _kinds,
        "order": _orders,
        "factor": st.sampled_from([1.0, 0.1, 0.001, -2.0]),
        "decimals": st.integers(0, 3),
    }
)


@given(st.lists(_bindings, min_size=1, max_size=12), st.binary(min_size=200, max_size=200), st.booleans())
@quick
def test_a_block_reads_as_its_points_do_one_by_one(bindings: list[Any], data: bytes, marked: bool) -> None:
    made, at = [], 0
    words = [int.from_bytes(data[n : n + 2], "big") for n in range(0, 200, 2)]
    for n, given_binding in enumerate(bindings):
        invalid = (0, words[at]) if marked else ()
        made.append(point(address=at, name=f"p{n}", invalid=invalid, **given_binding))
        at += KIND_WIDTH[given_binding["kind"]]
    block = block_of(tuple(made))
    found = Reader(block).values(words[: block.count])
    singly = [points.decode_one(words[block.words_of(one)], one) for one in made]
    assert found.tolist() == pytest.approx(singly, rel=1e-12, abs=1e-3, nan_ok=True)
