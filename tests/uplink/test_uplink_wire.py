"""The wire for any content and any bytes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from protocols.core.errors import ContractError, LocalProtocolError
from protocols.core.model import Event, Quality
from protocols.uplink import batch as wire
from protocols.uplink import columns, sweeps, varint
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import MAX_BATCH_BYTES, Batch, Declaration
from protocols.uplink.columns import FLOAT_BITS, Readings, SeriesCode
from protocols.uplink.digest import add, digest, series_hash, to_signed
from tests.uplink import plain
from tests.uplink.strategies import DOUBLES, EPOCHS, INT64, batches, declarations, readings

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
UINT64 = st.integers(0, (1 << 64) - 1)


def rows_of(found: Readings) -> list[tuple[int, ...]]:
    """In an order of its own; what a missing reading holds as a number means nothing."""
    value = np.where(found.quality == Quality.MISSING, 0, found.integer)
    table = zip(
        found.alias.tolist(),
        found.ts_ms.tolist(),
        found.lag_ms.tolist(),
        found.quality.tolist(),
        value.tolist(),
        strict=True,
    )
    return sorted(table)


def digest_of(batch: Batch) -> int:
    names = {d.alias: series_hash(d.device, d.point) for d in batch.declarations}
    found = batch.readings
    hashes = np.array([names[a] for a in found.alias.tolist()], dtype=np.uint64)
    return digest(hashes, found.ts_ms, found.integer, found.quality)


def codes_of(batch: Batch) -> dict[int, SeriesCode]:
    return {d.alias: d.code for d in batch.declarations}


# -- numbers ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(0, 300), UINT64)))
@example([0, 127, 128, 16383, 16384, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@settings(max_examples=150, deadline=None)
def test_varints_are_the_ones_of_the_page(numbers: list[int]) -> None:
    data = varint.encode(np.array(numbers, dtype=np.uint64))
    assert data == plain.leb128_all(numbers)
    assert varint.decode(data).tolist() == numbers == plain.read_leb128(data)


@given(st.lists(INT64))
@example([0, -1, 1, -2, (1 << 63) - 1, -(1 << 63)])
@settings(max_examples=80, deadline=None)
def test_zigzag_is_the_one_of_the_page(numbers: list[int]) -> None:
    coded = varint.zigzag(np.array(numbers, dtype=np.int64))
    assert coded.tolist() == [plain.zigzag(number) for number in numbers]
    assert varint.unzigzag(coded).tolist() == numbers
    assert [plain.unzigzag(number) for number in coded.tolist()] == numbers


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_the_plain_decoders_numbers_or_refused(data: bytes) -> None:
    try:
        numbers = varint.decode(data).tolist()
    except ContractError as error:
        longest = max((len(part) for part in _pieces(data)), default=0)
        assert error.reason in ("truncated", "number_too_long")
        assert (error.reason == "truncated") == (not data or data[-1] >= 0x80) or longest > 10
    else:
        assert numbers == plain.read_leb128(data)


def _pieces(data: bytes) -> list[bytes]:
    out, current = [], b""
    for byte in data:
        current += bytes([byte])
        if byte < 0x80:
            out.append(current)
            current = b""
    return [*out, current]


# -- round trip ------------------------------------------------------------------------------------------------------


@given(batches())
@settings(FEW, max_examples=200)
def test_what_is_encoded_is_decoded(batch: Batch) -> None:
    data = wire.encode(batch, codes_of(batch))
    envelope = wire.open_envelope(data)
    assert (envelope.epoch, envelope.seq, envelope.version) == (batch.epoch, batch.seq, 1)
    back = wire.decode(envelope, {})
    assert rows_of(back.readings) == rows_of(batch.readings)
    assert digest_of(back) == digest_of(batch)
    assert replace(back, readings=batch.readings) == batch
    assert wire.encode(batch, codes_of(batch)) == data  # the same bytes each time they go


@given(declarations(), st.data(), EPOCHS)
@FEW
def test_small_blocks_number_by_number_are_the_same_bytes_as_by_arrays(
    declared: tuple[Declaration, ...], data: Any, epoch: int
) -> None:
    assume(declared)
    given_rows = data.draw(readings([d.alias for d in declared]))
    codes = {d.alias: d.code for d in declared}
    body = columns.encode_blocks(given_rows, codes, epoch * 1000)
    with arrays_only():
        assert columns.encode_blocks(given_rows, codes, epoch * 1000) == body


@given(st.lists(st.one_of(st.integers(0, 9), st.sampled_from([8, 9, 10, 12, 16, 24]), UINT64), max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_numbers_are_judged_alike_number_by_number_and_by_arrays(numbers: list[int]) -> None:
    body = plain.leb128_all(numbers)
    found = _blocks(body)
    with arrays_only():
        assert _blocks(body) == found


def _blocks(body: bytes) -> object:
    left_out: set[int] = set()
    try:
        return rows_of(columns.decode_blocks(body, KNOWN, 5, left_out=left_out)), left_out
    except ContractError as error:
        return error.reason


@contextmanager
def arrays_only() -> Iterator[None]:
    before, sweeps.MOST_SERIES = sweeps.MOST_SERIES, 0
    try:
        yield
    finally:
        sweeps.MOST_SERIES = before


@given(declarations(), st.data(), EPOCHS)
@FEW
def test_columns_come_back_sorted_by_time_within_each_series(
    declared: tuple[Declaration, ...], data: Any, epoch: int
) -> None:
    assume(declared)
    given_rows = data.draw(readings([d.alias for d in declared]))
    codes = {d.alias: d.code for d in declared}
    found = columns.decode_blocks(columns.encode_blocks(given_rows, codes, epoch * 1000), codes, epoch * 1000)
    assert (found.alias.dtype, found.ts_ms.dtype, found.lag_ms.dtype) == (np.int32, np.int64, np.int32)
    assert (found.integer.dtype, found.quality.dtype) == (np.int64, np.uint8)
    for alias in set(found.alias.tolist()):
        times = found.ts_ms[found.alias == alias].tolist()
        assert times == sorted(times)


@given(declarations(), st.data(), st.integers(0, 6))
@FEW
def test_the_digest_knows_neither_order_nor_batches(declared: tuple[Declaration, ...], data: Any, cut: int) -> None:
    assume(declared)
    found = data.draw(readings([d.alias for d in declared]))
    names = {d.alias: series_hash(d.device, d.point) for d in declared}
    hashes = np.array([names[a] for a in found.alias.tolist()], dtype=np.uint64)
    order = np.array(data.draw(st.permutations(range(len(found)))), dtype=np.intp)
    whole = digest(hashes, found.ts_ms, found.integer, found.quality)
    assert digest(hashes[order], found.ts_ms[order], found.integer[order], found.quality[order]) == whole
    parts = 0
    for part in (order[:cut], order[cut:]):
        parts = add(parts, digest(hashes[part], found.ts_ms[part], found.integer[part], found.quality[part]))
    assert parts == whole and 0 <= whole < 1 << 64
    assert to_signed(whole) % (1 << 64) == whole and -(1 << 63) <= to_signed(whole) < 1 << 63
    if len(found):
        twice = np.concatenate([order, order[:1]])
        assert digest(hashes[twice], found.ts_ms[twice], found.integer[twice], found.quality[twice]) != whole


@given(st.lists(DOUBLES, min_size=1), st.one_of(st.integers(0, 12), st.just(FLOAT_BITS)))
@example([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308], FLOAT_BITS)
@example([2.0**53, -(2.0**53), 2.0**53 - 1, math.inf, math.nan, 0.5, 1.5, -0.5], 0)
@settings(max_examples=200, deadline=None)
def test_values_are_exact_at_their_resolution_or_missing(values: list[float], decimals: int) -> None:
    given_values = np.array(values)
    grades = np.zeros(len(values), np.uint8)
    with np.errstate(over="ignore"):  # a value near the end of a double, times a power of ten
        integers, quality = wire.quantise(given_values, grades, decimals)
    back = wire.to_float(integers, quality, decimals)
    assert not grades.any()
    for value, number, grade in zip(values, back.tolist(), quality.tolist(), strict=True):
        if decimals == FLOAT_BITS:
            missing = math.isnan(value)
            assert missing or (number == value and math.copysign(1, number) == math.copysign(1, value))
        else:
            missing = not abs(value * 10.0**decimals) < 2.0**53
            assert missing or abs(number - value) <= 0.5 * 10.0**-decimals * (1 + 1e-9) + abs(value) * 1e-15
        assert (grade == Quality.MISSING) == missing == math.isnan(number)


def test_an_alarm_with_a_figure_that_is_none_still_goes() -> None:
    said = Event(
        "e", "t", 0, 0, "m", state="raise", key="k", values={"x": math.nan, "y": math.inf, "z": 1.5, "s": "阈"}
    )
    data = wire.encode(Batch(1, 1, events=(said,)), {})
    (heard,) = wire.decode(wire.open_envelope(data), {}).events
    assert heard.values == {"x": None, "y": None, "z": 1.5, "s": "阈"}


def test_more_than_a_message_may_hold_is_our_own_error() -> None:
    said = Event("e", "t", 0, 0, "m", values={"text": "x" * MAX_BATCH_BYTES})
    with pytest.raises(LocalProtocolError) as refused:
        wire.encode(Batch(1, 1, events=(said,)), {})
    assert refused.value.reason == "too_big"


# -- bytes nobody should have sent ------------------------------------------------------------------------------------


def _decode(data: bytes, known: dict[int, SeriesCode]) -> None:
    """Whatever it is, it is a batch or a ContractError, with and without leaving out what is not known."""
    for left_out in (None, set[int]()):
        try:
            batch = wire.decode(wire.open_envelope(data), known, left_out=left_out)
        except ContractError as error:
            assert error.reason != "contract"
        else:
            assert len(batch.readings) <= columns.MAX_READINGS
            assert not len(batch.readings) or int(batch.readings.quality.max()) <= max(Quality)


KNOWN = {
    0: SeriesCode(1, 0),
    1: SeriesCode(FLOAT_BITS, 7),
    2: SeriesCode(3, (1 << 63) - 1),
    3: SeriesCode(0, -(1 << 63)),
}


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused(data: bytes) -> None:
    _decode(data, KNOWN)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_garbage_as_block_body_is_refused(body: bytes) -> None:
    _decode(pb.Batch(epoch=1, seq=1, readings=body).SerializeToString(), KNOWN)
    _decode(pb.Batch(epoch=1, seq=1, readings_zstd=zstandard.compress(body)).SerializeToString(), KNOWN)
    _decode(pb.Batch(epoch=1, seq=1, readings_zstd=body).SerializeToString(), KNOWN)


@given(st.lists(st.one_of(st.integers(0, 9), UINT64), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_numbers_as_block_body_are_a_batch_or_refused(numbers: list[int]) -> None:
    _decode(pb.Batch(epoch=1, seq=1, readings=plain.leb128_all(numbers)).SerializeToString(), KNOWN)


@given(batches(), st.data())
@settings(FEW, max_examples=150)
def test_truncation_and_bit_flips_are_refused_or_another_batch(batch: Batch, data: Any) -> None:
    whole = wire.encode(batch, codes_of(batch))
    known = {**KNOWN, **codes_of(batch)}
    _decode(whole[: data.draw(st.integers(0, len(whole)))], known)
    flipped = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=4)):
        flipped[place // 8] ^= 1 << place % 8
    _decode(bytes(flipped), known)


@given(batches(), st.lists(st.tuples(st.integers(16, 300), st.binary(max_size=20)), min_size=1, max_size=4))
@FEW
def test_fields_of_a_later_version_are_tolerated(batch: Batch, more: list[tuple[int, bytes]]) -> None:
    data = wire.encode(batch, codes_of(batch))
    for number, content in more:
        data += (
            plain.leb128(number << 3 | 2)
            + plain.leb128(len(content))
            + content
            + plain.leb128((number + 300) << 3)
            + b"\x05"
        )
    back = wire.decode(wire.open_envelope(data), {})
    assert rows_of(back.readings) == rows_of(batch.readings) and back.events == batch.events


@pytest.mark.parametrize("version", [2, 3, (1 << 32) - 1])
def test_a_newer_version_is_refused_as_such_whatever_else_it_holds(version: int) -> None:
    message = pb.Batch(epoch=1, seq=1, version=version, readings=b"\xff", declare=[pb.SeriesDecl(alias=1)])
    with pytest.raises(ContractError) as refused:
        wire.decode(wire.open_envelope(message.SerializeToString()), {})
    assert refused.value.reason == "newer_version"


@pytest.mark.parametrize(("epoch", "seq"), [(0, 1), (1, 0), (1, 1 << 63), (1, (1 << 64) - 1)])
def test_a_batch_without_its_place_is_refused(epoch: int, seq: int) -> None:
    with pytest.raises(ContractError) as refused:
        wire.open_envelope(pb.Batch(epoch=epoch, seq=seq).SerializeToString())
    assert refused.value.reason == "no_sequence"


def _u(*numbers: int) -> bytes:
    return plain.leb128_all(numbers)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (_u(1 << 3, 1 << 40), "malformed"),
        (_u((1 << 40) << 3, 1), "malformed"),
        (_u(1 << 3, 1, 0, 1 << 40), "malformed"),
        (_u(1 << 3, 1, 1 << 40, 1), "malformed"),
        (_u(1 << 3, 10**6, 0, 1 << 20), "too_many_readings"),
        (_u(1 << 3, 10**6, 0, 1), "truncated"),
        (_u(1 << 3, 1, 0, 0), "too_many_readings"),
        (_u(0, 1), "malformed"),
        (_u(1 << 3, 0, 0, 1), "malformed"),
        (_u(1 << 3 | 4, 1, 0, 1, 0, 1 << 60), "truncated"),
        (_u(1 << 3 | 4, 1, 0, 1, 0, 0, 0), "malformed"),
        (_u(1 << 3 | 4, 1, 0, 1, 0, 1, 2, 0, 0), "malformed"),
        (_u(1 << 3 | 4, 1, 0, 1, 0, 1, 1, 7, 0), "malformed"),
        (_u(1 << 3 | 4, 1, 0, 1, 0, 1, 1, 256, 0), "malformed"),
        (_u(1 << 3, 1, 77, 1, 0, 0), "undeclared_series"),
        (b"\x80" * 11 + b"\x00", "number_too_long"),
        (b"\x08", "truncated"),
    ],
)
def test_claims_are_refused_before_memory_is_taken(body: bytes, reason: str) -> None:
    with pytest.raises(ContractError) as refused:
        columns.decode_blocks(body, KNOWN, 0)
    assert refused.value.reason == reason


def test_series_not_known_can_be_left_out_alone() -> None:
    declared = (
        Declaration(4, "m", "a", "", 1, 5),
        Declaration(5, "m", "b", "", 1, 5),
        Declaration(9, "m", "c", "", 0, 5),
    )
    rows = [(4, 10, 1), (5, 10, 2), (9, 10, 3), (4, 20, 4), (5, 20, 5), (9, 20, 6), (5, 30, 7)]
    alias, ts, value = (np.array(column) for column in zip(*rows, strict=True))
    grades = np.array([0, 1, 2, 3, 4, 5, 6], np.uint8)
    whole = Readings(alias.astype(np.int32), ts.astype(np.int64), np.zeros(7, np.int32), value.astype(np.int64), grades)
    data = wire.encode(Batch(1, 1, whole, declared), {d.alias: d.code for d in declared})
    left_out: set[int] = set()
    found = wire.decode(wire.open_envelope(data), {4: declared[0].code, 9: declared[2].code}, left_out=left_out)
    assert left_out == {5}
    assert rows_of(found.readings) == [(4, 10, 0, 0, 1), (4, 20, 0, 3, 4), (9, 10, 0, 2, 3), (9, 20, 0, 5, 0)]
    assert found.declarations == declared


_BOMB = """
import resource, sys, zstandard
from protocols.core.errors import ContractError
from protocols.uplink import batch as wire
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.columns import SeriesCode
from tests.uplink import plain

compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
bomb = b"".join(compressor.compress(bytes(1 << 23)) for _ in range(512)) + compressor.flush()  # 4 GiB of zeros
window = bytes.fromhex("28b52ffd00a8") + bytes.fromhex("010000")  # a frame that asks for a window of 2 GiB
known = {0: SeriesCode(1, 0)}
rows = plain.leb128_all([1 << 3, 10**6, 0, 1]) + bytes(2 * 10**6)
many = plain.leb128_all([1 << 3, 1, 0, 1, 0, 0]) * 999_999
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = []
bodies = {"bomb": bomb, "window": window, "rows": zstandard.compress(rows), "many": zstandard.compress(many)}
for name, body in bodies.items():
    message = pb.Batch(epoch=1, seq=1, readings_zstd=body).SerializeToString()
    assert len(message) <= wire.MAX_BATCH_BYTES, name
    try:
        said.append(len(wire.decode(wire.open_envelope(message), known).readings))
    except ContractError as error:
        said.append(error.reason)
grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(said, grown_mb, file=sys.stderr)
assert said[:3] == ["too_big", "zstd", 1_000_000], said
assert said[3] == "malformed", said
assert grown_mb < 400, grown_mb
"""


def test_bombs_take_bounded_memory_and_time() -> None:
    """In a process of its own, so that its peak is its own."""
    found = subprocess.run(
        [sys.executable, "-c", _BOMB],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-1500:]


def test_json_of_any_depth_or_length_is_refused_in_time() -> None:
    deep = ["[" * 200_000, '{"a":' * 100_000, '{"a":' + "9" * 100_000 + "}"]
    for text in (*deep, '{"a":"\\ud800"}', "nul", '{"a":[]}'):
        message = pb.Batch(epoch=1, seq=1, events=[pb.Event(id="e", type="t", source="s", values_json=text)])
        try:
            (heard,) = wire.decode(wire.open_envelope(message.SerializeToString()), {}).events
        except ContractError as error:
            assert error.reason == "event"
        else:
            assert heard.values == json.loads(text)  # a lone surrogate is text here; the database refuses it
