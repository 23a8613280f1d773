"""PTZCmd: eight bytes, written as 16 hex digits in a DeviceControl (GB/T 28181-2016 annex A.3).

0 A5 | 1 version (high nibble) and check nibble (A + 5 + version) mod 16 | 2 address, low byte | 3 command | 4 data 1 |
5 data 2 | 6 data 3 (high nibble), address bits 8 to 11 (low nibble) | 7 sum of bytes 0 to 6.

Published lists mislabel left and down, zoom in and out: here only the bits count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

PresetOp = Literal["set", "goto", "delete"]
CruiseOp = Literal["add_point", "delete_point", "delete_group", "speed", "dwell", "start"]
ScanOp = Literal["start", "left_edge", "right_edge", "speed"]

_PRESETS: dict[int, PresetOp] = {0x81: "set", 0x82: "goto", 0x83: "delete"}
_CRUISES: dict[int, CruiseOp] = {0x84: "add_point", 0x85: "delete_point", 0x86: "speed", 0x87: "dwell", 0x88: "start"}
_SCANS: dict[int, ScanOp] = {0: "start", 1: "left_edge", 2: "right_edge"}


@dataclass(frozen=True, slots=True)
class Motion:
    """Signs: pan -1 left, 1 right; tilt -1 down, 1 up; zoom -1 out, 1 in; all 0: stop. Speeds 0..255, zoom 0..15."""

    pan: int = 0
    tilt: int = 0
    zoom: int = 0
    pan_speed: int = 0
    tilt_speed: int = 0
    zoom_speed: int = 0


@dataclass(frozen=True, slots=True)
class Lens:
    """Signs: focus -1 near, 1 far; iris -1 close, 1 open; both 0: stop."""

    focus: int = 0
    iris: int = 0
    focus_speed: int = 0
    iris_speed: int = 0


@dataclass(frozen=True, slots=True)
class Preset:
    op: PresetOp
    number: int


@dataclass(frozen=True, slots=True)
class Cruise:
    """``value``: speed, or dwell in seconds (12 bits)."""

    op: CruiseOp
    group: int
    preset: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Scan:
    op: ScanOp
    group: int
    value: int = 0


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """A switch; 1 is the wiper. Some makers use 89/8A for it: those are scans here."""

    on: bool
    switch: int


Order = Motion | Lens | Preset | Cruise | Scan | Auxiliary

STOP = Motion()


def build(order: Order, address: int = 1) -> str:
    """The 16 hex digits. Raises LocalProtocolError for numbers that do not fit."""
    command, first, second, third = _parts(order)
    limits = ((address, 0xFFF), (first, 0xFF), (second, 0xFF), (third, 0xF))
    if not all(0 <= number <= most for number, most in limits):
        raise LocalProtocolError(f"PTZ order out of range: {order}", reason="range")
    data = bytes((0xA5, 0x0F, address & 0xFF, command, first, second, third << 4 | address >> 8))
    return (data + bytes((sum(data) & 0xFF,))).hex().upper()


def _parts(order: Order) -> tuple[int, int, int, int]:
    match order:
        case Motion(pan, tilt, zoom):
            command = _sign(pan, 0, 1) | _sign(tilt, 3, 2) | _sign(zoom, 4, 5)
            return command, order.pan_speed, order.tilt_speed, order.zoom_speed
        case Lens(focus, iris):
            return 0x40 | _sign(focus, 0, 1) | _sign(iris, 2, 3), order.focus_speed, order.iris_speed, 0
        case Preset(op, number):
            if not 1 <= number <= 255:
                raise LocalProtocolError(f"preset {number}: 1 to 255", reason="range")
            return next(code for code, name in _PRESETS.items() if name == op), 0, number, 0
        case Cruise(op, group, preset, value):
            code = 0x85 if op == "delete_group" else next(c for c, name in _CRUISES.items() if name == op)
            if op in ("speed", "dwell"):
                return code, group, value & 0xFF, value >> 8
            return code, group, preset, 0
        case Scan(op, group, value):
            if op == "speed":
                return 0x8A, group, value & 0xFF, value >> 8
            return 0x89, group, next(code for code, name in _SCANS.items() if name == op), 0
        case Auxiliary(on, switch):
            return (0x8C if on else 0x8D), switch, 0, 0


def _sign(direction: int, plus_bit: int, minus_bit: int) -> int:
    return 0 if direction == 0 else 1 << (plus_bit if direction > 0 else minus_bit)


@dataclass(frozen=True, slots=True)
class Read:
    """An order, the address it is for, and the version nibble."""

    order: Order
    address: int
    version: int


def parse(text: str) -> Read:
    """What a PTZCmd says. Raises RemoteProtocolError: length, start, check, checksum, conflict, command."""
    try:
        data = bytes.fromhex(text.strip())
    except ValueError as exc:
        raise RemoteProtocolError(f"PTZCmd {text[:40]!r} is not hex", reason="format") from exc
    if len(data) != 8:
        raise RemoteProtocolError(f"PTZCmd of {len(data)} bytes, 8 expected", reason="length")
    if data[0] != 0xA5:
        raise RemoteProtocolError(f"PTZCmd begins with {data[0]:02X}, A5 expected", reason="start", offset=0)
    version = data[1] >> 4
    if data[1] & 0xF != (0xA + 5 + version) & 0xF:
        raise RemoteProtocolError(f"PTZCmd check nibble of {data[1]:02X}", reason="check", offset=1)
    if sum(data[:7]) & 0xFF != data[7]:
        raise RemoteProtocolError("PTZCmd checksum", reason="checksum", offset=7)
    return Read(_order(data[3], data[4], data[5], data[6] >> 4), (data[6] & 0xF) << 8 | data[2], version)


def _order(command: int, first: int, second: int, third: int) -> Order:
    if command < 0x40:
        pan, tilt, zoom = _unsign(command, 0, 1), _unsign(command, 3, 2), _unsign(command, 4, 5)
        return Motion(pan, tilt, zoom, first, second, third)
    if command < 0x50:
        return Lens(_unsign(command, 0, 1), _unsign(command, 2, 3), first, second)
    if command in _PRESETS:
        if second == 0:
            raise RemoteProtocolError("preset 0 does not exist", reason="range", offset=5)
        return Preset(_PRESETS[command], second)
    if command in _CRUISES:
        op = _CRUISES[command]
        if op in ("speed", "dwell"):
            return Cruise(op, first, value=third << 8 | second)
        return Cruise("delete_group" if op == "delete_point" and second == 0 else op, first, second)
    if command == 0x89 and second in _SCANS:
        return Scan(_SCANS[second], first)
    if command == 0x8A:
        return Scan("speed", first, third << 8 | second)
    if command in (0x8C, 0x8D):
        return Auxiliary(command == 0x8C, first)
    raise RemoteProtocolError(f"PTZ command {command:02X} is not defined", reason="command", offset=3)


def _unsign(command: int, plus_bit: int, minus_bit: int) -> int:
    plus, minus = command >> plus_bit & 1, command >> minus_bit & 1
    if command & (0x30 if command >= 0x40 else 0xC0):
        raise RemoteProtocolError(f"PTZ command {command:02X} is not defined", reason="command", offset=3)
    if plus and minus:
        raise RemoteProtocolError(f"PTZ command {command:02X} has opposite directions", reason="conflict", offset=3)
    return plus - minus
