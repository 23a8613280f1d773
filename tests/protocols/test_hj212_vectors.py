"""HJ 212 against frames of the standard, of projects and of the field: both ways, strict and lenient."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.frame import checksum
from protocols.hj212.messages import Packet, encode
from tests.protocols.vectors import Vector, data_of, vectors

#: Readable, but not in the form the encoder writes: blanks around names, `;` before the closing &&, a field behind the
#: factors, two fields in one item, a wrong length field. They must survive as values instead.
NOT_CANONICAL = {f"hj212-{n:03d}" for n in (9, 14, 36, 40, 47, 49, 58, 59)}
HEADER = ("QN", "ST", "CN", "PW", "MN")


def read(data: bytes, *, strict: bool) -> list[Packet | RemoteProtocolError]:
    """All that comes out, the line at rest afterwards."""
    endpoint = Hj212Endpoint(Role.MASTER, strict=strict)
    return endpoint.feed(data, 0) + endpoint.tick(1_000_000)


def check(packet: Packet, expect: dict[str, Any]) -> None:
    for key in HEADER:
        if key in expect:
            assert getattr(packet, key.lower()) == expect[key]
    if "Flag" in expect:
        assert packet.flag == int(expect["Flag"])
    for key in ("fields", "factors", "length_ok", "crc_variant"):
        if key in expect:
            assert getattr(packet, key) == expect[key]


@pytest.mark.parametrize("line_end", [b"", b"\r\n"], ids=["bare", "crlf"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
@pytest.mark.parametrize("row", vectors("hj212", "frame"))
def test_frame(row: Vector, strict: bool, line_end: bytes) -> None:
    expect = row["expect"].get("strict" if strict else "lenient", row["expect"])
    found = read(data_of(row) + line_end, strict=strict)
    assert len(found) == 1
    if not expect["ok"]:
        assert isinstance(found[0], RemoteProtocolError)
        assert found[0].reason == expect["error"]
        return
    assert isinstance(found[0], Packet)
    check(found[0], expect)


@pytest.mark.parametrize("row", vectors("hj212", "frame"))
def test_encode_back(row: Vector) -> None:
    found = read(data_of(row), strict=False)[0]
    if isinstance(found, RemoteProtocolError):
        assert not row["expect"].get("lenient", row["expect"])["ok"]
        return
    again = encode(found)
    if row["id"] in NOT_CANONICAL:
        assert again != data_of(row)
        (second,) = read(again, strict=False)
        assert isinstance(second, Packet)
        assert (second.fields, second.factors) == (found.fields, found.factors)
        return
    # The checksum is printed in upper case; lower case is accepted.
    assert again[:-6] == data_of(row)[:-4]
    assert again[-6:-2] == data_of(row)[-4:].upper()


@pytest.mark.parametrize("row", vectors("hj212", "stream"))
def test_stream(row: Vector) -> None:
    expect = row["expect"]
    found = Hj212Endpoint(Role.MASTER).feed(data_of(row), 0)
    if not expect["ok"]:
        assert found == []  # half a frame is not an error ...
        last = read(data_of(row), strict=False)
        assert [e.reason for e in last if isinstance(e, RemoteProtocolError)] == [expect["error"]]  # ... until silence
        return
    packets = [p for p in found if isinstance(p, Packet)]
    assert len(found) == len(packets) == expect.get("messages", expect["frames"])
    if "factors" in expect:
        assert packets[0].factors == expect["factors"]
    if "values" in expect:
        assert [p.factors["a34004"]["Rtd"] for p in packets] == expect["values"]


@pytest.mark.parametrize("row", vectors("hj212", "checksum"))
def test_checksum(row: Vector) -> None:
    assert checksum(row["crc_of"].encode()) == row["expect"]["crc"]
