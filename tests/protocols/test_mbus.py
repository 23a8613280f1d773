"""M-Bus: frames both ways, records, what broken telegrams do, a meter with several telegrams; and a second opinion."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.mbus import frame as f
from protocols.mbus import messages as m
from protocols.mbus.endpoint import SILENCE_MS, MbusEndpoint
from protocols.mbus.explain import explain
from protocols.mbus.fixed import UNITS, read_fixed
from protocols.mbus.keys import Key, encode, parse_key
from protocols.mbus.records import read_bcd, read_telegram, read_time
from protocols.mbus.slave import Identity, Slave
from tests.protocols.vectors import Vector, data_of, vectors

ROWS = vectors("mbus", "frame")


def one_frame(data: bytes) -> f.Frame:
    (found,) = f.Scanner().feed(data)
    assert isinstance(found, f.Found)
    assert (found.offset, found.length) == (0, len(data))
    return found.frame


def reasons(found: list[m.Message | RemoteProtocolError]) -> list[str]:
    return [one.reason for one in found if isinstance(one, RemoteProtocolError)]


# -- vectors, both ways


@pytest.mark.parametrize("row", ROWS)
def test_frame_both_ways(row: Vector) -> None:
    data = data_of(row)
    frame = one_frame(data)
    assert f.build(frame) == data
    message = m.from_frame(frame)
    assert f.build(m.to_frame(message)) == data


@pytest.mark.parametrize("row", [row for row in ROWS if row.values[0].get("expect", {}).get("records")])
def test_the_library_reads_the_same_numbers(row: Vector) -> None:
    """pyMeterBus as a second opinion on every good telegram with variable data."""
    meterbus = pytest.importorskip("meterbus")
    frame = one_frame(data_of(row))
    assert isinstance(frame, f.Long)
    if frame.ci == m.CI_FIXED:
        pytest.skip("the library refuses the old fixed format")
    ours = read_telegram(frame.ci, frame.data).records
    theirs: list[dict[str, Any]] = [record.interpreted for record in meterbus.load(data_of(row)).records]
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        if mine.kind != "value":
            continue
        assert (mine.storage, mine.tariff) == (other["storage_number"], other.get("tariff"))
        if mine.number is not None:
            assert float(mine.number) == pytest.approx(float(other["value"]), rel=1e-6)
        elif mine.time:
            assert mine.time.startswith(other["value"])


# -- frames


def test_a_start_byte_in_noise_costs_no_frame() -> None:
    good = bytes.fromhex("1040014116")
    for noise in ("68", "6868", "10", "1010", "680303", "68050568", "e5"):
        scanner = f.Scanner()
        found = scanner.feed(bytes.fromhex(noise) + good) + scanner.idle()
        assert [one.frame for one in found if isinstance(one, f.Found) and one.frame != f.Ack()] == [f.Short(0x40, 1)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("68040468080170027C16", "checksum"),
        ("68040468080170027B17", "end"),
        ("68040568080170027B16", "length"),
        ("1040014216", "checksum"),
        ("680404680801", "short"),
        ("0102030405", "start"),
        ("", "empty"),
    ],
)
def test_what_is_refused_says_why(data: str, reason: str) -> None:
    told = explain(Capture(bytes.fromhex(data)))
    assert not told.ok
    assert told.error == reason
    assert told.detail


def test_neighbouring_protocols_are_named() -> None:
    cjt188 = bytes.fromhex("FEFEFEFE68104433221100337801031F90008016")
    assert any("CJ/T 188" in hint for one in explain(Capture(cjt188)).frames for hint in one.hints)
    dlt645 = bytes.fromhex("FEFEFEFE68431000113400681104333434354D16")
    assert any("DL/T 645" in hint for one in explain(Capture(dlt645)).frames for hint in one.hints)


# -- records


def records(data: str, ci: int = m.CI_NO_HEADER) -> list[tuple[str, Any]]:
    telegram = read_telegram(ci, bytes.fromhex(data))
    assert not telegram.problem
    return [(one.meaning.quantity, one.number if one.text is None else one.text) for one in telegram.records]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("0C0678563412", [("Energy", Decimal("12345678000"))]),
        ("2F2F01FD1B002F", [("Digital Input", Decimal(0))]),
        ("0B620200F0", [("Temperature difference", Decimal("-0.2"))]),
        ("0A5AFFFF", [("Flow temperature", None)]),
        ("0A5A0A00", [("Flow temperature", None)]),
        ("02FC0348522574D411", [("%RH", Decimal("45.64"))]),
        ("04933C00000001", [("Volume", Decimal("16777.216"))]),  # VIFE 3C: what flowed back
        ("049576D2040000", [("Volume", Decimal("123.4"))]),  # VIFE 76: x 1
        ("049574D2040000", [("Volume", Decimal("1.234"))]),  # VIFE 74: x 0.01
        ("0D7803434241", [("Fabrication No", "ABC")]),
        ("0D78C27856", [("Fabrication No", Decimal(5678))]),
        ("0D78D27856", [("Fabrication No", Decimal(-5678))]),
        ("0D78E20102", [("Fabrication No", "01 02")]),
        ("055B22F32642", [("Flow temperature", Decimal("41.73743438720703"))]),
        ("055B0000C07F", [("Flow temperature", None)]),
        ("07FB00D204000000000000", [("Energy", Decimal("123400000"))]),
        ("0013", [("Volume", None)]),
    ],
)
def test_codings(data: str, wanted: list[tuple[str, Any]]) -> None:
    assert records(data) == wanted


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_record_cut_anywhere_stops_and_keeps_what_was_read(cut: int) -> None:
    good, long = bytes.fromhex("0C1300010000"), bytes.fromhex("8C1093FF0A00010000")
    telegram = read_telegram(m.CI_NO_HEADER, good + long[:cut])
    assert [one.meaning.quantity for one in telegram.records] == ["Volume"]
    assert telegram.problem


def test_reserved_and_overlong_fields_stop_the_reading() -> None:
    for data in ("3F", "8C" + "80" * 11 + "00", "0CFF" + "80" * 11 + "00", "0D78FB", "0C7C"):
        assert read_telegram(m.CI_NO_HEADER, bytes.fromhex(data)).problem
    assert read_telegram(m.CI_LONG_HEADER, bytes(5)).problem == "the header ends early"
    assert read_telegram(m.CI_SHORT_HEADER, bytes(3)).problem == "the header ends early"


def test_a_short_header_is_read() -> None:
    telegram = read_telegram(m.CI_SHORT_HEADER, bytes.fromhex("0704341201FD1700"))
    assert telegram.header is not None
    assert (telegram.header.access, telegram.header.status, telegram.header.signature) == (7, 4, "1234")
    assert [one.meaning.quantity for one in telegram.records] == ["Error flags"]


@pytest.mark.parametrize(
    ("raw", "when"),
    [
        ("270f791a", "2011-10-25T15:39:00"),
        ("a70f791a", ""),
        ("00000000", "2000-00-00T00:00:00"),
        ("5f1c", "2010-12-31"),
        ("1e0f08", "08:15:30"),
        ("1e270f791a00", "2011-10-25T15:39:30"),
    ],
)
def test_times(raw: str, when: str) -> None:
    assert read_time(bytes.fromhex(raw)) == when
    year_99 = bytes((31 | (99 & 7) << 5, 12 | (99 >> 3) << 4))
    assert read_time(year_99) == "1999-12-31"


def test_bcd_digits_above_nine_are_no_number() -> None:
    assert read_bcd(bytes.fromhex("0a")) is None
    assert read_bcd(bytes.fromhex("a0")) is None
    assert read_bcd(bytes.fromhex("ffff")) is None
    assert read_bcd(bytes.fromhex("12f0")) == Decimal(-12)


def test_the_old_fixed_telegram() -> None:
    binary = bytes.fromhex("785634120A80E97EFFFFFFFF35010000")
    fixed = read_fixed(binary)
    assert fixed is not None
    assert [one.number for one in fixed.counters] == [Decimal(-1), Decimal(309)]
    assert read_fixed(binary[:-1]) is None
    assert (UNITS[0x05], UNITS[0x0A], UNITS[0x29], UNITS[0x2C], UNITS[0x33]) == (
        "kWh", "MWh * 100", "l", "m^3", "l/h * 10"
    )  # fmt: skip


def test_a_value_that_a_vife_makes_a_time_is_no_temperature() -> None:
    """Landis+Gyr: 94 10 DA 6F = when the highest flow temperature was reached."""
    telegram = read_telegram(m.CI_NO_HEADER, bytes.fromhex("9410DA6F32147A18" + "1C5A05020000"))
    tariff = Key("flow_temperature", tariff=1, function=1).find(telegram.records)
    plain = Key("flow_temperature", function=1).find(telegram.records)
    assert tariff is None
    assert plain is not None and plain.number == Decimal("20.5")


@pytest.mark.parametrize(
    "text", ["energy", "volume@1", "power:maximum", "volume/3", "energy#2", "energy@510#5/2:minimum"]
)
def test_a_key_finds_what_a_meter_says_under_it(text: str) -> None:
    key = parse_key(text)
    number = Decimal("5000")
    other = encode(Key(key.name, key.storage + 1, key.tariff, key.device, key.function), Decimal("7000"))
    telegram = read_telegram(m.CI_NO_HEADER, other + encode(key, number) + encode(key, None))
    found = key.find(telegram.records)
    assert not telegram.problem
    assert found is not None and found.based == number
    assert telegram.records[2].number is None and not telegram.records[2].damaged


@pytest.mark.parametrize("text", ["", "heat", "energy@", "energy:often", "energy ", "status@1"])
def test_a_wrong_key_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="M-Bus key"):
        parse_key(text)


def test_energy_in_joules_is_energy() -> None:
    telegram = read_telegram(m.CI_NO_HEADER, bytes.fromhex("0C0E03000000" + "0C3601000000"))
    energy, power = Key("energy").find(telegram.records), Key("power").find(telegram.records)
    assert energy is not None and energy.based is not None and round(energy.based, 3) == Decimal("833.333")
    assert power is not None and power.based is not None and round(power.based, 3) == Decimal("277.778")


# -- a conversation


def heat_meter(telegrams: int = 1) -> Slave:
    rows = [encode(Key("energy", storage=n), Decimal(1000 * n)) for n in range(20 * telegrams)]
    return Slave(5, Identity("12345678", "KAM", 8, 0x04), lambda: rows)


def test_several_telegrams_by_the_frame_count_bit() -> None:
    slave = heat_meter(3)
    assert slave.answer(m.Reset(5)) == m.Ack()
    first = slave.answer(m.ReadData(5, fcb=True))
    again = slave.answer(m.ReadData(5, fcb=True))
    assert isinstance(first, m.Response) and isinstance(again, m.Response)
    assert first.data[12:] == again.data[12:]  # the answer was lost: the same telegram again
    storages, fcb, reply = [], True, first
    while True:
        telegram = read_telegram(reply.ci, reply.data)
        storages += [one.storage for one in telegram.records if one.kind == "value"]
        if not telegram.more:
            break
        fcb = not fcb
        following = slave.answer(m.ReadData(5, fcb=fcb))
        assert isinstance(following, m.Response)
        reply = following
    assert storages == list(range(60))


def test_selection_by_secondary_address_with_any_digit() -> None:
    slave = heat_meter()
    assert slave.answer(m.ReadData(m.SELECTED)) is None
    assert slave.answer(m.Select("12345678FFFFFFFF")) == m.Ack()
    reply = slave.answer(m.ReadData(m.SELECTED, fcb=True))
    assert isinstance(reply, m.Response)
    header = read_telegram(reply.ci, reply.data).header
    assert header is not None
    assert (header.id, header.manufacturer, header.version, header.medium) == ("12345678", "KAM", 8, 4)
    assert header.secondary == slave.identity.secondary
    assert slave.answer(m.Select("99FFFFFFFFFFFFFF")) is None
    assert slave.answer(m.ReadData(m.SELECTED)) is None
    with pytest.raises(LocalProtocolError):
        m.secondary_bytes("12345678")


def test_what_a_meter_cannot_do_it_says_at_the_next_question() -> None:
    slave = heat_meter()
    assert slave.answer(m.SendData(5, 0x51, b"\x01\x7a\x07")) == m.Ack()
    assert slave.answer(m.ReadData(5)) == m.ApplicationError(5, 1)
    assert isinstance(slave.answer(m.ReadData(5)), m.Response)
    assert slave.answer(m.SendData(m.BROADCAST, 0x51)) is None
    assert slave.answer(m.Reset(6)) is None


def test_the_master_believes_only_its_own_answer() -> None:
    master = MbusEndpoint(Role.MASTER)
    sent = master.send(m.ReadData(5), 0)
    right, other = f.build(f.Long(8, 5, 0x78, b"")), f.build(f.Long(8, 6, 0x78, b""))
    found = master.feed(sent + b"\xe5" + other + right, 0)
    assert master.echoes == 1
    assert reasons(found) == ["unexpected", "wrong_address"]
    assert found[-1] == m.Response(5, 0x78)
    assert reasons(master.feed(right, 0)) == ["unexpected"]
    master.send(m.Reset(5), 0)
    assert master.feed(b"\xe5", 0) == [m.Ack()]
    master.send(m.Reset(m.BROADCAST), 0)
    assert reasons(master.feed(b"\xe5", 0)) == ["unexpected"]


def test_an_answer_at_the_test_address_may_come_from_anybody() -> None:
    for asked in (m.ANYBODY, m.SELECTED):
        master = MbusEndpoint(Role.MASTER)
        master.send(m.ReadData(asked), 0)
        assert master.feed(f.build(f.Long(8, 17, 0x78, b"")), 0) == [m.Response(17, 0x78)]


def test_half_a_reply_is_void_after_the_silence() -> None:
    reply = f.build(f.Long(8, 5, 0x78, bytes(20)))
    master = MbusEndpoint(Role.MASTER)
    master.send(m.ReadData(5), 0)
    assert master.feed(reply[:10], 50) == []
    assert master.tick(50 + SILENCE_MS - 1) == []
    assert reasons(master.tick(50 + SILENCE_MS)) == ["short"]


def test_what_cannot_be_said() -> None:
    master = MbusEndpoint(Role.MASTER)
    for wrong in (m.ReadData(300), m.SendData(5, 0x51, bytes(253)), m.Select("12"), m.Ack()):
        with pytest.raises(LocalProtocolError):
            master.send(wrong, 0)
    with pytest.raises(LocalProtocolError):
        encode(Key("energy"), Decimal(10**12))


# -- captures


@given(data=st.binary(max_size=60), at=st.integers(0, 54), flip=st.integers(1, 255), ci=st.integers(0, 255))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_capture_is_told_and_never_raises(data: bytes, at: int, flip: int, ci: int) -> None:
    good = bytearray.fromhex(
        "6831316808017245585703B40534049E0027B60306F934150315C6004D052E00000000053D00000000055B22F32642055FC7DA0D42FA16"
    )
    good[at] ^= flip
    for capture in (data, bytes(good), data + bytes(good), f.build(f.Long(8, 5, ci, data)), bytes(good[:at])):
        told = explain(Capture(capture))
        assert told.ok or told.error


def _telegram(records: str, ci: str = "78") -> dict[str, Any]:
    body = bytes.fromhex("0801" + ci + records)
    data = bytes((0x68, len(body), len(body), 0x68)) + body + bytes((sum(body) & 0xFF, 0x16))
    return explain(Capture(data)).said()


@pytest.mark.parametrize(
    ("record", "literal", "when"),
    [
        ("426CFFFF", "2127-15-31", ""),
        ("426C0000", "2000-00-00", "2000-00-00"),
        ("046D801E8611", "1900-01-00T00:00:00Z", ""),
        ("046DFFFFFFFF", "1900-01-00T00:00:00Z", ""),
        ("046D0000E1F1", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00"),  # no century: above 80 it counts from 1900
        ("046D1E288611", "2012-01-06T08:30:00Z", "2012-01-06T08:30:00"),  # century 1
        ("066D1E1E08861100", "2012-01-06T08:30:30Z", "2012-01-06T08:30:30"),
    ],
)
def test_dates_that_are_none_are_none_for_us_and_literal_in_the_normalised_form(
    record: str, literal: str, when: str
) -> None:
    assert _telegram(record)["records"][0]["value"] == literal
    (read,) = read_telegram(0x78, bytes.fromhex(record)).records
    assert (read.time, read.number) == (when, None)


@pytest.mark.parametrize(("capture", "error"), [("1040014117", "end"), ("1040014216", "checksum"), ("010203", "start")])
def test_a_refused_capture_is_no_frame(capture: str, error: str) -> None:
    told = explain(Capture(bytes.fromhex(capture)))
    assert (told.error, told.said()["frame_ok"]) == (error, False)


def test_a_reply_in_an_unknown_form_has_no_records() -> None:
    said = _telegram("7856341224400107550000000313153100", ci="76")
    assert (said["frame_ok"], said["records_ok"]) == (True, False)


@pytest.mark.parametrize(("vif", "unit"), [("6F", "Reserved"), ("FD7F", "Reserved"), ("FD48", "V")])
def test_reserved_codes_are_named_as_that(vif: str, unit: str) -> None:
    assert _telegram(f"01{vif}01")["records"][0]["unit"] == unit


@pytest.mark.parametrize("vib", ["FC0348522574", "FC7403485225"])
def test_a_unit_in_words_stands_before_or_behind_the_extensions(vib: str) -> None:
    (read,) = read_telegram(0x78, bytes.fromhex(f"02{vib}440D")).records
    assert (read.meaning.quantity, read.number, read.vifes) == ("%RH", Decimal("33.96"), (0x74,))
    assert not read_telegram(0x78, bytes.fromhex("02FC1348522574440D")).records  # neither reading has its text


def test_a_text_padded_with_zeros_is_told_up_to_them() -> None:
    assert _telegram("0D7806" + b"AB\tC\0\0"[::-1].hex())["records"][0]["value"] == "AB C"
