"""HJ 212 beyond single frames: repeats, outages, split messages, the checksum rule of a station, wrong lengths."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.frame import VARIANTS, build, checksum
from protocols.hj212.joiner import JOIN_TIMEOUT_MS
from protocols.hj212.messages import (
    Packet,
    data_answer,
    encode,
    encode_data,
    execution_answer,
    format_qn,
    format_time,
    notice_answer,
    parse_time,
    request_answer,
    split,
    upload,
)

MN = "010000A8900016F000169DC0"
NOON_MS = 1_772_424_000_000  # 2026-03-02 12:00:00 +08:00


def data(n: int, **options: object) -> Packet:
    packet = upload("2011", MN, {"a34002": {"Rtd": str(n)}}, data_time_ms=NOON_MS, qn_ms=NOON_MS + n)
    return replace(packet, **options)  # type: ignore[arg-type]


def platform(**options: object) -> Hj212Endpoint:
    return Hj212Endpoint(Role.MASTER, **options)  # type: ignore[arg-type]


def reasons(found: list[Packet | RemoteProtocolError]) -> list[str]:
    return [one.reason for one in found if isinstance(one, RemoteProtocolError)]


# -- a station keeps what was not answered


def test_repeats_after_10_s_three_times_then_waits_for_the_next_period() -> None:
    station = Hj212Endpoint(Role.SLAVE)
    first = station.send(data(1), 0)
    sent = []
    for now_ms in range(0, 120_000, 1_000):
        station.tick(now_ms)
        if out := station.take_output():
            assert out == first
            sent.append(now_ms)
    assert sent == [10_000, 20_000, 30_000]
    assert station.unanswered == (data(1),)
    assert station.deadline() is None
    second = station.send(data(2), 120_000)
    assert second == encode(data(2)) + first  # the old one goes along


def test_9014_ends_it_whenever_it_comes() -> None:
    station, server = Hj212Endpoint(Role.SLAVE), platform()
    (heard,) = server.feed(station.send(data(1), 0), 0)
    assert isinstance(heard, Packet)
    station.tick(10_000)
    (answer,) = station.feed(server.send(data_answer(heard), 11_000), 11_000)
    assert isinstance(answer, Packet)
    assert (answer.cn, answer.qn) == ("9014", data(1).qn)
    assert station.unanswered == ()
    assert station.deadline() is None


def test_reconnection_sends_everything_unanswered_at_once() -> None:
    station = Hj212Endpoint(Role.SLAVE)
    for n in range(5):
        station.send(data(n), 0)
    station.feed(b"##0101QN=half", 1)  # a half frame of the old connection
    station.connected(60_000)
    found = platform().feed(station.take_output(), 60_000)
    assert found == [data(n) for n in range(5)]
    assert station.feed(encode(data_answer(data(0))), 60_001) == [data_answer(data(0))]
    assert len(station.unanswered) == 4


def test_what_is_kept_is_bounded_and_counted() -> None:
    station = Hj212Endpoint(Role.SLAVE, keep=10)
    for n in range(25):
        station.send(data(n), 0)
    assert station.unanswered == tuple(data(n) for n in range(15, 25))
    assert station.dropped == 15


def test_an_answer_without_qn_cannot_be_wanted() -> None:
    with pytest.raises(LocalProtocolError):
        Hj212Endpoint(Role.SLAVE).send(data(1, qn=""), 0)


# -- split messages


def long_upload() -> Packet:
    factors = {f"a{n:05d}": {"Rtd": "1.25", "Flag": "N"} for n in range(120)}
    return upload("2011", MN, factors, data_time_ms=NOON_MS, qn_ms=NOON_MS)


def test_split_stays_below_the_limit_and_joins_in_any_order() -> None:
    parts = split(long_upload())
    assert all(len(encode_data(part)) <= 1024 for part in parts)
    assert [(part.pno, part.pnum) for part in parts] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    server = platform()
    stream = b"".join(encode(part) for part in [*parts[1:], parts[1], parts[0]])
    (joined,) = server.feed(stream, 0)
    assert isinstance(joined, Packet)
    assert joined == long_upload()
    assert server.deadline() is None


def test_a_part_that_never_comes_is_given_up() -> None:
    server = platform()
    assert server.feed(b"".join(encode(part) for part in split(long_upload())[1:]), 1_000) == []
    assert server.tick(1_000 + JOIN_TIMEOUT_MS - 1) == []
    assert reasons(server.tick(1_000 + JOIN_TIMEOUT_MS)) == ["split_timeout"]
    assert server.deadline() is None


def test_split_flag_without_numbers_is_a_whole_message() -> None:
    (found,) = platform().feed(encode(data(1, flag=7)), 0)
    assert isinstance(found, Packet)
    assert found.wants_answer


def test_impossible_part_numbers_are_refused() -> None:
    server = platform()
    for pnum, pno in ((9999, 1), (3, 4), (3, 0)):
        assert reasons(server.feed(encode(data(1, flag=7, pnum=pnum, pno=pno)), 0)) == ["split"]


def test_unfinished_split_messages_are_bounded() -> None:
    server = platform()
    found = [one for n in range(1000) for one in server.feed(encode(data(n, flag=7, pnum=2, pno=1)), n)]
    assert reasons(found) == ["split_overflow"] * (1000 - 256)


# -- checksum rules


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_rule_is_found_and_used_for_answers(variant: str) -> None:
    server = platform()
    (found,) = server.feed(encode(data(1, crc_variant=variant)), 0)
    assert isinstance(found, Packet)
    assert found.crc_variant == variant
    answer = server.send(data_answer(found), 0)
    assert answer[-6:-2].decode() == checksum(answer[6:-6], found.crc_variant)


def test_a_station_is_held_to_its_rule_after_three_good_frames() -> None:
    server = platform()
    for n in range(3):
        assert reasons(server.feed(encode(data(n, crc_variant="arc")), 0)) == []
    assert reasons(server.feed(encode(data(4)), 0)) == ["crc"]
    other = data(5, mn="ANOTHER")
    assert server.feed(encode(other), 0) == [other]  # the rule is the station's, not the connection's
    assert reasons(server.feed(encode(data(6, crc_variant="arc")), 0)) == []


def test_a_change_of_rule_before_that_is_taken() -> None:
    server = platform()
    for n, variant in enumerate(["arc", "arc", "hj212", "hj212", "hj212"]):
        assert reasons(server.feed(encode(data(n, crc_variant=variant)), 0)) == []
    assert reasons(server.feed(encode(data(9, crc_variant="arc")), 0)) == ["crc"]


def test_a_configured_rule_is_the_only_one() -> None:
    server = platform(rules={MN: "modbus"})
    assert reasons(server.feed(encode(data(1)), 0)) == ["crc"]
    assert reasons(server.feed(encode(data(2, crc_variant="modbus")), 0)) == []
    only = platform(checksum="modbus")
    assert reasons(only.feed(encode(data(1)), 0)) == ["crc"]
    assert reasons(only.feed(encode(data(2, crc_variant="modbus")), 0)) == []


# -- lengths


@pytest.mark.parametrize("said", [0, 1, -1, 6, 9_000])
def test_wrong_length_is_recovered_in_lenient_mode_only(said: int) -> None:
    good = encode(data(1))
    wrong = b"##%04d" % (min(len(good) - 12 + said, 9999)) + good[6:]
    follower = data(2)
    found = platform().feed(wrong + encode(follower), 0)
    assert found == [data(1, length_ok=said == 0), follower]
    strict = platform(strict=True).feed(wrong + encode(follower), 0)
    assert [one for one in strict if isinstance(one, Packet)] == ([data(1)] if said == 0 else []) + [follower]


def test_missing_closing_mark_before_a_line_end() -> None:
    body = encode_data(data(1))[:-2]
    (found,) = platform().feed(build(body), 0)
    assert found == data(1)


def test_text_between_slashes_may_hold_separators() -> None:
    packet = Packet(
        cn="3020", mn=MN, qn="1", flag=4, factors={"i11001": {"Info": "//a;b,c//"}, "i11002": {"Info": "1"}}
    )
    (found,) = platform().feed(encode(packet), 0)
    assert isinstance(found, Packet)
    assert found.factors == packet.factors


def test_doubled_suffix_of_a_dust_station() -> None:
    body = b"ST=39;CN=2011;PW=123456;MN=190720099;Flag=5;CP=&&DataTime=20190923154847;LA-Rtd-Rtd=71.0,LA-Rtd-Flag=N&&"
    (found,) = platform().feed(build(body), 0)
    assert isinstance(found, Packet)
    assert found.factors == {"LA": {"Rtd": "71.0", "Flag": "N"}}


@pytest.mark.parametrize("body", [b"QN=1;ST=39", b"QN=1;CP=&&a=1&&", b"CN=;CP=&&&&"])
def test_data_that_are_no_packet(body: bytes) -> None:
    assert reasons(platform().feed(build(body), 0)) == ["format"]


# -- answers and times


def test_answers_carry_the_exchange_back() -> None:
    request = data(1)
    for answer, cn, fields in (
        (data_answer(request), "9014", {}),
        (notice_answer(request), "9013", {}),
        (request_answer(request, 3), "9011", {"QnRtn": "3"}),
        (execution_answer(request, 100), "9012", {"ExeRtn": "100"}),
    ):
        assert (answer.cn, answer.qn, answer.mn, answer.st, answer.flag) == (cn, request.qn, MN, "91", 4)
        assert answer.fields == fields
        assert not answer.wants_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20260302120000", NOON_MS),
        ("20260302120000123", NOON_MS + 123),
        ("202603021200001", NOON_MS + 100),
        ("2026030212000012", NOON_MS + 120),
        ("202603021200001234", NOON_MS + 123),
        ("19700101080000", 0),
        ("20261302120000", None),
        ("20260302", None),
        ("", None),
        ("0000000000000000", None),
        ("２０２６０３０２１２００００", None),
    ],
)
def test_times_are_utc_plus_8(text: str, expected: int | None) -> None:
    assert parse_time(text) == expected


def test_times_are_written_as_they_are_read() -> None:
    assert format_time(NOON_MS) == "20260302120000"
    assert format_qn(NOON_MS + 7) == "20260302120000007"


@pytest.mark.parametrize(
    "wrong",
    [
        data(1, cn=""),
        data(1, mn="a;b"),
        data(1, fields={"a": "x;y"}),
        data(1, fields={"a": "x&&y"}),
        data(1, factors={"a,b": {"Rtd": "1"}}),
        data(1, fields={"a": "中"}, encoding="ascii"),
        data(1, fields={"a": "x" * 10_000}),
    ],
)
def test_what_cannot_be_said(wrong: Packet) -> None:
    with pytest.raises(LocalProtocolError):
        encode(wrong)


# -- headers and items as stations write them


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("QN=20260302120000;ST=39;CN=2011;PW=1;MN=A;Flag=4", {"qn": "20260302120000"}),
        ("QN=202603021200001234;ST=39;CN=2011;PW=1;MN=A;Flag=4", {"qn": "202603021200001234"}),
        ("ST=39;CN=2011;PW=1;MN=A", {"qn": "", "flag": None}),
        ("QN=1;ST=39;CN=2011;PW=;MN=;Flag=4", {"pw": "", "mn": ""}),
        ("QN=1;ST=39;CN=2011;PW=1;MN=null;Flag=4", {"mn": "null"}),
        ("QN=1;ST=101;CN=3003;PW=1;MN=A;Flag=8", {"st": "101", "cn": "3003", "flag": 8}),
        ("QN=1;ST=22;CN=9011;PW=1;MN=A;Flag=4", {"st": "22", "cn": "9011"}),
        ("QN=1;ST=32;CN=2011;PW=1;MN=A;Flag=9;SK=00FF", {"flag": 9, "extra": {"SK": "00FF"}}),
        (" QN=1; ST=39 ;CN=2011;PW=1;MN=A;Flag=4", {"qn": "1", "st": "39"}),
    ],
)
def test_odd_headers(head: str, wanted: dict[str, object]) -> None:
    (found,) = platform().feed(build(f"{head};CP=&&DataTime=20260302120000;a-Rtd=1&&".encode()), 0)
    assert isinstance(found, Packet)
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.factors == {"a": {"Rtd": "1"}}


@pytest.mark.parametrize(
    ("items", "fields", "factors"),
    [
        (
            "BeginTime=20260302110000,EndTime=20260302120000",
            {"BeginTime": "20260302110000", "EndTime": "20260302120000"},
            {},
        ),
        ("a34001-Rtd=92;Flag=N", {"Flag": "N"}, {"a34001": {"Rtd": "92"}}),
        ("s10001=0;s10003=23.2;", {"s10001": "0", "s10003": "23.2"}, {}),
        ("a-Rtd=1;a-Flag=N;a-Rtd=2", {}, {"a": {"Rtd": "2", "Flag": "N"}}),
        (" LA-Rtd = 50.1 ; LA-Flag=N", {}, {"LA": {"Rtd": "50.1", "Flag": "N"}}),
        ("SB1-RS=1;SB1-RT=1.5", {}, {"SB1": {"RS": "1", "RT": "1.5"}}),
        (
            "w-SampleTime=20260302110000,w-Rtd=,w-EFlag=A01",
            {},
            {"w": {"SampleTime": "20260302110000", "Rtd": "", "EFlag": "A01"}},
        ),
        ("", {}, {}),
    ],
)
def test_odd_items(items: str, fields: dict[str, str], factors: dict[str, dict[str, str]]) -> None:
    (found,) = platform().feed(build(f"QN=1;ST=39;CN=2011;PW=1;MN=A;Flag=4;CP=&&{items}&&".encode()), 0)
    assert isinstance(found, Packet)
    assert (found.fields, found.factors) == (fields, factors)


@pytest.mark.parametrize("check", ["lower", "UPPER"])
def test_a_checksum_of_zero_and_lower_case(check: str) -> None:
    body = next(
        text
        for n in range(100_000)
        if checksum(text := f"QN=1;ST=39;CN=2011;PW=1;MN=A;Flag=4;CP=&&a-Rtd={n}&&".encode()) in ("0000", "C001")
    )
    printed = checksum(body).lower() if check == "lower" else checksum(body)
    (found,) = platform(strict=True).feed(b"##%04d%b%b\r\n" % (len(body), body, printed.encode()), 0)
    assert isinstance(found, Packet)
