"""SL 651 beyond single telegrams: confirmations, packets, what real stations do, and captures told."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.sl651 import messages as sl651
from protocols.sl651.elements import ELEMENTS, Element, bcd, element, rain_series, series, to_bcd
from protocols.sl651.endpoint import ANSWER_TIMEOUT_MS, Sl651Endpoint
from protocols.sl651.explain import explain
from protocols.sl651.frame import End, Telegram, build, crc
from protocols.sl651.joiner import ASK_AFTER_MS, GIVE_UP_MS, MAX_BYTES
from protocols.sl651.reading import read
from tests.protocols import samples_sl651 as samples

STATION = "0012345678"
NOON = "260302120000"


def report(
    serial: int = 1, *elements: Element, func: int = sl651.TIMED, kind: str = "48", **header: object
) -> Telegram:
    group = sl651.Group(NOON[:10], elements or (element("39", "12.34"),))
    body = sl651.write(sl651.Report(serial, NOON, STATION, kind, (group,)))
    return replace(Telegram(func, body, STATION, 1, "1234"), **header)  # type: ignore[arg-type]


def centre() -> Sl651Endpoint:
    return Sl651Endpoint(Role.MASTER)


def station(**options: object) -> Sl651Endpoint:
    return Sl651Endpoint(Role.SLAVE, **options)  # type: ignore[arg-type]


def confirmed(telegram: Telegram, end: End = End.EOT) -> bytes:
    message = read(telegram)
    assert isinstance(message, sl651.Report)
    return build(sl651.confirm(telegram, message.serial, message.sent, end))


def elements_of(telegram: object) -> dict[str, object]:
    assert isinstance(telegram, Telegram)
    message = read(telegram)
    assert isinstance(message, sl651.Report)
    return {one.id: one.value for group in message.groups for one in group.elements}


# -- mode M2: a report is kept until the centre confirms it


def test_two_repeats_then_with_the_next_report() -> None:
    sender = station()
    first = sender.send(report(1), 0)
    sent = []
    for now_ms in range(0, 120_000, 1_000):
        sender.tick(now_ms)
        if out := sender.take_output():
            assert out == first
            sent.append(now_ms)
    assert sent == [ANSWER_TIMEOUT_MS, 2 * ANSWER_TIMEOUT_MS]
    assert sender.deadline() is None
    assert sender.send(report(2), 120_000) == build(report(2)) + first


@pytest.mark.parametrize("end", [End.EOT, End.ESC, End.ACK])
def test_each_confirmation_ends_it(end: End) -> None:
    sender = station()
    sender.send(report(1), 0)
    (heard,) = sender.feed(confirmed(report(1), end), 1_000)
    assert isinstance(heard, Telegram)
    assert heard.end is end
    assert sender.unanswered == ()
    assert sender.deadline() is None


@pytest.mark.parametrize("other", [report(2), report(1, func=sl651.EXTRA)])
def test_a_confirmation_of_another_report_ends_nothing(other: Telegram) -> None:
    sender = station()
    sender.send(report(1), 0)
    sender.feed(confirmed(other), 1_000)
    assert sender.unanswered == (report(1),)


def test_mode_m1_keeps_nothing_and_neither_do_keep_alive_and_answers() -> None:
    quiet = station(confirmed=False)
    quiet.send(report(1), 0)
    assert quiet.unanswered == ()
    sender = station()
    sender.send(Telegram(sl651.KEEP_ALIVE, sl651.write(sl651.Plain(1, NOON)), STATION), 0)
    sender.send(report(2, func=sl651.READ_NOW), 0)
    assert sender.unanswered == ()


def test_reconnection_sends_everything_unconfirmed_and_what_is_kept_is_bounded() -> None:
    sender = station(keep=10)
    for serial in range(25):
        sender.send(report(serial), 0)
    assert sender.dropped == 15
    sender.feed(b"\x7e\x7e\x00", 1)  # half a telegram of the old connection
    sender.connected(60_000)
    assert centre().feed(sender.take_output(), 60_000) == [report(serial) for serial in range(15, 25)]


# -- mode M3: several packets, one confirmation


def picture(serial: int = 5, size: int = 3_000) -> Telegram:
    message = sl651.Report(
        serial, NOON, STATION, "48", (sl651.Group(NOON[:10], ()),), picture=b"\xff\xd8" + b"~" * size
    )
    return Telegram(sl651.PICTURE, sl651.write(message), STATION, 1, "1234")


def packets(telegram: Telegram) -> list[bytes]:
    return [build(part) for part in sl651.split(telegram, 512)]


def test_packets_in_any_order_are_one_message_and_one_confirmation() -> None:
    sender, receiver = station(), centre()
    stream = sender.send(picture(), 0)
    parts = packets(picture())
    assert stream == b"".join(parts)
    assert [part[-3] for part in parts] == [End.ETB] * (len(parts) - 1) + [End.ETX]
    (whole,) = receiver.feed(b"".join([parts[-1], *parts[1:-1], parts[1], parts[0]]), 0)
    assert isinstance(whole, Telegram)
    assert whole.body == picture().body
    assert (whole.total, whole.seq, whole.end) == (len(parts), 0, End.ETX)
    message = read(whole)
    assert isinstance(message, sl651.Report)
    assert message.picture is not None and len(message.picture) == 3_002
    sender.feed(build(sl651.confirm(whole, message.serial, message.sent, End.ESC)), 1)
    assert sender.unanswered == ()
    told = explain(Capture(stream))
    assert (told.said()["frames"], told.said()["messages"]) == (len(parts), 1)


def test_a_missing_packet_is_asked_for_and_sent_again() -> None:
    sender, receiver = station(), centre()
    parts = packets(picture())
    sender.send(picture(), 0)
    assert receiver.feed(b"".join(part for n, part in enumerate(parts) if n != 2), 0) == []
    assert receiver.deadline() == ASK_AFTER_MS
    assert receiver.tick(ASK_AFTER_MS) == []
    asked = receiver.take_output()
    (nak,) = sender.feed(asked, ASK_AFTER_MS)
    assert isinstance(nak, Telegram)
    assert (nak.end, nak.seq, nak.total, nak.down) == (End.NAK, 3, len(parts), True)
    assert sender.take_output() == parts[2]
    (whole,) = receiver.feed(parts[2], ASK_AFTER_MS + 100)
    assert isinstance(whole, Telegram)
    assert whole.body == picture().body
    assert receiver.deadline() is None


def test_packets_that_never_come_are_given_up_after_three_questions() -> None:
    receiver = centre()
    receiver.feed(packets(picture())[0], 0)
    asked = 0
    for now_ms in range(0, GIVE_UP_MS, 1_000):
        assert receiver.tick(now_ms) == []
        asked += bool(receiver.take_output())
    assert asked == 3
    (lost,) = receiver.tick(GIVE_UP_MS)
    assert isinstance(lost, RemoteProtocolError)
    assert lost.reason == "split_timeout"
    assert receiver.deadline() is None


def test_the_next_picture_does_not_take_packets_of_the_one_before() -> None:
    receiver = centre()
    receiver.feed(b"".join(packets(picture(5))[1:]), 0)
    (whole,) = receiver.feed(b"".join(packets(picture(6))), 1_000) or [None]
    # Packets of both are alike but for the first: what comes out is the new one, whole.
    assert isinstance(whole, Telegram)
    assert whole.body == picture(6).body


def test_what_a_station_announces_is_not_believed() -> None:
    receiver = centre()
    for number in range(40):
        part = Telegram(sl651.PICTURE, bytes(4_000), f"{number:010d}", total=1_000, seq=1, end=End.ETB)
        found = receiver.feed(build(part), 0)
    assert [one.reason for one in found if isinstance(one, RemoteProtocolError)] == ["split_overflow"]
    for seq in range(1, 700):
        receiver.feed(build(Telegram(sl651.PICTURE, bytes(4_000), STATION, total=1_000, seq=seq, end=End.ETB)), 0)
    held = receiver._joiner._groups
    assert sum(group.size for group in held.values()) <= MAX_BYTES
    (refused,) = receiver.feed(build(Telegram(sl651.PICTURE, b"", STATION, total=4_000, seq=1)), 0)
    assert isinstance(refused, RemoteProtocolError)
    assert refused.reason == "split"


# -- what real stations do


@pytest.mark.parametrize("center", [0, 0xFF])
def test_centre_addresses_outside_the_standard(center: int) -> None:
    (found,) = centre().feed(build(report(center=center)), 0)
    assert found == report(center=center)


@pytest.mark.parametrize("name", ["AB12345678", "FFFFFFFFFF"])
def test_hex_letters_in_the_station(name: str) -> None:
    (found,) = centre().feed(build(report(station=name)), 0)
    assert isinstance(found, Telegram)
    assert found.station == name


def test_the_start_bytes_inside_a_serial_number_and_a_body() -> None:
    inside = report(0x7E7E, element("20", "7.5"), Element("FF7E", 0x23, b"\x7e\x7e\x7e\x7e"))
    stream = build(inside) + build(report(2))
    assert centre().feed(stream, 0) == [inside, report(2)]


def test_stray_bytes_between_telegrams_and_half_a_start() -> None:
    stream = b"\x00\x7e" + build(report(1)) + b"\r\n\x7e\x7e\x01" + build(report(2)) + b"OK"
    found = centre().feed(stream, 0)
    assert [one for one in found if isinstance(one, Telegram)] == [report(1), report(2)]


def test_a_wrong_length_holds_up_no_good_telegram() -> None:
    good = build(report(2))
    long = build(report(1))
    long = long[:11] + b"\x0f\xff" + long[13:]  # says 4095
    found = centre().feed(long + good, 0)
    assert [one for one in found if isinstance(one, Telegram)] == [report(2)]


def test_a_level_of_a_rain_station_in_three_bytes_and_makers_own_elements() -> None:
    own = (
        Element("39", 0x1A, b"\x00\x12\x34"),
        Element("FF11", 0x23, b"\x00\x00\x00\x08"),
        Element("76", 0x19, b"\0\0\5"),
    )
    (found,) = centre().feed(build(report(1, *own, kind="50")), 0)
    assert elements_of(found) == {"39": "12.34", "FF11": "0.008", "76": "0.5"}


@pytest.mark.parametrize("func", [sl651.READ_ELEMENTS, sl651.READ_BASIC, sl651.READ_RUN])
def test_a_question_that_names_the_station_in_its_body(func: int) -> None:
    question = sl651.Question(1, NOON, (("20", 0x08), ("FF11", 0x23)))
    body = sl651.write(question)
    named = body[:8] + b"\xf1\xf1" + bytes.fromhex(STATION) + body[8:]
    for sent in (body, named):
        assert read(Telegram(func, sent, STATION, down=True, end=End.ENQ)) == question


@pytest.mark.parametrize("raw", ["FFFFFFFF", "AAAAAAAA", "00F12345", "0012AA00"])
def test_no_value_never_becomes_a_number(raw: str) -> None:
    assert bcd(bytes.fromhex(raw), 3) is None


@pytest.mark.parametrize(
    ("raw", "decimals", "value"),
    [
        ("FF0250", 2, "-2.50"),
        ("000250", 2, "2.50"),
        ("09999999", 3, "9999.999"),
        ("00", 0, "0"),
        ("FF000000", 3, "-0.000"),
    ],
)
def test_numbers(raw: str, decimals: int, value: str) -> None:
    found = bcd(bytes.fromhex(raw), decimals)
    assert found is not None
    assert Decimal(found) == Decimal(value)


def test_a_clock_that_was_never_set() -> None:
    assert sl651.to_ms("000000000000") is None
    assert sl651.to_ms("AAAAAAAAAAAA") is None
    assert sl651.iso("591011154947") == "2059-10-11T15:49:47"
    assert sl651.to_ms("260302120000") == 1_772_424_000_000
    assert sl651.stamp(1_772_424_000_000) == NOON
    told = explain(Capture(build(Telegram(sl651.KEEP_ALIVE, sl651.write(sl651.Plain(3, "591011154947")), STATION))))
    assert any("clock is not set" in hint for hint in told.frames[0].hints)


def test_the_other_address_order_under_up_bits_is_seen() -> None:
    bad = report()
    wire = bytearray(build(bad)[:-2])
    wire[2:8] = bytes.fromhex(STATION) + b"\x01"  # station first, as the centre would send
    data = bytes(wire) + crc(bytes(wire)).to_bytes(2, "big")
    (found,) = centre().feed(data, 0)
    assert isinstance(found, Telegram)
    assert found.station != STATION
    assert found.swapped_station == STATION
    assert any("other direction's order" in hint for hint in explain(Capture(data)).frames[0].hints)


def test_an_element_that_runs_over_the_end_leaves_the_others() -> None:
    whole = report(1, element("20", "0.5"), element("39", "1.5"))
    cut = replace(whole, body=whole.body[:-2])
    (found,) = centre().feed(build(cut), 0)
    assert elements_of(found) == {"20": "0.5"}
    message = read(found) if isinstance(found, Telegram) else None
    assert isinstance(message, sl651.Report)
    assert message.rest == whole.body[-6:-2]


def test_series() -> None:
    slots = (Decimal("0.5"), Decimal("25.4"), None, *(Decimal(0),) * 9)
    rain = rain_series(slots)
    assert rain.value == ("0.5", "25.4", None, *("0.0",) * 9)
    assert series(bytes.fromhex("04D2FFFF"), "F5") == ("12.34", None)


def test_elements_of_the_table_say_what_they_are_given() -> None:
    for kind in ELEMENTS.values():
        if kind.definition and kind.id not in ("45",) and kind.id < "F4":
            assert Decimal(str(element(kind.id, "1").value)) == 1, kind


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: build(Telegram(0x32, b"", "12")),
        lambda: build(Telegram(0x32, b"", STATION, password="xyz")),
        lambda: build(Telegram(0x32, bytes(5_000), STATION)),
        lambda: build(Telegram(0x32, b"", STATION, total=2, seq=3)),
        lambda: build(Telegram(0x132, b"", STATION)),
        lambda: to_bcd(Decimal("1234567"), 0x19),
        lambda: element("FF11", "1"),
        lambda: rain_series((None,)),
        lambda: sl651.write(sl651.Plain(70_000, NOON)),
        lambda: sl651.write(sl651.Plain(1, "26030212000x")),
        lambda: sl651.write(sl651.Settings(1, NOON, (sl651.Setting("20", 0x10, b"1"),))),
    ],
)
def test_what_cannot_be_said(wrong: object) -> None:
    with pytest.raises(LocalProtocolError):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize("limit", [64, 512])
def test_a_long_message_is_split_and_a_short_one_is_not(limit: int) -> None:
    parts = sl651.split(picture(), limit)
    assert all(len(part.body) <= limit for part in parts)
    assert b"".join(part.body for part in parts) == picture().body
    assert sl651.split(report(), 512) == [report()]


# -- bodies both ways, and captures of anything


@settings(max_examples=60, deadline=None, derandomize=True)
@given(message=samples.report_message)
def test_reports_read_as_they_are_written(message: sl651.Report) -> None:
    found = read(Telegram(sl651.TIMED, sl651.write(message), message.station))
    assert found == message


@pytest.mark.parametrize(
    "message",
    [
        sl651.Settings(1, NOON, (sl651.Setting("20", 0x08, b"\x01"), sl651.Setting("38", 0x12, b"\x05\x00")), STATION),
        sl651.Settings(1, NOON, (sl651.Setting("20", 0x08, b"\x01"),)),
        sl651.Plain(1, NOON),
        sl651.Plain(1, NOON, STATION),
    ],
)
def test_settings_both_ways(message: sl651.Settings | sl651.Plain) -> None:
    assert read(Telegram(sl651.READ_RUN, sl651.write(message), STATION)) == message


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_telling_a_capture_never_raises(data: st.DataObject) -> None:
    telegram = data.draw(st.one_of(samples.report(), samples.request()))
    wire = bytearray(build(telegram))
    for at in data.draw(st.lists(st.integers(0, len(wire) - 1), max_size=4)):
        wire[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # a body of anything under a good checksum
        body = data.draw(st.binary(max_size=60))
        wire = bytearray(build(replace(telegram, body=body)))
    if data.draw(st.booleans()):
        wire = wire[: data.draw(st.integers(0, len(wire)))]
    told = explain(Capture(bytes(wire)))
    assert told.ok or told.detail
    for one in told.frames:
        assert all(field.offset is None or 0 <= field.offset <= len(wire) for field in one.fields)


def test_hints_for_an_installer() -> None:
    good = build(report())
    swapped = explain(Capture(good[:-2] + good[:-3:-1]))
    assert (swapped.error, "low byte first" in swapped.frames[0].hints[0]) == ("crc", True)
    short = explain(
        Capture(good[:11] + b"\x00\x30" + good[13:-2] + crc(good[:11] + b"\x00\x30" + good[13:-2]).to_bytes(2, "big"))
    )
    assert short.error in ("short", "crc")
    assert any("length field" in hint for one in short.frames for hint in one.hints)
    assert explain(Capture(good.hex().encode())).ok  # digits of an SMS
    assert explain(Capture(b"")).error == "empty"
    assert explain(Capture(b"hello")).error == "garbage"


# -- behind a time step: identifiers once, then values


OPENING = "0031250304120502F1F1001234567848F0F02503041105"


def told(func: int, body: str) -> dict[str, object]:
    return explain(Capture(build(Telegram(func, bytes.fromhex(body), STATION)))).said()


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        (
            "0418000005" + "3923" + "00000122" + "00010490" + "FFFFFFFF" + "00010491",
            [["04", "5"], ["39", ["0.122", "10.490", None, "10.491"]]],
        ),
        # Two identifiers, then the values of both, slot by slot.
        (
            "0418000005" + "2219" + "3922" + ("000012" + "00000123") * 3,
            [["04", "5"], ["22", ["1.2"] * 3], ["39", ["1.23"] * 3]],
        ),
        ("0418000005" + "FF1123" + "00000008" * 2, [["04", "5"], ["FF11", ["0.008"] * 2]]),
        ("0418000000" + "F460" + "05" * 24, [["04", "0"], ["F4", ["0.5"] * 24]]),
        # One value, and ordinary elements behind a step, stay what they are.
        ("0418000005" + "392300000012", [["04", "5"], ["39", "0.012"]]),
        ("0418000100" + "2019000012" + "392300000123", [["04", "100"], ["20", "1.2"], ["39", "0.123"]]),
    ],
)
def test_values_behind_a_time_step(body: str, elements: list[object]) -> None:
    for func in (sl651.EVEN, sl651.READ_PERIOD):
        said = told(func, OPENING + body)
        assert said["elements"] == elements
        assert "rest" not in said


def test_a_new_observation_time_ends_the_values_of_a_step() -> None:
    said = told(sl651.EVEN, OPENING + "0418000005" + "3923" + "00000122" * 3 + "F0F02503041205" + "38121215")
    assert said["obs"] == ["2025-03-04T11:05", "2025-03-04T12:05"]
    assert said["elements"] == [["04", "5"], ["39", ["0.122"] * 3], ["38", "12.15"]]


def test_values_behind_a_step_are_so_far_apart_and_go_out_again() -> None:
    body = bytes.fromhex(OPENING + "0418000100" + "3923" + "00000122" * 3)
    message = read(Telegram(sl651.EVEN, body, STATION))
    assert isinstance(message, sl651.Report)
    step, levels = message.groups[0].elements
    assert levels.step_ms == 3_600_000
    assert sl651.write(message) == body
    twice = replace(message, groups=(replace(message.groups[0], elements=(levels,)),))
    with pytest.raises(LocalProtocolError):  # several values need the step
        sl651.write(twice)
    assert step.value == "100"


def test_a_period_as_text() -> None:
    assert told(sl651.TIMED, OPENING + "052831312E3031")["elements"] == [["05", "11.01"]]


@pytest.mark.parametrize("func", sorted(sl651.CODED))
def test_orders_to_pumps_and_the_event_log_are_no_elements(func: int) -> None:
    said = told(func, "0029170718102248F1F100123456780101")
    assert (said["body_station"], said["data"]) == (STATION, "0101")
    assert "elements" not in said


@pytest.mark.parametrize("named", ["", "F1F10012345678"])
def test_a_version_lies_where_it_is_said_to(named: str) -> None:
    wire = build(Telegram(sl651.VERSION, bytes.fromhex("0022170718101955" + named + "0456312E32FF"), STATION))
    (field,) = [one for one in explain(Capture(wire)).frames[0].fields if one.name == "version"]
    assert field.offset is not None and wire[field.offset :].startswith(b"V1.2")


@pytest.mark.parametrize("gap", ["", " "])
def test_ascii_with_and_without_a_blank_behind_the_time(gap: str) -> None:
    body = f"0001260909080000{gap}ST 5010123456 H TT 2609090800 Z 6.38 VT 12.50 ".encode()
    said = explain(Capture(build(Telegram(sl651.TIMED, body, "5010123456", ascii=True)))).said()
    assert (said["serial"], said["time"]) == (1, "2026-09-09T08:00:00")
    assert (said["body_station"], said["type"], said["obs"]) == ("5010123456", "48", ["2026-09-09T08:00"])
    assert said["elements"] == [["Z", "6.38"], ["VT", "12.50"]]


def test_levels_of_an_hour_under_a_definition_that_fits_no_slots() -> None:
    said = told(sl651.HOURLY, OPENING + "F55C" + "0AAA" * 11 + "FFFF" + "38121215")
    assert said["elements"] == [["F5", ["27.30"] * 11 + [None]], ["38", "12.15"]]
    assert "rest" not in said


def test_makers_elements_of_several_stations() -> None:
    said = told(
        sl651.TEST, OPENING + "7A0829" + "FFA0110288" + "C15500000000000001165134" + "FFF10800" + "303300011778"
    )
    assert said["elements"] == [["7A", "29"], ["FFA0", "28.8"], ["C1", "11.65134"], ["FFF1", "0"]]
    assert said["rest"] == "303300011778"  # six bytes are said, four are there


@pytest.mark.parametrize(
    ("words", "elements"),
    [
        ("DRN05 Z 28.96 -28.97 28.98 VT 12.5", [["DRN05", "05"], ["Z", ["28.96", "-28.97", "28.98"]], ["VT", "12.5"]]),
        ("DRN05 005 DRZ1 28.96 28.97", [["DRN05", "005"], ["DRZ1", ["28.96", "28.97"]]]),
        ("DRH01 PJ 0.5", [["DRH01", "01"], ["PJ", "0.5"]]),
        ("Z M PJ 0.5", [["Z", None], ["PJ", "0.5"]]),
    ],
)
@pytest.mark.parametrize("kind", ["H", "48"])
def test_ascii_values_behind_a_time_step(kind: str, words: str, elements: list[object]) -> None:
    body = f"0001220510050000ST 1000000006 {kind} TT 2205100500 {words} ".encode()
    said = explain(Capture(build(Telegram(sl651.EVEN, body, "1000000006", ascii=True)))).said()
    assert (said["type"], said["elements"]) == ("48", elements)
    assert "rest" not in said
