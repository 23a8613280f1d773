"""GB/T 20999: frames back to the same bytes, escapes, what controllers get wrong, and which answer belongs to what."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.traffic_signal import objects
from protocols.traffic_signal.endpoint import SignalEndpoint
from protocols.traffic_signal.explain import explain
from protocols.traffic_signal.frame import Framing, build, crc16, escape, unescape
from protocols.traffic_signal.messages import Address, Item, Kind, Message, answer, payload_of, query
from tests.protocols.vectors import Vector, vectors

MODE = bytes.fromhex("7e0014010005000000000002200101050d0202012394f47d")


def framing_of(row: Vector) -> Framing:
    return "stream" if row["transport"] == "tcp" else "datagram"


@pytest.mark.parametrize("row", vectors("traffic-signal", "frame"))
def test_a_frame_is_built_again(row: Vector) -> None:
    if not row or not row["expect"]["ok"]:
        return
    data = bytes.fromhex(row["hex"])
    endpoint = SignalEndpoint(Role.MASTER, framing=framing_of(row), listen=True)
    (message,) = endpoint.feed_datagram(data, 0)
    assert isinstance(message, Message)
    assert build(payload_of(message), framing_of(row)) == data


@pytest.mark.parametrize("row", vectors("traffic-signal", "escape"))
def test_escaping_goes_both_ways(row: Vector) -> None:
    if row:
        plain = bytes.fromhex(row["plain_hex"])
        assert escape(plain).hex() == row["expect"]["escaped_hex"]
        assert unescape(escape(plain)) == plain


def read(data: bytes, framing: Framing = "datagram") -> list[Message | RemoteProtocolError]:
    return SignalEndpoint(Role.MASTER, framing=framing, listen=True).feed_datagram(data, 0)


def reasons(found: list[Message | RemoteProtocolError]) -> list[str]:
    return [one.reason for one in found if isinstance(one, RemoteProtocolError)]


# -- frames


def test_the_checksum_is_1005_from_zero() -> None:
    assert crc16(MODE[1:-3]) == 0x94F4
    assert crc16(b"123456789") != 0x29B1  # CCITT, which some kits use


def test_a_7d_inside_a_datagram_ends_nothing() -> None:
    message = Message(Kind.QUERY_REPLY, (Item(Address(2, 1), b"\x7d\x7e\x5c\x7d"),), sequence=0x7D)
    assert read(build(payload_of(message), "datagram")) == [message]
    assert read(build(payload_of(message), "stream"), "stream") == [message]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (MODE[:-3] + b"\x94\xf5\x7d", "crc"),
        (MODE[:-1], "short"),
        (MODE[:-1] + b"\x00", "length"),
        (MODE[:1] + b"\x00\x15" + MODE[3:], "short"),
        (MODE[:3] + b"\x7e" + MODE[4:], "version"),
        (MODE[:12] + b"\x99" + MODE[13:], "type"),
        (b"\x7e\xff\xff" + MODE[3:], "length"),
        (b"hello", "garbage"),
    ],
)
def test_a_broken_datagram_says_what_is_wrong(data: bytes, reason: str) -> None:
    assert reason in reasons(read(data))
    assert not [one for one in read(data) if isinstance(one, Message)]


def test_items_that_do_not_add_up_are_refused_with_a_good_checksum() -> None:
    payload = bytearray(payload_of(query("13.2.2.1")))
    payload[10] = 2
    assert reasons(read(build(bytes(payload), "datagram"))) == ["item"]
    payload[10], payload[12] = 1, 3
    assert reasons(read(build(bytes(payload), "datagram"))) == ["item"]


def test_a_stuck_escape_costs_its_own_frame_only() -> None:
    good = build(payload_of(query("1.1")), "stream")
    broken = good[:8] + b"\x5c\x41" + good[8:]
    found = read(broken + good, "stream")
    assert reasons(found) == ["escape"] and found[-1] == query("1.1")
    assert read(b"\x5c" + good, "stream")[-1] == query("1.1")


def test_bytes_between_frames_and_a_half_frame_before_a_whole_one() -> None:
    good = build(payload_of(query("3.3.1.0")), "stream")
    found = read(b"\x00\xff" + good + b"\r\n" + good[:9] + good, "stream")
    assert [one for one in found if isinstance(one, Message)] == [query("3.3.1.0")] * 2
    assert "garbage" in reasons(found)


def test_a_frame_too_long_to_say_is_our_mistake() -> None:
    items = tuple(Item(Address(6, 2, 3, n), bytes(251)) for n in range(1, 66))
    with pytest.raises(LocalProtocolError):
        SignalEndpoint(Role.SLAVE).send(Message(Kind.QUERY_REPLY, items), 0)
    with pytest.raises(LocalProtocolError):
        payload_of(Message(Kind.QUERY, (Item(Address(1, 1), bytes(252)),)))
    with pytest.raises(LocalProtocolError):
        payload_of(Message(Kind.QUERY, controller=1 << 32))
    with pytest.raises(LocalProtocolError):
        Address.of("13")


# -- who answers what


def ask(request: Message, *replies: Message) -> list[Message | RemoteProtocolError]:
    host, controller = SignalEndpoint(Role.MASTER), SignalEndpoint(Role.SLAVE)
    (heard,) = controller.feed(host.send(request, 0), 0)
    assert heard == request
    return [one for reply in replies for one in host.feed(controller.send(reply, 0), 0)]


QUESTION = query("13.2.2.1", "13.2.4.1", controller=805116, host=5)


def test_an_answer_with_another_sequence_number_is_taken() -> None:
    reply = replace(answer(QUESTION, Kind.QUERY_REPLY, QUESTION.items), sequence=77)
    assert ask(QUESTION, reply) == [reply]


def test_an_answer_about_something_else_is_not() -> None:
    other = answer(QUESTION, Kind.QUERY_REPLY, (Item(Address(13, 2, 3, 1), b"\x01"),))
    right = answer(QUESTION, Kind.QUERY_REPLY, QUESTION.items)
    found = ask(QUESTION, other, right, right)
    assert reasons(found) == ["wrong_address", "unexpected"] and found[1] == right


def test_an_answer_of_another_controller_is_not() -> None:
    other = replace(answer(QUESTION, Kind.QUERY_REPLY, QUESTION.items), controller=1)
    assert reasons(ask(QUESTION, other)) == ["wrong_address"]


def test_a_question_for_all_covers_each() -> None:
    asked = query("9.2.0.0")
    reply = answer(
        asked, Kind.QUERY_REPLY, (Item(Address(9, 2, 3, 1), b"\0\0\0\x78"), Item(Address(9, 2, 1, 4), b"\x04"))
    )
    assert ask(asked, reply) == [reply]


def test_reports_and_heartbeats_come_when_they_like() -> None:
    report = Message(Kind.REPORT, (Item(Address(16, 2, 2, 1), b"\x10"),))
    beat = Message(Kind.HEARTBEAT)
    assert ask(QUESTION, report, beat) == [report, beat]


def test_a_failure_names_its_reasons() -> None:
    refused = answer(
        QUESTION, Kind.QUERY_FAILED, (Item(Address(13, 2, 2, 1), b"\x30"), Item(Address(13, 2, 4, 1), b"\x99"))
    )
    (found,) = ask(QUESTION, refused)
    assert isinstance(found, Message)
    assert list(found.failures.values()) == ["value_does_not_exist", "unknown"]


def test_a_host_cannot_send_an_answer_nor_a_controller_a_question() -> None:
    with pytest.raises(LocalProtocolError):
        SignalEndpoint(Role.MASTER).send(Message(Kind.REPORT), 0)
    with pytest.raises(LocalProtocolError):
        SignalEndpoint(Role.SLAVE).send(query("1.1"), 0)


# -- objects


def test_chains_begin_at_the_last_byte() -> None:
    chain = objects.chain_bytes([2, 1, 3])
    assert chain == bytes(13) + b"\x03\x01\x02"
    assert objects.chain(chain) == [2, 1, 3]
    assert objects.chain_words(objects.chain_bytes([30, 0, 45], 2)) == [30, 0, 45]
    assert objects.value(Item(Address(9, 2, 8, 1), objects.chain_bytes([0x10, 0x20]))) == ["fixed", "on_demand"]
    # Shorter than stated: still from the end.
    assert objects.chain(b"\x02\x01") == [1, 2]


def test_a_one_byte_answer_is_a_value_not_a_status() -> None:
    assert objects.value(Item(Address(17, 1, 1, 1), b"\x01")) == 1


def test_times_maps_and_calendars() -> None:
    noon = datetime(2026, 3, 2, 12, 0, 1)
    assert objects.moment(objects.moment_bytes(noon)) == "2026-03-02T12:00:01"
    assert objects.moment(bytes(7)) is None and objects.moment(b"\x07\xe5\x0d\x01\0\0\0") is None
    assert objects.bits(objects.bits_bytes([1, 9, 64])) == [1, 9, 64]
    assert objects.value(Item(Address(12, 2, 4, 1), b"\x7f")) == list(objects.WEEKDAYS)
    assert objects.value(Item(Address(12, 2, 5, 1), b"\x1f\xfe")) == list(range(1, 13))
    assert objects.value(Item(Address(12, 2, 6, 1), b"\x80\0\0\x01")) == [1, 32]


def test_day_plans_are_filled_from_the_end_too() -> None:
    # A controller's answers with one period hold its plan and its mode in the last byte.
    starts = bytes(90) + bytes((22, 0, 6, 30, 0, 0))
    assert objects.value(Item(Address(11, 2, 3, 1), starts)) == ["00:00", "06:30", "22:00"]
    assert objects.value(Item(Address(11, 2, 4, 1), bytes(46) + b"\x02\x01")) == [1, 2]
    modes = objects.value(Item(Address(11, 2, 5, 1), bytes(32) + b"\x21" * 15 + b"\x23"))
    assert modes == ["local_coordination"] + ["local_fixed_cycle"] * 15


@pytest.mark.parametrize(
    ("address", "data", "said"),
    [
        ("13.1.6", b"\xf6", -10), ("13.1.5", b"\x00\x0c", 1.2), ("13.2.2.1", b"\x31", "yellow_flash"),
        ("15.2.2.1", b"\x80", 128), ("16.2.4.1", b"\x07", 7), ("6.3.4.1", b"\0\0\0\x09", 9), ("5.1", b"\x48", 72),
        ("1.1", "东土".encode("gbk"), "东土"), ("130.1.1", b"\x01\x02", "0102"), ("3.3.1.1", b"", None),
        ("13.1.1", b"\0\0\0\0\0\0\0\x05", [1, 3]), ("9.2.5.1", b"\0\x07", 7),
    ],
)  # fmt: skip
def test_values(address: str, data: bytes, said: object) -> None:
    assert objects.value(Item(Address.of(address), data)) == said


# -- told


def test_mistakes_are_named() -> None:
    def told(data: bytes) -> str:
        found = explain(Capture(data, extra={"transport": "udp"}))
        assert not found.ok
        return " ".join(found.frames[0].hints)

    swapped = MODE[:-3] + b"\xf4\x94\x7d"
    assert "swapped" in told(swapped)
    ccitt = 0xFFFF
    for byte in MODE[1:-3]:
        ccitt ^= byte << 8
        for _ in range(8):
            ccitt = (ccitt << 1 ^ 0x1021) & 0xFFFF if ccitt & 0x8000 else ccitt << 1 & 0xFFFF
    assert "1021H, start FFFF" in told(MODE[:-3] + ccitt.to_bytes(2, "big") + b"\x7d")
    assert "cut off" in told(MODE[:-1])


def test_a_wrong_length_is_told_from_a_cut_and_from_a_wrong_end() -> None:
    assert explain(Capture(MODE[:1] + b"\x00\x15" + MODE[3:])).error == "length"
    assert explain(Capture(MODE[:1] + b"\x00\x13" + MODE[3:])).error == "length"
    assert explain(Capture(MODE[:15])).error == "short"
    assert explain(Capture(MODE[:-1])).error == "short"
    assert explain(Capture(MODE[:-1] + b"\x00")).error == "end"


def test_a_library_that_counts_after_escaping_is_found_out() -> None:
    payload = escape(payload_of(Message(Kind.QUERY_REPLY, (Item(Address(2, 5), b"\x00\x7d\x7e\x01"),))))
    inner = (len(payload) + 2).to_bytes(2, "big") + payload
    found = explain(Capture(b"\x7e" + inner + crc16(inner).to_bytes(2, "big") + b"\x7d", extra={"transport": "tcp"}))
    assert not found.ok
    assert any("before escaping" in hint for one in found.frames for hint in one.hints)


def test_a_frame_escaped_on_udp_is_read_and_said_so() -> None:
    message = Message(Kind.QUERY_REPLY, (Item(Address(2, 5), b"\x00\x00\x7d\x7e"),))
    data = build(payload_of(message), "stream")
    found = explain(Capture(data, extra={"transport": "udp"}))
    assert found.ok and "as on TCP" in found.frames[0].hints[0]
    assert not explain(Capture(data, extra={"transport": "udp"}, strict=True)).ok


def test_a_type_nobody_described_comes_out_as_it_stands() -> None:
    inner = bytes.fromhex("001401000500000000010999" + "01" + "01050d02020123")
    inner += crc16(inner).to_bytes(2, "big")
    for body in (inner, escape(inner)):
        told = explain(Capture(b"\x7e" + body + b"\x7d"))
        said = told.said()
        assert (said["type"], said["type_name"], said["decoded"]["mode"]) == ("0x99", "unknown", "local_coordination")
    assert explain(Capture(b"\x7e" + inner + b"\x7d", strict=True)).error == "type"
    broken = b"\x7e" + inner[:-1] + bytes((inner[-1] ^ 1,)) + b"\x7d"
    assert not explain(Capture(broken)).ok


def test_an_unset_clock_has_no_time() -> None:
    inner = bytes.fromhex("001a0100050000000001092001" + "010b0d010a00" + "00" * 7)
    inner += crc16(inner).to_bytes(2, "big")
    assert explain(Capture(b"\x7e" + inner + b"\x7d")).said()["decoded"] == {"time_utc": None, "time": None}


def test_orders_to_the_street_and_odd_lengths_are_pointed_out() -> None:
    order = Message(Kind.SET, (Item(Address(17, 4, 1, 1), b"\x15\x00"),))
    hints = explain(Capture(build(payload_of(order), "datagram"))).frames[0].hints
    assert "this frame changes the street" in hints
    assert any("2 bytes where 1" in hint for hint in hints)


@pytest.mark.parametrize("unit", ["7e3f000100050000000000022001", "7e", "7e7d", "5c", "7e3f000100"])
@pytest.mark.parametrize("framing", ["stream", "datagram"])
def test_a_datagram_of_false_starts_takes_no_time(unit: str, framing: Framing) -> None:
    data = bytes.fromhex(unit) * (60_000 // (len(unit) // 2))
    began_s = time.process_time()
    read(data, framing)
    assert time.process_time() - began_s < 2.0
