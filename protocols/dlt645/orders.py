"""What a meter can be told, as values: freeze, write, baud rate, clearing, relay and alarm.

Each becomes a :class:`~protocols.dlt645.messages.Command` and can be read back out of one, so that master, simulator
and decoder share the layout. Passwords are text as printed on sheets, highest digit first; level 02 and 04 are the
usual ones. Meters with a security chip (State Grid, since 2013) want an enciphered order instead and refuse these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.dlt645.messages import (
    CHANGE_BAUD,
    CHANGE_PASSWORD,
    CLEAR_DEMAND,
    CLEAR_EVENTS,
    CLEAR_METER,
    FREEZE,
    RELAY,
    WRITE,
    WRITE_ADDRESS,
    Command,
    di_bytes,
    di_text,
)

#: Speeds by the bit that means them (17H, and the speed words 04 00 07 0n).
BAUDS = {0x02: 600, 0x04: 1200, 0x08: 2400, 0x10: 4800, 0x20: 9600, 0x40: 19200}

RelayAction = Literal["open", "allow_close", "close", "alarm", "alarm_off", "protect", "protect_off"]
#: N1 of a relay order. 1A, 1B, 1C are on the sheet; the alarm and protection codes come from public descriptions.
RELAY_CODES: dict[RelayAction, int] = {
    "open": 0x1A, "allow_close": 0x1B, "close": 0x1C, "alarm": 0x2A, "alarm_off": 0x2B,
    "protect": 0x3A, "protect_off": 0x3B,
}  # fmt: skip
_RELAY_NAMES = {code: name for name, code in RELAY_CODES.items()}


@dataclass(frozen=True, slots=True)
class Key:
    """Who gives an order: level PA, password P2 P1 P0 and operator C3..C0 as digits, highest first."""

    password: str = "000000"  # noqa: S105 - the factory's value, as printed in every manual
    level: int = 2
    operator: str = "00000000"

    def wire(self) -> bytes:
        try:
            password, operator = bytes.fromhex(self.password)[::-1], bytes.fromhex(self.operator)[::-1]
        except ValueError:
            password = operator = b""
        if len(password) != 3 or len(operator) != 4 or not 0 <= self.level <= 0x99:
            raise LocalProtocolError("DL/T 645 password has 6 digits, operator 8, level 2", reason="format")
        return bytes((_bcd(self.level),)) + password + operator


@dataclass(frozen=True, slots=True)
class Write:
    """14: one identifier. ``data`` as it is stored, lowest byte first."""

    di: str
    data: bytes
    key: Key = Key()


@dataclass(frozen=True, slots=True)
class WriteAddress:
    """15: to the AA address, with the programming key pressed; one meter on the line."""

    address: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """16: digits MMDDhhmm, 99 = every: 99999900 each hour, 99999999 now."""

    when: str = "99999999"


@dataclass(frozen=True, slots=True)
class ChangeBaud:
    """17: the answer still comes at the old speed."""

    baud: int


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """18: ``di`` 04000C01.. names the level; passwords with their level in front."""

    di: str
    old: Key
    new: Key


@dataclass(frozen=True, slots=True)
class Clear:
    """19, 1A, 1B: demand, the whole meter, events (of ``di``; FFFFFFFF all)."""

    what: Literal["demand", "meter", "events"]
    key: Key = Key()
    di: str = ""


@dataclass(frozen=True, slots=True)
class Relay:
    """1C: ``until`` is the meter's local time after which it must not carry the order out any more."""

    action: RelayAction
    until: datetime
    key: Key = Key()
    n2: int = 0


Order = Write | WriteAddress | Freeze | ChangeBaud | ChangePassword | Clear | Relay

_CLEARS = {CLEAR_DEMAND: "demand", CLEAR_METER: "meter", CLEAR_EVENTS: "events"}


def command(addr: str, order: Order) -> Command:
    """The message of an order. Raises LocalProtocolError for what cannot be said."""
    match order:
        case Write(di, data, key):
            return Command(addr, WRITE, di_bytes(di) + key.wire() + data)
        case WriteAddress(address):
            return Command(addr, WRITE_ADDRESS, _digits(address, 6))
        case Freeze(when):
            return Command(addr, FREEZE, _digits(when, 4))
        case ChangeBaud(baud):
            code = next((code for code, speed in BAUDS.items() if speed == baud), None)
            if code is None:
                raise LocalProtocolError(f"DL/T 645 has no code for {baud} baud", reason="range")
            return Command(addr, CHANGE_BAUD, bytes((code,)))
        case ChangePassword(di, old, new):
            return Command(addr, CHANGE_PASSWORD, di_bytes(di) + old.wire()[:4] + new.wire()[:4])
        case Clear(what, key, di):
            function = next(number for number, name in _CLEARS.items() if name == what)
            return Command(addr, function, key.wire() + (di_bytes(di) if what == "events" else b""))
        case Relay(action, until, key, n2):
            stamp = bytes.fromhex(until.strftime("%S%M%H%d%m%y"))
            return Command(addr, RELAY, key.wire() + bytes((RELAY_CODES[action], n2)) + stamp)


def order(message: Command) -> Order:
    """What a command orders. Raises RemoteProtocolError where its data are no such order."""
    data, function = message.data, message.function
    try:
        match function:
            case 0x14 if len(data) >= 12:
                return Write(di_text(data[:4]), data[12:], _key(data[4:12]))
            case 0x15 if len(data) == 6:
                return WriteAddress(data[::-1].hex().upper())
            case 0x16 if len(data) == 4:
                return Freeze(data[::-1].hex())
            case 0x17 if len(data) == 1 and data[0] in BAUDS:
                return ChangeBaud(BAUDS[data[0]])
            case 0x18 if len(data) == 12:
                old, new = _key(data[4:8] + bytes(4)), _key(data[8:12] + bytes(4))
                return ChangePassword(di_text(data[:4]), old, new)
            case 0x19 | 0x1A if len(data) == 8:
                return Clear("demand" if function == CLEAR_DEMAND else "meter", _key(data))
            case 0x1B if len(data) == 12:
                return Clear("events", _key(data[:8]), di_text(data[8:]))
            case 0x1C if len(data) == 16 and data[8] in _RELAY_NAMES:
                until = datetime.strptime(data[10:].hex(), "%S%M%H%d%m%y")
                return Relay(_RELAY_NAMES[data[8]], until, _key(data[:8]), data[9])
    except ValueError as exc:
        raise RemoteProtocolError(f"DL/T 645 order {function:#04x}: {exc}", reason="format") from exc
    raise RemoteProtocolError(f"DL/T 645 order {function:#04x} with {len(data)} bytes of data", reason="length")


def _key(data: bytes) -> Key:
    return Key(data[3:0:-1].hex().upper(), int(f"{data[0]:02x}"), data[:3:-1].hex().upper())


def _digits(text: str, size: int) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != size or len(text) != 2 * size:
        raise LocalProtocolError(f"DL/T 645: {text!r} is not {2 * size} digits", reason="format")
    return raw[::-1]


def _bcd(value: int) -> int:
    return value // 10 << 4 | value % 10
