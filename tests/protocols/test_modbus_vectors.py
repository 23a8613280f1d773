"""Modbus against frames of two libraries' tests, vendors' sheets and captures: both roles, all three framings."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.devices import ModbusPoint, Point
from protocols.modbus import frame, points
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.messages import ExceptionReply, ReadRequest, Reply, WriteRequest, encode_pdu
from tests.protocols.vectors import Vector, data_of, vectors

#: Registers of vendors' sheets by vector: (quantity, register, kind).
NAMED = {
    "modbus-068": [("temperature_C", 0, "i16"), ("humidity_pct", 1, "u16")],
    "modbus-069": [("humidity_pct", 0, "u16"), ("temperature_C", 1, "i16")],
}

EXCHANGES = [p for p in vectors("modbus", "frame") if "request_hex" in p.values[0]]
ALONE = [p for p in vectors("modbus", "frame") if "request_hex" not in p.values[0]]


@pytest.mark.parametrize("row", EXCHANGES)
def test_exchange(row: Vector) -> None:
    expect, framing = row["expect"], row["framing"]
    slave, master = ModbusEndpoint(Role.SLAVE, framing=framing), ModbusEndpoint(Role.MASTER, framing=framing)
    (request,) = slave.feed(bytes.fromhex(row["request_hex"]), 0)
    check_request(request, expect["request"])
    assert master.send(request, 0).hex().upper() == row["request_hex"]
    found = master.feed(data_of(row), 0) + master.tick(10_000)
    if not expect["ok"]:
        assert [e.reason for e in found if isinstance(e, RemoteProtocolError)] == [expect["error"]]
        return
    (reply,) = found
    assert isinstance(reply, Reply)
    assert (reply.unit, reply.function) == (expect["unit"], expect["func"])
    assert slave.send(reply, 0) == data_of(row)
    check_reply(reply, expect)


def check_request(request: object, expect: dict[str, Any]) -> None:
    assert isinstance(request, (ReadRequest, WriteRequest))
    assert (request.unit, request.function, request.address) == (expect["unit"], expect["func"], expect["address"])
    if isinstance(request, ReadRequest):
        assert request.count == expect["count"]
    elif "data_hex" in expect:
        assert len(request.values) == expect["count"]
        assert encode_pdu(request)[6:].hex().upper() == expect["data_hex"]
    else:
        assert encode_pdu(request)[3:5] == expect["value"].to_bytes(2, "big")


def check_reply(reply: Reply, expect: dict[str, Any]) -> None:
    if "registers" in expect:
        assert list(reply.registers) == expect["registers"]
    if "bits_hex" in expect:
        raw = bytes.fromhex(expect["bits_hex"])
        assert list(reply.bits) == [bool(raw[n // 8] >> n % 8 & 1) for n in range(reply.count)]
    if "address" in expect:
        assert reply.address == expect["address"]
    if "count" in expect:
        assert reply.count == expect["count"]
    for value in expect.get("values", []):
        start = value.get("from", 0)
        words = reply.registers[start : start + value["count"]] if "count" in value else reply.registers
        number = points.raw(words, value["type"], value["order"])
        if value["type"].startswith("f"):
            assert float(number) == pytest.approx(value["value"], rel=1e-6)
        else:
            assert int(number) == value["value"]


@pytest.mark.parametrize("row", ALONE)
def test_alone(row: Vector) -> None:
    """A frame without its request, as a listener on the line sees it."""
    expect, framing = row["expect"], row["framing"]
    listener = ModbusEndpoint(Role.MASTER, framing=framing, listen=True)
    found = listener.feed(data_of(row), 0) + listener.tick(10_000)
    if not expect["ok"]:
        assert [e.reason for e in found if isinstance(e, RemoteProtocolError)] == [expect["error"]]
        assert len(found) == 1
        return
    (message,) = found
    assert not isinstance(message, RemoteProtocolError)
    assert message.unit == expect["unit"]
    assert frame.build(frame.Adu(message.unit, encode_pdu(message), message.transaction), framing) == data_of(row)
    if "pdu" in expect:
        assert encode_pdu(message).hex().upper() == expect["pdu"]
    if "transaction" in expect:
        assert message.transaction == expect["transaction"]
    if "exception" in expect:
        assert isinstance(message, ExceptionReply)
        assert (message.function, message.code) == (expect["func"], expect["exception"])
    elif isinstance(message, Reply):
        check_reply(message, expect)
        check_named(row["id"], message, expect)


def check_named(vector_id: str, reply: Reply, expect: dict[str, Any]) -> None:
    for quantity, register, kind in NAMED.get(vector_id, []):
        binding = ModbusPoint(address=register, kind=kind, factor=0.1)
        point = Point(name="x", decimals=1, range=(-1000.0, 1000.0), modbus=binding)
        value, _ = points.decode(reply.registers[register : register + 1], point)
        assert f"{float(value):.1f}" == str(Decimal(expect["named"][quantity]))


def test_checksums() -> None:
    """The check value of both Modbus sums (pymodbus's own test)."""
    data = bytes.fromhex("1234234534564567")
    assert frame.crc(data).hex().upper() == "E2DB"
    assert frame.lrc(data) == 0x1C
