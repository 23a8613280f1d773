"""The page protocols/uplink/SPEC.md against the code: its example, its table, its test values, its limits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.errors import ContractError
from protocols.core.model import Quality
from protocols.uplink import batch as wire
from protocols.uplink import columns, digest, topics
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.columns import Readings, SeriesCode
from tests.packaging import plain_wire as plain

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "protocols" / "uplink" / "SPEC.md").read_text(encoding="utf-8")
EPOCH = 1767225600


def _table() -> list[plain.Reading]:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (-?\d+) \| (-?\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    return [tuple(int(cell) for cell in row) for row in rows]  # type: ignore[misc]


def _as_rows(readings: Readings) -> list[plain.Reading]:
    columns_ = (readings.alias, readings.ts_ms, readings.lag_ms, readings.integer, readings.quality)
    return list(zip(*(column.tolist() for column in columns_), strict=True))


def _plainly(data: bytes) -> tuple[dict[int, plain.Series], list[plain.Reading]]:
    series: dict[int, plain.Series] = {}
    body = b""
    epoch = 0
    for number, value in plain.fields(data):
        if number == 1:
            epoch = int(value)
        elif number == 3 and isinstance(value, bytes):
            found = plain.declaration(value)
            series[found.alias] = found
        elif number == 4 and isinstance(value, bytes):
            body = value
    return series, plain.blocks(body, series, epoch * 1000)


def test_example_is_what_the_code_reads() -> None:
    envelope = wire.open_envelope(plain.hex_blocks(PAGE)[""])
    batch = wire.decode(envelope, {})
    assert (batch.epoch, batch.seq, envelope.version) == (EPOCH, 1, 1)
    assert [(d.alias, d.device, d.point, d.unit, d.decimals, d.reference) for d in batch.declarations] == [
        (0, "noise-7", "laeq", "dB", 1, 623),
        (1, "noise-7", "lamax", "dB", 1, 701),
        (2, "gas-3", "pressure", "MPa", 255, 0),
    ]
    assert len(_table()) == 10
    assert _as_rows(batch.readings) == _table()


def test_example_is_what_the_code_writes() -> None:
    data = plain.hex_blocks(PAGE)[""]
    batch = wire.decode(wire.open_envelope(data), {})
    assert wire.encode(batch, {d.alias: d.code for d in batch.declarations}) == data


def test_example_read_by_the_page_alone() -> None:
    _, readings = _plainly(plain.hex_blocks(PAGE)[""])
    assert readings == _table()


def test_floats_of_the_example() -> None:
    integers = np.array([row[3] for row in _table() if row[0] == 2], dtype=np.int64)
    assert wire.to_float(integers, np.zeros(2, np.uint8), columns.FLOAT_BITS).tolist() == [0.25, 0.5]


def test_digest_values() -> None:
    series, readings = _plainly(plain.hex_blocks(PAGE)[""])
    names = {alias: plain.series_number(s.device, s.point) for alias, s in series.items()}
    each = [plain.reading_digest(names[r[0]], r[1], r[3], r[4]) for r in readings]
    total = sum(each) & ((1 << 64) - 1)
    for value in (plain.mix(1), plain.mix(2), *names.values(), each[0], each[2], total):
        assert f"`{value:016x}`" in PAGE
    hashes = np.array([digest.series_hash(series[r[0]].device, series[r[0]].point) for r in readings], np.uint64)
    times, integers = (np.array([r[k] for r in readings], np.int64) for k in (1, 3))
    assert digest.digest(hashes, times, integers, np.array([r[4] for r in readings], np.uint8)) == total


def test_ack_and_state_of_the_page() -> None:
    found = plain.hex_blocks(PAGE)
    assert pb.Ack(epoch=EPOCH, lane="data", committed=1).SerializeToString() == found["ack"]
    state = pb.State(online=True, epoch=EPOCH, at_ms=1767225605000, agent_version="0.1.0", wire_version=1)
    assert state.SerializeToString() == found["state"]


def test_limits_and_names_of_the_page() -> None:
    assert f"{wire.MAX_BATCH_BYTES:,}".replace(",", " ") + " bytes" in PAGE
    assert f"{wire.MAX_BODY_BYTES >> 20} MiB" in PAGE
    assert f"{columns.MAX_READINGS:,}".replace(",", " ") in PAGE
    assert f"version {wire.WIRE_VERSION}\n" in PAGE.partition("\n")[0] + "\n"
    assert topics.SHARDS == 64
    for lane in topics.LANES:
        assert f"`up/{lane}`" in PAGE
    for quality in Quality:
        assert f"{quality.value} {quality.name.lower()}" in PAGE


@pytest.mark.parametrize("name", ["Batch", "SeriesDecl", "Ack", "State", "Health"])
def test_field_numbers_of_the_page(name: str) -> None:
    """Each message drawn on the page has the schema's numbers; SeriesDecl is a table of names."""
    for field in pb.DESCRIPTOR.message_types_by_name[name].fields:
        if name == "SeriesDecl":
            assert f"`{field.name}`" in PAGE
        else:
            assert re.search(rf"\b{field.number} {field.name} ", PAGE), f"{name}.{field.name}"


def test_every_reason_is_on_the_page() -> None:
    said = {"topic"}  # never in an ack: such a message has no sender
    for path in (*(ROOT / "protocols" / "uplink").glob("*.py"), *(ROOT / "cloud" / "ingest").glob("*.py")):
        said |= set(re.findall(r"ContractError\([^#]*?reason=\"(\w+)\"", path.read_text(encoding="utf-8")))
    missing = [reason for reason in sorted(said - {"topic", "ack"}) if f"`{reason}`" not in PAGE]
    assert not missing


def test_newer_version_and_unknown_fields() -> None:
    data = plain.hex_blocks(PAGE)[""]
    assert _as_rows(wire.decode(wire.open_envelope(data + b"\xa2\x06\x03new"), {}).readings) == _table()  # field 100
    with pytest.raises(ContractError) as refused:
        wire.decode(wire.open_envelope(data + b"\x78\x02"), {})
    assert refused.value.reason == "newer_version"


_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # modulo 2^64 is meant
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers(0, 4_102_444_800_000),
            st.integers(-(1 << 31), (1 << 31) - 1),
            _INT64,
            st.sampled_from(list(Quality)),
        ),
        min_size=1,
        max_size=40,
    ),
    _INT64,
    st.sampled_from([0, 3, 12, 255]),
)
def test_whatever_the_code_writes_the_page_reads(
    rows: list[tuple[int, int, int, int, int]], reference: int, decimals: int
) -> None:
    columns_ = list(zip(*rows, strict=True))
    readings = Readings(
        np.array(columns_[0], np.int32),
        np.array(columns_[1], np.int64),
        np.array(columns_[2], np.int32),
        np.array(columns_[3], np.int64),
        np.array(columns_[4], np.uint8),
    )
    codes = {alias: SeriesCode(decimals, reference) for alias in range(41)}
    body = columns.encode_blocks(readings, codes, EPOCH * 1000)
    series = {alias: plain.Series(alias, decimals=decimals, reference=reference) for alias in range(41)}
    assert plain.blocks(body, series, EPOCH * 1000) == _as_rows(columns.decode_blocks(body, codes, EPOCH * 1000))
