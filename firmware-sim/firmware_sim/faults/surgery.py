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
#: HJ 212: ## and length; checksum and line end. Many a receiver forgives errors in both.
_HJ212_HEAD, _HJ212_TAIL = 6, 6
_MN = re.compile(rb"MN=([^;]+);")
_CRC = re.compile(rb"([0-9A-Fa-f]{4})\r\n\Z")


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
    """One byte changed, where the checksum watches. One, because that is what each of these checksums is certain to
    notice: damage that no receiver can notice would only blame the innocent. Modbus TCP has none, so there it hits
    the header."""
    damaged = bytearray(frame)
    damaged[rng.choice(_watched(bus, frame))] ^= rng.randrange(1, 256)
    return bytes(damaged)


def _watched(bus: BusKind, frame: bytes) -> range:
    if bus == "modbus-tcp":
        return range(min(_MBAP_BYTES, len(frame)))
    if bus == "hj212-client" and len(frame) > _HJ212_HEAD + _HJ212_TAIL:
        return range(_HJ212_HEAD, len(frame) - _HJ212_TAIL)
    if bus == "dlt645":
        return range(max(0, frame.find(0x68)), len(frame))  # not the wake-up bytes in front
    return range(len(frame))


def _wrong_checksum(bus: BusKind, frame: bytes) -> bytes:
    damaged = bytearray(frame)
    if bus == "hj212-client" and (found := _CRC.search(frame)) is not None:
        damaged[-6:-2] = b"%04X" % (int(found[1], 16) ^ 0x5A00)
    elif bus == "dlt645":
        damaged[-2:-1] = bytes(byte ^ 0x5A for byte in damaged[-2:-1])
    else:
        damaged[-1] ^= 0x5A
    return bytes(damaged)


def _readdressed(bus: BusKind, frame: bytes) -> bytes:
    """The frame of another address; a frame that an earlier fault left without an address stays as it is."""
    changed = bytearray(frame)
    if bus == "hj212-client":
        found = _MN.search(frame)
        if found is None or _CRC.search(frame) is None:
            return frame
        last = found.end(1) - 1
        changed[last] = ord("1" if changed[last] == ord("0") else "0")
        body = bytes(changed[_HJ212_HEAD:-_HJ212_TAIL])
        return bytes(changed[:_HJ212_HEAD]) + body + checksum(body).encode() + b"\r\n"
    if bus == "dlt645":
        start = frame.find(0x68)
        if start < 0 or len(frame) < start + 12:
            return frame
        # The lowest two digits of the meter number, which come first; counted up so that they stay digits.
        lowest = f"{changed[start + 1]:02X}"
        changed[start + 1] = int(f"{(int(lowest) + 1) % 100:02d}", 16) if lowest.isdecimal() else 0
        changed[-2] = sum(changed[start:-2]) & 0xFF
        return bytes(changed)
    unit_at = _MBAP_BYTES - 1 if bus == "modbus-tcp" else 0
    if len(frame) < unit_at + 4:
        return frame
    changed[unit_at] = changed[unit_at] % 247 + 1
    return bytes(changed) if bus == "modbus-tcp" else bytes(changed[:-2]) + crc(bytes(changed[:-2]))
