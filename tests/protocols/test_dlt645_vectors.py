"""DL/T 645 against frames of captures, articles and projects: frames both ways, values exact."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from protocols.core.errors import RemoteProtocolError
from protocols.dlt645.frame import Frame, Scanner, build
from protocols.dlt645.messages import (
    AddressReply,
    BroadcastTime,
    Command,
    ErrorReply,
    ReadReply,
    from_frame,
    to_frame,
    write_parts,
)
from protocols.dlt645.values import Value, decode
from tests.protocols.vectors import Vector, data_of, vectors


def check_value(value: Value, expect: dict[str, Any]) -> None:
    if "value" in expect:
        wanted = expect["value"]
        assert value.number == (None if wanted is None else Decimal(wanted))
    if "value_abs" in expect:
        assert value.number is not None
        assert abs(value.number) == Decimal(expect["value_abs"])
        assert (value.number < 0) is expect["sign_bit"]
    if "unit" in expect:
        assert value.unit == expect["unit"]
    if "unit_physical" in expect:
        assert value.unit == expect["unit_physical"]
    for key in ("time", "date"):
        if key in expect:
            assert value.when == expect[key]
    if "weekday" in expect:
        assert value.weekday == expect["weekday"]


@pytest.mark.parametrize("row", vectors("dlt645", "frame"))
def test_frame(row: Vector) -> None:
    data, expect = data_of(row), row["expect"]
    scanner = Scanner()
    found = scanner.feed(data)
    if expect.get("ok") is False:
        found += scanner.idle()
        assert isinstance(found[0], RemoteProtocolError)
        assert found[0].reason == expect["error"]
        assert not any(isinstance(one, Frame) for one in found)
        return
    (frame,) = found
    assert isinstance(frame, Frame)
    assert frame.addr == expect["addr"]
    assert frame.ctrl == int(expect["ctrl"], 16)
    assert frame.preamble == expect.get("preamble", 0)
    assert len(frame.data) == expect.get("len", len(frame.data))
    assert build(frame) == data
    message = from_frame(frame)
    assert build(to_frame(message, frame.preamble)) == data
    check_message(message, expect)


def check_message(message: object, expect: dict[str, Any]) -> None:
    if isinstance(message, Command):
        parts = write_parts(message)
        assert parts.di == expect["di"]
        assert parts.password == expect["password"]
    elif "di" in expect:
        assert getattr(message, "di", None) == expect["di"]
    if isinstance(message, ErrorReply):
        assert expect["abnormal"] is True
        assert message.word == int(expect.get("error_byte", "02"), 16)
        assert list(message.bits) == expect.get("error_bits", ["no_data"])
    if isinstance(message, AddressReply):
        assert message.meter == expect["address_reply"]
    if isinstance(message, BroadcastTime):
        assert message.time.isoformat() == expect["time"]
    if isinstance(message, ReadReply):
        values = decode(message.di, message.data)
        assert values is not None
        assert message.more is expect.get("follow", False)
        if "values" in expect:
            assert [v.number for v in values] == [Decimal(text) for text in expect["values"]]
        else:
            check_value(values[0], expect)


@pytest.mark.parametrize("row", vectors("dlt645", "value"))
def test_value(row: Vector) -> None:
    values = decode(row["di"], bytes.fromhex(row["data_after_33"]))
    assert values is not None
    check_value(values[0], row["expect"])


@pytest.mark.parametrize("row", vectors("dlt645", "stream"))
def test_stream(row: Vector) -> None:
    scanner = Scanner()
    found = scanner.feed(data_of(row))
    assert not any(isinstance(one, Frame) for one in found)
    assert scanner.held.hex() == row["expect"]["rest_hex"]
    assert row["expect"]["error"] in [e.reason for e in scanner.idle() if isinstance(e, RemoteProtocolError)]
