"""HJ 212 told to an installer, and what a platform asks: hints that name the mistake, requests that stations take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError
from protocols.core.explain import Capture, Explanation
from protocols.hj212 import requests
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.explain import explain
from protocols.hj212.frame import VARIANTS, Variant, build, checksum
from protocols.hj212.messages import Packet, encode, encode_data, execution_answer, request_answer, split, upload
from protocols.hj212.names import COMMANDS, edition

MN = "010000A8900016F000169DC0"
NOON_MS = 1_772_424_000_000  # 2026-03-02 12:00:00 +08:00
GOOD = upload("2011", MN, {"w01001": {"Rtd": "7.1", "Flag": "N"}}, data_time_ms=NOON_MS, qn_ms=NOON_MS, st="21")


def hints(told: Explanation) -> str:
    return " | ".join(hint for frame in told.frames for hint in frame.hints)


def framed(body: bytes, *, check: str | None = None, length: int | None = None) -> bytes:
    said = len(body) if length is None else length
    return b"##%04d%b%b" % (said, body, (check or checksum(body)).encode())


# -- hints


@pytest.mark.parametrize("variant", [one for one in VARIANTS if one != "hj212"])
def test_the_rule_that_fits_is_named(variant: Variant) -> None:
    wire = build(encode_data(GOOD), variant)
    told = explain(Capture(wire))
    assert told.ok
    assert f'checksum = "{variant}"' in hints(told)
    strict = explain(Capture(wire, strict=True))
    assert (strict.ok, strict.error) == (False, "crc")
    assert f'checksum = "{variant}"' in hints(strict)


@pytest.mark.parametrize(
    ("more", "why"), [(6, "line end"), (4, "checksum is counted"), (12, "whole frame"), (1, "says")]
)
def test_a_length_counted_another_way_is_named(more: int, why: str) -> None:
    body = encode_data(GOOD)
    wire = framed(body, length=len(body) + more) + b"\r\n"
    told = explain(Capture(wire))
    assert told.said()["length_ok"] is False
    assert why in hints(told)
    assert explain(Capture(wire, strict=True)).error == "length"


@pytest.mark.parametrize(
    ("sent", "summed", "why"),
    [
        (b";&&", b"&&", "without the ;"),
        (b"&&", b";&&", "with a ;"),
        (b"&&", b"", "without the closing"),
    ],
)
def test_a_checksum_made_over_other_data_is_explained(sent: bytes, summed: bytes, why: str) -> None:
    bare = encode_data(GOOD)[:-2]
    told = explain(Capture(framed(bare + sent, check=checksum(bare + summed))))
    assert told.error == "crc"
    assert why in hints(told)


def test_a_forwarder_that_rewrites_2011_to_2051_is_found() -> None:
    body = encode_data(GOOD)
    told = explain(Capture(framed(body.replace(b"CN=2011", b"CN=2051"), check=checksum(body))))
    assert "forwarder" in hints(told)


def test_no_closing_mark_no_line_end_and_a_wrong_length_are_still_read() -> None:
    bare = encode_data(GOOD)[:-2]
    told = explain(Capture(framed(bare, length=len(bare) + 2)))
    assert told.said()["factors"] == {"w01001": {"Rtd": "7.1", "Flag": "N"}}
    assert "closing && is missing" in hints(told)


def test_gbk_text_and_its_place() -> None:
    body = f"QN=20260302120000000;ST=32;CN=3020;PW=1;MN={MN};Flag=9;CP=&&i11001-Info=//仪表;正常//;x=1&&".encode("gbk")
    told = explain(Capture(framed(body)))
    assert told.said()["factors"]["i11001"]["Info"] == "//仪表;正常//"
    assert told.said()["edition"] == "2025"
    assert "GBK" in hints(told)
    (field,) = [one for one in told.frames[0].fields if one.name == "i11001-Info"]
    assert field.offset is not None and field.length is not None
    assert framed(body)[field.offset : field.offset + field.length].decode("gbk") == "i11001-Info=//仪表;正常//"


def test_fields_lie_where_they_say() -> None:
    wire = encode(GOOD)
    for field in explain(Capture(wire)).frames[0].fields[2:-1]:
        assert field.offset is not None and field.length is not None
        assert wire[field.offset : field.offset + field.length].decode() == f"{field.name}={field.value}"


def test_split_packets_are_one_message() -> None:
    factors = {f"a{n:05d}": {"Rtd": "1.25"} for n in range(80)}
    parts = split(upload("2011", MN, factors, data_time_ms=NOON_MS, qn_ms=NOON_MS))
    told = explain(Capture(b"".join(encode(part) for part in reversed(parts))))
    assert (told.said()["frames"], told.said()["messages"]) == (len(parts), 1)
    assert told.said()["factors"] == factors
    alone = explain(Capture(encode(parts[0])))
    assert (alone.ok, alone.said()["messages"], alone.said()["PNO"]) == (True, 0, "1")


def test_a_2025_packet_keeps_its_keyed_check() -> None:
    packet = Packet(cn="9015", mn=MN, st="91", qn="20260302120000000", pw="1", flag=8, extra={"SK": "AB12"})
    told = explain(Capture(encode(packet)))
    assert (told.said()["SK"], told.said()["edition"]) == ("AB12", "2025")
    assert "heartbeat" in told.frames[0].title


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_telling_a_capture_never_raises(data: st.DataObject) -> None:
    wire = bytearray(encode(GOOD))
    for at in data.draw(st.lists(st.integers(0, len(wire) - 1), max_size=5)):
        wire[at] = data.draw(st.integers(0, 255))
    noise = data.draw(st.binary(max_size=20))
    cut = data.draw(st.integers(0, len(wire)))
    for capture in (bytes(wire), noise + bytes(wire), bytes(wire[:cut]), noise):
        told = explain(Capture(capture, strict=data.draw(st.booleans())))
        assert told.ok or told.detail


def test_what_is_no_packet() -> None:
    assert explain(Capture(b"")).error == "empty"
    assert explain(Capture(b"hello")).error == "garbage"
    assert "without ##" in hints(explain(Capture(encode_data(GOOD))))
    assert explain(Capture(kind="checksum", extra={"crc_of": "abc"})).said()["crc"] == checksum(b"abc")


# -- requests


@pytest.mark.parametrize(
    ("packet", "cn", "fields"),
    [
        (requests.set_interval(MN, pw="1", st="21", qn_ms=NOON_MS, seconds=30), "1062", {"RtdInterval": "30"}),
        (requests.set_minutes(MN, pw="1", st="21", qn_ms=NOON_MS, minutes=10), "1064", {"MinInterval": "10"}),
        (
            requests.set_retries(MN, pw="1", st="21", qn_ms=NOON_MS, over_time_s=5, re_count=3),
            "1000",
            {"OverTime": "5", "ReCount": "3"},
        ),
        (
            requests.history("2061", MN, pw="1", st="21", qn_ms=NOON_MS, begin_ms=NOON_MS - 7_200_000, end_ms=NOON_MS),
            "2061",
            {"BeginTime": "20260302100000", "EndTime": "20260302120000"},
        ),
        (
            requests.request("3012", MN, pw="1", st="21", qn_ms=NOON_MS, fields={"PolId": "w01018"}),
            "3012",
            {"PolId": "w01018"},
        ),
    ],
)
def test_requests_reach_a_station_and_its_answers_the_platform(packet: Packet, cn: str, fields: dict[str, str]) -> None:
    platform, station = Hj212Endpoint(Role.MASTER), Hj212Endpoint(Role.SLAVE)
    (heard,) = station.feed(platform.send(packet, 0), 0)
    assert isinstance(heard, Packet)
    assert (heard.cn, heard.fields, heard.flag, heard.qn) == (cn, fields, 5, "20260302120000000")
    data = requests.data_reply(heard, factors={"w01018": {"Avg": "12.5"}})
    sent = b"".join(station.send(one, 0) for one in (request_answer(heard), data, execution_answer(heard)))
    told = platform.feed(sent, 0)
    assert [one.cn for one in told if isinstance(one, Packet)] == ["9011", cn, "9012"]
    assert {one.qn for one in told if isinstance(one, Packet)} == {packet.qn}
    assert station.unanswered == ()  # Flag 4: nobody answers a reply


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: requests.request("9011", MN, pw="1", st="21", qn_ms=0),
        lambda: requests.request("4711", MN, pw="1", st="21", qn_ms=0),
        lambda: requests.set_interval(MN, pw="1", st="21", qn_ms=0, seconds=5),
        lambda: requests.set_minutes(MN, pw="1", st="21", qn_ms=0, minutes=7),
        lambda: requests.history("2011", MN, pw="1", st="21", qn_ms=0, begin_ms=0, end_ms=1),
        lambda: requests.history("2051", MN, pw="1", st="21", qn_ms=0, begin_ms=2, end_ms=1),
    ],
)
def test_what_must_not_be_asked(wrong: object) -> None:
    with pytest.raises(LocalProtocolError):
        wrong()  # type: ignore[operator]


def test_names() -> None:
    assert all(name.zh and name.en for name in COMMANDS.values())
    assert {cn for cn, name in COMMANDS.items() if name.street} == {
        *("3011", "3012", "3013", "3014", "3015", "3016", "3021")
    }
    assert [edition(flag) for flag in (None, 1, 5, 9, 13)] == ["", "2005", "2017", "2025", "version 3"]


def test_a_whole_frame_with_a_checksum_that_is_none_is_no_short_one() -> None:
    body = encode_data(GOOD)
    for end in (b"", b"\r\n"):
        for strict in (False, True):
            assert explain(Capture(framed(body, check="XXXX") + end, strict=strict)).error == "crc"
    assert explain(Capture(framed(body)[:-2])).error == "short"


def test_a_lost_closing_mark_is_a_wrong_length_to_the_standard() -> None:
    bare = encode_data(GOOD)[:-2]  # a forwarder takes the last six characters off, whatever they are
    for end in (b"", b"\r\n"):
        wire = framed(bare, length=len(bare) + 2) + end
        assert explain(Capture(wire, strict=True)).error == "length"
        assert explain(Capture(wire)).said()["length_ok"] is False


def test_a_length_without_leading_zeros() -> None:
    body = f"QN=;ST=23;CN=1012;PW=1;MN={MN};CP=&&SystemTime=20260302120000&&".encode()
    wire = b"##%d%b%b" % (len(body), body, checksum(body).encode())
    told = explain(Capture(wire + b"\r\n" + wire))
    assert (told.said()["frames"], told.said()["len"], told.said()["length_ok"]) == (2, len(body), True)
    assert "2 digits" in hints(told)
    (field,) = [one for one in told.frames[0].fields if one.name == "SystemTime"]
    assert field.offset is not None and wire[field.offset :].startswith(b"SystemTime=")
    assert explain(Capture(wire, strict=True)).error == "garbage"
    assert explain(Capture(wire[:40])).error == "short"
    station = Hj212Endpoint(Role.SLAVE)
    found = [one for at in range(len(wire)) for one in station.feed(wire[at : at + 1], 0)]
    assert [one.cn for one in found if isinstance(one, Packet)] == ["1012"]


def test_header_fields_are_told_as_they_were_sent() -> None:
    body = b"QN= ;ST=22;CN=2051;PW=;MN=null;Flag=N;PNUM=0002;PNO=0001;CP=&&a34004-Avg=1&&"
    values = explain(Capture(framed(body))).said()
    assert (values["QN"], values["Flag"], values["PNUM"], values["PNO"]) == ("", "N", "0002", "0001")
    assert not {"QN", "Flag", "PNUM"} & set(explain(Capture(framed(b"ST=22;CN=2011;PW=1;MN=1;CP=&&&&"))).said())
