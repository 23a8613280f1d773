"""What the entries of the two configuration tables mean (functions 40 to 43), in words for a reader.

The phrases are those of the published read-outs, so that a capture can be compared with them line by line.
"""

from __future__ import annotations

from protocols.sl651.elements import bcd
from protocols.sl651.messages import READ_BASIC, READ_RUN, SET_BASIC, SET_RUN, Setting

_CHANNELS = {1: "SMS", 2: "IPv4", 3: "BeiDou", 4: "satellite", 5: "phone", 6: "radio"}
_MODES = {1: "report", 2: "report and confirm", 3: "query", 4: "test"}
#: Entry 0D: the first two bytes, highest bit first.
_COLLECTED = (
    ("rain", "evaporation", "wind direction", "wind speed", "air temperature", "humidity",
     "ground temperature", "pressure"),
    ("water level 8", "water level 7", "water level 6", "water level 5", "water level 4", "water level 3",
     "water level 2", "water level"),
)  # fmt: skip
_RUN: dict[int, tuple[str, str]] = {
    0x20: ("timed report every", "h"),
    0x21: ("extra report interval", "min"),
    0x22: ("rain day starts", "h"),
    0x23: ("sampling", "s"),
    0x24: ("level stored every", "min"),
    0x25: ("rain gauge resolution", ""),
    0x26: ("level resolution", ""),
    0x27: ("rain threshold", ""),
    0x40: ("threshold above", "m"),
    0x41: ("threshold below", "m"),
}


def meaning(func: int, setting: Setting) -> str:
    """One entry in words; "" where only its bytes are known."""
    if func in (SET_RUN, READ_RUN):
        return _operating(setting)
    if func in (SET_BASIC, READ_BASIC):
        return _basic(setting)
    return ""


def _operating(setting: Setting) -> str:
    number = int(setting.id, 16)
    if number in _RUN:
        name, unit = _RUN[number]
    elif 0x28 <= number <= 0x2F:
        name, unit = _numbered("level base", number - 0x28), "m"
    elif 0x30 <= number <= 0x37:
        name, unit = _numbered("level correction", number - 0x30), "m"
    elif 0x38 <= number <= 0x3F:
        name, unit = _numbered("alarm level", number - 0x38), "m"
    else:
        return ""
    value = bcd(setting.raw, setting.definition & 7)
    return f"{name} {value if value is not None else 'not set'} {unit if value is not None else ''}".strip()


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name} {number + 1}"


def _basic(setting: Setting) -> str:
    raw, digits = setting.raw, setting.raw.hex().upper()
    match int(setting.id, 16):
        case 0x01:
            return ", ".join(f"centre {n} address {address}" for n, address in enumerate(raw, 1) if address) or "none"
        case 0x02:
            return f"station {digits}"
        case 0x03:
            return f"password {int.from_bytes(raw, 'big')} ({digits}H)"
        case channel if 0x04 <= channel <= 0x0B:
            return _channel(channel, raw)
        case 0x0C if raw:
            mode = _MODES.get(raw[-1])
            return f"mode {raw[-1]}: {mode}" if mode else f"mode {raw[-1]}"
        case 0x0D:
            names = [
                _COLLECTED[n][bit] if n < len(_COLLECTED) else f"byte {n + 1} bit {7 - bit}"
                for n, byte in enumerate(raw)
                for bit in range(8)
                if byte & 0x80 >> bit
            ]
            return f"elements: {', '.join(names) or 'none'}"
        case 0x0F if raw.isascii() and raw:
            text = raw.decode("ascii")
            return f"card type {text[0]}, number {text[1:]}"
    return ""


def _channel(number: int, raw: bytes) -> str:
    centre, spare = divmod(number - 0x04, 2)
    name = f"{'spare' if spare else 'main'} channel" + ("" if centre == 0 else f" of centre {centre + 1}")
    if not raw or raw[0] == 0 or set(raw) <= {0xFF}:
        return f"{name} off"
    kind, digits = _CHANNELS.get(raw[0], f"type {raw[0]}"), raw[1:].hex().upper()
    if raw[0] == 2 and len(digits) == 18 and digits.isdecimal():
        address = ".".join(str(int(digits[at : at + 3])) for at in range(0, 12, 3))
        return f"{name} IPv4 {address} port {int(digits[12:])}"
    bare = digits.lstrip("A")
    return f"{name} {kind} {bare}" + (" (leading A is padding)" if bare != digits else "")
