"""Damages one whole frame in a given way, knowing where the protocol keeps its checksum and its address.

A wrong address goes out with a right checksum: only so does it get past the framing to the code it is meant to try.
"""

from __future__ import annotations

import random
import re

from firmware_sim.scene import BusKind, FaultKind
from protocols.hj212.frame import checksum
from protocols.modbus.frame import crc

#: Modbus TCP: transaction, protocol, length, unit.
_MBAP_BYTES = 7
_MN = re.compile(rb"MN=([^;]*);")


def operate(fault: FaultKind, bus: BusKind, frame: bytes, rng: random.Random) -> bytes:
    """The damaged frame; b"" if nothing is left of it."""
    if fault == "drop":
        return b""
    if fault == "truncate":
        return frame[: rng.randrange(1, len(frame))] if len(frame) > 1 else b""
    if fault == "garble":
        return _garbled(bus, frame, rng)
    if fault == "wrong_checksum":
        return _wrong_checksum(bus, frame)
    if fault == "wrong_address":
        return _readdressed(bus, frame)
    raise AssertionError(f"{fault} does nothing to a frame")


def _garbled(bus: BusKind, frame: bytes, rng: random.Random) -> bytes:
    """One byte changed. One, because that is what each of these checksums is certain to notice: damage that no
    receiver could notice would only blame the innocent. Modbus TCP has no checksum, so there it hits the header."""
    at = rng.randrange(min(len(frame), _MBAP_BYTES) if bus == "modbus-tcp" else len(frame))
    damaged = bytearray(frame)
    damaged[at] ^= rng.randrange(1, 256)
    return bytes(damaged)


def _wrong_checksum(bus: BusKind, frame: bytes) -> bytes:
    damaged = bytearray(frame)
    if bus == "hj212-client":
        digits = damaged[-6:-2]
        damaged[-6:-2] = b"%04X" % (int(digits, 16) ^ 0x5A00)
    elif bus == "dlt645":
        damaged[-2] ^= 0x5A
    else:
        damaged[-1] ^= 0x5A
    return bytes(damaged)


def _readdressed(bus: BusKind, frame: bytes) -> bytes:
    changed = bytearray(frame)
    if bus == "modbus-tcp":
        changed[6] = changed[6] % 247 + 1
        return bytes(changed)
    if bus == "modbus-rtu":
        changed[0] = changed[0] % 247 + 1
        return bytes(changed[:-2]) + crc(bytes(changed[:-2]))
    if bus == "dlt645":
        start = frame.index(0x68)
        digits = int(f"{changed[start + 1]:02X}") + 1 if f"{changed[start + 1]:02X}".isdecimal() else 0
        changed[start + 1] = int(f"{digits % 100:02d}", 16)
        changed[-2] = sum(changed[start:-2]) & 0xFF
        return bytes(changed)
    found = _MN.search(frame)
    if found is None or not found.group(1):
        return frame
    last = found.end(1) - 1
    changed[last : last + 1] = b"0" if changed[last : last + 1] != b"0" else b"1"
    body = bytes(changed[6:-6])
    return bytes(changed[:6]) + body + checksum(body).encode() + b"\r\n"
