"""GB/T 26875.3: real frames both ways, every data unit, and what real devices do beside the standard."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.endpoint import Gb26875Endpoint
from protocols.gb26875.explain import explain
from protocols.gb26875.names import TRANSMITTER_BITS as TRANSMITTER
from protocols.gb26875.names import bits_of, named_bits
from protocols.gb26875.units import Unit, content, unit, unit_from, unit_of
from tests.protocols.samples_gb26875 import OBJECTS
from tests.protocols.vectors import Vector, vectors

NOW_MS = 1_785_542_730_000  # 2026-08-01 08:05:30 +08:00
STATE = o.ComponentState(1, 1, 42, 131082, 2, o.text_field("一层走廊"), m.stamp_at(NOW_MS))


def upload(serial: int = 1, *objects: o.Object, kind: int = 2) -> m.Packet:
    data = unit(kind, objects or (STATE,)).data
    return m.Packet(m.SEND, serial, "112233445566", m.NOBODY, data, m.stamp_at(NOW_MS))


def received(data: bytes, role: Role = Role.MASTER) -> list[m.Packet | RemoteProtocolError]:
    endpoint = Gb26875Endpoint(role)
    return endpoint.feed(data, 0) + endpoint.tick(1_000_000)


# -- vectors


@pytest.mark.parametrize("row", vectors("gb26875", "frame", "stream"))
def test_frames_go_back_out_as_they_came(row: Vector) -> None:
    data = bytes.fromhex(row["hex"])
    found = received(data)
    packets = [one for one in found if isinstance(one, m.Packet)]
    if not row["expect"]["ok"]:
        assert packets == []
        assert [e.reason for e in found if isinstance(e, RemoteProtocolError)] == [row["expect"]["error"]]
        return
    assert len(packets) == len(found) == row["expect"].get("frames", 1)
    assert b"".join(m.encode(packet) for packet in packets) == data
    for packet in packets:
        assert_rebuilt(unit_of(packet))


@pytest.mark.parametrize("row", vectors("gb26875", "data_unit"))
def test_data_units_are_rebuilt_from_their_objects(row: Vector) -> None:
    found = unit_from(bytes.fromhex(row["adu_hex"]))
    assert found is not None
    assert found.data == bytes.fromhex(row["adu_hex"])
    assert_rebuilt(found)


def assert_rebuilt(found: Unit | None) -> None:
    if found is not None and found.count:
        assert unit(found.type, content(found).objects).data == found.data


ASKED = {"query system state": (61, o.ReadSystem(1, 1)), "query system software version": (65, o.ReadSystem(1, 2))}


@pytest.mark.parametrize(
    "row", [r for r in vectors("gb26875", "data_unit") if "encode" in r.values[0].get("expect", {})]
)
def test_requests_are_built(row: Vector) -> None:
    kind, one = ASKED[row["expect"]["encode"]]
    assert unit(kind, [one]).data == bytes.fromhex(row["adu_hex"])


# -- data units


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_objects_survive(kind: int) -> None:
    @given(st.lists(OBJECTS[kind], min_size=1, max_size=5))
    @settings(max_examples=25, derandomize=True, deadline=None)
    def body(objects: list[o.Object]) -> None:
        found = content(unit(kind, objects), "standard")
        assert (list(found.objects), found.layout) == (objects, "standard")

    body()


@given(st.binary(max_size=80), st.sampled_from(["auto", "standard", "ascii8"]))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_unit_is_read_and_rebuilt(data: bytes, layout: Any) -> None:
    found = unit_from(data)
    if found is None:
        assert len(data) < 2
        return
    told = content(found, layout)
    if found.count and told.objects:
        assert unit(found.type, told.objects).body == found.body


def test_without_time() -> None:
    """Some devices leave the time of the objects away, or the last one."""
    both = unit(1, [o.SystemState(1, 1, 3, m.stamp_at(NOW_MS)), o.SystemState(1, 2, 1)])
    assert content(both).layout == "last_no_time"
    assert [one.stamp for one in content(both).objects if isinstance(one, o.SystemState)][1] == b""
    none = unit(1, [o.SystemState(1, 1, 3), o.SystemState(1, 2, 1)])
    assert content(none).layout == "no_time"
    assert content(unit(28, [o.Clock(b"")])).layout == "raw"  # a clock without time says nothing


def test_a_private_object_stays_raw() -> None:
    """16 bytes under type 150, and a component of a size nobody knows: no state is guessed."""
    found = content(Unit(150, 2, bytes(32)))
    assert (found.layout, found.object_len, len(found.objects)) == ("raw", 16, 2)
    strange = content(Unit(2, 1, bytes(44)))
    assert strange.objects == (o.Raw(bytes(44)),)


def test_50_byte_components_only_with_an_address_of_digits() -> None:
    one = o.NumberedComponentState(1, 1, 78, b"10101013", 2, o.text_field("一层右梯口", 32), m.stamp_at(NOW_MS))
    built = unit(2, [one])
    assert content(built) == content(built, "ascii8")
    assert content(built).objects == (one,)
    assert (one.number, one.text) == (10101013, "一层右梯口")
    assert content(built, "standard").layout == "raw"
    other = Unit(2, 1, built.body.replace(b"10101013", b"\x01\x02\x03\x04\x05\x06\x07\x08"))
    assert content(other).layout == "raw"


def test_a_text_length_that_lies_is_raw() -> None:
    good = unit(6, [o.SystemText(1, 1, b"abc"), o.SystemText(1, 2, "泵房".encode("gb18030"))])
    texts = [one.text for one in content(good).objects if isinstance(one, o.SystemText)]
    assert texts == ["abc", "泵房"]
    assert content(Unit(6, 1, b"\x01\x01\xffabc")).layout == "raw"


def test_text_field() -> None:
    assert o.text_of(o.text_field("一层")) == "一层"
    assert o.text_of(b" " * 31) == ""
    assert o.text_of(b"\x02" + bytes(30)) == "\x02"
    full = o.text_field("走" * 20)
    assert len(full) == 31 and o.text_of(full) == "走" * 15  # a character is never cut by us ...
    assert o.text_of("走".encode("gb18030") * 15 + b"\xd7") == "走" * 15 + "�"  # ... but by devices


def test_hikvision_address_is_loop_and_node() -> None:
    told = explain(Capture(m.encode(upload(54, o.ComponentState(1, 0, 0, 1 << 16 | 35579, 3, stamp=bytes(6))))))
    reading = told.said()["source_reading"]
    assert (reading["compCirc"], reading["compNode"], reading["srcAddr_wire_order"]) == (35579, 1, "665544332211")


def test_state_zero_is_a_test_not_fine() -> None:
    assert bits_of(9) == [0, 3]
    assert named_bits(9, TRANSMITTER) == ("正常监视、主电故障", "running, main power fault")
    assert named_bits(0, TRANSMITTER)[1] == "under test"


# -- times


def test_times() -> None:
    stamp = m.stamp_at(NOW_MS)
    assert stamp.hex() == "1e050801081a"
    assert m.parse_time(stamp) == datetime(2026, 8, 1, 8, 5, 30)
    assert m.time_ms(stamp) == NOW_MS
    for unset in (bytes(6), b"\xff" * 6, b"\x00\x00\x00\x1f\x02\x1a", b"\x01"):
        assert m.parse_time(unset) is None and m.time_ms(unset) is None
    with pytest.raises(LocalProtocolError):
        m.format_time(datetime(1999, 12, 31))


# -- frames


def test_40_40_and_23_23_inside_data() -> None:
    inside = b"\x40\x40\x23\x23" * 7
    packet = upload(0x4040, o.SystemText(0x23, 0x23, inside), kind=6)
    data = m.encode(packet)
    found = [one for one in received(b"\x40\x40" + data + data[:9] + data) if isinstance(one, m.Packet)]
    assert found == [packet, packet]


def test_a_wrong_length_hides_no_other_frame() -> None:
    """The length says 1024, good frames follow: they come out at once, not after a silence."""
    endpoint = Gb26875Endpoint(Role.MASTER)
    wrong = bytearray(m.encode(upload(1)))
    wrong[24:26] = (1024).to_bytes(2, "little")
    found = endpoint.feed(bytes(wrong) + m.encode(upload(2)) + m.encode(upload(3)), 0)
    assert [one.serial for one in found if isinstance(one, m.Packet)] == [2, 3]
    assert [one.reason for one in found if isinstance(one, RemoteProtocolError)] == ["short"]


def test_what_cannot_be_said() -> None:
    for packet in (
        m.Packet(m.SEND, data=bytes(1025)),
        m.Packet(m.SEND, 0x10000),
        m.Packet(m.SEND, source="12"),
        m.Packet(m.SEND, source="no hex digits"),
        m.Packet(m.SEND, stamp=b""),
    ):
        with pytest.raises(LocalProtocolError):
            m.encode(packet)
    with pytest.raises(LocalProtocolError):
        unit(1, [o.SystemState(1, 1, 0x10000)])
    with pytest.raises(LocalProtocolError):
        unit(2, [o.ComponentState(1, 1, 1, 1, 1, b"short")])
    for role, command in ((Role.SLAVE, m.CONTROL), (Role.SLAVE, m.REQUEST), (Role.MASTER, m.SEND)):
        with pytest.raises(LocalProtocolError):
            Gb26875Endpoint(role).send(m.Packet(command), 0)


# -- conversation


def test_confirmation_swaps_addresses_and_keeps_the_serial() -> None:
    asked = upload(0x1234)
    confirmed = m.answer(asked, m.CONFIRM, stamp=m.stamp_at(NOW_MS + 1000))
    assert (confirmed.serial, confirmed.source, confirmed.destination) == (0x1234, asked.destination, asked.source)
    assert confirmed.data == b""


def test_the_same_serial_is_repeated_until_confirmed() -> None:
    device, centre = Gb26875Endpoint(Role.SLAVE), Gb26875Endpoint(Role.MASTER)
    first = device.send(upload(7), 0)
    for n in (1, 2, 3):
        assert device.deadline() == 10_000 * n
        assert device.tick(10_000 * n) == []
        assert device.take_output() == first
    assert device.tick(40_000) == [] and device.take_output() == b""  # parked
    assert device.deadline() is None
    device.send(upload(8), 45_000)  # the parked one goes along
    device.tick(45_000)
    assert device.take_output() == first
    device.connected(50_000)
    assert device.take_output() == first + m.encode(upload(8))
    (heard,) = centre.feed(first, 50_100)
    assert isinstance(heard, m.Packet)
    device.feed(centre.send(m.answer(heard, m.CONFIRM), 50_200), 50_200)
    assert [packet.serial for packet in device.unanswered] == [8]


def test_deny_means_say_it_again_but_not_for_ever() -> None:
    device = Gb26875Endpoint(Role.SLAVE)
    first = device.send(upload(7), 0)
    deny = m.encode(m.answer(upload(7), m.DENY))
    for n in range(3):
        device.feed(deny, n)
        assert device.take_output() == first
    device.feed(deny, 4)
    assert device.take_output() == b"" and device.unanswered == ()


def test_a_request_nobody_answers_is_given_up_and_said() -> None:
    centre = Gb26875Endpoint(Role.MASTER, repeats=1)
    serial = centre.next_serial()
    data = centre.send(m.Packet(m.REQUEST, serial, data=unit(81, [o.ReadTransmitter()]).data), 0)
    assert centre.next_serial() != serial
    assert centre.tick(10_000) == [] and centre.take_output() == data
    (error,) = centre.tick(20_000)
    assert isinstance(error, RemoteProtocolError) and error.reason == "no_answer"
    assert centre.unanswered == ()


def test_unconfirmed_uploads_are_bounded() -> None:
    device = Gb26875Endpoint(Role.SLAVE, keep=3)
    for serial in range(5):
        device.send(upload(serial), serial)
    assert [packet.serial for packet in device.unanswered] == [2, 3, 4]
    assert device.dropped == 2


# -- explanation


def broken(change: Any) -> Any:
    data = bytearray(m.encode(upload()))
    return explain(Capture(bytes(change(data) or data)))


def test_what_is_wrong_is_named() -> None:
    def set_byte(at: int, value: int) -> Any:
        return lambda data: data.__setitem__(at, value)

    assert broken(set_byte(0, 0x41)).error == "start"
    assert broken(set_byte(-1, 0x24)).error == "end"
    assert broken(set_byte(30, 0x7F)).error == "checksum"
    assert broken(set_byte(25, 0x7F)).error == "length"
    assert broken(lambda data: data[:20]).error == "short"
    assert broken(lambda data: data[:-1]).error == "short"
    assert explain(Capture(b"")).error == "empty"
    assert explain(Capture(b"\x40")).error == "short"


def test_likely_mistakes_are_hinted() -> None:
    def with_mark(data: bytearray) -> None:
        data[-3] = (data[-3] + 0x80) & 0xFF

    (told,) = broken(with_mark).frames
    assert told.checksum is not None and not told.checksum.ok
    assert any("start mark is added too" in hint for hint in told.hints)

    def big_endian(data: bytearray) -> None:
        data[24:26] = data[24:26][::-1]

    (told,) = broken(big_endian).frames
    assert any("high byte comes first" in hint for hint in told.hints)
    blank = explain(Capture(m.encode(m.Packet(m.CONFIRM))))
    assert any("time of arrival" in hint for hint in blank.frames[0].hints)


def test_offsets_point_at_the_bytes() -> None:
    data = b"\x00\x01" + m.encode(upload())
    told = explain(Capture(data)).good[0]
    by_name = {field.name: field for field in told.fields}
    text = by_name["adu.objects[0].text"]
    assert text.offset is not None and text.length == 31
    assert o.text_of(data[text.offset : text.offset + text.length]) == text.value == "一层走廊"
    assert by_name["end"].offset == len(data) - 2
    assert by_name["adu.objects[0].comp"].en.endswith("smoke detector, optical")


@given(st.binary(max_size=90), st.sampled_from(["", "data_unit"]), st.booleans())
@settings(max_examples=200, derandomize=True, deadline=None)
def test_explain_takes_anything(data: bytes, kind: str, strict: bool) -> None:
    told = explain(Capture(data, kind=kind, strict=strict))
    assert told.ok or (told.error and told.detail)
