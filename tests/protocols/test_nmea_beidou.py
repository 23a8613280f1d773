"""NMEA 0183 and BeiDou messages: vectors both ways, what the library lets through, what lines suffer."""

from __future__ import annotations

import math

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.nmea_beidou import beidou, gnss
from protocols.nmea_beidou.endpoint import NmeaEndpoint
from protocols.nmea_beidou.explain import explain
from protocols.nmea_beidou.sentence import Sentence, build, checksum, judge
from tests.protocols.vectors import Vector, data_of, vectors

GGA = "GPGGA,184353.07,1929.045,S,02410.506,E,1,04,2.6,100.00,M,-33.9,M,,0000"


def line(body: str) -> bytes:
    raw = body.encode("latin-1")
    return b"$%b*%02X\r\n" % (raw, checksum(raw))


def sentence(body: str) -> Sentence:
    (found,) = NmeaEndpoint(Role.MASTER).feed(line(body), 0)
    assert isinstance(found, Sentence)
    return found


def heard(data: bytes, *, bare: bool = False) -> list[Sentence | RemoteProtocolError]:
    endpoint = NmeaEndpoint(Role.MASTER, bare=bare)
    return endpoint.feed(data, 0) + endpoint.tick(1_000_000)


def reasons(data: bytes) -> list[str]:
    return [one.reason if isinstance(one, RemoteProtocolError) else one.type for one in heard(data)]


@pytest.mark.parametrize("row", vectors("nmea_beidou", "frame"))
def test_vector_and_back(row: Vector) -> None:
    wire = data_of(row)
    found = judge(wire, bare=row["checksum"] == "none")
    if not row["expect"]["ok"]:
        assert isinstance(found, RemoteProtocolError)
        assert found.reason == row["expect"]["error"]
        return
    assert isinstance(found, Sentence)
    assert (found.talker, found.type) == (row["expect"]["talker"], row["expect"]["type"])
    again = build(found).rstrip()
    assert again == (wire if row["checksum"] == "ok" else wire + b"*%02X" % checksum(wire[1:]))


# -- lines


def test_a_line_cut_off_costs_itself_only() -> None:
    assert reasons(line(GGA)[:30] + line(GGA)) == ["no_checksum", "GGA"]
    assert reasons(b"\xff\x00garbage" + line(GGA) + b"U\xb5b" + line(GGA)) == ["garbage", "GGA", "garbage", "GGA"]


def test_what_follows_a_checksum_is_refused() -> None:
    assert reasons(line(GGA).rstrip() + b"xyz\r\n") == ["trailing_garbage"]
    assert reasons(line(GGA).rstrip() + b"  \r\n") == ["GGA"]


def test_no_checksum_only_where_configured() -> None:
    bare = b"$GPZDA,010203.05,06,07,2008,-08,30\r\n"
    assert reasons(bare) == ["no_checksum"]
    (found,) = heard(bare, bare=True)
    assert isinstance(found, Sentence)
    assert not found.checked


def test_lower_case_checksum_and_bare_line_ends() -> None:
    wire = line(GGA)
    assert reasons(wire[:-4] + wire[-4:-2].lower() + b"\n") == ["GGA"]
    assert reasons(wire.rstrip()) == ["GGA"]  # no line end at all: whole once the line is silent
    assert reasons(line("!AIVDM,1,1,,A,15M,0"[1:]).replace(b"$", b"!")) == ["VDM"]


def test_longer_than_the_standard_allows_but_not_without_end() -> None:
    long = f"BDTCI,4204986,4204990,2,142204,2,0,{'3A' * 1000}"
    assert sentence(long).field(7) == "3A" * 1000
    assert reasons(b"$GP" + b"A" * 5_000 + b"\r\n" + line(GGA)) == ["length", "GGA"]


def test_what_a_line_cannot_say() -> None:
    for bad in (
        Sentence("gp", "GGA"),
        Sentence("GP", "GGA", ("a,b",)),
        Sentence("GP", "GGA", ("测试",)),
        Sentence("GP", "TXT", ("x" * 3_000,)),
    ):
        with pytest.raises(LocalProtocolError):
            build(bad)


# -- what the library lets through


def place_of(body: str) -> gnss.Place | None:
    found = sentence(body)
    return gnss.place(found, gnss.attributes(found))


def test_no_fix_is_none_and_never_zero() -> None:
    assert place_of("GPGGA,,,,,,0,00,99.99,,,,,,") is None
    found = sentence("GPRMC,,V,,,,,,,,,,N")
    assert gnss.has_fix(found, gnss.attributes(found)) is False


@pytest.mark.parametrize(
    "body",
    [
        "GPRMC,123519,A,4807.038",  # cut short: the hemisphere is missing
        "GPRMC,123519,A,9807.038,N,01131.000,E,,,230394,,",
        "GNRMC,123519.00,A,48xx,N,01131.000,E,,,230394,,",
        "GPGGA,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
    ],
)
def test_places_that_are_none(body: str) -> None:
    assert place_of(body) is None


def test_one_odd_field_does_not_raise() -> None:
    found = sentence("GPGSA,A,3,x,22,35,38,,,,,,,,,1.5,0.8,1.3")
    assert gnss.attributes(found)["navMode"] == 3
    assert explain(Capture(build(found))).said()["sats"] == [22, 35, 38]
    two = sentence("GPGSA,A,3,x,y,35,38,,,,,,,,,1.5,0.8,1.3")
    assert gnss.attributes(two) == {}
    assert explain(Capture(build(two))).said()["unknown"] is True


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("GPRMC,996199,A,4807.038,N,01131.000,E,,,230394,,", None),
        ("GPRMC,123519,A,4807.038,N,01131.000,E,,,320394,,", None),
        ("GPRMC,123519,A,4807.038,N,01131.000,E,,,230394,,", "1994-03-23T12:35:19Z"),
        ("GPRMC,123519,A,4807.038,N,01131.000,E,,,230379,,", "2079-03-23T12:35:19Z"),
        ("GPRMC,123519.5,A,4807.038,N,01131.000,E,,,230326,,", "2026-03-23T12:35:19.500Z"),
    ],
)
def test_dates(body: str, text: str | None) -> None:
    assert explain(Capture(line(body))).said()["datetime"] == text


def test_receivers_that_lost_a_turn_of_1024_weeks() -> None:
    now_ms = 1_772_409_600_000
    back_ms = now_ms - round(gnss.ROLL_OVER.total_seconds()) * 1000
    assert gnss.unroll(back_ms, now_ms) == (now_ms, 1)
    assert gnss.unroll(now_ms - 3_600_000, now_ms) == (now_ms - 3_600_000, 0)


def test_navigational_status_v_does_not_take_the_fix() -> None:
    found = sentence("GNRMC,054501.00,A,4004.73,N,11614.19,E,0.0,,010223,,,A,V")
    assert gnss.has_fix(found, gnss.attributes(found)) is True


def test_proprietary_and_unknown_sentences_keep_their_fields() -> None:
    told = explain(Capture(line("PMTK001,604,3"))).said()
    assert (told["talker"], told["type"], told["proprietary"], told["fields"]) == ("P", "MTK001", True, ["604", "3"])
    told = explain(Capture(line("GNXXX,1,,3"))).said()
    assert (told["unknown"], told["fields"]) == (True, ["1", "", "3"])


def test_wind_and_units() -> None:
    assert gnss.WIND_UNITS["N"] * 1.943844 == pytest.approx(1, abs=1e-5)
    assert math.isnan(gnss.number(None))


# -- BeiDou


def test_short_messages_of_both_generations() -> None:
    found = beidou.read(sentence("BDTXR,1,4207733,1,2337,B2E2CAD4"))
    assert isinstance(found, beidou.ShortMessage)
    assert (found.sender, found.text, found.of_day_ms) == (4207733, "测试", (23 * 60 + 37) * 60_000)
    found = beidou.read(sentence("BDTCI,4204986,4204990,2,142204,2,0,3A64"))
    assert isinstance(found, beidou.ShortMessage)
    assert (found.data, found.text, found.receiver) == (b"\x3a\x64", "", 4204990)
    mixed = beidou.read(sentence("BDTCI,4204986,4204990,2,142204,3,0,A4B2E2CAD4"))
    assert isinstance(mixed, beidou.ShortMessage)
    assert mixed.text == "测试"
    as_text = beidou.read(sentence("BDTXR,1,4207733,1,2337," + "测试".encode("gbk").decode("latin-1")))
    assert isinstance(as_text, beidou.ShortMessage)
    assert as_text.text == "测试"


def test_sending_stays_within_what_a_card_takes() -> None:
    wire = build(beidou.send(4207733, "水位 3.2 m".encode("gbk"), coding=beidou.TEXT))
    (told,) = heard(wire)
    assert isinstance(told, Sentence)
    found = beidou.read(told)
    assert isinstance(found, beidou.ShortMessage)
    assert (found.receiver, found.text) == (4207733, "水位 3.2 m")
    assert isinstance(beidou.read(beidou.send(4207733, bytes(1000), generation=3)), beidou.ShortMessage)
    for wrong in (lambda: beidou.send(1, bytes(79)), lambda: beidou.send(1, b""), lambda: beidou.send(0, b"x")):
        with pytest.raises(LocalProtocolError):
            wrong()


def test_feedback_with_its_reason() -> None:
    found = beidou.read(sentence("BDFKI,TCQ,N,1,42"))
    assert found == beidou.Feedback("TCQ", False, 1, 42)
    assert found.meaning == "too soon"


# -- explain


def test_a_stream_is_told_sentence_by_sentence() -> None:
    log = b"boot\r\n" + line(GGA) + line("GNXXX,1") + line(GGA).replace(b"*6D", b"*00")
    told = explain(Capture(log))
    assert told.said()["types"] == ["GGA", "XXX"]
    assert [one.error for one in told.frames] == ["garbage", "", "", "checksum"]
    lat = next(one for one in told.frames[1].fields if one.name == "lat")
    assert log[lat.offset : (lat.offset or 0) + (lat.length or 0)] == b"1929.045"
    for size in range(len(log)):
        explain(Capture(log[:size]))


def test_likely_mistakes_are_named() -> None:
    body = GGA.encode()
    wrong = b"$%b*%02X" % (body, checksum(b"$" + body))
    assert any("$" in hint for hint in explain(Capture(wrong)).frames[0].hints)
    assert explain(Capture(b"$GPZDA,010203.05,06,07,2008,-08,30", strict=True)).error == "no_checksum"


def test_places_of_makers_sentences_have_the_same_digits() -> None:
    said = explain(Capture(line("PKLSH,3851.3330,N,09447.9417,W,012212,V,100,1202,"))).said()
    assert (said["lat"], said["lon"], said["proprietary"]) == (38.85555, -94.7990283, True)
    assert said["deviceId"] == "1202"


def test_a_sentence_of_several_systems_tells_more_than_its_place() -> None:
    said = explain(Capture(line("GNGNS,103607.00,5327.03942,N,00214.42462,W,AANN,06,5.88,56.0,48.5,,,V"))).said()
    assert (said["lat"], said["sats"], said["hdop"], said["altitude"], said["valid"]) == (
        53.450657,
        6,
        5.88,
        56.0,
        True,
    )
    assert said["mode"] == "AANN"


def test_one_bad_field_costs_itself_only() -> None:
    said = explain(Capture(line("GPRMC,172142.00,A,4805.302,N,11629.090,W,0.D,12.5,230394,,"))).said()
    assert (said["lat"], said["lon"], said["speed_kn"], said["course"]) == (48.0883667, -116.4848333, None, 12.5)
    assert said["datetime"] == "1994-03-23T17:21:42Z"
    assert gnss.attributes(sentence("GPGGA," + ",".join(["x"] * 30))) == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("BDFKI,TXA,N,Y,4,0000", ("TXA", "N", 4, 0)),  # BDS-2: sent or not, allowed or not
        ("BDFKI,TXA,Y,Y,0,0040", ("TXA", "Y", 0, 40)),
        ("BDFKI,080432,TCQ,Y,0,0", ("TCQ", "Y", 0, 0)),  # BDS-3 with the time
        ("BDFKI,TCQ,N,1,42", ("TCQ", "N", 1, 42)),
        ("BDFKI", ("", "N", None, None)),
    ],
)
def test_feedback_of_all_modules(body: str, said: tuple[object, ...]) -> None:
    told = explain(Capture(line(body))).said()
    assert (told["for"], told["ok_flag"], told["reason"], told["wait"]) == said


def test_cards_short_and_whole_and_the_question_for_one() -> None:
    whole = "BDICP,15240507,2032472,1,3,0,N,1,Y,1,0,0,3,1,60,5,1,1,2,2,500,100,10,10"
    assert beidou.read(sentence(whole)) == beidou.Card(15240507, 5, 60)
    assert beidou.read(sentence("BDICP,15240507,2032472,3,60")) == beidou.Card(15240507, 3, 60)
    assert beidou.read(sentence("BDICI,4207733,0,0,3,60,2,N,22")) == beidou.Card(4207733, 2, 60)
    assert explain(Capture(line("CCICI,0,00"))).said()["fields"] == ["0", "00"]


@pytest.mark.parametrize("body", ["CCTCQ,4314513,2,1,2,,3A64", "CCTCQ,4314513,2,1,2,3A64,0", "CCTXA,4314513,1,2,,3A64"])
def test_orders_with_an_empty_field_before_the_content(body: str) -> None:
    said = explain(Capture(line(body))).said()
    assert (said["receiver"], said["coding"], said["content"]) == (4314513, 2, "3A64")


def test_a_line_that_lost_its_dollar_is_told_if_the_checksum_fits() -> None:
    wire = b"  " + line(GGA)[1:]
    told = explain(Capture(wire))
    assert told.said()["types"] == ["GGA"]
    (one,) = told.good
    assert wire[one.offset : one.offset + one.length] == wire.strip()
    assert one.fields[0].offset == 2
    assert explain(Capture(wire, strict=True)).error == "garbage"
    assert explain(Capture(wire.replace(b"1929", b"1928"))).error == "garbage"
    assert explain(Capture(b"FOOBAR")).error == "garbage"


def test_a_leap_second_is_written_as_one() -> None:
    said = explain(Capture(line("GPZDA,235960.50,31,12,2016,00,00"))).said()
    assert said["datetime"] == "2016-12-31T23:59:60.500Z"
