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


def _rtu(pdu: str) -> bytes:
    body = bytes.fromhex(pdu)
    return body + crc(body)


@pytest.mark.parametrize("pdu", ["01 07", "01 08 0000 A537", "01 0B FFFF 0108", "01 11 03 0AFF41", "01 41 0102030405"])
def test_functions_of_no_table_come_out_raw(pdu: str) -> None:
    told = explain(Capture(_rtu(pdu)))
    body = bytes.fromhex(pdu)
    assert told.said()["func"] == body[1]
    assert told.said()["data_hex"] == body[2:].hex().upper()


def test_an_exception_to_a_function_of_no_table() -> None:
    said = explain(Capture(_rtu("01 C1 01"))).said()
    assert (said["func"], said["exception"]) == (0x41, 1)


def test_what_relay_boxes_write_into_coils_is_told_as_it_stands() -> None:
    toggle = _rtu("FE 05 0002 5500")
    assert explain(Capture(toggle)).said()["value"] == 0x5500
    assert explain(Capture(toggle, request=toggle)).said()["value"] == 0x5500
    assert explain(Capture(_rtu("FE 05 0002 FF00"), request=toggle)).error == "echo_mismatch"


def test_an_rtu_request_is_no_tcp_header() -> None:
    asked, answer = _rtu("01 03 0000 0002"), _rtu("01 03 04 0292 FF9B")
    told = explain(Capture(asked + answer))  # 00 00 00 02 in it look like a header that announces two bytes
    assert [one.values["func"] for one in told.frames] == [3, 3]
    assert told.said()["framing"] == "rtu"
    assert explain(Capture(asked[:-2] + b"\x12\x34")).error == "crc"


@pytest.mark.parametrize(
    ("capture", "error"),
    [
        ("0001 0001 0006 01 03 0000 0001", "protocol_id"),
        ("0001 0000 0005 01 03 02", "short"),
    ],
)
def test_a_tcp_frame_is_found_by_its_header_even_where_it_is_refused(capture: str, error: str) -> None:
    assert explain(Capture(bytes.fromhex(capture))).error == error


def test_a_tcp_header_that_counts_one_too_few_is_read_leniently_only() -> None:
    for text in ("0001 0000 0004 01 03 02 002D", "0001 0000 0002 01 83 02"):
        capture = bytes.fromhex(text)
        lenient = explain(Capture(capture, extra={"framing": "tcp"}))
        assert lenient.said()["pdu"] == capture[7:].hex().upper()
        assert explain(Capture(capture, extra={"framing": "tcp"}, strict=True)).error == "length"


@pytest.mark.parametrize("text", [":1183026A", ":1183026a\n", "abc:1183026A\r\nxyz", " :1183026A "])
def test_a_text_copied_without_its_line_end_is_read(text: str) -> None:
    assert explain(Capture(text.encode())).said()["exception"] == 2


@pytest.mark.parametrize(("text", "error"), [(":11830", "short"), (":1183026B\r\n", "lrc"), (":1183026B\r", "lrc")])
def test_a_text_that_is_cut_or_wrong_is_not(text: str, error: str) -> None:
    assert explain(Capture(text.encode())).error == error


def test_an_illegal_quantity_is_told_and_refused_strictly() -> None:
    told = explain(Capture(_rtu("01 03 0000 007E")))
    assert told.said()["count"] == 126
    assert any("exception 3" in hint for hint in told.frames[0].hints)
    assert not explain(Capture(_rtu("01 03 0000 007E"), strict=True)).ok
    assert explain(Capture(_rtu("01 03 03 010203"))).error == "byte_count"  # no request for 515 registers


def test_masks_are_no_readings() -> None:
    said = explain(Capture(_rtu("01 16 0004 00F2 0025"))).said()
    assert (said["and_mask"], said["or_mask"]) == (0xF2, 0x25)
    assert "named" not in said and "values" not in said


def test_a_pair_behind_a_flag_and_pairs_of_a_long_answer_are_told() -> None:
    found = interpretations((1, 0x41E3, 0xA5E3))
    assert {"type": "f32", "order": "ABCD", "from": 1, "count": 2, "value": 28.456} in found
    assert found.index(next(one for one in found if one["from"] == 1 and one["count"] == 2)) > 2
    long = interpretations((*(0,) * 60, 0x41E3, 0xA5E3))
    assert {"type": "f32", "order": "ABCD", "from": 60, "count": 2, "value": 28.456} in long
