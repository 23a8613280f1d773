"""What `citybrain decode modbus` says beyond the vectors: framing found, hints for the usual mistakes, readings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.explain import Capture
from protocols.modbus.explain import explain
from protocols.modbus.frame import Adu, build, crc
from protocols.modbus.messages import ExceptionReply, Identification, Reply, encode_pdu
from protocols.modbus.readings import interpretations, named

PDU = encode_pdu(Reply(17, 3, registers=(0xAE41, 0x5652)))
RTU = build(Adu(17, PDU), "rtu")


@pytest.mark.parametrize("framing", ["rtu", "tcp", "ascii"])
def test_the_framing_is_found(framing: str) -> None:
    capture = build(Adu(17, PDU, 7), framing)  # type: ignore[arg-type]
    told = explain(Capture(capture))
    assert told.ok
    assert told.said()["framing"] == framing
    assert (told.said()["unit"], told.said()["registers"]) == (17, [0xAE41, 0x5652])
    fields = {field.name: field for field in told.frames[0].fields}
    at, length = fields["register +0"].offset, fields["register +0"].length
    assert at is not None and length is not None
    assert capture[at : at + length] == (b"AE41" if framing == "ascii" else b"\xae\x41")


def test_a_swapped_crc_is_read_leniently_and_refused_strictly() -> None:
    swapped = RTU[:-2] + RTU[:-3:-1]
    lenient = explain(Capture(swapped))
    assert lenient.ok
    assert lenient.frames[0].checksum is not None and lenient.frames[0].checksum.ok
    assert "swapped" in lenient.frames[0].hints[0]
    strict = explain(Capture(swapped, strict=True))
    assert strict.error == "crc"
    assert "swapped" in strict.frames[0].hints[0]


def test_wrong_checksums_name_the_likely_mistake() -> None:
    body = RTU[:-2]
    flipped = bytes((RTU[-2] ^ 4, RTU[-1]))
    assert any("one bit" in hint for hint in explain(Capture(body + flipped)).frames[0].hints)
    summed = body + b"\x00" + bytes((sum(body) & 0xFF,))
    assert any("plain sum" in hint for hint in explain(Capture(summed)).frames[0].hints)
    told = explain(Capture(body + b"\x12\x34"))
    assert told.error == "crc"
    assert crc(body).hex().upper() in told.detail


def test_rtu_over_tcp_is_named() -> None:
    told = explain(Capture(RTU, extra={"framing": "tcp"}))
    assert not told.ok
    assert any("RTU over TCP" in hint for one in told.frames for hint in one.hints)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Reply(18, 3, registers=(1, 2)), "wrong_unit"),
        (Reply(17, 4, registers=(1, 2)), "wrong_function"),
        (Reply(17, 3, registers=(1, 2, 3)), "byte_count"),
    ],
)
def test_with_its_request_an_answer_is_judged(answer: Reply, error: str) -> None:
    request = bytes.fromhex("110300DF0002")
    told = explain(Capture(build(Adu(answer.unit, encode_pdu(answer)), "rtu"), request=request + crc(request)))
    assert told.error == error


def test_exceptions_are_named_in_both_languages() -> None:
    told = explain(Capture(build(Adu(1, encode_pdu(ExceptionReply(1, 3, 11))), "rtu")))
    field = next(field for field in told.frames[0].fields if field.name == "exception")
    assert (field.value, field.zh, field.en) == (11, "网关目标无应答", "gateway: device does not answer")


def test_a_device_says_who_it_is() -> None:
    message = Identification(1, 1, ((0, b"ACME"), (1, b"M-7"), (2, b"1.4")))
    for framing in ("rtu", "tcp", "ascii"):
        told = explain(Capture(build(Adu(1, encode_pdu(message), 3), framing)))  # type: ignore[arg-type]
        assert told.said()["objects"] == {"0": "ACME", "1": "M-7", "2": "1.4"}


def test_several_frames_and_bad_ones_between_them() -> None:
    bad = RTU[:-1] + b"\x00"
    told = explain(Capture(RTU + bad + RTU))
    assert [one.error for one in told.frames] == ["", "crc", ""]
    assert told.said()["frames"] == 2


def test_all_orders_of_a_pair_are_told() -> None:
    found = {
        (one["type"], one["order"]): one["value"] for one in interpretations((0xAE41, 0x5652)) if one["count"] == 2
    }
    assert {order: hex(int(found["u32", order])) for order in ("ABCD", "CDAB", "BADC", "DCBA")} == {
        "ABCD": "0xae415652", "CDAB": "0x5652ae41", "BADC": "0x41ae5256", "DCBA": "0x525641ae",
    }  # fmt: skip


def test_human_fractions_come_first() -> None:
    first, second = interpretations((0x41E3, 0xA5E3, 0x4282, 0xB1AA))[:2]
    assert (first["type"], first["value"], second["value"]) == ("f32", 28.456, 65.347)


@pytest.mark.parametrize(
    ("registers", "expected"),
    [
        ((658, 0x10000 - 101), {"temperature_C": "-10.1", "humidity_pct": "65.8"}),
        ((273, 626), {"temperature_C": "27.3", "humidity_pct": "62.6"}),
        ((0xFFFF, 0xFFFE), None),
        ((1, 2, 3), None),
    ],
)
def test_the_two_families_of_transmitters(registers: tuple[int, ...], expected: dict[str, str] | None) -> None:
    assert named(registers) == expected


@given(st.binary(max_size=300), st.sampled_from(["", "rtu", "tcp", "ascii"]), st.binary(max_size=20))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_nothing_raises(data: bytes, framing: str, request: bytes) -> None:
    told = explain(Capture(data, request=request, extra={"framing": framing}))
    assert told.ok or (told.error and told.detail)
